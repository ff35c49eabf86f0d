"""What lies beside prepared data: ``contents.json``, with counts and a digest of what was written, and ``images.npz``,
the digest of every image (``data/pixels.py``): which of them another data set has too."""

import collections
import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath

from fer_jax.data import face, pixels
from fer_jax.errors import UserError
from fer_jax.runtime.progress import progress

CONTENTS = 'contents.json'
IMAGES = 'images.npz'  # {split: uint64 (N,)}.
INFO = 'dataset_info.json'  # TFDS's, the last file of a preparation.
SKIPPED = 'skipped.txt'  # Lines and images that were left out; only where there are some.
SETTINGS = ('dataset', 'variant', 'version', 'align_size', 'classes', 'drawing')  # That decide what is written.


def write(folder: epath.Path, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
  """Writes images.npz, and contents.json: its digest is of ``settings`` and of the 'splits' (from ``count``) of
  ``facts``."""
  images = {name: split['images'] for name, split in facts['splits'].items()}
  np.savez(buffer := io.BytesIO(), **images)
  (folder / IMAGES).write_bytes(buffer.getvalue())
  facts = facts | {'splits': {name: split | {'images': hashlib.sha256(split['images'].tobytes()).hexdigest()}
                              for name, split in facts['splits'].items()}}
  told = {'digest': digest(settings, facts['splits']), **settings, **facts}
  told['checksum'] = checksum(told)
  (folder / CONTENTS).write_text(json.dumps(told, indent=2) + '\n')


def digest(settings: Mapping[str, Any], splits: Mapping[str, Mapping[str, Any]]) -> str:
  """The digest of a data set: of those of ``SETTINGS`` that it has, and of the digests of its splits."""
  made_from = [{name: settings[name] for name in SETTINGS if name in settings},
               {name: split['digest'] for name, split in splits.items()}]
  return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def checksum(told: Mapping[str, Any]) -> str:
  """A digest of all else that contents.json says: counts and notes that were changed are told too."""
  rest = {name: value for name, value in told.items() if name != 'checksum'}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def damaged(folder: epath.Path, what: object) -> UserError:
  """The error that something is wrong with prepared data, or that they are ``closed``."""
  return closed(folder) or UserError(f'{folder} is damaged: {what}. Remove the folder and prepare the data again.')


def closed(folder: epath.Path) -> UserError | None:
  """The error that prepared data, or a folder that they lie in, may not be read; None where nothing is in the way."""
  path = Path(folder)
  if '://' in os.fspath(folder):  # A bucket says so itself.
    return None
  ways = [one for one in (*reversed(path.parents), path) if one.exists()]
  shut = [one for one in ways if one.is_dir() and not os.access(one, os.X_OK)] or [
      one for one in (path, *path.glob('*')) if one.exists() and not os.access(one, os.R_OK)]
  return UserError(f'{shut[0]} cannot be read: permission denied. Get the permission, or give another data_dir.'
                   ) if shut else None


def read(folder: epath.Path) -> dict[str, Any]:
  """What contents.json says.

  Raises:
    UserError: it is not there, or says something else.
  """
  path = folder / CONTENTS
  try:
    told = json.loads(path.read_text())
    if told['digest'] != digest(told, told['splits']) or told.get('checksum', checksum(told)) != checksum(told):
      raise ValueError('its digest is another')
    for facts in told['splits'].values():
      _ = facts['faces'] + facts['unlabelled'] + sum(facts['labels']) + sum(facts['landmarks'].values())
    _ = told['dataset'], told['variant'], list(told['classes']), list(told['notes']), int(told['skipped'])
  except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
    raise closed(folder) or UserError(f'{path} is missing or damaged; an earlier version of fer_jax has prepared these '
                                      'data, or files were lost. Remove the folder and prepare them again.') from e
  return told


def check(folder: epath.Path, dataset: str, variant: str) -> None:
  """Compares prepared data with what their contents.json says: which they are, and the names, sizes and counts of their
  files. Records are not read; ``count`` does that.

  Raises:
    UserError: something is missing, cut off or of other data.
  """
  told = read(folder)
  if (told['dataset'], told['variant']) != (dataset, variant):
    raise damaged(folder, f"its {CONTENTS} is that of {told['dataset']}, variant {told['variant']}")
  try:
    info = json.loads((folder / INFO).read_text())
    lengths = {split['name']: [int(length) for length in split['shardLengths']] for split in info['splits']}
  except (OSError, ValueError, LookupError, TypeError) as e:
    raise damaged(folder, f'its {INFO} is missing or cannot be read') from e
  if {name: sum(counts) for name, counts in lengths.items()} != {
      name: facts['faces'] for name, facts in told['splits'].items()} or info.get('name') != dataset:
    raise damaged(folder, f'{INFO} and {CONTENTS} do not name the same splits and faces')
  for name, facts in told['splits'].items():
    if 'images' in facts and not (folder / IMAGES).exists():
      raise damaged(folder, f'{IMAGES} is missing')
    if 'files' in facts:
      for file, size in facts['files'].items():
        if not (folder / file).exists():
          raise damaged(folder, f'{file} is missing')
        if (found := (folder / file).stat().length) != size:
          raise damaged(folder, f'{file} has {found:,} bytes, and {size:,} were written')
    else:  # An earlier version of fer_jax has not counted them.
      count = len(lengths[name])
      shards = [folder / f'{dataset}-{name}.array_record-{i:05d}-of-{count:05d}' for i in range(count)]
      with readable(folder), ArrayRecordDataSource([str(shard) for shard in shards]) as source:
        if len(source) != facts['faces']:
          raise damaged(folder, f"{name} has {len(source):,} records, and {facts['faces']:,} were written")


@contextlib.contextmanager
def readable(folder: epath.Path, what: str = 'its records') -> Iterator[None]:
  """Turns what array_record raises inside into the error that ``what`` cannot be read."""
  try:
    yield
  except (RuntimeError, ValueError, OSError) as e:
    raise damaged(folder, f'{what} cannot be read ({" ".join(str(e).split())[:200]})') from e


def read_images(folder: epath.Path, splits: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
  """The digest of every image, {split: uint64 (N,)}.

  Args:
    splits: those of contents.json, whose 'images' tell whether they are the ones that were written.

  Raises:
    UserError: images.npz is missing, damaged or of other data.
  """
  try:
    with np.load(io.BytesIO((folder / IMAGES).read_bytes()), allow_pickle=False) as file:
      images = {name: file[name] for name in splits}
  except Exception as e:  # A damaged archive has many kinds of errors.
    raise damaged(folder, f'its {IMAGES} is missing or cannot be read') from e
  for name, facts in splits.items():
    if hashlib.sha256(images[name].tobytes()).hexdigest() != facts['images']:
      raise damaged(folder, f'its {IMAGES} is of other data')
  return images


def count(info: tfds.core.SplitInfo, described: tfds.features.FeaturesDict, classes: int, name: str) -> dict[str, Any]:
  """Reads a split that was written: counts, a digest of every field of every record in order, those of 'images'.

  'channels' counts its images as they are stored, {'1': grey ones, '3': others}; 'files' has their sizes in bytes.
  """
  labels, sources, channels = (collections.Counter() for _ in range(3))
  hashed, images = hashlib.sha256(), []
  unread = {field: tfds.decode.SkipDecoding() for field in described
            if isinstance(described[field], tfds.features.Image)}
  with ArrayRecordDataSource([str(path) for path in info.filepaths]) as written:
    for row in progress(range(len(written)), desc=f'{name} {info.name}, reading back', unit='face'):
      record = described.deserialize_example_np(written[row], decoders=unread)
      labels[int(record['label'])] += 1
      sources[int(record['landmark_source'])] += 1
      image = pixels.decode(record)
      channels['1' if image.ndim == 2 else '3'] += 1
      images.append(pixels.digest(image))
      for field in sorted(record):
        value = record[field] if isinstance(record[field], bytes) else np.asarray(record[field]).tobytes()
        hashed.update(f'{field} {len(value)} '.encode() + value)
  return {'faces': sum(labels.values()), 'labels': [labels[i] for i in range(classes)], 'unlabelled': labels[-1],
          'digest': hashed.hexdigest(), 'images': np.array(images, np.uint64), 'channels': dict(channels),
          'files': {path.name: path.stat().length for path in map(epath.Path, info.filepaths)},
          'landmarks': {source: sources[i] for i, source in enumerate(face.LANDMARK_SOURCES)}}
