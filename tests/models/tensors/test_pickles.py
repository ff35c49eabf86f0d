"""Pickles are data: arrays of every protocol are read, and nothing in any file is ever run."""

import argparse
import ast
import collections
import io
import pathlib
import pickle

import numpy as np
import pytest

from fer_jax.models import tensors
from fer_jax.models.tensors import values
from tests.models.tensors import writers
from tests.models.tensors.writers import Call, Global, assert_same

RNG = np.random.default_rng(0)
ARRAYS = {
    'conv.weight': RNG.normal(size=(2, 3, 2, 2)).astype(np.float32),
    'wide': RNG.normal(size=3),
    'half': RNG.normal(size=3).astype(np.float16),
    'columns': np.asfortranarray(RNG.normal(size=(3, 5)).astype(np.float32)),
    'turned': RNG.normal(size=(2, 3, 4)).astype(np.float32).transpose(2, 0, 1),
    'big': np.arange(5).astype('>i4'),
    'bytes': np.arange(256).astype(np.uint8),
    'true': np.array([True, False]),
    'one': np.array(2.5, np.float32),
    'empty': np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize('protocol', range(6))
def test_arrays_of_every_protocol(read, protocol):
  found = read(pickle.dumps(ARRAYS, protocol))
  assert_same(found, ARRAYS)
  assert all(values.flags.owndata and values.flags.writeable and values.flags.c_contiguous for values in found.values())


# Written by Python 2.7 and NumPy 1.16: OrderedDict of 'w': np.array([1, -2], 'f4') and
# 'b': {'x': np.array([0, 200, 39, 10], 'u1')}.
PYTHON_2 = {
    0: (b"ccollections\nOrderedDict\np1\n((lp2\n(lp3\nS'w'\nacnumpy.core.multiarray\n_reconstruct\np4\n(cnumpy\nnda"
        b"rray\np5\n(I0\ntS'b'\ntRp6\n(I1\n(I2\ntcnumpy\ndtype\np7\n(S'f4'\nI0\nI1\ntRp8\n(I3\nS'<'\nNNNI-1\nI-1\nI"
        b"0\ntbI00\nS'\\x00\\x00\\x80?\\x00\\x00\\x00\\xc0'\ntbaa(lp9\nS'b'\na(dp10\nS'x'\ng4\n(g5\n(I0\ntS'b'\ntRp"
        b'11\n(I1\n(I4\ntg7\n(S\'u1\'\nI0\nI1\ntRp12\n(I3\nS\'|\'\nNNNI-1\nI-1\nI0\ntbI00\nS"\\x00\\xc8\'\\n"\ntbsa'
        b'atRp13\n.'),
    2: (b'\x80\x02ccollections\nOrderedDict\nq\x01]q\x02(]q\x03(U\x01wcnumpy.core.multiarray\n_reconstruct\nq\x04cn'
        b'umpy\nndarray\nq\x05K\x00\x85U\x01b\x87Rq\x06(K\x01K\x02\x85cnumpy\ndtype\nq\x07U\x02f4K\x00K\x01\x87Rq'
        b'\x08(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00\xc0tbe]q\t'
        b'(U\x01b}q\nU\x01xh\x04h\x05K\x00\x85U\x01b\x87Rq\x0b(K\x01K\x04\x85h\x07U\x02u1K\x00K\x01\x87Rq\x0c(K\x03'
        b"U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x00\xc8'\ntbsee\x85Rq\r."),
}


@pytest.mark.parametrize('protocol', PYTHON_2)
def test_arrays_of_python_2(read, protocol):
  assert_same(read(PYTHON_2[protocol]),
              {'w': np.array([1, -2], np.float32), 'b.x': np.array([0, 200, 39, 10], np.uint8)})


@pytest.mark.parametrize('protocol', range(6))
def test_names_are_the_way_through_dictionaries_lists_and_settings(read, protocol):
  one, two, three, four = np.float32([[1], [2], [3], [4]])
  value = collections.OrderedDict(
      state={'a.weight': one, 'list': [2.5, two, ('x', three)], 3: {b'key': four}},
      epoch=7, name='net', none=None, scores=[0.1, 0.2], best=np.float64(3), path=pathlib.PurePosixPath('a/b'),
      args=argparse.Namespace(lr=0.1, mean=one), seen={1, 2}, frozen=frozenset([1]), raw=b'abc',
      other=bytearray(b'abc'), counts=collections.Counter('aab'), lists=collections.defaultdict(list, x=[one]),
      kind=np.float32, texts=np.array(['a']), objects=np.array([None, 'a'], object),
      when=np.array(['2020-01-01'], 'M8[D]'), large=10**30, pair={(1, 2): 3})
  found = read(pickle.dumps(value, protocol))
  assert_same(found, {'state.a.weight': one, 'state.list.1': two, 'state.list.2.1': three, 'state.3.key': four,
                      'args.mean': one, 'lists.x.0': one})


@pytest.mark.parametrize('value, words', [
    ({'a.b': np.ones(1), 'a': {'b': np.ones(1)}}, "two tensors of the name 'a.b'"),
    (np.ones(1), 'one tensor without a name'),
    ({'a': 1}, 'holds no tensor'),
    ({'a': np.array(['x'])}, 'holds no tensor'),
])
def test_pickles_without_names_for_tensors(refused, value, words):
  assert words in refused(pickle.dumps(value))


# Planted code: how a pickle comes to call something, each as a program that does so if it is run.


def plants(command):
  """Pickles that run a command of the shell, by the operation that does it or the place where it is done."""
  line = f'S{command!r}\n'.encode()
  wrapped = lambda inner: b'\x80\x02}(X\x01\x00\x00\x00a' + inner + b'u.'
  text = command.encode()
  short = b'\x8c' + bytes([len(text)]) + text
  return {
      'REDUCE': b'cposix\nsystem\n(' + line + b'tR.',
      'REDUCE, not used': b'\x80\x02cposix\nsystem\n(' + line + b'tR0}.',
      'INST': b'(' + line + b'iposix\nsystem\n.',
      'OBJ': b'(cposix\nsystem\n' + line + b'o.',
      'STACK_GLOBAL': b'\x80\x04\x8c\x05posix\x8c\x06system\x93' + short + b'\x85R.',
      'NEWOBJ_EX': b'\x80\x04cfunctools\npartial\ncposix\nsystem\n' + short + b'\x86}\x92)R.',
      'BUILD': b'\x80\x02cargparse\nNamespace\n)\x81}X\x0c\x00\x00\x00__setstate__cposix\nsystem\nsb' + line + b'b.',
      'a list': wrapped(b'](K\x01cposix\nsystem\n(' + line + b'tRe'),
      'a value': wrapped(b'cposix\nsystem\n(' + line + b'tR'),
      'a key': b'\x80\x02}(cposix\nsystem\n(' + line + b'tRK\x01u.',
      'eval': b"\x80\x02cbuiltins\neval\n(S'__import__(\"os\").system(" + repr(command).replace("'", '"').encode() +
              b")'\ntR.",
  }


@pytest.mark.parametrize('container', ['plain', 'zip', 'old', 'behind a tensor'])
@pytest.mark.parametrize('how', plants('true'))
def test_planted_code_is_refused_by_name_and_does_not_run(refused, tmp_path, how, container):
  mark = tmp_path / 'ran'
  planted = plants(f'touch {mark}')[how]
  pickle.loads(planted)  # It is alive.
  assert mark.exists()
  mark.unlink()
  inner = {'plain': lambda: planted, 'zip': lambda: writers.torch_zip(planted),
           'old': lambda: writers.torch_old(planted),
           'behind a tensor': lambda: pickle.dumps(np.ones(3), 2)[:-1] + b'0' + planted}[container]()
  message = refused(inner)
  name = {'eval': 'builtins.eval', 'NEWOBJ_EX': 'functools.partial'}.get(how, 'posix.system')
  assert f'holds or calls {name}' in message and 'nothing of it was run' in message
  assert not mark.exists()


def test_code_planted_in_an_npz_does_not_run(refused, tmp_path):
  mark = tmp_path / 'ran'
  file = io.BytesIO()
  np.lib.format.write_array_header_1_0(file, {'descr': '|O', 'fortran_order': False, 'shape': ()})
  planted = file.getvalue() + plants(f'touch {mark}')['REDUCE']
  np.load(io.BytesIO(planted), allow_pickle=True)
  assert mark.exists()
  mark.unlink()
  assert "Python objects as 'planted'" in refused(writers.archive({'planted.npy': planted}))
  assert not mark.exists()


@pytest.mark.parametrize('name', [
    'os.system', 'builtins.getattr', '__builtin__.eval', 'builtins.exec', 'builtins.__import__', 'subprocess.Popen',
    'torch.load', 'torch.nn.modules.linear.Linear', 'torch.storage._load_from_file', 'numpy.load',
    'numpy.core.os.system',
    'numpy.lib.npyio.load', 'collections.namedtuple', 'argparse.FileType', 'builtins.dict.update', 'models.Net',
    '__main__.Net', 'torch._utils._rebuild_qtensor', 'pathlib.os.system', 'copyreg.copyreg'])
def test_names_that_are_not_in_the_table_are_refused(refused, name):
  for value in (Call(name), {'a': [Global(name)]}):
    message = refused(writers.pickled(value))
    assert f'holds or calls {name.replace("__builtin__", "builtins").replace("numpy.core", "numpy._core")}, ' in message


@pytest.mark.parametrize('program, words', [
    (b'\x80\x02cnumpy\nfloat32\n)R.', 'calls numpy.float32'),
    (b'\x80\x02K\x01)R.', 'calls a int'),
    (b'\x80\x02}}b.', 'gives a dict a state'),
    (b'\x80\x02}K\x01a.', 'appends to a dict'),
    (b'\x80\x02]K\x01K\x02s.', 'sets items of a list'),
    (b'\x80\x04cargparse\nNamespace\n)}X\x01\x00\x00\x00aK\x01s\x92.', 'arguments by name'),
    (b'\x80\x02X\x01\x00\x00\x00aQ.', 'refers to things outside of it'),
    (b'\x80\x02\x82\x01.', 'refers to things outside of it'),
    (b'\x80\x05\x97.', 'refers to things outside of it'),
    (b'\x80\x02}.more', 'has 4 bytes after the end'),
    (b'\x80\x02.', 'cut off or damaged'),
    (b'\x80\x02(K\x01.', 'holds no tensor'),
    (b'\x80\x02h\x05.', 'cut off or damaged'),
    (b'\x80\x02(0tR.', 'cut off or damaged'),
    (b'\x80\x02]]\x93.', 'a name that is no text'),
    (b'\x80\x02cnumpy\ndtype\nK\x01\x85R.', 'holds no tensor'),
    (b'\x80\x02\xff', 'cut off or damaged'),
])
def test_programs_that_fit_nothing(refused, program, words):
  assert words in refused(program)


# Files made to fill the memory, to take for ever, or to end the process.


def array_of(dtype, shape, content):
  return Call('numpy.core.multiarray._reconstruct', Global('numpy.ndarray'), (0,), b'b',
              state=(1, shape, Call('numpy.dtype', dtype, False, True, state=(3, '<', None, None, None, -1, -1, 0)),
                     False, content))


LONG = b'X' + (1 << 20).to_bytes(4, 'little') + b'a' * (1 << 20)  # A text.
MANY = b'(' + b'K\x01' * 100_000 + b'l'  # A list.


@pytest.mark.parametrize('name, content, words', [
    ('deep lists', b'\x80\x02' + b']' * 100_000 + b'a' * 99_999 + b'.', 'too deep'),
    ('deep tuples', b'\x80\x02)' + b'\x85' * 100_000 + b'.', 'too deep'),
    ('a deep key', b'\x80\x02})' + b'\x85' * 100_000 + b'K\x01s.', 'holds no tensor'),
    ('deep dictionaries', b'\x80\x02' + b'}K\x01' * 100_000 + b'N' + b's' * 100_000 + b'.', 'too deep'),
    ('itself', b'\x80\x02]q\x00h\x00a.', 'too deep'),
    ('itself in a dictionary', b'\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.', 'too deep'),
    ('many paths', b'\x80\x02]' + b'q\x01](h\x01h\x01e' * 40 + b'.', 'too deep'),
    ('many paths to a name', b'\x80\x02]' + b'q\x01](h\x01h\x01e' * 60 + b'q\x01h\x01\x93.', 'no text'),
    ('many paths as a key', b'\x80\x02)' + b'q\x01h\x01\x86' * 60 + b'q\x01}h\x01K\x01s.', 'no tensor'),
    ('copied text', b'\x80\x02' + LONG + b'X\x06\x00\x00\x00latin1\x86q\x000' +
     b'c_codecs\nencode\nh\x00R0' * 1000 + b'}.', 'far more memory'),
    ('copied lists', b'\x80\x02' + MANY + b'\x85q\x000' + b'cbuiltins\nset\nh\x00R' * 1000 + b'}.', 'far more memory'),
    ('copied settings', b'\x80\x02' + b'}(' + b''.join(b'M' + i.to_bytes(2, 'little') + b'N' for i in range(60_000)) +
     b'uq\x000' + b'cargparse\nNamespace\n)\x81h\x00b' * 1000 + b'.', 'far more memory'),
    ('a length', b'\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x10\x85R.', 'makes bytes of something else'),
    ('a shape', writers.pickled({'a': array_of('f4', (1 << 40,), b'1234')}), 'needs other than its 4 bytes'),
    ('a wide type', writers.pickled({'a': array_of('(1000000,)f4', (1,), b'1234')}), 'holds no tensor'),
    ('a negative shape', writers.pickled({'a': array_of('f4', (-1, -1), b'1234')}), 'no numbers or no shape'),
    ('huge numbers', writers.pickled({'a': array_of('f4', (1 << 10_000,) * 1000, b'1234')}), 'no numbers or no shape'),
    ('a long text that is not there', b'\x80\x04\x8e' + (1 << 62).to_bytes(8, 'little') + b'abc', 'cut off'),
    ('a long number', b'\x80\x02\x8b\xff\xff\xff\x7fabc', 'cut off'),
])
def test_files_made_to_do_harm(refused, monkeypatch, name, content, words):
  monkeypatch.setattr(values, '_VALUES', 10_000)
  assert words in refused(content)


def test_long_names_of_many_tensors(refused):
  content = b'\x80\x02}' + LONG + pickle.dumps(np.ones(1), 2)[2:-1] + b'q\xff0](' + b'h\xff' * 1000 + b'es.'
  assert 'far more memory' in refused(content)


@pytest.mark.parametrize('protocol', [0, 2, 5])
def test_damaged_pickles_are_one_sentence(damaged, protocol):
  content = pickle.dumps({'a': np.arange(3.0), 'b': [1, 'x']}, protocol)
  damaged(content, range(0, len(content), 2), range(2, len(content), 3))


def test_the_readers_have_nothing_to_run_code_with():
  for path in pathlib.Path(tensors.__file__).parent.glob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
      assert not {'pickle', 'importlib', 'marshal', 'subprocess', 'sys'} & set(names), path
      assert getattr(node, 'id', '') not in ('eval', 'exec', '__import__', 'getattr', 'compile', 'globals'), path
