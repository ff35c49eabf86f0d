"""Tests a run's frozen features on another data set: linear probe, k-NN, SVM, few shots, fine-tuning.

    python -m fer_jax.transfer --workdir=runs/student --images=FACES --shots=1,5,20
    python -m fer_jax.transfer --workdir=runs/student --dataset=synthetic_faces --finetune_epochs=4
    python -m fer_jax.transfer --workdir=runs/student --dataset=ferplus --train=train+valid --classes=anger,sadness

FACES holds FACES/train/CLASS/ and FACES/test/CLASS/ with crops of faces. Classifiers and their hyper-parameters are
chosen on the train split alone; the test split is for the numbers.
"""

from typing import Any

from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('workdir', None, 'Folder of a training run.', required=True)
  command_line.define_faces('A folder with SPLIT/CLASS/ folders of images.')
  flags.DEFINE_string('train', 'train', 'The split that classifiers learn from.')
  flags.DEFINE_string('test', 'test', 'The split they are scored on.')
  flags.DEFINE_list('classes', [], 'Only the faces of these classes, such as those held out in training.')
  flags.DEFINE_string('layer', 'pooled', "'pooled' (the backbone's features) or 'embedding' (the head's).")
  flags.DEFINE_list('shots', [], 'Labelled faces of each class for a few-shot curve, such as 1,5,20.')
  flags.DEFINE_integer('draws', 5, 'Random draws for each of them.', lower_bound=1)
  flags.DEFINE_float('finetune_epochs', 0.0, 'Also train the whole network for so long; 0: do not.', lower_bound=0.0)
  command_line.define_start()


def main(given: Any) -> None:
  """Prints the table, writes ``WORKDIR/transfer/<target>.json`` and the report."""
  command_line.start(given)
  from fer_jax.analysis import transfer
  from fer_jax.reports.page import write_report
  from fer_jax.reports.transfer import print_transfer
  from fer_jax.runtime import cluster
  from fer_jax.training import setup
  dataset, variant, folder = command_line.faces(given)
  if not all(shots.isdecimal() and int(shots) for shots in given.shots):
    raise UserError(f"--shots={','.join(given.shots)}: give whole numbers from 1 up, such as 1,5,20.")
  target = transfer.Target(dataset, given.train, given.test, 'classes' if given.images else variant, folder,
                           tuple(given.classes))
  mesh = cluster.make_mesh()
  trained = setup.load(given.workdir, mesh)
  print_transfer(transfer.transfer(trained, target, mesh, layer=given.layer, shots=[int(n) for n in given.shots],
                                   draws=given.draws, finetune_epochs=given.finetune_epochs))
  cluster.say(f'Report: {write_report(trained.workdir)}')


if __name__ == '__main__':
  command_line.run(define, main)
