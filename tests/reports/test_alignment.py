"""The alignment table: which columns an evaluation has, what beats a constant picture, and older files."""

import pytest

from fer_jax.reports.alignment import alignment_tables, by_class
from fer_jax.reports.template import share

UNITS = {'action_unit_cosine': 0.7, 'action_unit_published_cosine': 0.75, 'action_unit_pearson': 0.5,
         'action_unit_contrast': 0.1, 'action_unit_predicted_cosine': 0.6, 'action_unit_pointing': 0.8,
         'action_unit_count': 1203, 'action_unit_predicted_left_out': 17,
         'action_unit_cosine_by_class': {'happiness': 0.8, 'fear': 0.6}}
CAUSAL = {'mass_inside_causal_mask': 0.25, 'causal_auc': 0.7, 'causal_pointing': 0.5, 'causal_count': 40,
          'causal_left_out': 3}


@pytest.fixture
def result():
  row = {'cosine': 0.5, 'pearson': 0.2, 'count': 1500, **UNITS, **CAUSAL}
  lower = {**row, 'action_unit_cosine': 0.4, 'action_unit_contrast': 0.0, 'causal_auc': 0.5}
  names = {'cam': row, 'attention_map': dict(lower), 'uniform': dict(lower), 'centred_gaussian': dict(lower),
           'training_mean': {**lower, 'action_unit_cosine': 0.65, 'pearson': 0.3}, 'class_free': {**row, 'cosine': 0.9}}
  return {'classes': ['neutral', 'happiness', 'fear'], 'alignment': names}


def cells(table, name):
  line = next(line for line in table.lines if line['map'] == name)
  return [line[column.name] for column in table.columns[1:]]


def beats(table, name):
  """Whether each number is above the constant pictures; None where nothing is said of it."""
  return [{'▲': True, '▽': False}.get(cell[-1]) for cell in cells(table, name)]


def test_groups_of_columns_with_their_faces_and_who_is_left_out(result):
  landmarks, units, causal = alignment_tables(result)
  assert [table.title for table in (landmarks, units, causal)] == [
      'maps and landmarks, 1,500 faces', 'maps and action units, 1,203 faces', 'maps and causal mask, 40 faces']
  assert [column.name for column in units.columns] == ['map', 'cosine', 'cosine as published', 'Pearson', 'contrast',
                                                       'cosine, predicted', 'pointing']
  assert [cell.removesuffix(' ▲').removesuffix(' ▽') for cell in cells(units, 'cam')] == [
      '0.700', '0.750', '0.500', '0.100', '0.600', '80.0 %']
  assert 'without 17 faces predicted as a class that has no action units' in units.notes[0] and not landmarks.notes
  assert 'empty or full on 3 faces more' in causal.notes[0]
  assert [line.style for line in units.lines] == ['', '', *['trivial'] * 4]
  assert [share(cell) for cell in cells(units, 'cam')] == pytest.approx([70, 75, 50, 10, 60, 80])


def test_a_map_has_to_beat_every_constant_picture_but_not_the_landmarks(result):
  landmarks, units, causal = alignment_tables(result)
  assert beats(units, 'cam') == [True, False, False, True, False, False]
  assert beats(units, 'attention map') == [False] * 6
  assert beats(landmarks, 'cam') == [False, False]
  assert beats(causal, 'cam') == [False, True, False]
  for name in ('uniform', 'training mean', 'class free'):
    assert {found for table in (landmarks, units, causal) for found in beats(table, name)} == {None}
  result['alignment']['cam']['action_unit_cosine'] = 0.6  # Above two of the three.
  assert beats(alignment_tables(result)[1], 'cam')[0] is False


def test_files_of_older_versions_lack_rows_and_columns(result):
  for row in result['alignment'].values():
    for key in [*UNITS, 'causal_pointing', 'causal_left_out']:
      row.pop(key)
  for name in ('training_mean', 'class_free'):
    del result['alignment'][name]
  landmarks, causal = alignment_tables(result)
  assert [column.name for column in causal.columns[1:]] == ['mass', 'AUC'] and len(causal.notes) == 1
  assert beats(causal, 'cam') == [False, True]
  assert len(landmarks.lines) == 4 and by_class(result) is None
  assert alignment_tables({}) == [] and alignment_tables({'alignment': {}}) == []
  # One row without a value is a dash that beats nothing.
  result['alignment']['cam']['pearson'] = None
  assert cells(alignment_tables(result)[0], 'cam')[1] == '–' and share('–') == 0


def test_cosines_by_expression(result):
  table = by_class(result)
  assert [column.name for column in table.columns[1:]] == ['happiness', 'fear']
  assert table.lines[0]['map'] == 'cam' and cells(table, 'cam') == ['0.800', '0.600']
  assert [line.style for line in table.lines] == ['', '', *['trivial'] * 4]
