"""The names that pickles of arrays and settings may hold, and what they make: data, by functions of our own."""

import math
import re
from typing import Any

import numpy as np

from fer_jax.models.tensors.limits import Refused
from fer_jax.models.tensors.values import KEYS, Deferred, Made, Name, Names, Ordered, Record


class Array(Deferred):
  """A NumPy array, empty until it is given its state."""

  def __init__(self, values: np.ndarray | None = None):
    self._values = values

  def build(self, state: Any) -> None:
    """Takes (version, shape, type, whether columns come first, data); the version came later."""
    shape, dtype, columns, content = state[-4:]
    self._values = _array(content, dtype, shape, 'F' if columns else 'C')

  def array(self) -> np.ndarray | None:
    """As ``Deferred``."""
    return self._values


class Type(Made):
  """A NumPy type; ``dtype`` is None where its values are no numbers."""

  def __init__(self, text: Any, *_: Any):
    numbers = isinstance(text, str) and re.fullmatch(r'[<>=|]?(?:[biufc]\d{1,2}|\?|[bBhHiIlLqQefdFD])', text)
    self.dtype = np.dtype(text) if numbers else None

  def build(self, state: Any) -> None:
    """Takes (version, byte order, ...)."""
    if self.dtype is not None:
      self.dtype = self.dtype.newbyteorder(state[1] if state[1] in ('<', '>') else '|')


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray | None:
  if not isinstance(dtype, Type) or dtype.dtype is None:
    return None
  content = content.encode('latin-1') if isinstance(content, str) else content  # Python 2 has one type for both.
  if not isinstance(content, bytes | bytearray) or not all(
      type(side) is int and 0 <= side < 1 << 48 for side in shape) or len(shape) > 32:
    raise ValueError('an array of its pickle has no numbers or no shape')
  if math.prod(shape) * dtype.dtype.itemsize != len(content):
    raise Refused(f'holds an array whose shape {tuple(shape)} needs other than its {len(content):,} bytes: it is '
                  'damaged. Obtain it anew.')
  return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _from_buffer(content: Any, dtype: Any, shape: Any, order: str, axes: Any = None) -> Array:
  """An array of protocol 5."""
  values = _array(content, dtype, shape, 'C' if order == 'K' else order)
  return Array(values if axes is None or values is None else values.transpose(axes))


def _encoded(text: str, encoding: str = 'utf-8') -> bytes:
  """The bytes that protocols before 3 hold as text."""
  if encoding not in ('latin1', 'latin-1', 'utf-8', 'ascii'):
    raise ValueError('its pickle encodes text in an unknown way')
  return text.encode(encoding)


def _bytes(content: Any = b'', *encoding: Any) -> bytes:
  """The bytes that protocols before 5 make a bytearray of; a number would be a length."""
  if encoding:
    return _encoded(content, *encoding)
  if not isinstance(content, bytes):
    raise ValueError('its pickle makes bytes of something else')
  return content


def _reconstructed(kind: Any, *_: Any) -> Made:
  """copyreg._reconstructor's: an object of protocols before 2."""
  if isinstance(kind, Name) and kind.make:
    return kind.make()
  raise ValueError('its pickle makes an object of no class')


def value(*_: Any) -> Made:
  """Something that is not needed."""
  return Made()


def _ordered(items: Any = ()) -> Ordered:
  return Ordered((key, value) for key, value in (items.items() if isinstance(items, dict) else items)
                 if isinstance(key, KEYS))


NAMES: Names = {
    'numpy._core.multiarray._reconstruct': lambda *_: Array(),
    'numpy._core.numeric._frombuffer': _from_buffer,
    'numpy._core.multiarray.scalar': value,
    'numpy.ndarray': None,
    'numpy.dtype': Type,
    'collections.OrderedDict': _ordered,
    'collections.Counter': _ordered,
    'collections.defaultdict': lambda *_: Ordered(),
    **dict.fromkeys(('easydict.EasyDict', 'yacs.config.CfgNode', 'lightning_fabric.utilities.data.AttributeDict',
                     'pytorch_lightning.utilities.parsing.AttributeDict'), _ordered),
    'argparse.Namespace': Record,
    'types.SimpleNamespace': Record,
    '_codecs.encode': _encoded,
    'copyreg._reconstructor': _reconstructed,
    'builtins.bytearray': _bytes,
    'builtins.bytes': _bytes,
    **{f'builtins.{name}': list for name in ('list', 'tuple', 'set', 'frozenset')},
    'builtins.dict': _ordered,
    'builtins.object': None,
    **{f'builtins.{name}': value for name in (
        'int', 'long', 'float', 'bool', 'complex', 'str', 'unicode', 'basestring', 'range', 'xrange', 'slice')},
    **{f'pathlib.{name}': value for name in (
        'Path', 'PosixPath', 'WindowsPath', 'PurePath', 'PurePosixPath', 'PureWindowsPath')},
    **{f'datetime.{name}': value for name in ('datetime', 'date', 'time', 'timedelta')},
    **{f'numpy.{name}': None for name in (
        'bool', 'bool_', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'float16', 'float32',
        'float64')},
}
