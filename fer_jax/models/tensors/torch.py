"""Files of ``torch.save``, without PyTorch: the zip archives that it writes since 1.6, and the older form."""

import functools
import io
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fer_jax.models.tensors import pickles
from fer_jax.models.tensors.limits import Refused, Room
from fer_jax.models.tensors.names import NAMES, value
from fer_jax.models.tensors.pickles import Deferred, Made, Name

MAGIC = (0x1950a86a20f9469cfc6c).to_bytes(10, 'little')  # The number in the first pickle of the older form.

_STORED = {'Float': 'f4', 'Double': 'f8', 'Half': 'f2', 'BFloat16': 'u2', 'Long': 'i8', 'Int': 'i4', 'Short': 'i2',
           'Char': 'i1', 'Byte': 'u1', 'Bool': '?', 'ComplexFloat': 'c8', 'ComplexDouble': 'c16', 'Untyped': 'u1',
           'uint16': 'u2', 'uint32': 'u4', 'uint64': 'u8'}  # The last have no storages of their own, only tensors.
_TYPES = ('float16', 'float32', 'float64', 'bfloat16', 'bool', 'uint8', 'uint16', 'uint32', 'uint64', 'int8', 'int16',
          'int32', 'int64', 'complex64', 'complex128')


class _Storage:
  """Numbers in a file, which tensors are views of."""

  def __init__(self, kind: str, count: Any):
    if type(count) is not int or count < 0:
      raise ValueError('a storage has no size')
    self.kind, self.count = kind, count
    self.dtype = np.dtype(_STORED[kind]).newbyteorder('<')
    self._numbers: np.ndarray | None = None

  def fill(self, content: memoryview | bytes, big: bool, room: Room) -> None:
    """Takes the bytes of the file; ``big``: big-endian ones."""
    if len(content) != self.count * self.dtype.itemsize:
      raise Refused(f'says that a tensor has {self.count:,} numbers, and has {len(content):,} bytes of them: it is cut '
                    'off or damaged. Obtain it anew.')
    numbers = np.frombuffer(content, self.dtype.newbyteorder('>' if big else '<'))
    if self.kind == 'BFloat16':  # The upper half of a float32.
      room.take(4 * numbers.size)
      numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    self._numbers = numbers

  def numbers(self) -> np.ndarray:
    """All of them; those of bfloat16 are float32."""
    if self._numbers is None:
      raise Refused('lacks the numbers of a tensor: it is damaged. Obtain it anew.')
    return self._numbers


class _Part(_Storage):
  """A part of a storage, or the whole as numbers of another kind."""

  def __init__(self, whole: _Storage, start: Any, count: Any, kind: str):
    super().__init__(kind, count)
    self._whole, self._start = whole, start
    if type(start) is not int or start < 0 or (start + count) * self.dtype.itemsize > whole.count * whole.dtype.itemsize:
      raise Refused('holds a tensor that reaches beyond the numbers stored for it: it is damaged. Obtain it anew.')

  def numbers(self) -> np.ndarray:
    """As ``_Storage``."""
    whole = self._whole.numbers()
    return (whole if self.kind == self._whole.kind else whole.view(self.dtype))[self._start:self._start + self.count]


class _Tensor(Deferred):
  """A view of a storage."""

  def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any = None, hooks: Any = None,
               metadata: Any = None):
    self._sizes, self._strides = tuple(size), tuple(stride)
    if not isinstance(storage, _Storage) or len(self._sizes) != len(self._strides) or not all(
        type(number) is int and number >= 0 for number in (offset, *self._sizes, *self._strides)):
      raise ValueError('a tensor has no storage or no shape')
    last = offset + sum((length - 1) * step for length, step in zip(self._sizes, self._strides, strict=True))
    if 0 not in self._sizes and last >= storage.count:
      raise Refused(f'holds a tensor of shape {self._sizes} that needs more than the {storage.count:,} numbers stored '
                    'for it: it is damaged. Obtain it anew.')
    if metadata:
      raise Refused(f'holds a tensor that is {" and ".join(map(str, metadata))} of the stored numbers; save it with '
                    'tensor.resolve_conj().resolve_neg().')
    self._storage, self._offset = storage, offset

  def array(self) -> np.ndarray:
    """As ``Deferred``."""
    numbers = self._storage.numbers()
    if 0 in self._sizes:
      return np.zeros(self._sizes, numbers.dtype)
    strides = [step * numbers.itemsize for step in self._strides]
    return np.lib.stride_tricks.as_strided(numbers[self._offset:], self._sizes, strides, writeable=False)


def _untyped(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any,
             metadata: Any = None) -> _Tensor:
  """A tensor of a type that has no storages of its own."""
  kind = dtype.text.rpartition('.')[2] if isinstance(dtype, Name) else ''
  if not isinstance(storage, _Storage) or kind not in _STORED:
    raise ValueError('a tensor has no storage or no type')
  bytes_each = np.dtype(_STORED[kind]).itemsize
  whole = _Part(storage, 0, storage.count * storage.dtype.itemsize // bytes_each, kind)
  return _Tensor(whole, offset, size, stride, metadata=metadata)


def _of_class(rebuild: Any, _: Any, arguments: Any, *__: Any) -> Any:
  """A tensor with attributes."""
  if not isinstance(rebuild, Name) or not rebuild.text.startswith('torch._utils.') or not rebuild.make:
    raise ValueError('a tensor has no numbers')
  return rebuild.make(*arguments)


def _names(room: Room) -> Mapping[str, Callable[..., Any] | None]:
  """What makes data of the arguments, by name; see ``pickles.load``."""
  return NAMES | {
      'torch._utils._rebuild_tensor': _Tensor,
      'torch._utils._rebuild_tensor_v2': _Tensor,
      'torch._utils._rebuild_tensor_v3': _untyped,
      'torch._utils._rebuild_parameter': lambda tensor, *_: tensor,
      'torch._utils._rebuild_parameter_with_state': lambda tensor, *_: tensor,
      'torch._tensor._rebuild_from_type_v2': _of_class,
      'torch.storage._load_from_bytes': functools.partial(_load_old, room=room),  # A tensor in a plain pickle.
      'torch.Size': tuple,
      'torch.device': value,
      'torch.serialization._get_layout': value,
      **dict.fromkeys(('torch.Tensor', 'torch.nn.parameter.Parameter', 'torch.nn.parameter.Buffer')),
      **dict.fromkeys((f'torch.{kind}Storage' for kind in _STORED if kind[0].isupper())),
      **dict.fromkeys(('torch.storage.UntypedStorage', 'torch.storage._UntypedStorage')),
      **dict.fromkeys(f'torch.{name}' for name in (*_TYPES, 'strided')),
  }


def _known(storages: dict[str, _Storage], identity: Any) -> tuple[str, _Storage]:
  """The key of a persistent id, and its storage, new or not."""
  what, named, key, _, count, *_ = identity
  kind = re.fullmatch(r'torch\.(?:storage\._?)?(\w+)Storage', named.text if isinstance(named, Name) else '')
  if what != 'storage' or not kind or not isinstance(key, str):
    raise Refused('has a tensor whose numbers lie where they are not known here. Save it anew with torch.save.')
  storage = storages.setdefault(key, _Storage(kind[1], count))
  if (storage.kind, storage.count) != (kind[1], count):
    raise Refused(f"describes the numbers '{key[:20]}' in two ways: it is damaged. Obtain it anew.")
  return key, storage


def read_pickle(content: bytes, room: Room) -> dict[str, Deferred]:
  """The tensors in a plain pickle of arrays or tensors; raises as ``pickles.load`` and ``pickles.flat``."""
  file = io.BytesIO(content)
  found = pickles.load(file, _names(room), room)
  if more := len(content) - file.tell():
    raise Refused(f'has {more:,} bytes after the end of its pickle; save one dictionary of names and arrays.')
  return pickles.flat(found, room)


def read_old(content: bytes, room: Room) -> dict[str, Deferred]:
  """The tensors in a file from before PyTorch 1.6; raises as ``read_pickle``."""
  return pickles.flat(_load_old(content, room), room)


def _load_old(content: bytes, room: Room) -> Any:
  file = io.BytesIO(content)
  storages: dict[str, _Storage] = {}

  def persistent(identity: Any) -> _Storage:
    _, storage = _known(storages, identity)
    if len(identity) > 5 and identity[5] is not None:
      _, start, count = identity[5]
      return _Part(storage, start, count, storage.kind)
    return storage

  names = _names(room)
  number, protocol, _ = (pickles.load(file, names, room) for _ in range(3))  # The third: sizes of types in C.
  if number != int.from_bytes(MAGIC, 'little') or protocol != 1001:
    raise Refused('is no file of torch.save that is known here.')
  found = pickles.load(file, names, room, persistent)
  for key in pickles.load(file, names, room):
    storage, count = storages[key], int.from_bytes(file.read(8), 'little')
    start = file.tell()
    size = min(storage.count * storage.dtype.itemsize, len(content) - start)
    if count != storage.count or file.seek(start + size) > len(content):
      raise Refused(f'says that a tensor has {storage.count:,} numbers, and then {count:,}: it is cut off or damaged. '
                    'Obtain it anew.')
    storage.fill(memoryview(content)[start:start + size], False, room)
  if more := len(content) - file.tell():
    raise Refused(f'has {more:,} bytes after its last tensor: it is damaged. Obtain it anew.')
  return found


def read_zip(archive: zipfile.ZipFile, room: Room) -> dict[str, Deferred]:
  """The tensors in an archive of ``torch.save``; raises as ``read_pickle``."""
  files = {info.filename: info for info in archive.infolist()}
  first = next((name for name in files if re.fullmatch(r'[^/]*/data\.pkl', name)), '')
  top = first.rpartition('/')[0]
  if f'{top}/constants.pkl' in files or any(name.startswith(f'{top}/code/') for name in files):
    raise Refused('is a program of TorchScript, not a file of weights. Save its weights with PyTorch: '
                  'torch.save(torch.jit.load(PATH).state_dict(), OTHER).')
  if not first:
    raise Refused('is a zip archive without the data.pkl of torch.save and without .npy files; give the file of weights '
                  'itself.')
  storages: dict[str, _Storage] = {}

  def read(name: str) -> bytes:
    if name not in files:
      raise Refused(f'lacks its part {name[:80]}: it is cut off or damaged. Obtain it anew.')
    room.take(files[name].file_size)
    return archive.read(files[name])

  big = f'{top}/byteorder' in files and read(f'{top}/byteorder') == b'big'

  def persistent(identity: Any) -> Made:
    known = len(storages)
    key, storage = _known(storages, identity)
    if len(storages) > known:
      storage.fill(read(f'{top}/data/{key}'), big, room)
    return storage

  return pickles.flat(pickles.load(io.BytesIO(read(first)), _names(room), room, persistent), room)
