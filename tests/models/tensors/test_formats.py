"""Archives of arrays, safetensors and TensorFlow.js; and what each file is that is none of these."""

import errno
import io
import json
import os
import struct
import tarfile

import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from fer_jax.errors import UserError
from fer_jax.models import tensors
from fer_jax.models.tensors import limits
from tests.models.tensors import writers
from tests.models.tensors.writers import assert_same

RNG = np.random.default_rng(0)
ARRAYS = {
    'layer1/conv.weight': RNG.normal(size=(2, 3, 2, 2)).astype(np.float32),
    'columns': np.asfortranarray(RNG.normal(size=(3, 5))),
    'half': RNG.normal(size=3).astype(np.float16),
    'big': np.arange(4).astype('>i4'),
    'one': np.array(7),
    'empty': np.zeros((0, 2), np.float32),
}


def npz(save=np.savez, **arrays):
  file = io.BytesIO()
  save(file, **arrays)
  return file.getvalue()


def npy(descr, shape, content):
  """A .npy file whose header may lie."""
  file = io.BytesIO()
  np.lib.format.write_array_header_1_0(file, {'descr': descr, 'fortran_order': False, 'shape': shape})
  return file.getvalue() + content


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_npz(read, save):
  assert_same(read(npz(save, **ARRAYS, texts=np.array(['a']))), ARRAYS)


@pytest.mark.parametrize('content, words', [
    (npz(a=np.array([{}], object)), "Python objects as 'a'"),
    (npz(a=np.array(['x'])), 'holds no tensor'),
    (npz(**ARRAYS)[:-30], 'without its end'),
    (npz(a=np.arange(99)).replace(np.arange(99).tobytes(), bytes(792)), "a damaged part 'a.npy'"),
    (writers.archive({'a.npy': npy('<f4', (1 << 40,), b'1234')}), 'does not fit its 4 bytes'),
    (writers.archive({'a.npy': npy('<f4', (-1,), b'1234')}), 'does not fit its 4 bytes'),
    (writers.archive({'a.npy': npy('<f4', (2,), b'123456789')}), 'does not fit its 9 bytes'),
    (writers.archive({'a.npy': b'no array'}), 'cut off or damaged'),
    (writers.archive({'a.npy': npy('<f4', (1,), b'1234'), 'b.txt': b''}), 'none of torch.save'),
    (writers.archive({}), 'none of torch.save'),
])
def test_other_archives(refused, content, words):
  assert words in refused(content)


def test_a_compressed_array_that_grows_beyond_its_file(read, refused, monkeypatch):
  content = npz(np.savez_compressed, a=np.zeros(1 << 22, np.uint8))
  assert read(content)['a'].size == 1 << 22
  monkeypatch.setattr(limits, '_LEAST', 1 << 22)
  assert 'far more memory' in refused(content)


def test_safetensors(read):
  native = {name.replace('/', '.'): values.astype(values.dtype.newbyteorder('='), order='C')
            for name, values in sorted(ARRAYS.items())}
  assert_same(read(safetensors.numpy.save(native, {'format': 'pt'})), dict(sorted(native.items())))


def test_bfloat16_in_safetensors(read):
  numbers = np.float32([[1, -2.5], [3e38, 2**-133]])
  bits = (numbers.view(np.uint32) >> 16).astype('<u2')
  content = writers.safetensors({'a': ('BF16', [2, 2], bits.tobytes())})
  assert_same(read(content), {'a': (bits.astype(np.uint32) << 16).view(np.float32)})


@pytest.mark.parametrize('content, words', [
    (writers.safetensors({'a': ('F32', [2], bytes(8))})[:-1], 'is a safetensors file that is cut off or damaged'),
    (writers.safetensors({'a': ('F32', [2], bytes(8))})[:40], 'is a safetensors file that is cut off or damaged'),
    (writers.safetensors({'a': ('F32', [3], bytes(8))}), 'is a safetensors file that is cut off or damaged'),
    (writers.safetensors({'a': ('F32', [1 << 62, 4], bytes(8))}), 'is a safetensors file that is cut off or damaged'),
    (struct.pack('<Q', 1 << 20) + b'{"a":', 'is a safetensors file that is cut off or damaged'),
    (writers.safetensors({'a': ('F8_E4M3', [8], bytes(8))}), "'a' as F8_E4M3"),
    (writers.safetensors({}), 'holds no tensor'),
])
def test_damaged_safetensors(refused, content, words):
  assert words in refused(content)


def model(folder, weights, shards, **more):
  """A TensorFlow.js model: its manifest and its files of tensors."""
  for name, content in shards.items():
    (folder / name).write_bytes(content)
  return json.dumps({'format': 'graph-model', 'weightsManifest': [{'paths': [*shards], 'weights': weights}], **more}
                    ).encode()


def test_tensorflow_js_over_several_files(tmp_path, read):
  kernel, codes = RNG.normal(size=(2, 3)).astype('<f4'), np.array([[0, 128], [255, 7]], np.uint8)
  wide = np.array([0, 65535], '<u2')
  content = kernel.tobytes() + codes.tobytes() + b'\5\0\0\0' + np.float16([1.5]).tobytes() + wide.tobytes()
  text = model(tmp_path, [
      {'name': 'conv1/kernel', 'shape': [2, 3], 'dtype': 'float32'},
      {'name': 'packed', 'shape': [2, 2], 'dtype': 'float32',
       'quantization': {'dtype': 'uint8', 'scale': 0.5, 'min': -3, 'original_dtype': 'float32'}},
      {'name': 'axis', 'shape': [], 'dtype': 'int32'},
      {'name': 'half', 'shape': [1], 'dtype': 'float32', 'quantization': {'dtype': 'float16'}},
      {'name': 'wide', 'shape': [2], 'dtype': 'float32', 'quantization': {'dtype': 'uint16', 'scale': 1e-4, 'min': 1}},
  ], {'a.bin': content[:7], 'b.bin': content[7:]})
  assert_same(read(b'\n ' + text), {
      'conv1/kernel': kernel, 'packed': (codes * 0.5 - 3).astype(np.float32), 'axis': np.array(5, np.int32),
      'half': np.float32([1.5]), 'wide': (wide * 1e-4 + 1).astype(np.float32)})


ONE = [{'name': 'a', 'shape': [2], 'dtype': 'float32'}]


@pytest.mark.parametrize('weights, shards, words', [
    (ONE, {'a.bin': bytes(7)}, "ends before 'a'"),
    (ONE, {'a.bin': bytes(9)}, 'describes 8 bytes in a.bin, which has 9'),
    ([{'name': 'a', 'shape': [1 << 30, 1 << 30], 'dtype': 'float32'}], {'a.bin': bytes(8)}, "ends before 'a'"),
    ([{'name': 'a', 'shape': [-2], 'dtype': 'float32'}], {'a.bin': bytes(8)}, 'of shape [-2]'),
    ([{'name': 'a', 'shape': [2], 'dtype': 'string'}], {'a.bin': bytes(8)}, "'a' as string"),
    ([{'name': 'a', 'dtype': 'float32'}], {'a.bin': bytes(8)}, 'cut off or damaged'),
])
def test_damaged_tensorflow_js(tmp_path, refused, weights, shards, words):
  assert words in refused(model(tmp_path, weights, shards))


@pytest.mark.parametrize('name', ['../a.bin', '/etc/passwd', '..', '', 'b/a.bin', 3])
def test_files_of_tensors_lie_beside_the_model(refused, name):
  text = json.dumps({'weightsManifest': [{'paths': [name], 'weights': ONE}]}).encode()
  assert 'does not lie beside it' in refused(text)


def test_a_file_of_tensors_is_missing(tmp_path, read):
  text = json.dumps({'weightsManifest': [{'paths': ['a.bin'], 'weights': ONE}]}).encode()
  with pytest.raises(UserError, match=rf'there is no file {tmp_path}/a\.bin'):
    read(text)


def picture(kind):
  file = io.BytesIO()
  PIL.Image.new('RGB', (4, 4)).save(file, kind)
  return file.getvalue()


def packed():
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w') as tar:
    tar.addfile(tarfile.TarInfo('weights.pth'), io.BytesIO())
  return file.getvalue()


@pytest.mark.parametrize('content, words', [
    (b'', 'is empty'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', 'a pointer of Git LFS'),
    (b'<!DOCTYPE html><html>Not found</html>', 'is a web page'),
    (b'\n  <html>', 'is a web page'),
    (b'{"error": "not found"}', 'no model of TensorFlow.js'),
    (b'{"weightsManifest": 3}', 'no model of TensorFlow.js'),
    (b'{"weightsManifest": [', 'is JSON that is cut off or damaged'),
    (b'{"a":' + b'[' * 100_000, 'is JSON that is cut off or damaged'),
    *((picture(kind), 'is an image') for kind in ('PNG', 'JPEG', 'GIF', 'WEBP', 'BMP')),
    (b'\x1f\x8b\x08' + bytes(50), 'is compressed'), (b'BZh91AY&SY', 'is compressed'), (b'\xfd7zXZ\0', 'is compressed'),
    (packed(), 'is compressed or an archive'),
    (b'\x89HDF\r\n\x1a\n' + bytes(50), 'is HDF5'),
    (b'\x1c\0\0\0TFL3' + bytes(50), 'TensorFlow Lite'),
    (b'GGUF\3\0\0\0', 'GGUF'),
    (npy('<f4', (1,), bytes(4)), 'one array without a name'),
    (b'a text\n', 'of no format that is read here'),
    (b'PK is a text', 'of no format that is read here'),
    (bytes(1000), 'of no format that is read here'),
    (RNG.bytes(5000), 'of no format that is read here'),
])
def test_foreign_files(refused, content, words):
  assert words in refused(content)


def test_no_file_a_folder_and_a_device(tmp_path):
  for path, words in ((tmp_path / 'none', f'there is no file {tmp_path}/none'), (tmp_path, 'is a folder'),
                      ('/dev/zero', 'is no regular file')):
    with pytest.raises(UserError, match=words):
      tensors.read(path)


def test_no_permission(tmp_path, monkeypatch):
  path = tmp_path / 'file'
  path.write_bytes(npz(**ARRAYS))

  def open_it(name, mode):  # A chmod does not keep root out.
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(name))

  monkeypatch.setattr(tensors, 'open', open_it, raising=False)
  with pytest.raises(UserError, match=f'cannot read {path}: Permission denied'):
    tensors.read(path)


def test_the_ending_of_a_name_tells_nothing(tmp_path):
  (tmp_path / 'weights.safetensors').write_bytes(npz(a=np.ones(2, np.float32)))
  assert_same(tensors.read(str(tmp_path / 'weights.safetensors')), {'a': np.ones(2, np.float32)})
