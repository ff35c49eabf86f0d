"""The table of seeds: every seed's numbers, and what their mean may be."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from fer_jax.reports.seeds import print_seeds

ACCURACIES = (0.81, 0.83, 0.86)


def result(accuracy, **protocol):
  return {'accuracy': accuracy, 'mean_class_accuracy': accuracy - 0.1, 'macro_f1': None, 'nll': 1 - accuracy,
          'ece': 0.05, 'count': 1234, 'protocol': {'dataset': 'ferplus', 'split': 'test', **protocol}}


def printed(data_seed=None, **protocol):
  file = io.StringIO()
  results = {seed: result(accuracy, **protocol) for seed, accuracy in zip((3, 4, 5), ACCURACIES, strict=True)}
  print_seeds(results, data_seed, Console(file=file, width=80))
  return file.getvalue()


def row(text, name):
  return next([cell.strip() for cell in line.split('│')[1:-1]] for line in text.splitlines()
              if line.startswith('│') and line.split('│')[1].strip() == name)


@pytest.mark.parametrize('column, scale, places, shift', [(1, 100, 2, 0.0), (2, 100, 2, -0.1)])
def test_numbers_are_scipys(column, scale, places, shift):
  values = scale * (np.array(ACCURACIES) + shift)
  text = printed()
  for seed, value in zip((3, 4, 5), values, strict=True):
    assert row(text, str(seed))[column] == f'{value:.{places}f}'
  assert row(text, 'mean')[column] == f'{values.mean():.{places}f}'
  assert row(text, 'sd')[column] == f'{values.std(ddof=1):.{places}f}'
  low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
  assert row(text, '95 % from')[column] == f'{low:.{places}f}' and row(text, '95 % to')[column] == f'{high:.{places}f}'


def test_what_is_unknown_is_left_out_and_what_the_interval_covers_is_said():
  text = ' '.join(printed().split())
  assert 'macro F1' not in text and 'NLL' in text and 'ferplus test: 3 seeds, 1,234 faces' in text
  assert 'all that is random in training;' in text and 'LEAKY' not in text
  assert 'but order and augmentation, which the seeds shared (data.seed=7)' in ' '.join(
      printed(data_seed=7).split())


def test_a_leak_is_marked():
  text = printed(leaky=True, seen_in_training=True)
  assert '1,234 faces  LEAKY' in text and 'Leaky: the model was trained on these images.' in text
