"""Tests a run's frozen features on another data set: linear probe, k-NN, linear SVM, few-shot curves, fine-tuning.

    python -m fer_jax.transfer --workdir=runs/student --images=FACES --shots=1,5,20
    python -m fer_jax.transfer --workdir=runs/student --dataset=synthetic_faces --finetune_epochs=4
    python -m fer_jax.transfer --workdir=runs/student --dataset=ferplus --train=train+valid --classes=anger,sadness

FACES holds FACES/train/CLASS/ and FACES/test/CLASS/ with crops of faces. Classifiers and their hyper-parameters are
chosen on the train split alone; the test split is for the numbers.
"""

from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError
from fer_jax.runtime import cluster

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a training run.', required=True)
_IMAGES = flags.DEFINE_string('images', None, 'A folder with SPLIT/CLASS/ folders of images.')
_DATASET = flags.DEFINE_string('dataset', None, 'Or a prepared data set.')
_VARIANT = flags.DEFINE_string('variant', '', 'Its variant.')
_DATA_DIR = flags.DEFINE_string('data_dir', '', 'Where prepared data sets lie.')
_TRAIN = flags.DEFINE_string('train', 'train', 'The split that classifiers learn from.')
_TEST = flags.DEFINE_string('test', 'test', 'The split they are scored on.')
_CLASSES = flags.DEFINE_list('classes', [], 'Only the faces of these classes, such as those held out in training.')
_LAYER = flags.DEFINE_string('layer', 'pooled', "'pooled' (the backbone's features) or 'embedding' (the head's).")
_SHOTS = flags.DEFINE_list('shots', [], 'Labelled faces of each class for a few-shot curve, such as 1,5,20.')
_DRAWS = flags.DEFINE_integer('draws', 5, 'Random draws for each of them.', lower_bound=1)
_FINETUNE = flags.DEFINE_float('finetune_epochs', 0.0, 'Also train the whole network for so long; 0: do not.',
                               lower_bound=0.0)
_start = command_line.start_flags()


def main(argv: list[str]) -> None:
  """Prints the table, writes ``WORKDIR/transfer/<target>.json`` and the report."""
  del argv
  _start()
  from fer_jax.analysis import transfer
  from fer_jax.reports.page import write_report
  from fer_jax.reports.table import print_transfer
  from fer_jax.training import setup
  if bool(_IMAGES.value) == bool(_DATASET.value):
    raise UserError('give either --images=FOLDER or --dataset=NAME.')
  if not all(shots.isdecimal() and int(shots) for shots in _SHOTS.value):
    raise UserError(f"--shots={','.join(_SHOTS.value)}: give whole numbers from 1 up, such as 1,5,20.")
  where = {'dataset': 'folder', 'variant': 'classes', 'data_dir': _IMAGES.value} if _IMAGES.value else {
      'dataset': _DATASET.value, 'variant': _VARIANT.value, 'data_dir': _DATA_DIR.value}
  target = transfer.Target(**where, train=_TRAIN.value, test=_TEST.value, classes=tuple(_CLASSES.value))
  mesh = cluster.make_mesh()
  trained = setup.load(_WORKDIR.value, mesh)
  print_transfer(transfer.transfer(trained, target, mesh, layer=_LAYER.value, shots=[int(n) for n in _SHOTS.value],
                                 draws=_DRAWS.value, finetune_epochs=_FINETUNE.value))
  cluster.say(f'Report: {write_report(trained.workdir)}')


if __name__ == '__main__':
  command_line.run(main)
