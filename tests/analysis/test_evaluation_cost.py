"""What an evaluation costs beside the network: all of it is done, but for the network."""

import jax
import pytest

from fer_jax.analysis import evaluation_cost
from fer_jax.training import evaluation, step
from fer_jax.training.data import Data
from tests import faces


def test_an_evaluation_is_done_without_its_network(monkeypatch):
  found, traces = [], []
  splits = {'train': faces.source(14), 'test': faces.source(20, seed=1)}
  evaluate, run = evaluation.evaluate_split, step.evaluation_step
  monkeypatch.setattr(Data, 'open', lambda self, split: splits[split])
  monkeypatch.setattr(evaluation, 'evaluate_split', lambda *args: found.append(evaluate(*args)))

  def traced(recipe, explain, variables, batch):
    assert isinstance(batch['image'], jax.core.Tracer)  # Its forms alone are asked for, and nothing is compiled.
    traces.append(len(found))
    return run(recipe, explain, variables, batch)

  monkeypatch.setattr(step, 'evaluation_step', traced)
  table = evaluation_cost.evaluation_table({'pal': faces.config()}, rounds=3)
  assert [result['count'] for result in found] == [20] * 3 and traces == [0]
  assert found[0]['alignment']['cam']['action_unit_count'] == 17 and found[0]['alignment']['training_mean']
  name, count, median, spread, each = (next(iter(column.cells)) for column in table.columns)
  assert (name, count) == ('pal', '20') and float(each) == pytest.approx(1e3 * float(median) / 20, abs=0.5)
  low, high = map(float, spread.split(' to '))
  assert 0 < low <= float(median) <= high
