"""Models of TensorFlow.js: a .json whose manifest says which tensors lie in the .bin files beside it."""

import json
import math
import os
from typing import Any

import numpy as np

from fer_jax.models.tensors.limits import Refused, Room

_TYPES = {'float32': '<f4', 'float16': '<f2', 'int32': '<i4', 'uint8': 'u1', 'uint16': '<u2', 'bool': '?',
          'complex64': '<c8'}
_WHAT = 'is JSON, but no model of TensorFlow.js: it has no weightsManifest.'


def read(content: bytes, folder: str, room: Room) -> dict[str, np.ndarray]:
  """The tensors that a model's manifest names, constants of the graph among them; quantised ones are float32 again.

  Args:
    content: of the .json.
    folder: where it lies.

  Raises:
    Refused: it is no such model, names a file elsewhere, or the files hold more or less than it says.
    FileNotFoundError: one of them is not there.
  """
  try:
    model = json.loads(content)
  except (ValueError, RecursionError) as error:
    raise Refused(f'is JSON that is cut off or damaged ({error}). Obtain it anew.') from error
  if not isinstance(model, dict) or not isinstance(groups := model.get('weightsManifest'), list):
    raise Refused(_WHAT)
  tensors = {}
  for group in groups:
    stored = b''.join(_stored(name, folder, room) for name in group['paths'])
    at = 0
    for entry in group['weights']:
      tensors[entry['name']], at = _tensor(entry, stored, at, room)
    if at != len(stored):
      raise Refused(f'describes {at:,} bytes in {", ".join(group["paths"])}, which has {len(stored):,}: one of them is '
                    'damaged, or they are of two models. Obtain them anew.')
  return tensors


def _stored(name: Any, folder: str, room: Room) -> bytes:
  if not isinstance(name, str) or os.path.basename(name) != name or not name.strip('.'):
    raise Refused(f"names '{name}' as a file of tensors, which does not lie beside it.")
  path = os.path.join(folder, name)
  with open(path, 'rb') as file:
    size = os.fstat(file.fileno()).st_size
    room.add(size)
    return file.read(size)


def _tensor(entry: dict[str, Any], stored: bytes, at: int, room: Room) -> tuple[np.ndarray, int]:
  """A tensor that begins at a byte, and where it ends."""
  scale = entry.get('quantization')
  kind = scale['dtype'] if scale else entry['dtype']
  shape = entry['shape']
  if kind not in _TYPES or not all(type(side) is int and 0 <= side < 1 << 40 for side in shape) or len(shape) > 32:
    raise Refused(f"describes '{entry['name']}' as {kind} of shape {shape}, which is not read here.")
  dtype = np.dtype(_TYPES[kind])
  end = at + math.prod(shape) * dtype.itemsize
  if end > len(stored):
    raise Refused(f"ends before '{entry['name']}': a file of tensors is cut off. Obtain it anew.")
  values = np.frombuffer(stored[at:end], dtype).reshape(shape)
  if scale and 'scale' in scale:
    room.take(12 * values.size)
    values = (values * np.float64(scale['scale']) + scale['min']).astype(np.float32)
  return values, end
