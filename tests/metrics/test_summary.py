"""The evaluation's numbers: what is counted, what is left out, and that JSON can hold them."""

import json
import types

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fer_jax.metrics import action_units, alignment, calibration, causal
from fer_jax.metrics.summary import summarise, summarise_subsets

CLASSES = ('neutral', 'happiness', 'fear')


def table(n=20, seed=0):
  rng = np.random.default_rng(seed)
  masks = np.zeros((n, 12, 12), np.uint8)
  masks[1:, 3:6, 2:9] = 255  # The first face is neutral.
  return {
      'label': rng.integers(0, 2, n), 'prediction': rng.integers(0, 3, n), 'nll': rng.exponential(size=n),
      'logits': rng.normal(size=(n, 3)),
      'landmarks_valid': rng.random(n) < 0.7, 'prior': rng.integers(0, 256, (n, 12, 12), np.uint8),
      'causal_mask': masks, 'maps': {'predicted': rng.normal(size=(n, 3, 3)).astype(np.float32)},
  }


def test_counts_rates_and_absent_classes():
  rows = table()
  rows['label'][:3] = -1
  result = summarise(rows, CLASSES)
  known = rows['label'] != -1
  hits = rows['label'] == rows['prediction']
  assert result['count'] == 17 == np.sum(result['confusion'])
  assert result['accuracy'] == pytest.approx(hits[known].mean())
  assert result['accuracy_interval'][0] < result['accuracy'] < result['accuracy_interval'][1]
  assert result['absent_classes'] == ['fear'] and set(result['recall']) == {'neutral', 'happiness'}
  assert result['recall']['happiness'] == pytest.approx(hits[rows['label'] == 1].mean())
  assert result['mean_class_accuracy'] == pytest.approx(np.mean(list(result['recall'].values())))
  assert result['mean_class_interval'][0] < result['mean_class_accuracy'] < result['mean_class_interval'][1]
  assert result['nll'] == pytest.approx(rows['nll'][known].mean())
  assert result['macro_f1'] == pytest.approx(f1_score(rows['label'][known], rows['prediction'][known], average='macro'))
  assert result['ece'] == pytest.approx(calibration.expected_calibration_error(
      calibration.top_probability(rows['logits'][known]), hits[known]))
  assert result['brier'] == pytest.approx(calibration.brier(rows['logits'][known], rows['label'][known]))
  assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_alignment_counts_faces_with_landmarks_and_masks_beside_the_trivial_maps():
  rows = table()
  result = summarise(rows, CLASSES)['alignment']
  assert list(result) == ['predicted', 'uniform', 'centred_gaussian']
  valid, scored = rows['landmarks_valid'], np.arange(20) > 0
  maps = rows['maps']['predicted']
  assert result['predicted'] == pytest.approx({
      'cosine': alignment.cosine(maps, rows['prior'])[valid].mean(),
      'pearson': alignment.pearson(maps, rows['prior'])[valid].mean(),
      'count': valid.sum(),
      'mass_inside_causal_mask': causal.mass_inside(maps, rows['causal_mask'])[scored].mean(),
      'causal_auc': causal.area_under_curve(maps, rows['causal_mask'])[scored].mean(),
      'causal_pointing': causal.pointing(maps, rows['causal_mask'])[scored].mean(),
      'causal_count': 19,
      'causal_left_out': 1,
  })
  assert result['uniform']['pearson'] == 0 and result['uniform']['causal_auc'] == 0.5
  assert result['uniform']['mass_inside_causal_mask'] == pytest.approx(21 / 144)
  assert result['uniform']['causal_pointing'] == pytest.approx(21 / 144, abs=0.01)


def with_action_units():
  """The table with what an evaluation adds: maps of 'happiness' and 'fear' on every face, and a training mean."""
  rows = table()
  rng = np.random.default_rng(7)
  drawn = rng.integers(0, 256, (20, 3, 16, 16), np.uint8)
  drawn[:, 0] = 0
  return rows | {'unit_maps': lambda row: drawn[row], 'attention': ['predicted'], 'training_mean': rng.random((16, 16))}


def test_action_units_are_columns_of_every_row_and_two_more_rows():
  rows = with_action_units()
  result = summarise(rows, CLASSES)
  found = result['alignment']
  assert list(found) == ['predicted', 'uniform', 'centred_gaussian', 'training_mean', 'class_free']
  assert json.loads(json.dumps(result, allow_nan=False)) == result
  counted = rows['landmarks_valid'] & (rows['label'] == 1)
  constants = alignment.trivial_maps((224, 224))
  constants['training_mean'] = alignment.resize(rows['training_mean'], (224, 224))
  expected, class_free = action_units.measure(
      rows['maps'], rows['unit_maps'], np.flatnonzero(rows['landmarks_valid']), rows['label'], rows['prediction'],
      CLASSES, constants, ['predicted'])
  for name, row in found.items():
    assert {key: value for key, value in row.items() if key.startswith('action_unit')} == expected[name]
    assert row['action_unit_count'] == counted.sum() and list(row['action_unit_cosine_by_class']) == ['happiness']
    assert {'cosine', 'pearson', 'mass_inside_causal_mask', 'causal_auc', 'causal_pointing'} <= row.keys()
  # The other columns are as they were, and the new pictures have them too.
  plain = summarise(table(), CLASSES)['alignment']
  for name, row in plain.items():
    assert {key: found[name][key] for key in row} == row
  valid = rows['landmarks_valid']
  assert found['class_free']['cosine'] == alignment.cosine(class_free[valid], rows['prior'][valid]).mean()
  assert found['training_mean']['cosine'] == pytest.approx(
      alignment.cosine([rows['training_mean']] * 20, rows['prior'])[valid].mean())


def test_classes_without_action_units_have_no_such_columns():
  rows = with_action_units() | {'unit_maps': lambda row: np.zeros((3, 16, 16), np.uint8), 'training_mean': None}
  assert summarise(rows, CLASSES)['alignment'] == summarise(table(), CLASSES)['alignment']
  rows['landmarks_valid'][:] = False
  rows['unit_maps'] = None  # Nothing is drawn where no landmarks are to be trusted.
  assert 'action_unit_count' not in summarise(rows, CLASSES)['alignment']['predicted']


def test_an_example_without_landmarks_does_not_change_the_alignment():
  rows = table()
  before = summarise(rows, CLASSES)['alignment']['predicted']['cosine']
  rows['maps']['predicted'][~rows['landmarks_valid']] = np.nan
  assert summarise(rows, CLASSES)['alignment']['predicted']['cosine'] == before


def test_what_cannot_be_known_is_none():
  rows = table(4)
  rows['label'][:] = -1
  rows['landmarks_valid'][:] = False
  del rows['causal_mask']
  result = summarise(rows, CLASSES)
  assert result['count'] == 0 and result['accuracy'] is None and result['mean_class_accuracy'] is None
  assert result['nll'] is None and result['ece'] is None and result['brier'] is None and result['macro_f1'] is None
  assert result['accuracy_interval'] == result['mean_class_interval'] == [0, 1] and result['recall'] == {}
  assert result['alignment']['predicted'] == {'cosine': None, 'pearson': None, 'count': 0}
  bare = summarise({k: rows[k] for k in ('label', 'prediction')}, CLASSES)
  assert not {'alignment', 'nll', 'ece', 'brier'} & set(bare)


def test_subsets_are_scored_on_their_own_rows():
  rows = table(30)
  rows['label'][:2] = -1
  mask, without_duplicates = np.arange(30) < 12, np.arange(30) % 3 > 0
  subset = types.SimpleNamespace(mask=mask, listed=14, duplicates=1, unmatched=1, disagreeing=2)
  nobody = types.SimpleNamespace(mask=np.zeros(30, bool), listed=1, duplicates=0, unmatched=1, disagreeing=0)
  result = summarise_subsets(rows['label'], rows['prediction'], 3, {'hard': subset, 'nobody': nobody},
                             without_duplicates)
  keys = ('count', 'accuracy', 'accuracy_interval', 'mean_class_accuracy', 'mean_class_interval')
  of = lambda kept: {key: value for key, value in summarise(
      {name: rows[name][kept] for name in ('label', 'prediction')}, CLASSES).items() if key in keys}
  assert result['subsets']['hard'] == {**of(mask), 'listed': 14, 'duplicates': 1, 'unmatched': 1, 'disagreeing': 2,
                                       'without_duplicates': of(mask & without_duplicates)}
  assert result['without_duplicates'] == of(without_duplicates) and result['subsets']['hard']['count'] == 10
  assert result['subsets']['nobody']['count'] == 0 and result['subsets']['nobody']['accuracy'] is None
  assert json.loads(json.dumps(result, allow_nan=False)) == result
  assert summarise_subsets(rows['label'], rows['prediction'], 3, {}) == {}
