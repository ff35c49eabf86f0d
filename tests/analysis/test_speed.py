"""What the bench measures is what it says: the work is done, so often, on these faces, in turns."""

import pytest

from fer_jax.analysis import speed
from fer_jax.data.preparing import preparation
from fer_jax.landmarks import detect
from tests import faces


def numbers(table, column):
  return [float(cell.replace(',', '')) for cell in table.columns[column].cells]


def test_work_is_done_in_turns():
  order = []
  seconds = speed.in_turns([lambda r, name=name: order.append(f'{name}{r}') for name in 'abc'], rounds=2)
  assert order == ['a0', 'b0', 'c0', 'c1', 'a1', 'b1'] and seconds.shape == (2, 3) and (seconds > 0).all()


def test_faces_of_every_round_are_the_next_ones(monkeypatch):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  read, looked = [], []
  source = faces.source(7)
  example, find = source.example, detect.Detector.__call__
  monkeypatch.setattr(source, 'example', lambda row: read.append(row) or example(row))
  monkeypatch.setattr(detect.Detector, '__call__',
                      lambda self, image, look=True: looked.append(look) or find(self, image, look))
  table = speed.faces_table(source, rounds=3, count=4)
  assert read == [i % 7 for i in range(12)]
  assert looked == [True] * 4 + [False] * 8 + [True] * 8 + [False] * 4  # The order turns.
  assert len(numbers(table, 1)) == 3 and min(numbers(table, 1)) > 0


def test_preparation_by_several_numbers_of_processes(monkeypatch):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  made = []
  prepare = preparation.prepare
  monkeypatch.setattr(preparation, 'prepare', lambda builder: made.append((builder._workers, prepare(builder),
                                                                           builder.contents()['splits'])))
  table = speed.preparation_table([0, 1], rounds=2, faces=8)
  assert [workers for workers, _, _ in made] == [0, 1, 1, 0] and all(new for _, new, _ in made)
  assert all(splits['train']['faces'] == 8 for _, _, splits in made)
  assert numbers(table, 0) == [0, 1] and numbers(table, 2)[0] == 1 and min(numbers(table, 1)) >= 0
