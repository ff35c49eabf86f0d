"""Files of ``torch.save``, without PyTorch: the zip archives that it writes since 1.6, and the older form."""

import functools
import io
import re
import zipfile
from typing import Any

from fer_jax.models.tensors import pickles
from fer_jax.models.tensors.arrays import part
from fer_jax.models.tensors.limits import Refused, Room
from fer_jax.models.tensors.names import NAMES, value
from fer_jax.models.tensors.storages import STORED, Part, Storage, Tensor, untyped
from fer_jax.models.tensors.values import Deferred, Name, Names, flat

MAGIC = (0x1950a86a20f9469cfc6c).to_bytes(10, 'little')  # The number in the first pickle of the older form.

_TYPES = ('float16', 'float32', 'float64', 'bfloat16', 'bool', 'uint8', 'uint16', 'uint32', 'uint64', 'int8', 'int16',
          'int32', 'int64', 'complex64', 'complex128')


def _of_class(rebuild: Any, _: Any, arguments: Any, *__: Any) -> Any:
  """A tensor with attributes."""
  if not isinstance(rebuild, Name) or not rebuild.text.startswith('torch._utils.') or not rebuild.make:
    raise ValueError('a tensor has no numbers')
  return rebuild.make(*arguments)


def _names(room: Room) -> Names:
  """Those that files of PyTorch may hold."""
  return NAMES | {
      'torch._utils._rebuild_tensor': Tensor,
      'torch._utils._rebuild_tensor_v2': Tensor,
      'torch._utils._rebuild_tensor_v3': untyped,
      'torch._utils._rebuild_parameter': lambda tensor, *_: tensor,
      'torch._utils._rebuild_parameter_with_state': lambda tensor, *_: tensor,
      'torch._tensor._rebuild_from_type_v2': _of_class,
      'torch.storage._load_from_bytes': functools.partial(_load_old, room=room),  # A tensor in a plain pickle.
      'torch.Size': tuple,
      'torch.device': value,
      'torch.serialization._get_layout': value,
      **dict.fromkeys(('torch.Tensor', 'torch.nn.parameter.Parameter', 'torch.nn.parameter.Buffer')),
      **dict.fromkeys(f'torch.{kind}Storage' for kind in STORED if kind[0].isupper()),
      **dict.fromkeys(('torch.storage.UntypedStorage', 'torch.storage._UntypedStorage')),
      **dict.fromkeys(f'torch.{name}' for name in (*_TYPES, 'strided')),
  }


def _known(storages: dict[str, Storage], identity: Any) -> tuple[str, Storage]:
  """The key of a persistent id, and its storage, new or not."""
  what, named, key, _, count, *_ = identity
  kind = re.fullmatch(r'torch\.(?:storage\._?)?(\w+)Storage', named.text if isinstance(named, Name) else '')
  if what != 'storage' or not kind or not isinstance(key, str):
    raise Refused('has a tensor whose numbers lie where they are not known here. Save it anew with torch.save.')
  storage = storages.setdefault(key, Storage(kind[1], count))
  if (storage.kind, storage.count) != (kind[1], count):
    raise Refused(f"describes the numbers '{key[:20]}' in two ways: it is damaged. Obtain it anew.")
  return key, storage


def read_pickle(content: bytes, room: Room) -> dict[str, Deferred]:
  """The tensors in a plain pickle of arrays or tensors; raises as ``pickles.load`` and ``values.flat``."""
  file = io.BytesIO(content)
  found = pickles.load(file, _names(room), room)
  if more := len(content) - file.tell():
    raise Refused(f'has {more:,} bytes after the end of its pickle; save one dictionary of names and arrays.')
  return flat(found, room)


def read_old(content: bytes, room: Room) -> dict[str, Deferred]:
  """The tensors in a file from before PyTorch 1.6; raises as ``read_pickle``."""
  return flat(_load_old(content, room), room)


def _load_old(content: bytes, room: Room) -> Any:
  file = io.BytesIO(content)
  storages: dict[str, Storage] = {}

  def persistent(identity: Any) -> Storage:
    _, storage = _known(storages, identity)
    if len(identity) > 5 and identity[5] is not None:
      _, start, count = identity[5]
      return Part(storage, start, count, storage.kind)
    return storage

  names = _names(room)
  number, protocol, _ = (pickles.load(file, names, room) for _ in range(3))  # The third: sizes of types in C.
  if number != int.from_bytes(MAGIC, 'little') or protocol != 1001:
    raise Refused('is no file of torch.save that is known here.')
  found = pickles.load(file, names, room, persistent)
  for key in pickles.load(file, names, room):
    if not isinstance(key, str) or key not in storages:
      raise ValueError('it has numbers of no tensor')
    storage, count = storages[key], int.from_bytes(file.read(8), 'little')
    if count != storage.count:
      raise Refused(f'says that a tensor has {storage.count:,} numbers, and then {count:,}: it is cut off or damaged. '
                    'Obtain it anew.')
    start = file.tell()
    end = start + count * storage.dtype.itemsize
    storage.fill(memoryview(content)[start:end], False, room)
    file.seek(end)
  if more := len(content) - file.tell():
    raise Refused(f'has {more:,} bytes after its last tensor: it is damaged. Obtain it anew.')
  return found


def read_zip(archive: zipfile.ZipFile, room: Room) -> dict[str, Deferred]:
  """The tensors in an archive of ``torch.save``; raises as ``read_pickle``."""
  files = archive.namelist()
  first = next((name for name in files if re.fullmatch(r'[^/]*/data\.pkl', name)), '')
  top = first.rpartition('/')[0]
  if f'{top}/constants.pkl' in files or any(name.startswith(f'{top}/code/') for name in files):
    raise Refused('is a program of TorchScript, not a file of weights. Save its weights with PyTorch: '
                  'torch.save(torch.jit.load(PATH).state_dict(), OTHER).')
  if not first:
    raise Refused('is a zip archive, but none of torch.save (data.pkl) or numpy.savez (.npy); unpack it, and give the '
                  'file of weights itself.')
  storages: dict[str, Storage] = {}
  big = f'{top}/byteorder' in files and part(archive, f'{top}/byteorder', room) == b'big'

  def persistent(identity: Any) -> Storage:
    known = len(storages)
    key, storage = _known(storages, identity)
    if len(storages) > known:
      storage.fill(part(archive, f'{top}/data/{key}', room), big, room)
    return storage

  return flat(pickles.load(io.BytesIO(part(archive, first, room)), _names(room), room, persistent), room)
