"""Values as bytes and back, for files between processes: plain data, arrays, files in memory, and kinds of tuples.

Reading makes nothing but these, and of tuples and dataclasses those that the reader names: a file that somebody has
planted can be wrong, and no more.
"""

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

_TUPLE, _FILE, _ARRAY, _KIND = range(4)  # What msgpack has no type for.


def pack(value: Any) -> bytes:
  """Writes None, numbers, text, bytes, arrays of numbers, ``io.BytesIO``, and lists, tuples, dictionaries, named tuples
  and dataclasses of such.

  Raises:
    TypeError: something else is in it.
  """
  return msgpack.packb(value, default=_extension, strict_types=True)


def unpack(content: bytes, kinds: Sequence[type] = ()) -> Any:
  """Reads what ``pack`` has written; arrays cannot be changed.

  Args:
    kinds: the named tuples and dataclasses that may be in it.

  Raises:
    ValueError: it is damaged, or holds something else.
  """
  known = {_name(kind): kind for kind in kinds}

  def extension(code: int, data: bytes) -> Any:
    if code == _FILE:
      return io.BytesIO(data)
    value = unpack(data, kinds)
    if code == _TUPLE:
      return tuple(value)
    if code == _ARRAY:
      dtype, shape, numbers = value
      return np.frombuffer(numbers, np.dtype(dtype)).reshape(shape)[()]
    return known[value[0]](*value[1])

  try:
    return msgpack.unpackb(content, ext_hook=extension, strict_map_key=False)
  except Exception as e:  # Each layer has its own errors.
    raise ValueError(f'damaged: {e!r}') from e


def _extension(one: Any) -> msgpack.ExtType:
  if isinstance(one, io.BytesIO):
    return msgpack.ExtType(_FILE, one.getvalue())
  if isinstance(one, np.ndarray | np.generic) and one.dtype.kind in 'biuf':
    return msgpack.ExtType(_ARRAY, pack([one.dtype.str, list(one.shape), one.tobytes()]))
  if type(one) is tuple:
    return msgpack.ExtType(_TUPLE, pack(list(one)))
  if hasattr(one, '_fields'):
    return msgpack.ExtType(_KIND, pack([_name(type(one)), list(one)]))
  if dataclasses.is_dataclass(one):
    values = [getattr(one, field.name) for field in dataclasses.fields(one)]
    return msgpack.ExtType(_KIND, pack([_name(type(one)), values]))
  raise TypeError(f'{type(one)} cannot be packed')


def _name(kind: type) -> str:
  return f'{kind.__module__}.{kind.__qualname__}'
