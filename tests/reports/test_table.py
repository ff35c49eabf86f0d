"""The console table shows the numbers, the trivial maps, and the leak."""

import functools

import numpy as np
import pytest

from fer_jax.metrics.summary import summarise
from fer_jax.reports.table import print_evaluation
from tests import pages

printed = functools.partial(pages.printed, print_evaluation, verbose=True)
short = functools.partial(pages.printed, print_evaluation, width=80)


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


def test_maps_are_marked_by_whether_they_beat_the_constant_pictures(result):
  drawn = np.random.default_rng(1).integers(0, 256, (4, 3, 8, 8), np.uint8)
  drawn[:, 0] = 0
  rows = summarise({
      'label': np.array([1, 1, 2, 0]), 'prediction': np.array([1, 2, 0, 1]), 'landmarks_valid': np.ones(4, bool),
      'prior': drawn[:, 1], 'unit_maps': lambda row: drawn[row], 'training_mean': None,
      'maps': {'cam': drawn[[0, 1, 2, 3], [1, 1, 2, 1]].astype(float), 'poor': 255.0 - drawn[:, 1]}}, result['classes'])
  text = printed(rows)
  assert 'maps and landmarks, 4 faces' in text and 'maps and action units, 3 faces' in text
  units = text.split('maps and action units')[1]
  cam, poor, uniform = (next(line for line in units.splitlines() if f' {name} ' in line)
                        for name in ('cam', 'poor', 'uniform'))
  assert '1.000 ▲' in cam and '▽' in poor and not set('▲▽') & set(uniform)
  assert 'without 1 face predicted as' in text and 'class free' in text
  assert '▽ not above the same picture for every face (uniform, centred gaussian).' in text


@pytest.mark.parametrize('protocol, leaky', [({'leaky': True}, True), ({'leaky': True, 'reasons': ['it is']}, True),
                                             ({'select': 'last', 'leaky': False, 'reasons': []}, False)])
def test_leaky_results_say_so_beside_their_numbers(result, protocol, leaky):
  assert printed({**result, 'protocol': protocol}).count('LEAKY') == 7 * leaky


@pytest.mark.parametrize('protocol, reason', [
    ({'leaky': True, 'reasons': ['3 of 4 test images were trained on', 'so was 1']}, 'were trained on; so was 1.'),
    ({'leaky': True}, 'an earlier version marked it')])
def test_a_leak_is_said_in_words(result, protocol, reason):
  assert reason in ' '.join(printed({**result, 'protocol': protocol}).split())


def test_changes_are_in_the_heading(result):
  overrides = ['model.head.global_mean=batch', 'normalise.mean=[0, 0, 0]']
  text = printed({**result, 'overrides': overrides, 'protocol': {'dataset': 'drawn', 'split': 'test'}})
  assert 'drawn test with model.head.global_mean=batch, normalise.mean=[0, 0, 0]: 4 faces' in text


def test_subsets_have_a_row_each(result):
  rates = {'count': 1203, 'accuracy': 0.8, 'accuracy_interval': [0.71, 0.87], 'mean_class_accuracy': None}
  fine = {'listed': 1203, 'duplicates': 0, 'unmatched': 0, 'disagreeing': 0}
  alone = {**rates, 'count': 1100, 'accuracy': 0.7777}
  text = printed({**result, 'subsets': {
      'pose30': {**rates, **fine, 'without_duplicates': alone},
      'occlusion': {**rates, 'listed': 1210, 'duplicates': 1, 'unmatched': 6, 'disagreeing': 2}}})
  pose, occlusion = (next(line for line in text.splitlines() if name in line) for name in ('pose30', 'occlusion'))
  for words in ('1,203', '80.00 %', '71.00 % to 87.00 %', '77.77 % (1,100 faces)'):
    assert words in pose
  assert occlusion.count('–') == 2  # No mean class accuracy, nothing known of duplicates.
  assert 'occlusion: of 1,210 lines 1 repeated, 6 not in this split, 2 with another label here.' in text
  assert 'pose30:' not in text and 'all faces' not in text
  text = printed({**result, 'without_duplicates': alone, 'protocol': {'leaky': True}})
  row = next(line for line in text.splitlines() if 'all faces' in line)
  assert '75.00 %' in row and '77.77 % (1,100 faces)' in row and text.count('LEAKY') == 8


def test_an_evaluation_without_examples_prints_dashes(result):
  empty = summarise({'label': np.array([-1]), 'prediction': np.array([0])}, result['classes'])
  assert '–' in printed(empty)


def test_calibration_stands_beside_accuracy_as_far_as_the_file_has_it(result):
  text = printed({**result, 'nll': 1.23456, 'ece': 0.0567})
  assert f"macro F1 {100 * result['macro_f1']:.2f} %   NLL 1.235 nats   ECE, 15 bins 5.67 %" in text
  assert 'NLL – ' in printed({**result, 'nll': None, 'ece': None})
  assert 'ECE' not in printed(result)
  del result['macro_f1']  # As older versions wrote it.
  text = printed(result)
  assert '75.00 %' in text and not any(word in text for word in ('macro F1', 'NLL', 'ECE'))


def test_one_screen_says_what_matters(result):
  rates = {'count': 605, 'accuracy': 0.8, 'accuracy_interval': [0.71, 0.87], 'mean_class_accuracy': 0.5}
  result['alignment']['logit_sum']['pearson'] = 0.3
  text = short({**result, 'nll': 1.0, 'ece': 0.1, 'without_duplicates': rates, 'subsets': {
      'occlusion': {**rates, 'listed': 605}}, 'triplets': {'fec': {
          'count': 90, 'listed': 100, 'accuracy': 0.7, 'accuracy_interval': [0.6, 0.8], 'types': {}}}, 'protocol': {
              'dataset': 'drawn', 'variant': 'tiny', 'split': 'test', 'trained_on': 'train+valid', 'select': 'last',
              'evaluations': 2, 'leaky': True, 'reasons': ['4 of 4 test images were trained on']}},
               report='/runs/a/report.html')
  lines = text.splitlines()
  assert len(lines) <= 18 and max(map(len, lines)) <= 80 and '│' not in text
  words = ' '.join(text.split())
  low, high = result['mean_class_interval']
  for said in (
      'drawn (tiny) test: 4 faces, 3 classes; trained on train+valid, the parameters after the last step; evaluated 2 '
      'times here', 'accuracy 75.00 % (95 %: 30.06 % to 95.44 %) LEAKY',
      f'mean class accuracy 83.33 % (95 %: {100 * low:.2f} % to {100 * high:.2f} %) LEAKY',
      'Leaky: 4 of 4 test images were trained on.', 'happiness 100.00 % (1 of 1)', 'neutral 66.67 % (2 of 3)',
      'maps and landmarks, Pearson: logit sum 0.300, the best of 1, above the best constant picture, uniform 0.000',
      'occlusion: 80.00 % (71.0 to 87.0) of 605 faces', 'without duplicates 80.00 % of 605',
      "triplets 'fec': 70.00 % (60.0 to 80.0) of 90 of 100; chance 33.33 %", 'Report: /runs/a/report.html'):
    assert said in words, said
  scores = {'count': 9, 'listed': 9, 'accuracy': 1.0, 'accuracy_interval': [0.7, 1.0], 'types': {}, 'truth': 'labels',
            'dim': 16, 'protocol': {'leaky': True, 'reasons': ['9 of 9 train images were trained on']}}
  for text in (short({**result, 'triplets': {'own': scores}}), printed({**result, 'triplets': {'own': scores}})):
    assert '9 of 9 train images were trained on' in ' '.join(text.split()) and text.count('LEAKY') == 1
  plain = short(result)
  assert len(plain.splitlines()) <= 9 and 'evaluated' not in plain and 'LEAKY' not in plain and 'Report' not in plain


def test_names_are_no_markup():
  classes = ['sad [/]', '[red]', 'fear']
  result = summarise({'label': np.array([0, 0, 1]), 'prediction': np.array([1, 0, 1])}, classes) | {
      'subsets': {'[/b]': {'count': 1, 'accuracy': 1.0, 'accuracy_interval': [0, 1], 'mean_class_accuracy': 1.0,
                           'listed': 1}}, 'protocol': {'dataset': '[/]', 'split': '[x'}}
  for text in (printed(result), short(result, report='/[/]/report.html')):
    assert 'sad [/]' in text and '[red]' in text and '[/b]' in text
