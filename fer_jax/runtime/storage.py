"""The workdir's files, in a local folder or under gs://: whole or not there, written by process 0 alone.

What fails is said in one sentence, as a ``UserError``. Checkpoints are Orbax's, see ``checkpoint.py``.
"""

import contextlib
import errno
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util
from fsspec.config import conf

from fer_jax.errors import UserError
from fer_jax.runtime import cluster
from fer_jax.runtime.paths import absolute as absolute  # Callers ask for paths and files in one place.
from fer_jax.runtime.paths import as_path as as_path
from fer_jax.runtime.paths import is_remote as _remote

# What other processes write must be seen: gcsfs would answer from what it listed before.
conf['gcs'] = {'use_listings_cache': False} | conf.get('gcs', {})

# What to do about errors, by number, and about those of a bucket.
_TODO = {**dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), 'make room'),
         **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), 'get the permission to {} there')}
_TODO_REMOTE = ('check that the bucket exists, that this machine may use it (gcloud auth application-default login, or '
                'its service account) and that it is connected')


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes a text as UTF-8."""
  write_bytes(path, text.encode(errors='backslashreplace'))  # A file name on the command line need not be UTF-8.


def write_json(path: str | os.PathLike[str], value: Any) -> None:
  """Writes a value as JSON."""
  write_text(path, to_json(value, indent=2) + '\n')


def to_json(value: Any, **options: Any) -> str:
  """A value as JSON; numbers that are not finite, which JSON does not know, become null."""
  return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def write_npz(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
  """Writes arrays, compressed."""
  if cluster.is_main():
    np.savez_compressed(buffer := io.BytesIO(), **arrays)
    write_bytes(path, buffer.getbuffer())


def append(path: str | os.PathLike[str], text: str) -> None:
  """Adds text to the end of a file.

  A local file is extended, and a process that is killed in the middle leaves a part of ``text``. An object store cannot
  extend anything: there the whole object is written anew, which is for small files, and for at most one call a second.
  """
  if not cluster.is_main():
    return
  path = as_path(path)
  with explained(path):
    if _remote(path):
      path.write_bytes((path.read_bytes() if path.exists() else b'') + text.encode())
      return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', encoding='utf-8') as file:
      file.write(text)


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
  """Puts a file in place of the one there, if this is process 0; folders are made."""
  if not cluster.is_main():
    return
  path = as_path(path)
  with explained(path):
    if _remote(path):
      path.write_bytes(content)
      return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed, so that a reader never sees half of it, and what was there stays where writing fails.
    beside = path.with_name(path.name + '.part')
    try:
      beside.write_bytes(content)
      beside.replace(path)
    except OSError:
      with contextlib.suppress(OSError):
        beside.unlink()
      raise


def read_text(path: str | os.PathLike[str]) -> str:
  """The content of a text file.

  Raises:
    FileNotFoundError: there is none.
    UserError: it cannot be read.
  """
  return _read(path).decode()


def read_json(path: str | os.PathLike[str]) -> Any:
  """The value in a JSON file; raises as ``read_text``, and ValueError where the file is damaged."""
  return json.loads(read_text(path))


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """The arrays in an .npz file; raises as ``read_text``, and ValueError where the file is damaged."""
  content = _read(path)
  try:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
      return dict(file)
  except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(f'{path} is damaged: {error}') from error


def _read(path: str | os.PathLike[str]) -> bytes:
  with explained(path, 'read'):
    return as_path(path).read_bytes()


@contextlib.contextmanager
def explained(path: str | os.PathLike[str], verb: str = 'write') -> Iterator[None]:
  """Turns what goes wrong inside into a UserError: 'cannot ``verb`` ``path``', why, and what to do.

  A FileNotFoundError in reading stays one: the caller knows what its absence means.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    missing = isinstance(error, FileNotFoundError)
    # The libraries behind gs:// have many kinds of errors; elsewhere any but an OSError is a fault of the program.
    if missing and verb == 'read' or not (isinstance(error, OSError) or _remote(path)):
      raise
    reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())[:300] or type(error).__name__
    todo = _TODO_REMOTE if _remote(path) else _TODO.get(getattr(error, 'errno', None), 'mend that').format(verb)
    todo = f'What was saved before is kept; {todo}' if verb == 'write' else todo[0].upper() + todo[1:]
    raise UserError(f'cannot {verb} {os.fspath(path)}: {reason}. {todo} and give the same command again, or choose '
                    'another path.') from error


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
  """The values of nested dictionaries by dotted keys, in order; an empty dictionary is a value."""
  return traverse_util.flatten_dict(tree, sep='.', is_leaf=lambda path, value: path and not value)
