"""The benchmark tables: seeds are grouped, marks and intervals are right, rules kept apart, every format tells all."""

import json

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.metrics.intervals import share_interval, wilson
from fer_jax.reports.benchmark import BENCHMARKS, make_tables, published
from fer_jax.reports.formats import FORMS, Line, render
from fer_jax.reports.runs import collect, collect_scores

COUNT = 3137


def write_run(folder, *, name='ran', seed=0, accuracy=0.85, config=None, data=None, protocol=None, finished=True,
              overrides=(), **result):
  """Writes the files of a finished run on FERPlus, without a training."""
  settings = {'name': name, 'seed': seed, 'epochs': 20.0, 'image_size': 48, 'init_from': '', 'comparisons': {},
              'model': {'backbone': {'name': 'resnet', 'depth': 18}}, **(config or {}),
              'data': {'dataset': 'ferplus', 'variant': 'majority', 'dir': str(folder), 'classes': [],
                       'train': 'train+valid', 'test': 'test', **(data or {})}}
  data = settings['data']
  evaluation = {
      'count': COUNT, 'accuracy': accuracy, 'accuracy_interval': list(wilson(round(accuracy * COUNT), COUNT)),
      'mean_class_accuracy': accuracy - 0.2, 'mean_class_interval': [0.6, 0.7], 'step': 100, 'name': name,
      'seed': seed, 'commit': 'abc123', 'hardware': '1 x CPU', 'overrides': list(overrides), **result,
      'protocol': {'dataset': data['dataset'], 'variant': data['variant'], 'split': data['test'], 'select': 'last',
                   'trained_on': data['train'], 'leaky': False, 'evaluations': 1, 'n': COUNT, 'K': 8,
                   'fingerprint': 'f' * 64, **(protocol or {})}}
  (folder / 'evaluation').mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(settings))
  (folder / 'run.json').write_text(json.dumps({'finished': 'now'} if finished else {}))
  file = ','.join([data['test'], *overrides])
  (folder / 'evaluation' / f'{file}.json').write_text(json.dumps(evaluation))
  return folder


def tables_of(folder, *keys):
  runs, problems = collect([f'{folder}/*'])
  assert not problems
  return make_tables(runs, keys)


def lines_of(table, metric='accuracy'):
  return {line['row']: line for line in table.lines if line['metric'] == metric}


def test_seeds_are_one_row_with_mean_sd_and_t_interval(tmp_path):
  rates = [0.85, 0.86, 0.88]
  for seed, rate in enumerate(rates):
    write_run(tmp_path / f'ran-{seed}', seed=seed, accuracy=rate)
  (table,), remarks = tables_of(tmp_path, 'ferplus')
  line = lines_of(table)['ran']
  values = 100 * np.array(rates)
  low, high = share_interval(values, 100)[1:3]
  assert (line['ours'], line['sd'], line['95 % from'], line['95 % to'], line['seeds']) == (
      f'{values.mean():.2f}', f'{values.std(ddof=1):.2f}', f'{low:.2f}', f'{high:.2f}', '3')
  assert lines_of(table, 'mean class accuracy')['ran']['ours'] == f'{values.mean() - 20:.2f}'
  assert line['marks'] == '' and not remarks
  for words in ('seeds 0, 1, 2', 'trained on train+valid from random parameters', 'ferplus (majority)',
                'the parameters after the last step',
                '3,137 faces, 8 classes', 'evaluations 1', 'commit abc123', '1 x CPU', 'ran-1'):
    assert words in line.notes[0]


def test_a_single_run_has_the_wilson_interval_and_no_sd(tmp_path):
  write_run(tmp_path / 'run', accuracy=2666 / COUNT)
  line = lines_of(tables_of(tmp_path, 'ferplus')[0][0])['ran']
  low, high = wilson(2666, COUNT)
  assert (line['ours'], line['sd'], line['seeds']) == (f'{266600 / COUNT:.2f}', '', '1')
  assert (line['95 % from'], line['95 % to']) == (f'{100 * low:.2f}', f'{100 * high:.2f}')
  other = lines_of(tables_of(tmp_path, 'ferplus')[0][0], 'mean class accuracy')['ran']
  assert other['95 % from'] == '60.00' and other['95 % to'] == '70.00'


def test_other_configs_are_other_rows_and_say_what_differs(tmp_path):
  write_run(tmp_path / 'a', config={'epochs': 20.0})
  write_run(tmp_path / 'b', config={'epochs': 60.0}, seed=1)
  write_run(tmp_path / 'c', name='pal/uniform')
  write_run(tmp_path / 'd', protocol={'fingerprint': '0' * 64}, name='pal/uniform', seed=1)
  rows = lines_of(tables_of(tmp_path, 'ferplus')[0][0])
  assert {row for row, line in rows.items() if line['ours']} == {
      'ran (epochs=20.0)', 'ran (epochs=60.0)', 'pal/uniform (test data=ffffffffffff)',
      'pal/uniform (test data=000000000000)'}
  assert all(line['seeds'] in ('', '1') for line in rows.values())


def test_a_seed_that_is_there_twice_counts_once(tmp_path):
  write_run(tmp_path / 'a', accuracy=0.8)
  write_run(tmp_path / 'b', accuracy=0.9)
  (table,), remarks = tables_of(tmp_path, 'ferplus')
  assert lines_of(table)['ran']['ours'] == '80.00' and lines_of(table)['ran']['seeds'] == '1'
  assert remarks == [f'{tmp_path}/b repeats seed 0 of {tmp_path}/a and was left out.']


def test_students_of_the_same_seeds_teachers_are_one_row(tmp_path):
  learnt_from = lambda seed: {'teacher': {'workdir': f'runs/teacher-{seed}'}, 'length': '551 steps'}
  for seed in range(3):
    write_run(tmp_path / f'student-{seed}', name='papers/student', seed=seed, config=learnt_from(seed))
  (table,), _ = tables_of(tmp_path, 'ferplus')
  line = lines_of(table)['papers/student']
  assert line['seeds'] == '3' and ', 551 steps)' in line.notes[0]  # No number of epochs, which did not count.
  write_run(tmp_path / 'student-3', name='papers/student', seed=3, config=learnt_from(0))
  assert sorted(line['seeds'] for line in lines_of(tables_of(tmp_path, 'ferplus')[0][0]).values()
                if line['seeds']) == ['1', '3']


def test_published_numbers_stand_beside_their_system_or_alone(tmp_path):
  write_run(tmp_path / 'run', name='systems/ran')
  write_run(tmp_path / 'other', name='ours')
  rows = lines_of(tables_of(tmp_path, 'ferplus')[0][0])
  assert '88.55 RAN-R18 [R18 from MS-Celeb-1M; best epoch on test]' in rows['systems/ran']['published']
  assert 'RAN, arXiv 1905.04075 (TIP 2020).' in rows['systems/ran'].notes
  assert 'RAN-R18' not in rows  # It is in the row of our run.
  assert rows['ours']['published'] == '' and rows['ours']['ours']
  assert rows['POSTER'] == Line(
      {'row': 'POSTER', 'metric': 'accuracy',
       'published': '91.62 [recalled; selection not known, most are best on test]'}, ('POSTER: listed or recalled.',))


@pytest.mark.parametrize('changes, mark', [
    ({'protocol': {'leaky': True, 'reasons': ['the step was chosen']}}, 'LEAKY: the step was chosen'),
    ({'protocol': {'leaky': True}}, 'LEAKY: an earlier version marked it'),
    ({'protocol': {'evaluations': 3}}, 'the test split was evaluated 3 times'),
    ({'protocol': {'other_data': ['a', 'b']}}, 'the data are not those of the training'),
    ({'step': 0}, 'UNTRAINED')])
def test_marks_stand_beside_every_number(tmp_path, monkeypatch, changes, mark):
  monkeypatch.setenv('COLUMNS', '200')  # So that no word is folded.
  write_run(tmp_path / 'marked', name='marked', **changes)
  write_run(tmp_path / 'fine', name='fine')
  (table,), _ = tables_of(tmp_path, 'ferplus')
  for metric in ('accuracy', 'mean class accuracy'):
    rows = lines_of(table, metric)
    assert mark in rows['marked']['marks'] and rows['fine']['marks'] == ''
  for form in FORMS:
    assert mark.split()[0] in render([table], form)


def test_one_leaky_seed_marks_the_row(tmp_path):
  write_run(tmp_path / 'a', seed=0)
  write_run(tmp_path / 'b', seed=1, protocol={'leaky': True})
  line = lines_of(tables_of(tmp_path, 'ferplus')[0][0])['ran']
  assert line['seeds'] == '2' and line['marks'].startswith('LEAKY')


def test_rules_never_share_a_table(tmp_path):
  write_run(tmp_path / 'a')
  write_run(tmp_path / 'b', data={'variant': 'argmax'}, name='by argmax')
  write_run(tmp_path / 'c', data={'classes': ['anger', 'fear']}, name='few classes')
  write_run(tmp_path / 'd', data={'test': 'valid'}, name='on valid')
  write_run(tmp_path / 'e', data={'variant': 'majority-similarity112'}, name='aligned')
  tables, _ = tables_of(tmp_path, 'ferplus')
  ours = {table.title: {line['row'] for line in table.lines if line['ours']} for table in tables}
  assert ours == {'FERPlus': {'ran', 'aligned'}, 'FERPlus (labels: argmax)': {'by argmax'},
                  'FERPlus (only anger, fear)': {'few classes'}, 'FERPlus (split valid)': {'on valid'}}
  for table in tables[1:]:
    assert not any(line['published'] for line in table.lines)  # They are by the majority rule, on all of test.


def test_releases_of_affectnet_go_by_their_number_of_classes(tmp_path):
  for variant in ('csv7', 'npy7', 'csv8'):
    write_run(tmp_path / variant, name=variant, data={'dataset': 'affectnet', 'variant': variant, 'test': 'valid'})
  tables, remarks = tables_of(tmp_path, 'affectnet7', 'affectnet8')
  assert [{line['row'] for line in table.lines if line['ours']} for table in tables] == [{'csv7', 'npy7'}, {'csv8'}]
  assert [table.title for table in tables] == ['AffectNet-7', 'AffectNet-8'] and not remarks


def test_changed_evaluations_are_rows_of_their_own(tmp_path):
  write_run(tmp_path / 'run', name='arm', accuracy=0.8)
  write_run(tmp_path / 'run', name='arm', accuracy=0.9, overrides=['model.head.global_mean=batch'],
            protocol={'eval_order': 'stored', 'leaky': True})
  rows = lines_of(tables_of(tmp_path, 'ferplus')[0][0])
  assert rows['arm']['ours'] == '80.00' and not rows['arm']['marks']
  changed = rows['arm with model.head.global_mean=batch']
  assert changed['ours'] == '90.00' and changed['marks'].startswith('LEAKY')


def test_subsets_are_found_by_the_names_of_their_lists(tmp_path):
  subset = lambda accuracy, count: {'accuracy': accuracy, 'count': count, 'accuracy_interval': list(
      wilson(round((accuracy or 0) * count), count))}
  write_run(tmp_path / 'run', subsets={
      'jason_ferplus_occlusion_list': subset(0.8, 605), 'pose_30_list': subset(0.7, 1170), 'pose45': subset(None, 0)})
  (table,), _ = tables_of(tmp_path, 'ferplus_subsets')
  low, high = wilson(484, 605)
  line = lines_of(table, 'occlusion')['ran']
  assert (line['ours'], line['95 % from'], line['95 % to']) == ('80.00', f'{100 * low:.2f}', f'{100 * high:.2f}')
  assert '83.63 RAN [recalled; ' in line['published'] and '83.7 RAN, figure [recomputed; ' in line['published']
  assert lines_of(table, 'pose > 30')['ran']['ours'] == '70.00'
  empty = lines_of(table, 'pose > 45')['ran']
  assert empty['ours'] == empty['marks'] == empty['seeds'] == '' and empty['published']
  assert lines_of(table, 'occlusion')['baseline of RAN']['published'].startswith('73.33')


def test_cosines_with_action_units_are_not_those_with_landmarks(tmp_path):
  write_run(tmp_path / 'run', name='au_cues', data={'dataset': 'rafdb', 'variant': 'aligned'},
            alignment={'cam': {'cosine': 0.9, 'action_unit_published_cosine': 0.7},
                       'uniform': {'action_unit_cosine': 0.47},
                       'attention': {'cosine': 0.3, 'action_unit_cosine': 0.8}})
  (table,), _ = tables_of(tmp_path, 'rafdb_au_cues')
  cam = lines_of(table, 'CAM-COS')
  assert cam['au_cues']['ours'] == '0.700'
  assert cam['au_cues']['published'].startswith('0.70 CAM with AU [single run chosen on test')
  assert lines_of(table, "cosine of 'uniform'")['au_cues']['ours'] == '0.470'
  # Of a file without the authors' form.
  assert lines_of(table, 'ATT-COS')['au_cues']['ours'] == ''
  assert lines_of(table, "cosine of 'attention', not enlarged as in ATT-COS")['au_cues']['ours'] == '0.800'
  assert '[computed; ' in cam['fixed map: Gaussian, sigma 60 px']['published']


def test_only_the_annotators_triplets_are_fec(tmp_path):
  group = lambda accuracy: {'accuracy': accuracy, 'count': 90, 'listed': 100, 'accuracy_interval': [0.7, 0.9]}
  scored = {**group(0.8), 'types': {'one_class': group(0.75), 'two_class': group(None)}}
  comparison = {'dataset': 'fec', 'split': 'test', 'truth': 'annotators'}
  write_run(tmp_path / 'run', name='deepfever/student', triplets={'real': scored, 'made': scored},
            config={'comparisons': {'real': comparison, 'made': {**comparison, 'truth': 'votes'}}})
  (table,), _ = tables_of(tmp_path, 'fec')
  lines = [line for line in table.lines if line['ours']]
  assert [(line['metric'], line['ours'], line['95 % from'], line['95 % to']) for line in lines] == [
      ('triplet accuracy', '80.00', '70.00', '90.00'), ('triplet accuracy, one class', '75.00', '70.00', '90.00')]
  assert '90 of 100 triplets' in lines[0]['marks']  # Not all of the photographs are left.
  assert '86.5 DeepFEVER [recalled; private faces]' in lines[0]['published']


def test_what_cannot_be_used_is_named(tmp_path):
  write_run(tmp_path / 'fine')
  write_run(tmp_path / 'unfinished', finished=False)
  (write_run(tmp_path / 'damaged') / 'run.json').write_text('{"fin')
  (write_run(tmp_path / 'list') / 'run.json').write_text('[]')
  (write_run(tmp_path / 'untested') / 'evaluation' / 'test.json').unlink()
  (write_run(tmp_path / 'old') / 'config.json').write_text(json.dumps({'data': {'test': 'test'}}))
  (tmp_path / 'nothing').mkdir()
  write_run(tmp_path / 'unlabelled')
  path = tmp_path / 'unlabelled' / 'evaluation' / 'test.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), 'accuracy': None}))
  runs, problems = collect([f'{tmp_path}/*'])
  said = {'damaged': 'is damaged or of another version: JSON', 'list': 'config.json or run.json is no record',
          'nothing': 'holds no evaluated run: no config.json',
          'old': "is damaged or of another version: KeyError: 'seed'", 'unfinished': 'has not finished',
          'unlabelled': 'no labelled faces', 'untested': 'holds no evaluated run: no test.json'}
  assert [run.workdir for run in runs] == [f'{tmp_path}/fine'] and len(problems) == len(said)
  for problem, (name, words) in zip(problems, said.items(), strict=True):
    assert problem.startswith(f'{tmp_path}/{name}') and words in problem
  write_run(tmp_path / 'drawn', data={'dataset': 'synthetic_faces', 'variant': 'tiny'})
  _, remarks = make_tables(collect([f'{tmp_path}/drawn'])[0])
  assert remarks == [f'{tmp_path}/drawn is in none of the benchmark tables: it was tested on synthetic_faces (tiny).']


def test_errors(tmp_path):
  with pytest.raises(UserError, match='there is no such folder'):
    collect([f'{tmp_path}/*'])
  with pytest.raises(UserError, match='typo: there is no such folder'):
    collect([str(write_run(tmp_path / 'run')), f'{tmp_path}/typo'])
  with pytest.raises(UserError, match="no table 'ferpluss'; did you mean 'ferplus'"):
    make_tables([], ['ferpluss'])


def test_published_numbers_are_whole():
  entries = published()
  assert {entry['table'] for entry in entries} == set(BENCHMARKS)
  for entry in entries:
    assert list(entry) == ['table', 'system', 'row', 'metric', 'value', 'reference', 'mark', 'caveat']
    assert entry['mark'] in ('read', 'recalled', 'recomputed', 'computed') and entry['reference'] and entry['row']
    assert 0 < entry['value'] < (1 if entry['metric'].endswith('-COS') else 100)
  keys = [(entry['table'], entry['row'], entry['metric'], entry['value'], entry['reference']) for entry in entries]
  assert len(set(keys)) == len(keys)


def write_score(path, name='theirs', accuracy=0.9, declared='', answered=COUNT, **protocol):
  """Writes what ``score --out`` writes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps({
      'count': COUNT, 'accuracy': accuracy, 'accuracy_interval': [accuracy - 0.01, accuracy + 0.01],
      'mean_class_accuracy': 0.5, 'mean_class_interval': [0.4, 0.6], 'name': name,
      'predictions': {'answered': answered},
      'subsets': {'ferplus_occlusion': {'count': 605, 'accuracy': 0.8, 'accuracy_interval': [0.7, 0.9]}},
      'protocol': {'dataset': 'ferplus', 'variant': 'majority', 'split': 'test', 'classes': [], 'declared': declared,
                   'K': 8, 'fingerprint': 'f' * 64, 'n': COUNT, **protocol}}))
  return path


def test_predictions_from_elsewhere_stand_beside_runs_as_their_authors_declare(tmp_path):
  write_run(tmp_path / 'runs' / 'ran-0')
  write_score(tmp_path / 'scores' / 'a.json', 'ran', declared='trained on train, last epoch', answered=COUNT - 7)
  write_score(tmp_path / 'scores' / 'b.json', accuracy=0.95)
  write_score(tmp_path / 'scores' / 'c.json', accuracy=0.86)
  write_score(tmp_path / 'scores' / 'd.json', 'seven', classes=['fear'])
  (tmp_path / 'scores' / 'e.json').write_text('{}')
  scored, problems = collect_scores([f'{tmp_path}/scores/*.json'])
  assert [words.split(' is no result')[0] for words in problems] == [f'{tmp_path}/scores/e.json']
  (table, apart), _ = make_tables([*collect([f'{tmp_path}/runs/*'])[0], *scored], ['ferplus'])
  assert apart.title == 'FERPlus (only fear)'
  lines = {line['ours']: line for line in table.lines if line['metric'] == 'accuracy' and line['ours']}
  assert {value: line['marks'] for value, line in lines.items()} == {
      '85.00': '', '95.00': 'not declared', '86.00': 'not declared',
      '90.00': f'declared: trained on train, last epoch; 7 of {COUNT:,} faces have no answer and count as wrong'}
  assert lines['85.00']['seeds'] == '1'
  theirs = lines['90.00']
  assert (theirs['seeds'], theirs['95 % from'], theirs['95 % to']) == ('', '89.00', '91.00')
  assert ('predictions from elsewhere, protocol declared: trained on train, last epoch; nobody here has checked it, so '
          f'there is no verdict of ours; ferplus (majority), tested on test ({COUNT:,} faces, 8 classes); '
          f'{tmp_path}/scores/a.json') in theirs.notes[0]
  (subsets,), _ = make_tables(scored[:1], ['ferplus_subsets'])
  assert lines_of(subsets, 'occlusion')['ran']['marks'].startswith('declared: ')
  with pytest.raises(UserError, match=r'--scores=.*none.json: there is no such file; give files of score --out'):
    collect_scores([f'{tmp_path}/none.json'])
