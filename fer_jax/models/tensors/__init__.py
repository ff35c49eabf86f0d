"""Files of weights from elsewhere as ``{name: array}``, whatever network they are of; no file is run.

PyTorch's (``torch.save``, new form and old), safetensors, pickles and .npz files of arrays, dlib's face network, and
TensorFlow.js models.
"""

import io
import os
import zipfile

import numpy as np

from fer_jax.errors import UserError
from fer_jax.models.tensors import dlib, torch
from fer_jax.models.tensors.limits import Refused, Room
from fer_jax.models.tensors.pickles import Deferred


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads a file of weights, whose format its content tells.

  Returns:
    The tensors by dotted names ('state_dict.layer1.0.conv1.weight'), in the file's order: float32 where they are floats
    of any size, else of their own type. What is no tensor is left out.

  Raises:
    UserError: there is no such file, it cannot be read, is damaged or of another format, or holds more than data; the
      message says which.
  """
  try:
    with open(path, 'rb') as file:
      content = file.read()
    room = Room(len(content))
    found = {name: value.array() if isinstance(value, Deferred) else value
             for name, value in _tensors(content, room).items()}
    return {name: _plain(value, room) for name, value in found.items() if value is not None}
  except Refused as error:
    raise UserError(f'{os.fspath(path)} {error}') from error
  except OSError as error:
    raise UserError(f'cannot read {os.fspath(path)}: {error.strerror or error}.') from error
  except Exception as error:  # Broken files reach the parsers in many ways, and each has its own exceptions.
    raise UserError(f'{os.fspath(path)} is cut off or damaged ({error}). Obtain it anew.') from error


def _tensors(content: bytes, room: Room) -> dict[str, Deferred] | dict[str, np.ndarray]:
  if content.startswith(dlib.MAGIC):
    return dlib.read(content)
  if torch.MAGIC in content[:64]:
    return torch.read_old(content, room)
  if content.startswith(b'PK'):
    return torch.read_zip(zipfile.ZipFile(io.BytesIO(content)), room)
  return torch.read_pickle(content, room)


def _plain(values: np.ndarray, room: Room) -> np.ndarray:
  """A copy of its own: float32, or of its own type in the machine's order of bytes."""
  dtype = np.dtype(np.float32) if values.dtype.kind == 'f' else values.dtype.newbyteorder('=')
  room.take(values.size * dtype.itemsize)
  with np.errstate(over='ignore'):
    return np.array(values, dtype, order='C')
