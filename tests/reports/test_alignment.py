"""The alignment table: which columns an evaluation has, what beats a constant picture, and older files."""

import pytest

from fer_jax.reports.alignment import alignment_groups, by_class

UNITS = {'action_unit_cosine': 0.7, 'action_unit_pearson': 0.5, 'action_unit_contrast': 0.1,
         'action_unit_predicted_cosine': 0.6, 'action_unit_pointing': 0.8, 'action_unit_count': 1203,
         'action_unit_predicted_left_out': 17, 'action_unit_cosine_by_class': {'happiness': 0.8, 'fear': 0.6}}
CAUSAL = {'mass_inside_causal_mask': 0.25, 'causal_auc': 0.7, 'causal_pointing': 0.5, 'causal_count': 40,
          'causal_left_out': 3}


@pytest.fixture
def result():
  row = {'cosine': 0.5, 'pearson': 0.2, 'count': 1500, **UNITS, **CAUSAL}
  lower = {**row, 'action_unit_cosine': 0.4, 'action_unit_contrast': 0.0, 'causal_auc': 0.5}
  names = {'cam': row, 'attention_map': dict(lower), 'uniform': dict(lower), 'centred_gaussian': dict(lower),
           'training_mean': {**lower, 'action_unit_cosine': 0.65, 'pearson': 0.3}, 'class_free': {**row, 'cosine': 0.9}}
  return {'classes': ['neutral', 'happiness', 'fear'], 'alignment': names}


def cells(group, name):
  return next(row['cells'] for row in group['rows'] if row['name'] == name)


def test_groups_of_columns_with_their_faces_and_who_is_left_out(result):
  landmarks, units, causal = alignment_groups(result)
  assert [group['faces'] for group in (landmarks, units, causal)] == [1500, 1203, 40]
  assert units['columns'] == ['cosine', 'Pearson', 'contrast', 'cosine, predicted', 'pointing']
  assert [cell['text'] for cell in cells(units, 'cam')] == ['0.700', '0.500', '0.100', '0.600', '80.0 %']
  assert 'without 17 faces predicted as a class that has no action units' in units['remark']
  assert 'empty or full on 3 faces more' in causal['remark'] and landmarks['remark'] == ''
  assert [row['trivial'] for row in units['rows']] == [False, False, True, True, True, True]
  assert [cell['width'] for cell in cells(units, 'cam')] == pytest.approx([70, 50, 10, 60, 80])


def test_a_map_has_to_beat_every_constant_picture_but_not_the_landmarks(result):
  landmarks, units, causal = alignment_groups(result)
  assert [cell['beats'] for cell in cells(units, 'cam')] == [True, False, True, False, False]
  assert [cell['beats'] for cell in cells(units, 'attention map')] == [False] * 5
  assert [cell['beats'] for cell in cells(landmarks, 'cam')] == [False, False]
  assert [cell['beats'] for cell in cells(causal, 'cam')] == [False, True, False]
  for name in ('uniform', 'training mean', 'class free'):
    assert {cell['beats'] for group in (landmarks, units, causal) for cell in cells(group, name)} == {None}
  result['alignment']['cam']['action_unit_cosine'] = 0.6  # Above two of the three.
  assert cells(alignment_groups(result)[1], 'cam')[0]['beats'] is False


def test_files_of_older_versions_lack_rows_and_columns(result):
  for row in result['alignment'].values():
    for key in [*UNITS, 'causal_pointing', 'causal_left_out']:
      row.pop(key)
  for name in ('training_mean', 'class_free'):
    del result['alignment'][name]
  landmarks, causal = alignment_groups(result)
  assert causal['columns'] == ['mass', 'AUC'] and causal['remark'] == ''
  assert [cell['beats'] for cell in cells(causal, 'cam')] == [False, True]
  assert len(landmarks['rows']) == 4 and by_class(result) == {}
  assert alignment_groups({}) == [] and alignment_groups({'alignment': {}}) == []
  # One row without a value is a dash that beats nothing.
  result['alignment']['cam']['pearson'] = None
  assert cells(alignment_groups(result)[0], 'cam')[1] == {'text': '–', 'width': 0, 'beats': None}


def test_cosines_by_expression(result):
  table = by_class(result)
  assert table['classes'] == ['happiness', 'fear']
  assert table['rows'][0] == {'name': 'cam', 'trivial': False, 'cells': ['0.800', '0.600']}
  assert [row['trivial'] for row in table['rows']] == [False, False, True, True, True, True]
