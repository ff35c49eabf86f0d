"""What the bench measures is what it says: the work is done, so often, on these faces, in turns."""

import jax
import pytest

from fer_jax.analysis import speed
from fer_jax.data.preparing import preparation
from fer_jax.errors import UserError
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


def test_convolutions_are_xlas_and_the_other_form(monkeypatch):
  taken = []
  xlas, ours = jax.lax.conv_general_dilated, speed.convolve
  monkeypatch.setattr(jax.lax, 'conv_general_dilated', lambda *at, **how: taken.append("XLA's") or xlas(*at, **how))
  monkeypatch.setattr(speed, 'convolve', lambda *at, **how: taken.append('other') or ours(*at, **how))
  table = speed.convolutions_table(3, [(5, 4, 3, 4, 2, True), (2, 4, 3, 6, 1, False)], batch=2)
  assert taken == ["XLA's", 'other'] * 2  # Each is traced once, and the other form calls none of XLA's.
  assert [list(column.cells) for column in table.columns[:3]] == [
      ['2 x 5 x 5 x 4', '2 x 2 x 2 x 4'], ['3 x 3 x 1 x 4', '3 x 3 x 4 x 6'], ['2', '1']]
  assert min(numbers(table, 5)) >= 0 and len(numbers(table, 3)) == len(numbers(table, 4)) == 2
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  with pytest.raises(UserError, match="--convolutions: on gpu all convolutions are XLA's; JAX_PLATFORMS=cpu measures"):
    speed.convolutions_table(3)


def test_what_is_modelled_on_accelerators_computes_as_it_would_there(monkeypatch):
  class Compiled:
    as_text = lambda self: '%a = f32[4]{0} all-reduce(%b)'
    cost_analysis = lambda self: {'flops': 1e12}

  made = []
  step = speed.scaling.Step
  monkeypatch.setattr(speed, 'compile_step', lambda config, mesh: (Compiled(), 1))
  monkeypatch.setattr(speed.scaling, 'Step', lambda *at: made.append(at[1]) or step(*at))
  configs = [faces.config(), faces.config(model__dtype='float32')]
  speed.scaling_tables(dict(zip('ab', configs, strict=True)), 0.5)
  assert made == ['bfloat16', 'float32']
