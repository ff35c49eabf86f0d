"""Lengths of runs, in every unit."""

import pytest

from fer_jax.errors import UserError
from fer_jax.training import length, loop, plan
from fer_jax.training.data import Data
from fer_jax.training.workdir import read_run
from tests import faces


@pytest.mark.parametrize('text, expected', [
    ('', 80), ('5000 steps', 5000), ('1 step', 1), ('2e6 faces', 31_250), ('30 epochs', 1200), ('0.5 epochs', 20),
    (' 2  epochs ', 80), ('45 minutes', 10_800), ('1 face', 1), ('0.001 minutes', 1)])
def test_steps_of_a_length(text, expected):  # 40 steps of 64 rows are an epoch; one takes a quarter of a second.
  assert length.steps(text, 2.0, 2560, 64, seconds=0.25) == expected


def test_only_minutes_depend_on_the_machine():
  assert [length.in_minutes(text) for text in ('', '3 steps', '3 epochs', '3 minutes')] == [False] * 3 + [True]
  with pytest.raises(ValueError):
    length.steps('45 minutes', 2.0, 2560, 64)


def test_epochs_round_as_before():
  for tenths in range(1, 400):  # Halves too, which go to the even number.
    assert length.steps('', tenths / 10, 28_720, 96) == max(1, round(tenths / 10 * 28_720 / 96))


@pytest.mark.parametrize('text, message', [
    ('30 epoch s', "unknown unit 'epoch s'; did you mean 'epochs'? Choices: epochs, faces, minutes, steps."),
    ('30 minuets', "did you mean 'minutes'"), ('30', "unknown unit ''"), ('45 lightyears', "unknown unit 'lightyears'"),
    ('epochs', 'give a number above 0 and a unit'), ('0 steps', 'give a number above 0'), ('-5 steps', 'above 0'),
    ('nan steps', 'above 0'), ('inf faces', 'above 0'), ('30epochs', "config.length='30epochs': give a number")])
def test_what_is_no_length_is_an_error(text, message):
  with pytest.raises(UserError) as error:
    length.steps(text, 2.0, 2560, 64)
  assert message in str(error.value)


def test_a_run_of_minutes_is_timed_once_and_goes_on_to_the_same_step(tmp_path, monkeypatch):
  splits = {'train': faces.source(64, seed=0), 'valid': faces.source(8, seed=1), 'test': faces.source(8, seed=2)}
  monkeypatch.setattr(Data, 'open', lambda self, split: splits[split])
  real, timed, taken = plan._seconds, [], []

  def timing(*arguments):
    timed.append(real(*arguments))
    return timed[-1]

  def take_steps(plan, *_):
    taken.append(plan.system.total_steps)
    raise UserError('cut off')

  monkeypatch.setattr(plan, '_seconds', timing)
  monkeypatch.setattr(loop, 'take_steps', take_steps)
  for _ in range(2):
    with pytest.raises(UserError, match='^cut off$'):
      loop.train(faces.config(length='0.5 minutes', losses__pal__weight=0.0), tmp_path / 'run')
  assert len(timed) == 1 and taken == [round(30 / timed[0])] * 2 == [read_run(tmp_path / 'run')['steps']] * 2
