"""An ablation's tables on made-up workdirs: numbers against numpy and scipy, marks, and what is missing or not used."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix

from fer_jax.errors import UserError
from fer_jax.metrics.intervals import share_interval, wilson
from fer_jax.reports.ablation import collect, make_tables
from fer_jax.reports.ablation_rows import Row
from fer_jax.reports.formats import FORMS, render
from tests.reports.test_benchmark import write_run

COUNT = 400  # Faces.

TRIVIAL = {'uniform': {'pearson': 0.0, 'action_unit_cosine': 0.47},
           'centred_gaussian': {'pearson': 0.4, 'action_unit_cosine': 0.6},
           'class_free': {'pearson': 0.7, 'action_unit_cosine': 0.79}}


def make(folder, row='plain', seed=0, rate=0.85, *, at='{row}-{seed}', record=None, config=None, protocol=None,
         **result):
  """Writes a finished run of a table 'priors' with predictions and a log, and returns on which faces it is right."""
  rng = np.random.default_rng([seed, round(1000 * rate)])
  label = np.arange(COUNT) % 8
  right = rng.random(COUNT) < rate
  workdir = folder / at.format(row=row, seed=seed)
  prediction = np.where(right, label, (label + 1) % 8)
  measures = {'count': COUNT, 'accuracy_interval': wilson(int(right.sum()), COUNT), 'macro_f1': rate - 0.1,
              'ece': 0.05, 'nll': 0.5 + rate,
              'mean_class_accuracy': rate - 0.2, 'classes': [f'class {k}' for k in range(8)],
              'confusion': confusion_matrix(label, prediction).tolist()} | result
  write_run(workdir, name=f'priors/{row}', seed=seed, accuracy=float(right.mean()), **measures,
            protocol={'n': COUNT, **(protocol or {})},
            config={'batch_size': 10, 'weight': {'plain': 0.0, 'pal': 1.0}.get(row, 2.0), **(config or {})})
  np.savez(workdir / 'evaluation' / 'test.npz', label=label, prediction=prediction)
  (workdir / 'run.json').write_text(json.dumps({
      'finished': 'now', 'commit': 'abc123', 'hardware': '1 x CPU', 'devices': 1, 'steps': 6, 'parameters': 310488,
      **(record or {})}))
  (workdir / 'metrics.jsonl').write_text('{"step": 6, "kind": "train", "images_per_second": 2.5}\n')
  return right


def test_parts_of_the_test_split_are_a_table(tmp_path):
  part = lambda rate, count, **more: {'accuracy': rate, 'count': count, **more}
  for seed, rate in enumerate((0.5, 0.7)):
    make(tmp_path, 'plain', seed, without_duplicates=part(0.8, 300), subsets={
        'occlusion': part(rate, 10, without_duplicates=part(rate - 0.1, 8)), 'empty': part(None, 0)})
  make(tmp_path, 'pal')
  found = tables_of(tmp_path, ['plain', 'pal'], 2)['priors: accuracy on parts of the test split']
  cells = found['plain'].cells
  assert (cells['no duplicates, %'], cells['occlusion, %'], cells['occlusion, no duplicates, %']) == (
      '80.00 ± 0.00', '60.00 ± 14.14', '50.00 ± 14.14')
  assert not any('%' in column for column in found['pal'].cells) and 'empty, %' not in cells
  make(tmp_path / 'other')
  assert 'priors: accuracy on parts of the test split' not in tables_of(tmp_path / 'other', ['plain'])


def tables_of(folder, names=('plain', 'pal'), seeds=1):
  rows, problems = collect(folder, dict.fromkeys(names, seeds))
  assert not problems
  return {table.title: {line['row']: line for line in table.lines} for table in make_tables(rows, 'the command')}


def test_a_row_is_the_mean_over_its_seeds(tmp_path):
  rights = [make(tmp_path, 'plain', seed, rate) for seed, rate in enumerate((0.84, 0.85, 0.87))]
  line = tables_of(tmp_path, ['plain'], 3)['priors: scores']['plain']
  values = 100 * np.array([right.mean() for right in rights])
  low, high = share_interval(values, 100)[1:3]
  spread = lambda values, decimals=2: f'{np.mean(values):.{decimals}f} ± {np.std(values, ddof=1):.{decimals}f}'
  assert line.cells == {
      'row': 'plain', 'seeds': '3', 'accuracy, %': spread(values), '95 %': f'{low:.2f} to {high:.2f}',
      'mean class, %': spread([64, 65, 67]), 'macro F1, %': spread([74, 75, 77]), 'ECE, %': '5.00 ± 0.00',
      'NLL, nats': spread([1.34, 1.35, 1.37], 3), 'marks': ''}


def test_a_single_seed_has_the_wilson_interval_and_no_spread(tmp_path):
  right = make(tmp_path)
  line = tables_of(tmp_path, ['plain'])['priors: scores']['plain']
  low, high = wilson(int(right.sum()), COUNT)
  assert line['accuracy, %'] == f'{100 * right.mean():.2f}' and line['95 %'] == f'{100 * low:.2f} to {100 * high:.2f}'
  assert line['NLL, nats'] == '1.350'


def test_a_difference_of_single_seeds_has_mcnemar(tmp_path):
  theirs, ours = make(tmp_path, 'plain', rate=0.85), make(tmp_path, 'pal', rate=0.86)
  line = tables_of(tmp_path)['priors: accuracy, difference to plain']['pal']
  only, other = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
  assert line['difference'] == f'{100 * (only - other) / COUNT:+.2f}' and line['seeds'] == '1 and 1'
  assert float(line['p over faces']) == pytest.approx(stats.binomtest(only, only + other).pvalue, rel=0.06)
  low, high = map(float, line['95 % over faces'].split(' to '))
  half = 196 * (ours.astype(float) - theirs).std() / np.sqrt(COUNT)
  assert (high - low) / 2 == pytest.approx(half, rel=0.1)
  assert line['95 % over seeds'] == line['p over seeds'] == ''
  assert f'pal: {only} faces are right only here, {other} only in plain.' in line.notes


def test_a_difference_over_seeds_has_welch_and_no_p_over_faces(tmp_path):
  theirs = [make(tmp_path, 'plain', seed, rate).mean() for seed, rate in enumerate((0.84, 0.85, 0.86))]
  ours = [make(tmp_path, 'pal', seed, rate).mean() for seed, rate in enumerate((0.87, 0.88))]
  for path in (tmp_path / 'plain-2', tmp_path / 'pal-1'):
    assert path.exists()
  rows, _ = collect(tmp_path, {'plain': 3, 'pal': 3})
  line = make_tables(rows, '')[1].lines[0]
  expected = stats.ttest_ind(ours, theirs, equal_var=False)
  low, high = (100 * end for end in expected.confidence_interval())
  assert line['95 % over seeds'] == f'{low:+.2f} to {high:+.2f}' and line['p over seeds'] == f'{expected.pvalue:.2g}'
  assert line['p over faces'] == '' and line['95 % over faces'] and line['seeds'] == '2 and 3'
  assert line['marks'] == 'unfinished'
  notes = ' '.join(make_tables(rows, '')[1].notes)
  assert 'Two seeds on a side' in notes and 'does not cover other seeds' in notes
  assert 'takes the test faces as they are' in notes
  assert 'McNemar' not in notes and 'not corrected' not in notes  # One comparison, of several seeds.


def test_the_number_of_comparisons_is_said(tmp_path):
  for row in ('plain', 'pal', 'other'):
    make(tmp_path, row)
  rows, _ = collect(tmp_path, {'plain': 1, 'pal': 1, 'other': 1})
  assert 'The p-values are not corrected for the 2 comparisons' in ' '.join(make_tables(rows, '')[1].notes)


def test_rows_without_finished_runs_are_lines_without_numbers(tmp_path):
  make(tmp_path, 'plain')
  rows, problems = collect(tmp_path, {'plain': 3, 'pal': 3})
  assert rows == [Row('plain', rows[0].runs, 3), Row('pal', (), 3)] and not problems
  for table in make_tables(rows, ''):
    line = next(line for line in table.lines if line['row'] == 'pal')
    assert {name: text for name, text in line.cells.items() if text} == {
        'row': 'pal', 'seeds': '0 and 1' if 'difference' in table.title else '0 of 3', 'marks': 'unfinished'}
  rows, _ = collect(tmp_path, {'pal': 1, 'plain': 1})  # The first row is missing.
  scores, differences, _ = make_tables(rows, '')
  assert [line['accuracy, %'] != '' for line in scores.lines] == [False, True]
  assert differences.lines[0]['difference'] == '' and 'nothing can be compared' in differences.notes[0]
  for form in FORMS:
    assert 'nan' not in render(make_tables(collect(tmp_path, {'x': 2, 'y': 2})[0], ''), form)


@pytest.mark.parametrize('changes, mark', [
    ({'protocol': {'leaky': True, 'reasons': ['the step was chosen']}}, 'LEAKY: the step was chosen'),
    ({'protocol': {'leaky': True}}, 'LEAKY: an earlier version marked it'),
    ({'protocol': {'evaluations': 3}}, 'the test split was evaluated 3 times'),
    ({'protocol': {'other_data': ['a', 'b']}}, 'the data are not those of the training'),
    ({'step': 0}, 'UNTRAINED'),
    ({'record': {'commit': 'other'}}, 'differing commits'),
    ({'record': {'hardware': '8 x TPU'}}, 'differing hardware'),
    ({'protocol': {'trained_on': 'train'}}, 'differing data'),
    ({'config': {'epochs': 3.0, 'batch_size': 5}}, 'differing settings (batch_size, epochs)')])
def test_marks_stand_in_every_table_that_compares(tmp_path, changes, mark):
  alignment = {'cam': {'pearson': 0.5}}
  make(tmp_path, 'pal', alignment=alignment)
  make(tmp_path, 'pal', 1, alignment=alignment, **changes)
  for seed in (0, 1):
    make(tmp_path, 'plain', seed, alignment=alignment)
  tables = make_tables(collect(tmp_path, {'plain': 2, 'pal': 2})[0], '')
  assert len(tables) == 4
  for table in tables:
    lines = {line['row']: line for line in table.lines}
    assert mark in lines['pal']['marks'] and (lines['pal'].style == 'leaky') == ('LEAKY' in mark)
    assert 'plain' not in lines or lines['plain']['marks'] == ''
  # A first row that is not as it should be stains every difference to it.
  line = tables_of(tmp_path, ('pal', 'plain'), 2)['priors: accuracy, difference to pal']['plain']
  assert f'pal: {mark}' in line['marks']
  for form in FORMS:
    assert mark.split()[0] in render(tables, form)


def test_a_difference_between_other_commits_is_marked(tmp_path):
  make(tmp_path, 'plain')
  make(tmp_path, 'pal', record={'commit': 'other'})
  tables = tables_of(tmp_path)
  assert tables['priors: accuracy, difference to plain']['pal']['marks'] == 'differing commits'
  assert tables['priors: scores']['pal']['marks'] == ''


def test_other_faces_are_not_compared(tmp_path):
  make(tmp_path, 'plain')
  make(tmp_path, 'pal', protocol={'fingerprint': '0' * 64})
  line = tables_of(tmp_path)['priors: accuracy, difference to plain']['pal']
  assert line['difference'] == line['95 % over faces'] == line['p over faces'] == ''
  assert 'pal: The runs were not tested on the same faces' in line.notes[0] and 'differing data' in line['marks']


def test_the_protocol_the_changes_of_rows_and_the_command_are_said(tmp_path):
  make(tmp_path, 'plain')
  make(tmp_path, 'pal', protocol={'select': 'ema'})
  tables = make_tables(collect(tmp_path, {'plain': 1, 'pal': 1})[0], 'python -m this')
  scores = tables[0]
  assert scores.lines[0].notes == () and scores.notes[-1] == 'Made by: python -m this'
  changes, own = scores.lines[1].notes
  assert changes == 'pal is plain with weight=1.0.'
  assert own.startswith('pal: ferplus (majority), ') and 'epochs), the moving average of the parameters after' in own
  for words in ('trained on train+valid from random parameters', 'resnet 18, 48 px, 20 epochs',
                'the parameters after the last step and the moving average of the parameters after the last step',
                'tested on test (400 faces, 8 classes)', 'seeds 0', 'commit abc123', '1 x CPU'):
    assert words in scores.notes[0]


def test_cost_is_that_of_a_seed(tmp_path):
  make(tmp_path, 'plain')
  make(tmp_path, 'plain', 1, record={'devices': 2, 'parameters': 7})
  make(tmp_path, 'pal')
  (tmp_path / 'pal-0' / 'metrics.jsonl').unlink()
  rows, _ = collect(tmp_path, {'plain': 2, 'pal': 2})
  table = make_tables(rows, '')[2]
  hours = np.array([60 / 2.5, 2 * 60 / 2.5]) / 3600
  assert table.title == 'priors: cost'
  assert table.lines[0].cells == {
      'row': 'plain', 'seeds': '2', 'images/s': '2 ± 0', 'hardware': '1 x CPU', 'parameters': '310488 and 7',
      'device-hours': f'{hours.mean():.4f} ± {hours.std(ddof=1):.4f}', 'marks': ''}
  assert table.lines[1]['images/s'] == table.lines[1]['device-hours'] == ''
  assert 'same hardware with nothing else running' in table.notes[0]
  assert f'Added up over 2 of 3 finished runs, whose logs are whole: {hours.sum():.4f}.' in table.notes[1]


def test_alignment_stands_above_maps_that_know_nothing(tmp_path):
  for seed, (cosine, pearson) in enumerate(((0.5, 0.2), (0.6, 0.3))):
    maps = {'cam': {'pearson': pearson, 'action_unit_cosine': cosine, 'action_unit_published_cosine': cosine,
                    'action_unit_pointing': 0.25},
            'attention': {'pearson': None, 'action_unit_cosine': 0.8}}
    make(tmp_path, 'plain', seed, alignment={**maps, **TRIVIAL})
  make(tmp_path, 'pal', alignment={'cam': {'pearson': 0.9}, **TRIVIAL})
  rows, _ = collect(tmp_path, {'plain': 2, 'pal': 2})
  table = make_tables(rows, '')[3]
  assert table.title == 'priors: alignment of attribution maps'
  cells = {(line['map'], line['row']): line for line in table.lines}
  assert list(cells) == [('cam', 'plain'), ('cam', 'pal'), ('attention', 'plain'), ('attention', 'pal'),
                         ('uniform', 'no network'), ('centred gaussian', 'no network'), ('class free', 'no network')]
  cam = cells['cam', 'plain']
  assert cam['action units: cosine'] == f'0.550 ± {np.std([0.5, 0.6], ddof=1):.3f}'
  assert cam['landmarks: Pearson'] == f'0.250 ± {np.std([0.2, 0.3], ddof=1):.3f}'
  assert cam['action units: pointing, %'] == '25.00 ± 0.00' and cam['seeds'] == '2'
  assert cells['cam', 'pal']['landmarks: Pearson'] == '0.900' and cells['cam', 'pal']['seeds'] == '1 of 2'
  assert cells['cam', 'pal']['action units: cosine'] == '' == cells['attention', 'plain']['landmarks: Pearson']
  assert cells['attention', 'pal']['seeds'] == '0 of 2'
  assert cells['centred gaussian', 'no network']['action units: cosine'] == '0.600'  # Once, without a spread.
  assert [line.style for line in table.lines[-3:]] == ['trivial'] * 3
  assert any('CAM-COS' in note for note in table.notes)
  assert any('Uniform, centred gaussian: the same picture for every face' in note for note in table.notes)


def test_without_maps_there_is_no_table_of_alignment(tmp_path):
  make(tmp_path)
  assert len(make_tables(collect(tmp_path, {'plain': 1})[0], '')) == 2  # One row: no differences either.


def test_what_is_not_used_is_said(tmp_path):
  for seed in (0, 1, 2, 3, 5):
    make(tmp_path, 'plain', seed)
  make(tmp_path, 'pal', 0, at='other-0')
  (make(tmp_path, 'pal', 0), (tmp_path / 'pal-0' / 'run.json').write_text('{}'))
  make(tmp_path, 'pal', 0, at='pal-1')
  rows, problems = collect(tmp_path, {'plain': 2, 'pal': 2, 'other': 2})
  assert [len(row.runs) for row in rows] == [2, 0, 0]
  assert problems == [
      f'{tmp_path} also holds seed 2, 3 and 5 of plain, beyond the 2 wanted.',
      f'{tmp_path}/pal-0: this run has not finished; give its command again and it goes on.',
      f"{tmp_path}/pal-1 is left out: it holds 'priors/pal' with seed 0.",
      f"{tmp_path}/other-0 is left out: it holds 'priors/pal' with seed 0."]
  with pytest.raises(UserError, match='--workdir=.*/none: there is no such folder'):
    collect(tmp_path / 'none', {'plain': 1})


def test_each_row_has_as_many_seeds_as_it_is_to_have(tmp_path):
  for row, count in (('plain', 2), ('pal', 2), ('other', 4)):
    for seed in range(count):
      make(tmp_path, row, seed)
  rows, problems = collect(tmp_path, {'plain': 5, 'pal': 2, 'other': 3})
  assert problems == [f'{tmp_path} also holds seed 3 of other, beyond the 3 wanted.']
  scores, differences, costs = make_tables(rows, '')
  for table in (scores, costs):
    assert [(line['row'], line['seeds'], line['marks']) for line in table.lines] == [
        ('plain', '2 of 5', 'unfinished'), ('pal', '2', ''), ('other', '3', '')]
  assert [(line['row'], line['seeds']) for line in differences.lines] == [('pal', '2 and 2'), ('other', '3 and 2')]


def test_evaluations_with_changes_answer_another_question(tmp_path):
  right = make(tmp_path)
  path = tmp_path / 'plain-0' / 'evaluation' / 'test.json'
  changed = json.loads(path.read_text()) | {'accuracy': 0.99, 'overrides': ['model.head.global_mean=batch']}
  path.with_name('test,model.head.global_mean=batch.json').write_text(json.dumps(changed))
  line = tables_of(tmp_path, ['plain'])['priors: scores']['plain']
  assert line['accuracy, %'] == f'{100 * right.mean():.2f}'


def test_csv_has_numbers_in_columns_of_their_own(tmp_path):
  for seed, rate in enumerate((0.84, 0.86, 0.85)):
    make(tmp_path, 'pal', seed, rate + 0.01)
    if seed < 2:
      make(tmp_path, 'plain', seed, rate)
  tables = make_tables(collect(tmp_path, {'plain': 3, 'pal': 3})[0], '')
  rows = list(csv.DictReader(io.StringIO(render(tables, '.csv'))))
  scores = {row['row']: row for row in rows if row['table'] == 'priors: scores'}
  assert float(scores['pal']['accuracy, % sd']) > 0 and float(scores['pal']['95 % from']) < float(
      scores['pal']['accuracy, %']) < float(scores['pal']['95 % to'])
  assert (scores['plain']['95 % from'], scores['plain']['95 % to']) == ('too few seeds', '')
  [difference] = [row for row in rows if 'difference' in row['table']]
  assert float(difference['95 % over seeds from']) < float(difference['difference'])
