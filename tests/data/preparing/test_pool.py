"""The pool: order, what is kept and what is done again, and how failures are told."""

import functools
import math
import os
import subprocess
import sys

import pytest

from fer_jax.data.preparing import pool
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


def test_a_failure_keeps_the_parts_before_it(tmp_path):
  with pytest.raises(ValueError, match='math domain error'):
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
