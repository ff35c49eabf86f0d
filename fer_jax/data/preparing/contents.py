"""What lies beside prepared data: ``contents.json``, with counts and a digest of what was written."""

import collections
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath

from fer_jax.data import face
from fer_jax.errors import UserError
from fer_jax.runtime.progress import progress

CONTENTS = 'contents.json'
SKIPPED = 'skipped.txt'  # Lines and images that were left out; only where there are some.


def write(folder: epath.Path, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
  """Writes contents.json: the digest, which is of ``settings`` and of the 'splits' (from ``count``) of ``facts``."""
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


def count(info: tfds.core.SplitInfo, described: tfds.features.FeaturesDict, classes: int, name: str) -> dict[str, Any]:
  """Reads a split that was just written: counts, and a digest of every field of every record in order."""
  labels, sources, digest = collections.Counter(), collections.Counter(), hashlib.sha256()
  unread = {field: tfds.decode.SkipDecoding() for field in described
            if isinstance(described[field], tfds.features.Image)}
  with ArrayRecordDataSource([str(path) for path in info.filepaths]) as written:
    for row in progress(range(len(written)), desc=f'{name} {info.name}, reading back', unit='face'):
      record = described.deserialize_example_np(written[row], decoders=unread)
      labels[int(record['label'])] += 1
      sources[int(record['landmark_source'])] += 1
      for field in sorted(record):
        value = record[field] if isinstance(record[field], bytes) else np.asarray(record[field]).tobytes()
        digest.update(f'{field} {len(value)} '.encode() + value)
  return {'faces': sum(labels.values()), 'labels': [labels[i] for i in range(classes)], 'unlabelled': labels[-1],
          'digest': digest.hexdigest(),
          'landmarks': {source: sources[i] for i, source in enumerate(face.LANDMARK_SOURCES)}}
