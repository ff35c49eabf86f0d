"""Formats that hold named arrays and nothing else: .npz and safetensors."""

import io
import math
import zipfile

import numpy as np
import safetensors

from fer_jax.models.tensors.limits import Refused, Room

_TYPES = {'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'I64': '<i8', 'I32': '<i4', 'I16': '<i2', 'I8': 'i1', 'U64': '<u8',
          'U32': '<u4', 'U16': '<u2', 'U8': 'u1', 'BOOL': '?', 'C64': '<c8'}


def bfloat16(bits: np.ndarray, room: Room) -> np.ndarray:
  """uint16 patterns of bfloat16, the upper halves of float32, as float32."""
  room.take(8 * bits.size)  # Twice, for a moment.
  return (bits.astype(np.uint32) << 16).view(np.float32)


def open_zip(content: bytes) -> zipfile.ZipFile:
  """Opens an archive; raises Refused where it lacks its end."""
  try:
    return zipfile.ZipFile(io.BytesIO(content))
  except zipfile.BadZipFile as error:
    raise Refused('is an archive without its end: it is cut off. Obtain it anew.') from error


def part(archive: zipfile.ZipFile, name: str, room: Room) -> bytes:
  """A file of an archive; raises Refused where it is missing, damaged or too large."""
  try:
    info = archive.getinfo(name)
    room.take(info.file_size)
    return archive.read(info)
  except KeyError as error:
    raise Refused(f"lacks its part '{name[:80]}': it is damaged. Obtain it anew.") from error
  except zipfile.BadZipFile as error:
    raise Refused(f"has a damaged part '{name[:80]}'. Obtain it anew.") from error


def is_npz(archive: zipfile.ZipFile) -> bool:
  """Whether it holds arrays only."""
  names = archive.namelist()
  return bool(names) and all(name.endswith('.npy') for name in names)


def read_npz(archive: zipfile.ZipFile, room: Room) -> dict[str, np.ndarray]:
  """The arrays in an archive of ``numpy.savez``, compressed or not; raises Refused where one holds a pickle."""
  tensors = {}
  for name in archive.namelist():
    content = part(archive, name, room)
    file = io.BytesIO(content)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, columns, dtype = header[np.lib.format.read_magic(file)](file)
    if dtype.hasobject:
      raise Refused(f"holds Python objects as '{name[:-4]}', which are not read here; save arrays of numbers alone.")
    size = math.prod(shape) * dtype.itemsize
    if size != len(content) - file.tell():
      raise Refused(f"holds an array '{name[:-4]}' whose shape {shape} does not fit its {len(content) - file.tell():,} "
                    'bytes: it is damaged. Obtain it anew.')
    tensors[name[:-4]] = np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order='F' if columns else 'C')
  return tensors


def is_safetensors(content: bytes) -> bool:
  """Whether it begins with the length of a JSON text, and that text."""
  return content[8:9] == b'{' and int.from_bytes(content[:8], 'little') < 1 << 27


def read_safetensors(content: bytes, room: Room) -> dict[str, np.ndarray]:
  """The tensors of a safetensors file; the library checks that they lie in it, each at its own place."""
  try:
    found = safetensors.deserialize(content)
  except safetensors.SafetensorError as error:
    raise Refused(f'is a safetensors file that is cut off or damaged ({error}). Obtain it anew.') from error
  tensors = {}
  for name, tensor in sorted(found):
    kind, data = tensor['dtype'], tensor['data']
    if kind != 'BF16' and kind not in _TYPES:
      raise Refused(f"holds '{name}' as {kind}, which is not read here; save it as float32.")
    values = bfloat16(np.frombuffer(data, '<u2'), room) if kind == 'BF16' else np.frombuffer(data, _TYPES[kind])
    tensors[name] = values.reshape(tensor['shape'])
  return tensors
