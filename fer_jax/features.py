"""Writes the frozen features of a run's network for a data set or a folder of images.

    python -m fer_jax.features --workdir=runs/student --images=PHOTOS --out=features.npz
    python -m fer_jax.features --workdir=runs/student --dataset=ferplus --split=test --out=features.npz

Images should be crops of faces, like those the network was trained on. The file holds 'names', 'pooled' (N, C) and
'embedding' (N, D), 'logits' (N, K) with 'network_classes' (K,), 'label' (N,), -1 where unknown, with 'classes', and
'about', a JSON text that says which run made it.
"""

import json
from typing import Any

from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('workdir', None, 'Folder of a training run.', required=True)
  flags.DEFINE_string('out', None, 'The .npz file to write.', required=True)
  command_line.define_faces('A folder of images; the folders in it are read too.')
  flags.DEFINE_string('split', 'test', 'Its split.')
  command_line.define_start()


def main(given: Any) -> None:
  """Writes the file."""
  command_line.start(given)
  import numpy as np

  from fer_jax.analysis import transfer
  from fer_jax.runtime import cluster, storage
  from fer_jax.training import setup
  from fer_jax.training.workdir import now
  dataset, variant, folder = command_line.faces(given)
  out = storage.as_path(given.out)
  if out.suffix != '.npz':
    raise UserError(f'--out={out}: give the path of an .npz file.')
  mesh = cluster.make_mesh()
  trained = setup.load(given.workdir, mesh)
  faces = transfer.open_faces(trained, dataset, variant, '' if given.images else given.split, folder)
  table = transfer.features(trained, faces, mesh)
  about = {'workdir': str(trained.workdir), 'name': trained.protocol.name, 'step': trained.step,
           'commit': trained.record['commit'], 'seed': trained.protocol.seed, 'fingerprint': faces.fingerprint,
           'data': given.images or f'{given.dataset} {given.split}', 'written': now()}
  storage.write_npz(out, names=np.array(faces.names), classes=np.array(faces.classes),
                    network_classes=np.array(trained.record['classes']), about=json.dumps(about), **table)
  cluster.say(f"{out}: {len(faces):,} faces, pooled {table['pooled'].shape[1]}, embedding "
              f"{table['embedding'].shape[1]}.")


if __name__ == '__main__':
  command_line.run(define, main)
