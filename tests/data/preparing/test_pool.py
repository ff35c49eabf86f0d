"""The pool: order, what is kept and what is done again, and how failures are told."""

import functools
import io
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from fer_jax.data.preparing import packed, pool
from fer_jax.data.preparing.files import File
from fer_jax.data.preparing.records import Listed
from fer_jax.errors import UserError


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(pool, 'PART', 4)


def noted(folder, item):
  """Notes in a file that the item was worked on."""
  (folder / f'{item}').open('a').write('x')
  return item * item


def work(tmp_path, items, workers=0, **options):
  (tmp_path / 'notes').mkdir(exist_ok=True)
  function = functools.partial(noted, tmp_path / 'notes')
  return list(pool.work_on(items, function, tmp_path / 'parts', workers=workers, **options))


def times(tmp_path):
  """How often each item was worked on."""
  return [len((tmp_path / 'notes' / f'{i}').read_text()) for i in range(10)]


@pytest.mark.parametrize('workers', [0, 2])
def test_results_come_in_order_and_are_kept(tmp_path, workers):
  assert list(pool.work_on(range(10), math.sqrt, tmp_path / 'parts', workers=workers)) == [
      (i, math.sqrt(i)) for i in range(10)]
  kept = sorted(path.name for path in (tmp_path / 'parts').iterdir())
  assert len(kept) == 3 and all(name.endswith('.part') for name in kept)


def test_finished_parts_are_not_done_again(tmp_path):
  assert work(tmp_path, list(range(10))) == work(tmp_path, list(range(10)))
  assert times(tmp_path) == [1] * 10
  next((tmp_path / 'parts').iterdir()).unlink()
  work(tmp_path, list(range(10)))
  assert sorted(times(tmp_path)) in ([1] * 6 + [2] * 4, [1] * 8 + [2] * 2)
  (tmp_path / 'notes' / '5').write_text('')
  work(tmp_path, list(range(10)), stamp=lambda item: item == 5)  # All stamps differ from None.
  work(tmp_path, list(range(10)), stamp=lambda item: 'new' if item == 5 else False)
  assert len((tmp_path / 'notes' / '5').read_text()) == 2 and len((tmp_path / 'notes' / '9').read_text()) <= 3


def test_a_damaged_part_is_done_again(tmp_path):
  work(tmp_path, list(range(10)))
  for path, content in zip((tmp_path / 'parts').iterdir(), (b'', b'\xff' * 9, b'no part'), strict=True):
    path.write_bytes(content)
  assert work(tmp_path, list(range(10))) == [(i, i * i) for i in range(10)] and times(tmp_path) == [2] * 10


def hurt(folder):
  folder.mkdir()
  folder.chmod(0o777)


@pytest.mark.parametrize('make', [
    hurt, lambda folder: folder.symlink_to('.'), lambda folder: folder.write_text(''),
    lambda folder: (folder.mkdir(0o700), os.chown(folder, 12_345, -1))])
def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path, make):
  try:
    make(tmp_path / 'parts')
  except PermissionError:
    pytest.skip('only root can give folders away')
  with pytest.raises(UserError, match='parts is not a folder of yours that nobody else can write to'):
    work(tmp_path, [1])
  assert not list((tmp_path / 'notes').iterdir())


def test_the_folder_of_parts_is_private(tmp_path):
  work(tmp_path, [1])
  assert (tmp_path / 'parts').stat().st_mode & 0o777 == 0o700


class Planted:
  """What runs code when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def test_what_travels_comes_back_and_nothing_else(tmp_path):
  listed = Listed('é.png', File('a', 'b'), np.int64(3), (1, 2.5, 3, 4), np.eye(68, 2, dtype=np.float32),
                  extra={'votes': np.arange(10, dtype=np.int32), 'age': np.float32(0.1), 'none': None})
  back, = packed.unpack(packed.pack([listed]), [Listed, File])
  assert (back.name, back.file, back.label, back.box) == ('é.png', File('a', 'b'), 3, (1, 2.5, 3, 4))
  assert back.file.stamp() == (-1, -1) and back.extra['age'] == np.float32(0.1) and back.extra['none'] is None
  assert back.extra['votes'].dtype == np.int32 and back.extra['votes'].tolist() == list(range(10))
  np.testing.assert_array_equal(back.landmarks, listed.landmarks)
  record = {'image': io.BytesIO(b'png'), 'label': -1, 'score': 0.5, 'name': 'a'}
  again = packed.unpack(packed.pack([record, 'a reason']))
  assert again[0]['image'].read() == b'png' and again[0] | {'image': 0} == record | {'image': 0}
  assert again[1] == 'a reason'
  with pytest.raises(ValueError, match='damaged: .*Listed'):  # A kind that the reader does not name.
    packed.unpack(packed.pack([listed]), [File])
  planted = Planted(tmp_path / 'planted')
  for content in (pickle.dumps(planted), pickle.dumps([1]), b'', packed.pack([1])[:-1] + b'\xc1'):
    with pytest.raises(ValueError, match='damaged'):
      packed.unpack(content, [Listed, File])
  assert not planted.path.exists()
  for value in (planted, np.array([None]), len, {1}):
    with pytest.raises(TypeError, match='cannot be packed'):
      packed.pack([value])


def test_a_failure_keeps_the_parts_before_it(tmp_path):
  with pytest.raises(ValueError, match='math domain error|nonnegative'):
    list(pool.work_on([4., 9., 1., 1., 1., -1.], math.sqrt, tmp_path, workers=0))
  assert len(list(tmp_path.iterdir())) == 1


def test_a_killed_worker_is_told(tmp_path):
  with pytest.raises(UserError, match='a worker process was killed.*fewer --workers'):
    list(pool.work_on([9] * 8, functools.partial(signalled, 0), tmp_path, workers=2))


def signalled(_, number):
  os.kill(os.getpid(), number)


def test_workers_import_neither_jax_nor_tensorflow():
  # A spawned worker imports the module of its function and the command's main module.
  code = ('import sys, fer_jax.data.preparing.records, fer_jax.data.preparing.pool, fer_jax.prepare; '
          'print(sorted({"jax", "tensorflow", "tensorflow_datasets"} & set(sys.modules)))')
  assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == '[]\n'
