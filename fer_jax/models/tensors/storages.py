"""The numbers in files of ``torch.save``, and the tensors that are views of them."""

from typing import Any

import numpy as np

from fer_jax.models.tensors.arrays import bfloat16
from fer_jax.models.tensors.limits import Refused, Room
from fer_jax.models.tensors.values import Deferred, Name

# Types by the names of the storages that hold them.
STORED = {'Float': 'f4', 'Double': 'f8', 'Half': 'f2', 'BFloat16': 'u2', 'Long': 'i8', 'Int': 'i4', 'Short': 'i2',
          'Char': 'i1', 'Byte': 'u1', 'Bool': '?', 'ComplexFloat': 'c8', 'ComplexDouble': 'c16', 'Untyped': 'u1',
          'uint16': 'u2', 'uint32': 'u4', 'uint64': 'u8'}  # The last have no storages of their own, only tensors.
_MOST = 1 << 48  # Above any number of numbers: larger ones would only cost time.


class Storage:
  """Numbers in a file, which tensors are views of."""

  def __init__(self, kind: str, count: Any):
    if type(count) is not int or not 0 <= count < _MOST:
      raise ValueError('a storage has no size')
    self.kind, self.count = kind, count
    self.dtype = np.dtype(STORED[kind]).newbyteorder('<')
    self._numbers: np.ndarray | None = None

  def fill(self, content: memoryview | bytes, big: bool, room: Room) -> None:
    """Takes the bytes of the file; ``big``: big-endian ones."""
    if len(content) != self.count * self.dtype.itemsize:
      raise Refused(f'says that a tensor has {self.count:,} numbers, and has {len(content):,} bytes of them: it is cut '
                    'off or damaged. Obtain it anew.')
    numbers = np.frombuffer(content, self.dtype.newbyteorder('>' if big else '<'))
    if self.kind == 'BFloat16':
      numbers = bfloat16(numbers, room)
    self._numbers = numbers

  def numbers(self) -> np.ndarray:
    """All of them; those of bfloat16 are float32."""
    if self._numbers is None:
      raise Refused('lacks the numbers of a tensor: it is damaged. Obtain it anew.')
    return self._numbers


class Part(Storage):
  """A part of a storage, or the whole as numbers of another kind."""

  def __init__(self, whole: Storage, start: Any, count: Any, kind: str):
    super().__init__(kind, count)
    self._whole, self._start = whole, start
    whole_size = whole.count * whole.dtype.itemsize
    if type(start) is not int or start < 0 or (start + count) * self.dtype.itemsize > whole_size:
      raise Refused('holds a tensor that reaches beyond the numbers stored for it: it is damaged. Obtain it anew.')

  def numbers(self) -> np.ndarray:
    """As ``Storage``."""
    whole = self._whole.numbers()
    return (whole if self.kind == self._whole.kind else whole.view(self.dtype))[self._start:self._start + self.count]


class Tensor(Deferred):
  """A view of a storage."""

  def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any = None, hooks: Any = None,
               metadata: Any = None):
    self._sizes, self._strides = tuple(size), tuple(stride)
    if not isinstance(storage, Storage) or not len(self._sizes) == len(self._strides) <= 32 or not all(
        type(number) is int and 0 <= number < _MOST for number in (offset, *self._sizes, *self._strides)):
      raise ValueError('a tensor has no storage or no shape')
    last = offset + sum((length - 1) * step for length, step in zip(self._sizes, self._strides, strict=True))
    if 0 not in self._sizes and last >= storage.count:
      raise Refused(f'holds a tensor of shape {self._sizes} that needs more than the {storage.count:,} numbers stored '
                    'for it: it is damaged. Obtain it anew.')
    if metadata:
      raise Refused('holds a tensor that is the conjugate or the negative of the stored numbers; save '
                    'tensor.resolve_conj().resolve_neg().')
    self._storage, self._offset = storage, offset

  def array(self) -> np.ndarray:
    """As ``Deferred``."""
    numbers = self._storage.numbers()
    if 0 in self._sizes:
      return np.zeros(self._sizes, numbers.dtype)
    strides = [step * numbers.itemsize for step in self._strides]
    return np.lib.stride_tricks.as_strided(numbers[self._offset:], self._sizes, strides, writeable=False)


def untyped(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any,
             metadata: Any = None) -> Tensor:
  """A tensor of a type that has no storages of its own."""
  kind = dtype.text.rpartition('.')[2] if isinstance(dtype, Name) else ''
  if not isinstance(storage, Storage) or kind not in STORED:
    raise ValueError('a tensor has no storage or no type')
  bytes_each = np.dtype(STORED[kind]).itemsize
  whole = Part(storage, 0, storage.count * storage.dtype.itemsize // bytes_each, kind)
  return Tensor(whole, offset, size, stride, metadata=metadata)
