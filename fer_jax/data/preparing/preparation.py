"""Prepares data sets: one at a time in a folder, whole or not at all; and says what a prepared one holds."""

import collections
import contextlib
import fcntl
import inspect
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fer_jax import registry
from fer_jax.data.preparing import beam
from fer_jax.data.preparing.builder import FaceBuilder
from fer_jax.data.preparing.contents import SKIPPED, check, closed, count, damaged, read_images, readable
from fer_jax.errors import UserError, nearest
from fer_jax.landmarks.action_units import DRAWING
from fer_jax.runtime.paths import as_path


def make_builder(dataset: str, variant: str | None = None, data_dir: str | None = None, **options: Any) -> FaceBuilder:
  """The builder of a data set, for preparing or for reading.

  Args:
    dataset: its name, a folder of ``fer_jax/data/builders``.
    variant: one of its configurations; None or '': the first.
    data_dir: where prepared data sets lie; None or '': TFDS's default.
    **options: the builder's own arguments.

  Raises:
    UserError: an unknown data set, variant, option or kind of folder, or the prepared data are damaged or closed, see
      ``contents.check``.
  """
  cls = registry.find('data.builders', dataset)
  known = {name for base in cls.__mro__ if issubclass(base, FaceBuilder)
           for name in inspect.signature(base.__init__).parameters} - {'self', 'config', 'kwargs'}
  for name in options:
    if name not in known:
      raise UserError(f"--dataset={dataset} has no option '{name}'{nearest(name, known)}")
  folder = os.fspath(as_path(data_dir)) if data_dir else None
  try:
    builder = cls(data_dir=folder, config=variant or None, file_format='array_record', **options)
    if builder.data_path.exists():  # It gets this name only when it is complete.
      check(builder.data_path, builder.name, builder.builder_config.name)
    elif error := closed(builder.data_path):
      raise error
  except OSError as e:
    raise UserError(f'{folder or "the folder of prepared data"} cannot be read: {e.strerror or e}. Mend that, or give '
                    'another data_dir.') from e
  return builder


def prepare(builder: FaceBuilder, beam_runner: str | None = None, beam_options: Sequence[str] = (), wait: bool = False
            ) -> bool:
  """Prepares a data set, unless it is there already.

  Args:
    beam_runner: a runner of Apache Beam by name, such as 'DirectRunner'; None: a pool of processes.
    beam_options: its options, such as '--direct_num_workers=4'.
    wait: for another process that is preparing the same, instead of an error.

  Returns:
    Whether there was something to do. If not, make another builder: this one may not know yet what is there.

  Raises:
    UserError: bad files, nowhere to write, or another process is preparing the same.
  """
  if builder.data_path.exists():
    return False
  config = beam.config(beam_runner, beam_options) if beam_runner else None
  try:
    with _alone(builder, wait), tempfile.TemporaryDirectory() as downloads:
      if builder.data_path.exists():
        return False
      with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download of unknown size.
        builder.download_and_prepare(download_dir=downloads, download_config=config)
  except (OSError, RuntimeError) as e:
    # The writer of array_record files has an exception of its own for a full disk.
    failed = re.search(r'\w+\(\) failed: ([^;]+)', str(e))
    if not failed and not isinstance(e, OSError):
      raise
    raise UserError(f'cannot write {builder.data_path}: {failed[1] if failed else e.strerror or e}. Give another '
                    '--data_dir, or make room; the same command goes on from where this one ended.') from e
  return True


def summary(builder: FaceBuilder) -> str:
  """Describes a prepared data set for people: faces per class and split, where landmarks come from, what was left out.

  Raises:
    UserError: it lacks its ``contents.json``.
  """
  contents = builder.contents()
  splits = list(contents['splits'].values())
  counts = {'faces': [facts['faces'] for facts in splits]}
  counts |= {f'  {i} {name}': [facts['labels'][i] for facts in splits] for i, name in enumerate(contents['classes'])}
  counts['  unlabelled'] = [facts['unlabelled'] for facts in splits]
  counts |= {f'landmarks: {name}': [facts['landmarks'][name] for facts in splits] for name in splits[0]['landmarks']}
  kinds = {'images: grey': '1', 'images: in colour': '3'}
  kinds = {name: [facts.get('channels', {}).get(kind, 0) for facts in splits] for name, kind in kinds.items()}
  counts |= kinds if all(map(any, kinds.values())) else {}
  lines = [' ' * 22 + ''.join(f'{split:>10}' for split in contents['splits'])]
  lines += [f'{name:<22}' + ''.join(f'{n:>10,}' for n in row) for name, row in counts.items() if any(row)]
  if contents['skipped']:
    names = (builder.data_path / SKIPPED).read_text(encoding='utf-8').splitlines()
    lines += [f'Left out {len(names)} image(s) or line(s), all listed in {builder.data_path / SKIPPED}:',
              *(f'  {name}' for name in names[:10])]
  coverage = builder.data_path / 'coverage.txt'
  if coverage.exists():
    lines += coverage.read_text().splitlines()
  if not all('channels' in facts for facts in splits):
    lines.append('An earlier version of fer_jax prepared these data: it did not turn photos as their EXIF data say and '
                 'made deep images (16 bits) white. Prepare them again if there may be such.')
  if contents.get('drawing') != DRAWING:
    lines.append('An earlier version of fer_jax drew its action-unit maps otherwise: they are drawn again whenever '
                 'they are read. Remove the folder and prepare it again to save that time.')
  return '\n'.join([*lines, *contents['notes'], f'Digest {contents["digest"]}', f'In {builder.data_path}'])


def verify(builder: FaceBuilder) -> str:
  """Reads every record of a prepared data set and says that each is as it was written.

  Raises:
    UserError: it is not prepared, or some are not.
  """
  if not builder.data_path.exists():
    raise UserError(f'{builder.name} is not prepared: nothing at {builder.data_path}.')
  contents = builder.contents()
  if all('images' in facts for facts in contents['splits'].values()):  # Of an earlier version they are not.
    read_images(builder.data_path, contents['splits'])
  for name, info in builder.info.splits.items():
    with readable(builder.data_path, f'the records of {name}'):
      found, told = count(info, builder.info.features, len(contents['classes']), builder.name), contents['splits'][name]
    if found['digest'] != told['digest']:
      raise damaged(builder.data_path, f'the records of {name} are not those that were written')
  return f'Every record is as it was written. Digest {contents["digest"]}'


def describe(dataset: str) -> str:
  """What a data set is, its terms, how to obtain it and lay it out, its classes in their order, and its counts.

  Raises:
    UserError: an unknown data set.
  """
  cls = registry.find('data.builders', dataset)
  lines = [Path(inspect.getfile(cls)).with_name('README.md').read_text().strip()]
  if cls.HOW_TO:
    lines += ['', cls.HOW_TO]
  aligned = '; with --align=similarity also VARIANT-similarity112' * cls.ALIGNABLE
  lines += ['', f'Variants: {", ".join(cls.builder_configs) or "any name"}{aligned}.']
  if cls.CLASSES:
    lines += ['Classes, in the order of the labels:',
              f'  {", ".join(f"{i} {name}" for i, name in enumerate(cls.CLASSES))}.']
  alike = collections.defaultdict(list)
  for variant, splits in cls.COUNTS.items():
    for split, counts in splits.items():
      alike[split, counts].append(variant)
  for (split, counts), variants in alike.items():
    lines.append(f'{split} of {", ".join(variants)}: {sum(counts):,} faces'
                 + (f' ({" ".join(map(str, counts))})' if len(counts) > 1 else ''))
  if cls.COUNTS and cls.RECALLED:
    lines.append('These counts are not certain: others are told, and accepted.')
  return '\n'.join(lines)


@contextlib.contextmanager
def _alone(builder: FaceBuilder, wait: bool) -> Iterator[None]:
  """Holds the data set's folder against other preparations, and clears it of interrupted ones."""
  folder = builder.data_path.parent
  if '://' in os.fspath(folder):  # An object store has neither locks nor a way to tell what is stale.
    yield
    return
  folder.mkdir(parents=True, exist_ok=True)
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as e:
      raise UserError(f'another process is preparing {folder}; wait for it, or give another --data_dir.') from e
    except OSError as e:
      raise UserError(f'{folder} cannot be locked: {e.strerror}. Without locks two preparations would spoil each '
                      'other: give a --data_dir on another file system, and copy what is made there.') from e
    for stale in folder.glob('incomplete.*'):
      shutil.rmtree(stale)
    yield
  finally:
    os.close(descriptor)
