"""An ablation's primary comparisons: levels and p-values against scipy, what holds, and what is left out."""

import json

import numpy as np
import pytest
from scipy import stats

from fer_jax.metrics.intervals import bootstrap
from fer_jax.reports.ablation import collect, make_tables
from fer_jax.reports.formats import FORMS, render
from tests.reports.test_ablation import COUNT, make

TITLE = 'priors: accuracy, primary comparisons'
FACES, SEEDS = '98.75 % over faces', '98.75 % over seeds'
PAIRS = (('better', 'plain'), ('slight', 'plain'), ('plain', 'varied'), ('better', 'other'))


def make_seeds(folder, row, counts, last=(0, 1, 0)):
  """Runs of a row that are right on the first ``counts`` faces, and on so many of the last ones; their answers."""
  rights = np.arange(COUNT) < np.array(counts)[:, None]
  rights |= np.arange(COUNT) >= COUNT - np.array(last)[:len(rights), None]
  for seed, right in enumerate(rights):
    make(folder, row, seed)
    path = folder / f'{row}-{seed}' / 'evaluation'
    label = np.arange(COUNT) % 8
    np.savez(path / 'test.npz', label=label, prediction=np.where(right, label, (label + 1) % 8))
    result = json.loads((path / 'test.json').read_text())
    (path / 'test.json').write_text(json.dumps(result | {'accuracy': float(right.mean())}))
  return rights


@pytest.fixture
def answers(tmp_path):
  counts = {'plain': (320,) * 3, 'better': (360,) * 3, 'slight': (324,) * 3, 'varied': (330, 395, 350)}
  return {row: make_seeds(tmp_path, row, right) for row, right in counts.items()}


def table_of(folder, pairs, names=('plain', 'better', 'slight', 'varied'), seeds=3):
  tables = make_tables(collect(folder, dict.fromkeys(names, seeds))[0], '', pairs)
  assert [table.title == TITLE for table in tables].index(True) == 1  # Behind the scores.
  return tables[1]


def test_intervals_and_p_values_are_corrected_for_all_pairs_that_the_config_states(tmp_path, answers):
  table = table_of(tmp_path, PAIRS)
  assert [(line['row'], line['against'], line['seeds']) for line in table.lines] == [
      (row, other, '3 and 3') for row, other in PAIRS[:3]]  # The fourth has a row that was not chosen.
  for line in table.lines:
    ours, theirs = answers[line['row']], answers[line['against']]
    test = stats.ttest_ind(100 * ours.mean(axis=1), 100 * theirs.mean(axis=1), equal_var=False)
    low, high = test.confidence_interval(0.9875)
    assert line[SEEDS] == f'{low:+.2f} to {high:+.2f}' and line['p over seeds x 4'] == f'{4 * test.pvalue:.2g}'
    share = 100 * (ours.mean(axis=0) - theirs.mean(axis=0))
    value, low, high, _ = bootstrap(share, level=0.9875)
    assert line[FACES] == f'{low:+.2f} to {high:+.2f}' and line['difference'] == f'{value:+.2f}'
    assert line['p over faces x 4'] == line['marks'] == ''
  notes = ' '.join(table.notes)
  for words in ("Bonferroni's correction for 4 comparisons", 'level 1 - 0.05 / 4 = 98.75 %', 'multiplied by 4',
                '4, of which 3 have both rows here', "'yes' stands where both intervals"):
    assert words in notes


def test_a_difference_holds_where_both_corrected_intervals_leave_out_0(tmp_path, answers):
  better, slight, varied = table_of(tmp_path, PAIRS).lines
  assert better['holds'] == 'yes'
  # Four faces more in every seed: enough at 95 %, not at 98.75 % over faces; over seeds it stands out at both.
  assert slight['holds'] == 'no' and slight[FACES].startswith('+0.00') and slight[SEEDS].startswith('+0.')
  alone = table_of(tmp_path, PAIRS[1:2])
  assert alone.lines[0]['holds'] == 'yes' and alone.lines[0]['95 % over faces'].startswith('+0.25')
  assert 'One comparison needs no correction' in alone.notes[1]
  # Over faces it stands out, over seeds it does not.
  assert varied['holds'] == 'no' and varied[SEEDS].startswith('-') and ' to +' in varied[SEEDS]
  assert not any(end.startswith('+') for end in varied[FACES].split(' to '))
  [line] = table_of(tmp_path, [('plain', 'better')]).lines
  assert line['holds'] == 'yes' and line['difference'] == '-10.00'


def test_nothing_is_said_to_hold_with_too_few_seeds(tmp_path, answers):
  table = table_of(tmp_path, PAIRS[:2], ('plain', 'better', 'slight', 'absent'), seeds=1)
  [better, slight] = table.lines
  assert better['holds'] == better['97.5 % over seeds'] == '' and better['97.5 % over faces'].startswith('+')
  assert better['seeds'] == '1 and 1' and float(better['p over faces x 2']) == pytest.approx(2 * 2 * 0.5**40, rel=0.1)
  assert slight['p over faces x 2'] == f'{2 * 2 * 0.5**4:.2g}'
  assert table_of(tmp_path, [*PAIRS[:2]] * 5, seeds=1).lines[1]['p over faces x 10'] == '1'  # Not 1.25.
  [line] = table_of(tmp_path, [('absent', 'plain')], ('plain', 'absent')).lines
  assert {name: text for name, text in line.cells.items() if text} == {
      'row': 'absent', 'against': 'plain', 'seeds': '0 and 3', 'marks': 'unfinished'}


def test_the_table_of_differences_is_as_without_them_and_no_pair_is_no_table(tmp_path, answers):
  rows, _ = collect(tmp_path, {'plain': 3, 'better': 3})
  without, tables = make_tables(rows, ''), make_tables(rows, '', PAIRS)
  assert [table for table in tables if table.title != TITLE] == without and len(tables) == len(without) + 1
  assert make_tables(rows, '', PAIRS[1:]) == without  # None of the pairs has both its rows.
  for form in FORMS:
    assert 'better' in render(tables, form) and 'holds' in render(tables, form)


def test_marks_of_both_rows_stand_beside_a_comparison(tmp_path):
  make(tmp_path, 'plain', protocol={'leaky': True, 'reasons': ['the step was chosen']})
  make(tmp_path, 'pal', record={'commit': 'other'})
  [line] = table_of(tmp_path, [('pal', 'plain')], ('pal', 'plain'), 1).lines
  assert line['marks'] == 'plain: LEAKY: the step was chosen; differing commits' and line.style == 'leaky'
