"""What lies beside prepared data: ``contents.json``, with counts and a digest of what was written, and ``images.npz``,
the digest of every image (``data/pixels.py``): which of them another data set has too."""

import collections
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
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
SKIPPED = 'skipped.txt'  # Lines and images that were left out; only where there are some.


def write(folder: epath.Path, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
  """Writes images.npz, and contents.json: its digest is of ``settings`` and of the 'splits' (from ``count``) of
  ``facts``."""
  images = {name: split['images'] for name, split in facts['splits'].items()}
  np.savez(buffer := io.BytesIO(), **images)
  (folder / IMAGES).write_bytes(buffer.getvalue())
  facts = facts | {'splits': {name: split | {'images': hashlib.sha256(split['images'].tobytes()).hexdigest()}
                              for name, split in facts['splits'].items()}}
  splits = {name: split['digest'] for name, split in facts['splits'].items()}
  digest = hashlib.sha256(json.dumps([settings, splits], sort_keys=True).encode()).hexdigest()
  (folder / CONTENTS).write_text(json.dumps({'digest': digest, **settings, **facts}, indent=2) + '\n')


def read(folder: epath.Path) -> dict[str, Any]:
  """What contents.json says.

  Raises:
    UserError: it is not there.
  """
  path = folder / CONTENTS
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as e:
    raise UserError(f'{path} is missing or damaged; an earlier version of fer_jax has prepared these data, or files '
                    'were lost. Remove the folder and prepare them again.') from e


def read_images(folder: epath.Path) -> dict[str, np.ndarray]:
  """The digest of every image, {split: uint64 (N,)}.

  Raises:
    UserError: images.npz is missing or damaged.
  """
  try:
    with np.load(io.BytesIO((folder / IMAGES).read_bytes()), allow_pickle=False) as file:
      return dict(file)
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
    raise UserError(f'{folder / IMAGES} is missing or damaged. Remove {folder} and prepare the data again.') from e


def count(info: tfds.core.SplitInfo, described: tfds.features.FeaturesDict, classes: int, name: str) -> dict[str, Any]:
  """Reads a split that was just written: counts, a digest of every field of every record in order, and those of its
  'images'."""
  labels, sources, digest, images = collections.Counter(), collections.Counter(), hashlib.sha256(), []
  unread = {field: tfds.decode.SkipDecoding() for field in described
            if isinstance(described[field], tfds.features.Image)}
  with ArrayRecordDataSource([str(path) for path in info.filepaths]) as written:
    for row in progress(range(len(written)), desc=f'{name} {info.name}, reading back', unit='face'):
      record = described.deserialize_example_np(written[row], decoders=unread)
      labels[int(record['label'])] += 1
      sources[int(record['landmark_source'])] += 1
      images.append(pixels.digest(pixels.decode(record)))
      for field in sorted(record):
        value = record[field] if isinstance(record[field], bytes) else np.asarray(record[field]).tobytes()
        digest.update(f'{field} {len(value)} '.encode() + value)
  return {'faces': sum(labels.values()), 'labels': [labels[i] for i in range(classes)], 'unlabelled': labels[-1],
          'digest': digest.hexdigest(), 'images': np.array(images, np.uint64),
          'landmarks': {source: sources[i] for i, source in enumerate(face.LANDMARK_SOURCES)}}
