"""Files of weights from elsewhere as ``{name: array}``, whatever network they are of; nothing in them is run.

Read are files of PyTorch (``torch.save``, both forms), safetensors, pickles and .npz files of arrays, dlib's face
network and models of TensorFlow.js. The content of a file tells what it is, never its name.
"""

import os
import stat

import numpy as np

from fer_jax.errors import UserError
from fer_jax.models.tensors import arrays, dlib, foreign, pickles, tfjs, torch
from fer_jax.models.tensors.limits import Refused, Room
from fer_jax.models.tensors.values import Deferred


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads a local file of weights; of a TensorFlow.js model its .json, beside which the others lie.

  Returns:
    The tensors by name, those of nested dictionaries by a dotted one ('state_dict.layer1.0.conv1.weight'): float32
    where they are floats of any size, else of their own type. What is no tensor is left out.

  Raises:
    UserError: there is no such file, it cannot be read, is damaged or of another format, holds more than data, or holds
      no tensor; the message says which.
  """
  name = os.fspath(path)
  try:
    content = _content(path)
    room = Room(len(content))
    found = {}
    for key, value in _tensors(content, name, room).items():
      values = value.array() if isinstance(value, Deferred) else value
      if values is not None and values.dtype.kind in 'biufc':
        found[key] = _plain(values, room)
    if not found:
      raise Refused('holds no tensor.')
    return found
  except FileNotFoundError as error:
    raise UserError(f'there is no file {error.filename}.') from error
  except OSError as error:
    raise UserError(f'cannot read {error.filename or name}: {error.strerror or error}.') from error
  except MemoryError as error:
    raise UserError(f'{name} does not fit into the memory of this machine.') from error
  except Refused as error:
    raise UserError(f'{name} {_line(error)}') from error
  except Exception as error:  # Broken files reach the parsers in many ways, and each has its own exceptions.
    raise UserError(f'{name} is cut off or damaged ({_line(error)[:200]}). Obtain it anew.') from error


def _content(path: str | os.PathLike[str]) -> bytes:
  mode = os.stat(path).st_mode
  if not stat.S_ISREG(mode):
    raise Refused('is a folder; give the file of weights itself.' if stat.S_ISDIR(mode) else 'is no regular file.')
  with open(path, 'rb') as file:
    return file.read()


def _tensors(content: bytes, name: str, room: Room) -> dict[str, Deferred] | dict[str, np.ndarray]:
  if content.startswith(dlib.MAGIC):
    return dlib.read(content)
  if content[:4] in (b'PK\3\4', b'PK\5\6'):
    archive = arrays.open_zip(content)
    return arrays.read_npz(archive, room) if arrays.is_npz(archive) else torch.read_zip(archive, room)
  if arrays.is_safetensors(content):
    return arrays.read_safetensors(content, room)
  if content[:64].lstrip()[:1] == b'{':
    return tfjs.read(content, os.path.dirname(name), room)
  if torch.MAGIC in content[:64]:
    return torch.read_old(content, room)
  if pickles.is_pickle(content):
    return torch.read_pickle(content, room)
  raise Refused(foreign.what(content))


def _line(error: Exception) -> str:
  """What an exception says, in which parts of a damaged file can be anything."""
  text = ' '.join(str(error).split()) or type(error).__name__
  return ''.join(character if character.isprintable() else '?' for character in text)


def _plain(values: np.ndarray, room: Room) -> np.ndarray:
  """A copy of its own: float32, or of its own type in the machine's order of bytes."""
  dtype = np.dtype(np.float32) if values.dtype.kind == 'f' else values.dtype.newbyteorder('=')
  room.take(values.size * dtype.itemsize)
  with np.errstate(over='ignore'):  # A float64 beyond float32 becomes infinite.
    return np.array(values, dtype, order='C')
