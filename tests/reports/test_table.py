"""The console table shows the numbers, the trivial maps, and the leak."""

import io

import numpy as np
import pytest
from rich.console import Console

from fer_jax.metrics.summary import summarise
from fer_jax.reports.table import print_evaluation


def printed(result):
  file = io.StringIO()
  print_evaluation(result, Console(file=file, width=160))
  return file.getvalue()


@pytest.fixture
def result():
  rng = np.random.default_rng(0)
  return summarise({
      'label': np.array([0, 0, 0, 1]), 'prediction': np.array([0, 0, 1, 1]), 'landmarks_valid': np.ones(4, bool),
      'prior': rng.integers(0, 256, (4, 8, 8), np.uint8), 'maps': {'logit_sum': rng.random((4, 2, 2))},
  }, ['neutral', 'happiness', 'fear'])


def test_prints_rates_confusions_and_trivial_maps(result):
  text = printed(result)
  for words in ('75.00 %', '83.33 %', '66.67 %', 'happiness (1)', 'logit sum', 'centred gaussian',
                'no examples of fear'):
    assert words in text
  assert 'LEAKY' not in text and 'causal' not in text


@pytest.mark.parametrize('protocol, leaky', [({'leaky': True}, True), ({'select': 'best_on_test'}, True),
                                             ({'select': 'last', 'leaky': False}, False)])
def test_leaky_results_say_so_beside_both_rates(result, protocol, leaky):
  assert printed({**result, 'protocol': protocol}).count('LEAKY') == 2 * leaky


def test_an_evaluation_without_examples_prints_dashes(result):
  empty = summarise({'label': np.array([-1]), 'prediction': np.array([0])}, result['classes'])
  assert '–' in printed(empty)
