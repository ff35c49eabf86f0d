"""Writes the frozen features of a run's network for a data set or a folder of images.

    python -m fer_jax.features --workdir=runs/student --images=PHOTOS --out=features.npz
    python -m fer_jax.features --workdir=runs/student --dataset=ferplus --split=test --out=features.npz

Images should be crops of faces, like those the network was trained on. The file holds 'names', 'pooled' (N, C) and
'embedding' (N, D), 'logits' (N, K) with 'network_classes' (K,), 'label' (N,), -1 where unknown, with 'classes', and
'about', a JSON text that says which run made it.
"""

import json

from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError
from fer_jax.runtime import cluster

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a training run.', required=True)
_OUT = flags.DEFINE_string('out', None, 'The .npz file to write.', required=True)
_IMAGES = flags.DEFINE_string('images', None, 'A folder of images; the folders in it are read too.')
_DATASET = flags.DEFINE_string('dataset', None, 'Or a prepared data set.')
_VARIANT = flags.DEFINE_string('variant', '', 'Its variant.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Its split.')
_DATA_DIR = flags.DEFINE_string('data_dir', '', 'Where prepared data sets lie.')
_start = command_line.start_flags()


def main(argv: list[str]) -> None:
  """Writes the file."""
  del argv
  _start()
  import numpy as np

  from fer_jax.analysis import transfer
  from fer_jax.runtime import storage
  from fer_jax.training import setup
  from fer_jax.training.workdir import now
  if bool(_IMAGES.value) == bool(_DATASET.value):
    raise UserError('give either --images=FOLDER or --dataset=NAME.')
  out = storage.as_path(_OUT.value)
  if out.suffix != '.npz':
    raise UserError(f'--out={out}: give the path of an .npz file.')
  mesh = cluster.make_mesh()
  trained = setup.load(_WORKDIR.value, mesh)
  if _IMAGES.value:
    source = transfer.open_faces(trained, 'folder', '', '', _IMAGES.value)
  else:
    source = transfer.open_faces(trained, _DATASET.value, _VARIANT.value, _SPLIT.value, _DATA_DIR.value)
  table = transfer.features(trained, source, mesh)
  about = {'workdir': str(trained.workdir), 'name': trained.config.name, 'step': trained.step,
           'commit': trained.record['commit'], 'seed': trained.config.seed, 'fingerprint': source.fingerprint,
           'data': _IMAGES.value or f'{_DATASET.value} {_SPLIT.value}', 'written': now()}
  storage.write_npz(out, names=np.array(source.names), classes=np.array(source.classes),
                    network_classes=np.array(trained.record['classes']), about=json.dumps(about), **table)
  cluster.say(f"{out}: {len(source):,} faces, pooled {table['pooled'].shape[1]}, embedding "
              f"{table['embedding'].shape[1]}.")


if __name__ == '__main__':
  command_line.run(main)
