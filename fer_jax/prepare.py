"""Prepares a data set for training: faces, landmarks and maps become a TFDS data set of array_record files.

  python -m fer_jax.prepare --dataset=ferplus --source=ferplus.zip
"""

import collections
import contextlib
import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from fer_jax import registry
from fer_jax.commands import run
from fer_jax.errors import UserError, nearest

flags.DEFINE_string('dataset', None, 'The data set: the name of a builder in fer_jax/data/builders.')
flags.DEFINE_string('source', None, 'The data set as distributed: a file or folder; the builder says what it accepts.')
flags.DEFINE_string('variant', None, "The builder's configuration, such as a label rule; default: its first.")
flags.DEFINE_string('data_dir', None, 'Where to write; default: $TFDS_DATA_DIR or ~/tensorflow_datasets.')
flags.DEFINE_bool('strict', False, 'Fail at an image that cannot be read instead of leaving it out.')
flags.DEFINE_integer('workers', None, 'Processes to use; default: one for each core.', lower_bound=0)
flags.DEFINE_string('landmark_model', None, "Path of dlib's shape_predictor_68_face_landmarks.dat.")
flags.DEFINE_bool('check_counts', True, 'Fail where images per class are not those of the official data.')

# Flags that go to a builder, where it knows them.
_OPTIONS = ('source', 'strict', 'workers', 'landmark_model', 'check_counts')


def prepare(dataset: str, variant: str | None = None, data_dir: str | None = None, **options: Any) -> str:
  """Prepares a data set, unless it is there already.

  Args:
    dataset: a builder's name.
    variant: one of its configurations; None: the first.
    data_dir: where to write; None: TFDS's default.
    **options: the builder's own arguments.

  Returns:
    A summary for people: faces per class and split, where their landmarks come from, what was left out, and where the
    data lie.

  Raises:
    UserError: bad options or bad source data; or another process is preparing the same.
  """
  cls = registry.find('data.builders', dataset)
  registry.check_options(f'--dataset={dataset}', cls.__init__, options, given=1)
  variants = [config.name for config in cls.BUILDER_CONFIGS]
  if variant is not None and variant not in variants:
    raise UserError(f"{dataset} has no variant '{variant}'" + (nearest(variant, variants) if variants else '.'))
  builder = cls(data_dir=data_dir and os.path.expanduser(data_dir), config=variant, file_format='array_record',
                **options)
  if builder.data_path.exists():  # It gets this name only when it is complete.
    return f'Already prepared; remove the folder to prepare it again.\n{summary(builder)}'
  with _alone(builder), tempfile.TemporaryDirectory() as downloads:
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download of unknown size.
      builder.download_and_prepare(download_dir=downloads)
  return summary(builder)


def summary(builder: Any) -> str:
  """Describes a prepared data set by reading all of it."""
  import tensorflow_datasets as tfds

  from fer_jax.data import face

  features = builder.info.features
  classes = features['label'].names
  unread = {name: tfds.decode.SkipDecoding() for name in features if isinstance(features[name], tfds.features.Image)}
  columns = {}
  for split in builder.info.splits:
    labels, sources = collections.Counter(), collections.Counter()
    for record in builder.as_data_source(split, decoders=unread):
      labels[int(record['label'])] += 1
      sources[int(record['landmark_source'])] += 1
    columns[split] = ([sum(labels.values())] + [labels[i] for i in range(len(classes))],
                      [sources[i] for i in range(len(face.LANDMARK_SOURCES))])
  lines = [' ' * 22 + ''.join(f'{split:>10}' for split in columns)]
  lines += _table(('faces', *(f'  {name}' for name in classes)), [column[0] for column in columns.values()])
  lines += _table([f'landmarks: {name}' for name in face.LANDMARK_SOURCES], [column[1] for column in columns.values()])
  skipped = builder.data_path / 'skipped.txt'
  if skipped.exists():
    names = skipped.read_text().splitlines()
    lines += [f'Left out {len(names)} image(s) or line(s), all listed in {skipped}:',
              *(f'  {name}' for name in names[:10])]
  coverage = builder.data_path / 'coverage.txt'
  if coverage.exists():
    lines += coverage.read_text().splitlines()
  lines += [f'In {builder.data_path}']
  return '\n'.join(lines)


def _table(names: Sequence[str], columns: Sequence[Sequence[int]]) -> list[str]:
  """Lines of a table without its empty rows."""
  rows = zip(names, np.transpose(columns), strict=True)
  return [f'{name:<22}' + ''.join(f'{n:>10,}' for n in row) for name, row in rows if any(row)]


@contextlib.contextmanager
def _alone(builder: Any) -> Iterator[None]:
  """Holds the data set's folder against other preparations, and clears it of interrupted ones."""
  folder = builder.data_path.parent
  if '://' in os.fspath(folder):  # An object store has neither locks nor a way to tell what is stale.
    yield
    return
  folder.mkdir(parents=True, exist_ok=True)
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      raise UserError(f'another process is preparing {folder}; wait for it, or give another --data_dir.') from e
    for stale in folder.glob('incomplete.*'):
      shutil.rmtree(stale)
    yield
  finally:
    os.close(descriptor)


def main(argv: Sequence[str]) -> None:
  """The command; see the flags."""
  del argv
  values = flags.FLAGS
  if not values.dataset:
    raise UserError(f'--dataset is missing. Choices: {", ".join(registry.names("data.builders"))}.')
  options = {name: values[name].value for name in _OPTIONS if values[name].present}
  print(prepare(values.dataset, values.variant, values.data_dir, **options))


if __name__ == '__main__':
  run(main)
