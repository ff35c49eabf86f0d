"""Writes what the readers read, without PyTorch and dlib: pickles with any names in them, archives, dlib's values."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np


class Global:
  """A name that a pickle refers to, whether there is such a thing or not."""

  def __init__(self, name):
    self.module, _, self.name = name.rpartition('.')

  def __call__(self):  # Pickle wants something that could be called.
    raise AssertionError(f'{self.module}.{self.name}')


class Call:
  """What a pickle makes by calling a name, and the state that it gives to it."""

  def __init__(self, name, *arguments, state=None):
    self.parts = (Global(name), arguments) + (() if state is None else (state,))

  def __reduce__(self):
    return self.parts


class Storage:
  """Numbers of torch.save; ``kind`` as in torch.FloatStorage, ``count`` and ``identity`` may lie."""

  def __init__(self, values, kind='Float', count=None, name=None, identity=None, view=None):
    self.content = np.ascontiguousarray(values)
    self.kind, self.count = kind, self.content.size if count is None else count
    self.name = name or f'torch.{kind}Storage'
    self.identity, self.view = identity, view


_MORE = (False, Call('collections.OrderedDict'))  # Whether it wants a gradient, and functions called with that.


def tensor(storage, size, stride, offset=0, more=_MORE, name='_rebuild_tensor_v2'):
  """A tensor as PyTorch pickles it: a view of a storage."""
  return Call(f'torch._utils.{name}', storage, offset, tuple(size), tuple(stride), *more)


def dense(values, kind='Float', **options):
  """A tensor of its own storage."""
  values = np.asarray(values)
  stride = [int(np.prod(values.shape[axis + 1:])) for axis in range(values.ndim)]
  return tensor(Storage(values, kind, **options), values.shape, stride)


class _Pickler(pickle._Pickler):
  """The standard library's in Python, with names that it need not find and with storages outside of the pickle."""

  def __init__(self, file, protocol, old):
    super().__init__(file, protocol, fix_imports=False)
    self.storages, self._old = {}, old

  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, Global):
      self.write(f'c{obj.module}\n{obj.name}\n'.encode())
    else:
      super().save(obj, save_persistent_id)

  def persistent_id(self, obj):
    if not isinstance(obj, Storage):
      return None
    key = next((key for key, one in self.storages.items() if one is obj), str(len(self.storages)))
    self.storages[key] = obj
    return obj.identity or ('storage', Global(obj.name), key, 'cpu', obj.count) + ((obj.view,) if self._old else ())


def pickled(value, protocol=2):
  """A plain pickle."""
  file = io.BytesIO()
  _Pickler(file, protocol, False).dump(value)
  return file.getvalue()


def torch_zip(value, top='archive', big=False, protocol=2, leave_out=(), more=(), **options):
  """An archive of torch.save; big: big-endian."""
  pickled = io.BytesIO()
  pickler = _Pickler(pickled, protocol, False)
  pickler.dump(value if not isinstance(value, bytes) else {})
  files = {'data.pkl': value if isinstance(value, bytes) else pickled.getvalue(),
           'byteorder': b'big' if big else b'little', 'version': b'3\n'}
  for key, storage in pickler.storages.items():
    files[f'data/{key}'] = (storage.content.byteswap() if big else storage.content).tobytes()
  return archive({f'{top}/{name}': content for name, content in (files | dict(more)).items() if name not in leave_out},
                 **options)


def archive(files, **options):
  """A zip archive of {name: content}."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', **options) as written:
    for name, content in files.items():
      written.writestr(name, content)
  return file.getvalue()


def torch_old(value, protocol=2, counts=None, version=1001):
  """A file of torch.save before 1.6; ``counts``: other numbers of numbers than there are, by storage."""
  file = io.BytesIO()
  for part in (0x1950a86a20f9469cfc6c, version, {'little_endian': True}):
    pickle.dump(part, file, protocol)
  pickler = _Pickler(file, protocol, True)
  if isinstance(value, bytes):
    file.write(value)
  else:
    pickler.dump(value)
  pickle.dump(list(pickler.storages), file, protocol)
  for key, storage in pickler.storages.items():
    file.write(struct.pack('<q', (counts or {}).get(key, storage.content.size)))
    file.write(storage.content.tobytes())
  return file.getvalue()


def safetensors(tensors):
  """{name: (type, shape, content)} by the format's definition; the library writes no bfloat16 of NumPy."""
  header, contents = {}, b''
  for name, (kind, shape, content) in tensors.items():
    header[name] = {'dtype': kind, 'shape': shape, 'data_offsets': [len(contents), len(contents) + len(content)]}
    contents += content
  text = json.dumps(header).encode()
  return struct.pack('<Q', len(text)) + text + contents


def integer(value):
  """dlib's: a byte of sign and length, and the bytes."""
  content = abs(value).to_bytes((max(abs(value).bit_length(), 1) + 7) // 8, 'little')
  return bytes([len(content) | (128 if value < 0 else 0)]) + content


def integers(*values):
  return b''.join(map(integer, values))


def text(value):
  return integer(len(value)) + value.encode()


def dlib_tensor(values, shape=None):
  values = np.float32(values)
  return integers(2, *(shape or (values.size, 1, 1, 1) if values.size else (0, 0, 0, 0))) + values.tobytes()


def dlib_view(*shape):
  return integers(1, *shape)


_IDLE = b'110' + dlib_tensor([]) * 3
RATES = integers(1, 0) * 4


def dlib_con(weight, bias, parameters=None):
  """A convolution of weights (out, in, height, width)."""
  parameters = np.concatenate([weight.ravel(), bias]) if parameters is None else parameters
  return (text('con_4') + dlib_tensor(parameters) + integers(weight.shape[0], *weight.shape[2:], 1, 1, 0, 0) +
          dlib_view(*weight.shape) + dlib_view(1, bias.size, 1, 1) + RATES)


def dlib_affine(weight, bias):
  return (text('affine_') + dlib_tensor(np.concatenate([weight, bias])) + dlib_view(1, weight.size, 1, 1) * 2 +
          integer(0))


def dlib_fc(matrix, bias=None):
  """A matrix (in, out)."""
  parameters = matrix.ravel() if bias is None else np.concatenate([matrix.ravel(), bias])
  return (text('fc_2') + integers(*matrix.shape[::-1]) + dlib_tensor(parameters) + dlib_view(*matrix.shape, 1, 1) +
          (dlib_view(1, bias.size, 1, 1) if bias is not None else dlib_view(0, 0, 0, 0)) +
          integer(int(bias is None)) + RATES)


def dlib_pool(kind='max_pool_2'):
  return text(kind) + integers(3, 3, 2, 2, 0, 0)


def dlib_net(layers, loss='loss_metric_2', image='input_rgb_image_sized', declared=None):
  """A network's file; ``declared``: how many layers it says it has."""
  versions = [2, 1] * ((len(layers) if declared is None else declared) - 1) + [3]
  net = integer(1) + text(loss) + integers(1, -4, 3, -2) + integers(*versions)
  net += text(image) + integers(122, 0, 117, 0, 104, 0) + integers(150, 150)
  return net + b''.join(layer + _IDLE + (integer(1) if not i else b'') for i, layer in enumerate(layers))


def assert_same(found, expected):
  """Names and their order, types and numbers; floats as float32."""
  assert list(found) == list(expected)
  for name, values in expected.items():
    kind = np.float32 if values.dtype.kind == 'f' else values.dtype.newbyteorder('=')
    assert found[name].dtype == kind and found[name].shape == values.shape, name
    np.testing.assert_array_equal(found[name], values.astype(kind), name)
