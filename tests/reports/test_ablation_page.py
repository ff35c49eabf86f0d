"""The page of an ablation: the rows' own numbers, what must not be compared marked everywhere, what is missing said."""

import re

import numpy as np
import pytest
from scipy import stats

from fer_jax.metrics.intervals import share_interval
from fer_jax.metrics.summary import summarise
from fer_jax.reports.ablation_rows import Row
from fer_jax.reports.formats import Column, Line, Table
from fer_jax.reports.runs import Run
from tests.rows import CLASSES, changed, make_rows, make_run, render, section

SECTIONS = ['summary', 'accuracy', 'changes', 'alignment', 'recall', 'confusion', 'wall', 'tables', 'runs', 'how',
            'ethics']
LEAKY = {'select': 'best_on_test', 'leaky': True, 'reasons': ['the step was chosen by the accuracy on 60 of 60']}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Three rows of three seeds with everything, and their page."""
  folder = tmp_path_factory.mktemp('whole')
  rows = make_rows(folder, full=True)
  return folder, rows, *render(folder, rows)


def drawn(text):
  """The words of the drawings."""
  return re.findall(r'<text[^>]*>([^<]*)</text>', text)


def accuracies(row):
  return 100 * np.array([run.result['accuracy'] for run in row.runs])


def test_every_section_in_one_self_contained_file(whole):
  folder, _, text, page = whole
  assert [name for name in page.ids if name in SECTIONS] == SECTIONS and len(page.ids) == len(set(page.ids))
  assert all(address.startswith(('data:', '#', 'row')) for address in page.addresses)
  assert 'http' not in text and '<script' not in text and '@import' not in text
  assert not {'banner', 'watermark', 'leaky-mark', 'mark'} & set(page.classes)
  assert not list(folder.glob('*.part')), 'the half-written file is gone'


def test_the_numbers_are_those_of_the_rows(whole):
  _, rows, text, _ = whole
  shown = drawn(section(text, 'accuracy'))
  for row in rows:
    values = accuracies(row)
    assert f'{values.mean():.2f} %, sd {values.std(ddof=1):.2f}, 3 seeds' in shown
    assert f'{values[1]:.2f} %' in section(text, 'runs')
  for row in rows[1:]:
    test = stats.ttest_ind(accuracies(row), accuracies(rows[0]), equal_var=False)
    low, high = test.confidence_interval()
    mean = accuracies(row).mean() - accuracies(rows[0]).mean()
    assert f'{mean:+.2f} [{low:+.2f}, {high:+.2f}]'.replace('-', '−') in shown
  low, high = share_interval(accuracies(rows[0]), 100)[1:3]
  summary = section(text, 'summary')
  for words in (f'{accuracies(rows[0]).mean():.2f} %', f'{low:.2f} % to {high:.2f} %', 'drawn (v1)', '123,456', 'abc',
                'two cores', 'resnet 10, width 16, 48 px', '<span class="muted">of 2', '0, 1, 2'):
    assert words in summary, words
  assert 'Trained on “train+valid” of drawn (v1), tested on 60 faces of its test split, 3 classes' in text


def test_a_difference_stands_out_if_it_does_over_seeds_and_over_faces(tmp_path):
  """Row 1 is better on many faces with every seed, row 2 on many with one seed, row 3 on one face with every seed."""
  base = [np.arange(60) % 3, (np.arange(60) + (np.arange(60) < 30)) % 3]
  rows = []
  for i, gains in enumerate(([0, 0, 0], [20, 21, 20], [30, 0, 0], [1, 1, 1])):
    runs = []
    for seed, gain in enumerate(gains):
      run = make_run(tmp_path, seed, i)
      label, prediction = base[0], base[1].copy()
      prediction[seed] = label[seed]  # No two seeds are right on the same faces.
      prediction[5:5 + gain] = label[5:5 + gain]
      np.savez(f'{run.workdir}/evaluation/test.npz', label=label, prediction=prediction)
      runs.append(changed(run, **summarise({'label': label, 'prediction': prediction}, CLASSES)))
    rows.append(Row(f'row{i}', tuple(runs), 3))
  text, _ = render(tmp_path, rows)
  assert '1 <span class="muted">of 3' in section(text, 'summary') and 'row1: the 95 % intervals' in text
  assert 'leave out 0. If no row differed, up to 0.15 of 3 would' in text
  hollow = re.findall(r'style="fill: var\(--card\); stroke: var\(--(row-\d)\)', section(text, 'accuracy'))
  assert hollow == ['row-2', 'row-3']
  text, _ = render(tmp_path, [rows[0], rows[2]])
  assert '0 <span class="muted">of 1' in text and 'Of every row, a 95 % interval' in text and 'If no row' not in text


def test_rows_with_fewer_seeds_are_said_to_be_incomplete(tmp_path):
  rows = make_rows(tmp_path, count=2)
  rows[1] = Row('row1', rows[1].runs[1:], 3)
  text, _ = render(tmp_path, rows)
  assert 'Incomplete.' in text and 'row1 has 2 of 3 seeds' in text and 'row0 has' not in text
  assert any(words.endswith('2 of 3 seeds') for words in drawn(section(text, 'accuracy')))


def test_what_cannot_be_compared_is_said(tmp_path):
  rows = make_rows(tmp_path, full=True, row2={'fingerprint': 'g'})
  (tmp_path / 'row1-1/evaluation/test.npz').unlink()
  text = section(render(tmp_path, rows)[0], 'accuracy')
  assert 'row1: Not compared face by face: there is no' in text
  assert 'row2: The runs were not tested on the same faces' in text and 'not comparable' in drawn(text)


def test_leaky_rows_are_marked_in_every_section(tmp_path):
  text, page = render(tmp_path, make_rows(tmp_path, full=True, row1=LEAKY), [Table('all', (Column('row'),), (
      Line({'row': 'row1'}, style='leaky'),))])
  assert 'Leaky: row1.' in text and 'chosen by the accuracy on 60 of 60' in text and 'Leaky: row0.' not in text
  for name in ('summary', 'accuracy', 'changes', 'tables', 'alignment', 'recall', 'confusion', 'wall', 'runs'):
    assert 'leaky-mark' in section(text, name), name
  assert drawn(section(text, 'accuracy')).count('LEAKY') == 2  # Accuracy and difference.
  assert drawn(section(text, 'alignment')).count('row1 LEAKY') == 4
  assert sum(words.endswith('% LEAKY') for words in drawn(section(text, 'recall'))) == len(CLASSES)
  assert page.classes.count('watermark') == 1 + 2 + 1  # Comparison, accuracy and difference, its confusions.


def test_only_the_first_rows_own_accuracy_is_free_of_anothers_leak(tmp_path):
  first = lambda text: section(text, 'summary').split('class="tile')[1]
  assert 'LEAKY' not in first(render(tmp_path, make_rows(tmp_path, count=2, row1=LEAKY))[0])
  assert 'LEAKY' in first(render(tmp_path, make_rows(tmp_path, count=2, row0=LEAKY))[0])


def test_untrained_rows_evaluations_and_other_circumstances_are_said(tmp_path):
  rows = make_rows(tmp_path, row1={'evaluations': 3}, row2={'fingerprint': 'g'})
  rows[0] = Row('row0', tuple(changed(run, step=0) for run in rows[0].runs), 3)
  text, _ = render(tmp_path, rows)
  assert 'Untrained: row0.' in text and drawn(section(text, 'accuracy')).count('UNTRAINED') == 1
  assert '3 evaluations.' in text and 'Some of the runs have differing data:' in text


def test_a_single_seed_has_an_interval_over_faces_alone(tmp_path, whole):
  rows = [Row(row.name, row.runs, 1) for row in make_rows(tmp_path, seeds=1)]
  text, _ = render(tmp_path, rows)
  right = round(0.6 * accuracies(rows[0])[0])
  ends = stats.binomtest(right, 60).proportion_ci(method='wilson')
  assert 'nothing is known of the spread over seeds' in text
  assert f'{100 * ends.low:.2f} % to {100 * ends.high:.2f} %' in section(text, 'summary')
  assert 'of single seeds over faces' in text and 'Incomplete' not in text
  assert ' sd ' not in ' '.join(drawn(section(text, 'accuracy')))
  assert 'of single seeds over faces' not in whole[2]


def test_what_the_rows_change_is_what_differs_in_their_configs(whole):
  table = section(whole[2], 'changes')
  assert re.findall(r'<td class="mono">([^<]*)', table) == ['losses.pal.weight']
  values = re.findall(r'<td class="mono (\w+)">([^<]*)', table)
  assert values == [('muted', '0.0'), ('changed', '0.5'), ('changed', '1.0')]


def test_tables_are_printed_in_full(tmp_path):
  table = Table('a <b>', (Column('row'), Column('x')), (Line({'row': 'r<s>', 'x': '12.34'}, ('A note.',)),))
  text = section(render(tmp_path, [], [table])[0], 'tables')
  assert 'a &lt;b&gt;' in text and 'r&lt;s&gt;' in text and '12.34' in text and 'A note.' in text


def test_recall_and_confusions_are_over_seeds(whole):
  _, rows, text, _ = whole
  for k, name in enumerate(CLASSES):
    chart = section(text, 'recall').split(f'<h3>{name}')[1].split('<h3>')[0]
    assert '20 faces' in chart
    for row in rows:
      rates = [run.result['confusion'][k][k] / 20 for run in row.runs]
      assert f'{100 * np.mean(rates):.1f} %' in drawn(chart)
  chart = section(text, 'confusion').split('</i>row1')[1].split('<h3>')[0]
  pooled = sum(np.array(run.result['confusion']) for run in rows[1].runs)
  numbers = [int(words) for words in drawn(chart) if words.isdigit()]
  assert sorted(numbers) == sorted(int(f'{100 * count / 60:.0f}') for count in pooled.ravel() if count)


def test_rows_of_other_classes_are_left_out_of_recall(tmp_path):
  rows = make_rows(tmp_path)
  fewer = summarise({'label': np.arange(60) % 2, 'prediction': np.arange(60) % 2}, CLASSES[:2])
  rows[2] = Row('row2', tuple(changed(run, **fewer) for run in rows[2].runs), 3)
  text = section(render(tmp_path, rows)[0], 'recall')
  assert 'row2: other classes, so left out here.' in text and 'row2' not in drawn(text)


def test_alignment_is_drawn_where_it_was_measured(tmp_path, whole):
  text = section(whole[2], 'alignment')
  assert re.findall('<h3>([^<]*)', text) == ['ATT-COS', 'CAM-COS', 'CAM and landmarks', 'Sum of logits and landmarks']
  assert drawn(text).count('uniform') == 4 and 'Not measured' not in text
  rows = make_rows(tmp_path, full=True, count=2)
  bare = lambda row: Row(row.name, tuple(changed(run, alignment={}) for run in row.runs), 3)
  text = section(render(tmp_path, [bare(rows[0]), rows[1]])[0], 'alignment')
  assert text.count('Not measured for row0.') == 4 and 'row0' not in drawn(text)
  text = section(render(tmp_path, make_rows(tmp_path, count=1))[0], 'alignment')
  assert 'No attribution maps were evaluated' in text and '<svg' not in text


def test_a_row_without_runs_is_there_and_says_so(tmp_path):
  rows = make_rows(tmp_path)
  text, _ = render(tmp_path, [rows[0], Row('later', (), 3), rows[2]])
  assert 'later has none of 3 seeds' in text and 'later has no finished run.' in section(text, 'wall')
  assert {'later', 'no finished run'} <= set(drawn(section(text, 'accuracy')))
  # The others keep the colours of their places.
  assert '--row-2' in section(text, 'recall') and 'fill: var(--row-1)' not in section(text, 'recall')
  text, _ = render(tmp_path, [Row('later', (), 3), *rows[1:]])
  assert 'It has no finished run, so there is nothing to compare the others with.' in text


@pytest.mark.parametrize('rows', [[], [Row('a', (), 2)], [Row('a', (), 2), Row('b', (), 2)]])
def test_an_ablation_without_runs_has_a_page(tmp_path, rows):
  text, page = render(tmp_path, rows)
  assert [name for name in page.ids if name in SECTIONS] == SECTIONS
  for sentence in ('No run of this ablation has finished yet.', 'There is no evaluation yet.', 'There are no faces'):
    assert sentence in text


def test_links_lead_to_the_pages_of_the_runs(tmp_path):
  folder = tmp_path / 'abl'
  rows = make_rows(folder)
  rows[1] = Row('row1', (make_run(tmp_path / 'else where', 0, 1), *rows[1].runs[1:]), 3)
  (folder / 'row2-1/report.html').unlink()
  text, page = render(folder, rows)
  links = [address for address in page.addresses if not address.startswith(('data:', '#'))]
  assert links == ['row0-0/report.html', 'row0-1/report.html', 'row0-2/report.html',
                   '../else%20where/row1-0/report.html', 'row1-1/report.html', 'row1-2/report.html',
                   'row2-0/report.html', 'row2-2/report.html']
  assert 'seed 1, no page' in section(text, 'runs')


def test_names_cannot_break_the_page(tmp_path):
  evil = '<i>"a" & b_c</i>'
  rows = [Row(evil, row.runs, 3) if i else row for i, row in enumerate(make_rows(tmp_path, count=2, row1=LEAKY))]
  classes = ['x<y', '"z"', 'fear & co']
  rows = [Row(row.name, tuple(Run(run.workdir, run.config, run.record | {'classes': classes},
                                  run.result | {'classes': classes}) for run in row.runs), 3) for row in rows]
  text, _ = render(tmp_path, rows)
  assert '<i>"a"' not in text and '&lt;i&gt;' in text
  assert 'x<y' not in text and {'x&lt;y', 'fear &amp; co'} <= set(drawn(text)) and '& co' not in text


def test_seeds_that_share_their_data_are_said_to(tmp_path, whole):
  rows = make_rows(tmp_path, count=2)
  assert 'data.seed=' not in whole[2]
  rows[1].runs[0].config['data']['seed'] = 7
  assert '(data.seed=7)' in section(render(tmp_path, rows)[0], 'how')


def test_a_single_row_is_compared_with_nothing(tmp_path):
  text, _ = render(tmp_path, make_rows(tmp_path, count=1))
  assert 'There is no second row with a finished run' in text and 'That takes finished runs of the first row' in text
