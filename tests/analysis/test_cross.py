"""The cross-dataset matrix: its cells against predictions made up here, what leaks, what is planned, and all of it."""

import copy
import csv
import io
import json
import sys

import cv2
import numpy as np
import pytest

from configs import baseline
from fer_jax.analysis import cross, transfer
from fer_jax.data import face
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.reading import rows, splits
from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError
from fer_jax.metrics.intervals import wilson
from fer_jax.metrics.shared import restrict
from fer_jax.reports.cross import make_tables
from fer_jax.reports.formats import FORMS, render
from fer_jax.runtime import storage
from fer_jax.training import config_files, evaluation, setup
from fer_jax.training.data import Data
from fer_jax.training.workdir import open_workdir, read_config, read_run
from tests import trees
from tests.processes import ROOT, TINY, call

# Two data sets with other classes in another order.
CLASSES = {'ferplus': ('neutral', 'happiness', 'anger', 'contempt', 'fear'),
           'fer2013': ('anger', 'fear', 'happiness', 'neutral', 'sadness')}
COUNTS = {'ferplus': 23, 'fer2013': 31}
COPIED = (3, 4, 8, 17)  # Test faces of fer2013 that ferplus trains on; row 4 is of a class that ferplus does not have.


def source(dataset, split, count):
  rng = np.random.default_rng(sum(map(ord, dataset + split)))
  classes, records = CLASSES[dataset], []
  for i in range(count):
    image = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    records.append({'image': face.png(image).getvalue(), 'name': f'{i}.png', 'label': i % len(classes),
                    'landmarks': np.full((68, 2), np.nan, np.float32), 'landmark_source': 0})
  whole = rows.Whole(facts={'all': {'digest': dataset}})
  return Split(records, classes, fingerprint=f'{dataset} {split}', intervals=(rows.Interval(split, 0, count),),
               whole=whole)


@pytest.fixture
def data(monkeypatch):
  """{(data set, split): its faces}, in the place of prepared data."""
  made = {(name, 'test'): source(name, 'test', count) for name, count in COUNTS.items()}
  made |= {(name, split): source(name, split, 12) for name in COUNTS for split in ('train', 'train+valid')}
  for i, row in enumerate(COPIED):
    made['ferplus', 'train+valid'].records[i]['image'] = made['fer2013', 'test'].records[row]['image']
  made['ferplus', 'train+valid'].records[9]['image'] = made['ferplus', 'test'].records[1]['image']
  monkeypatch.setattr(splits, 'open_split', lambda name, variant, split, folder, **options: made[name, split])
  monkeypatch.setattr(Data, 'open', lambda self, split: made[self.dataset, split])
  cross._images.cache_clear()
  yield made
  cross._images.cache_clear()


def logits_of(config, source):
  """What a network of this data set and seed says, row by row."""
  rng = np.random.default_rng([config.seed, len(source)])
  return rng.normal(size=(len(source), len(CLASSES[config.data.dataset]))).astype(np.float32)


@pytest.fixture
def asked(data, monkeypatch):
  """Networks answer with ``logits_of``; the list tells (data set of the network, length of the split) of each use."""
  asked = []

  def outputs_of(network, variables, source, batch_size, mesh, order='stored'):
    asked.append((network.data.dataset, len(source)))
    return {'label': source.labels, 'logits': logits_of(network, source)}

  monkeypatch.setattr(setup, 'load', lambda workdir, mesh: setup.Trained(
      workdir, setup.make_protocol(read_config(workdir)), read_run(workdir), None, {}, 40,
      lambda: setup.seen(workdir)))
  monkeypatch.setattr(transfer, 'evaluator', lambda trained, mesh: trained.protocol)
  monkeypatch.setattr(evaluation, 'outputs_of', outputs_of)
  return asked


def make_run(folder, dataset, seed=0, **changes):
  """A finished run, without parameters and without an evaluation."""
  config = baseline.get_config(dataset)
  with config.unlocked():
    config.seed = seed
    for key, value in changes.items():
      config.update_from_flattened_dict({key.replace('__', '.'): value})
  workdir = storage.as_path(folder / f'{config.name}-{dataset}-{seed}')
  record = open_workdir(setup.settings(config), workdir, [])
  storage.write_json(workdir / 'run.json', record | {'classes': list(CLASSES[dataset]), 'steps': 40, 'channels': 1,
                                                     'finished': 'now'})
  return workdir


def expected(config, data, tested_on, shared, rows=slice(None)):
  """(count, accuracy, mean class accuracy) of plain loops."""
  theirs, ours = data[tested_on, 'test'], CLASSES[config.data.dataset]
  hits = {}
  for k, row in list(zip(theirs.labels, logits_of(config, theirs), strict=True))[rows]:
    if (name := theirs.classes[k]) in shared:
      hits.setdefault(name, []).append(name == max(shared, key=lambda other: row[ours.index(other)]))
  every = [hit for held in hits.values() for hit in held]
  return len(every), np.mean(every), np.mean([np.mean(held) for held in hits.values()])


def cell_of(result, row, column):
  return next(cell for cell in result['cells'] if (cell['row'], cell['tested_on']) == (row, column))


@pytest.fixture
def runs(asked, tmp_path):
  return [make_run(tmp_path, name, seed) for seed in (0, 1) for name in COUNTS]


def test_cells_are_of_the_shared_classes_by_name(runs, data):
  result = cross.measure(runs)
  assert [test['name'] for test in result['tests']] == ['ferplus', 'fer2013'] and len(result['cells']) == 4
  shared = {'neutral', 'happiness', 'anger', 'fear'}
  for cell in result['cells']:
    row, column = cell['row'], cell['tested_on']
    classes = set(CLASSES[row]) if row == column else shared
    assert set(cell['classes']) == classes and cell['own'] == (row == column)
    assert cell['chance'] == 1 / len(classes) and [one['seed'] for one in cell['runs']] == [0, 1]
    held = [data[column, 'test'].classes[k] for k in data[column, 'test'].labels]
    left = {name: held.count(name) for name in dict.fromkeys(held) if name not in classes}
    assert cell['left_out'] == left and cell['count'] == len(held) - sum(left.values())
    largest = max(classes, key=held.count)
    assert held.count(cell['majority']['class']) == held.count(largest)
    assert cell['majority']['share'] == pytest.approx(held.count(largest) / cell['count'])
    for one in cell['runs']:
      config = read_config(one['workdir'])
      count, accuracy, mean_class = expected(config, data, column, classes)
      assert (one['count'], one['accuracy'], one['mean_class_accuracy']) == pytest.approx((count, accuracy, mean_class))
      assert one['accuracy_interval'] == pytest.approx(wilson(round(accuracy * count), count))
      own = expected(config, data, row, classes)
      assert (one['own_test']['count'], one['own_test']['accuracy'],
              one['own_test']['mean_class_accuracy']) == pytest.approx(own)
  assert cell_of(result, 'ferplus', 'fer2013')['runs'][0]['accuracy'] != cell_of(
      result, 'ferplus', 'fer2013')['runs'][1]['accuracy']


def test_duplicates_of_training_images_make_a_cell_leaky(runs, data):
  result = cross.measure(runs)
  cell = cell_of(result, 'ferplus', 'fer2013')
  kept = [row for row in COPIED if CLASSES['fer2013'][row % 5] != 'sadness']
  assert cell['duplicates'] == len(kept) == 3
  for one in cell['runs']:
    assert one['leaks'] == ['4 of 31 test images were trained on']
    logits = logits_of(read_config(one['workdir']), data['fer2013', 'test'])
    label, prediction = restrict(data['fer2013', 'test'].labels, logits, CLASSES['ferplus'], CLASSES['fer2013'],
                                 cell['classes'])
    rows = [row for row in range(31) if row not in COPIED and label[row] >= 0]
    assert one['without_duplicates']['count'] == 22
    assert one['without_duplicates']['accuracy'] == pytest.approx((label == prediction)[rows].mean())
  own = cell_of(result, 'ferplus', 'ferplus')  # Its own duplicates are in everybody's numbers.
  assert own['duplicates'] == 1 and own['runs'][0]['leaks'] == []
  assert own['runs'][0]['without_duplicates']['count'] == 22
  honest = cell_of(result, 'fer2013', 'ferplus')
  assert honest['duplicates'] == 0 and not honest['runs'][0]['leaks']
  assert honest['runs'][0]['without_duplicates'] is None


def test_other_leaks_are_told_too(asked, tmp_path):
  result = cross.measure([make_run(tmp_path, 'ferplus', select='best_on_test'),
                           make_run(tmp_path, 'fer2013', model__head={'name': 'arm', 'global_mean': 'batch'})])
  assert cell_of(result, 'ferplus', 'ferplus')['runs'][0]['leaks'] == [
      'the step of the network was chosen by the accuracy on 23 of 23 test images']
  for column in COUNTS:
    assert cell_of(result, 'fer2013', column)['runs'][0]['leaks'] == [
        'each answer depends on the other images of its batch, here 256 in stored order']


def test_the_own_test_split_is_not_looked_at_again_where_its_predictions_are_left(runs, asked, data):
  config = read_config(runs[0])
  logits = logits_of(config, data['ferplus', 'test'])[:, ::-1]
  storage.write_json(runs[0] / 'evaluation/test.json', {'step': 40, 'protocol': {'fingerprint': 'ferplus test'}})
  storage.write_npz(runs[0] / 'evaluation/test.npz', label=data['ferplus', 'test'].labels, logits=logits,
                    prediction=logits.argmax(1))
  result = cross.measure(runs[:2])
  assert asked == [('ferplus', 31), ('fer2013', 23), ('fer2013', 31)]
  hits = logits.argmax(1) == data['ferplus', 'test'].labels
  assert cell_of(result, 'ferplus', 'ferplus')['runs'][0]['accuracy'] == pytest.approx(hits.mean())
  assert 'evaluations' not in read_run(runs[0]) and read_run(runs[1])['evaluations'] == {'test': 1}


def test_rows_and_columns_have_the_shortest_names_that_tell_them_apart(asked, data, tmp_path):
  data['fer2013', 'valid'] = data['fer2013', 'test']
  first = make_run(tmp_path, 'ferplus')
  further = [cross.Test('fer2013', 'votes', 'test'), cross.Test('fer2013', 'votes', 'valid')]
  result = cross.measure([first, make_run(tmp_path, 'ferplus', name='wide', model__backbone__width=32)], further[:1])
  assert [test['name'] for test in result['tests']] == ['ferplus', 'fer2013']
  assert {cell['row'] for cell in result['cells']} == {'baseline on ferplus', 'wide on ferplus'}
  result = cross.measure([first], further)
  assert [test['name'] for test in result['tests']] == ['ferplus/majority:test', 'fer2013/votes:test',
                                                        'fer2013/votes:valid']
  assert {cell['row'] for cell in result['cells']} == {'ferplus/majority'}
  other = make_run(tmp_path / 'other', 'ferplus', epochs=3.0)
  result = cross.measure([first, other], further[:1])
  assert {cell['row'] for cell in result['cells']} == {'baseline (epochs=12.0)', 'baseline (epochs=3.0)'}


def test_what_cannot_be_measured_is_said_in_a_sentence(runs, data, asked, tmp_path):
  def said(*inputs):
    with pytest.raises(UserError) as error:
      cross.measure(*inputs)
    return str(error.value)

  assert 'one test split only, ferplus: a matrix needs two data sets' in said(runs[::2])
  assert f"repeats seed 0 of {runs[0]}" in said([*runs, make_run(tmp_path / 'again', 'ferplus')])
  known = read_run(runs[2])
  storage.write_json(runs[2] / 'run.json', known | {'classes': list(CLASSES['ferplus'][:4])})
  assert f'{runs[2]} and {runs[0]} differ in ' in said(runs)
  storage.write_json(runs[2] / 'run.json', {key: known[key] for key in known if key != 'finished'})
  assert f'{runs[2]} has not finished; give its command again' in said(runs)
  data['fer2013', 'test'].classes = ('bored', 'puzzled', 'happy', 'tired', 'asleep')
  assert 'share happiness; a test needs two at least' in said(runs[:2])
  data['fer2013', 'test'].classes = ('bored', 'puzzled', 'tired', 'asleep', 'hungry', 'anger', 'fear')
  assert 'test of fer2013 has no face of the classes anger, fear' in said(runs[:2])


@pytest.fixture(autouse=True)
def wide(monkeypatch):
  monkeypatch.setenv('COLUMNS', '200')  # So that no cell of a table is wrapped.


def tables_of(result, form=''):
  return render(make_tables(result), form)


def line_of(text, *words):
  return next(line for line in text.splitlines() if all(word in line for word in words))


def test_tables_have_the_cells_what_to_hold_them_against_and_all_notes(runs):
  result = json.loads(json.dumps(cross.measure(runs)))
  text = tables_of(result, '.md')
  short, long = text.split('## Every cell')
  for row in COUNTS:
    for column in COUNTS:
      cell = cell_of(result, row, column)
      rates = 100 * np.array([one['accuracy'] for one in cell['runs']])
      number = f'{rates.mean():.2f} ± {rates.std(ddof=1):.2f}'
      assert f"{number} \\[{len(cell['classes'])}\\]" in line_of(short, f'| {row} | ', ' ± ')
      line = line_of(long, f'| {row} | {column} |')
      own = 100 * np.array([one['own_test']['accuracy'] for one in cell['runs']])
      lost = own - rates
      assert number in line and f"| {cell['count']} |" in line and f"| {100 * cell['chance']:.2f} |" in line
      assert f"| {100 * cell['majority']['share']:.2f} | 2 |" in line
      for held in (own, lost):
        assert (f'{held.mean():.2f} ± {held.std(ddof=1):.2f}' in line) == (row != column) or held is own
  assert 'LEAKY' in line_of(short, '| ferplus | ', '±') and 'LEAKY' not in line_of(short, '| fer2013 | ', '±')
  assert 'LEAKY: 4 of 31 test images' in line_of(long, '| ferplus | fer2013 |')
  for words in ('joined by name', 'it cannot answer with another class', 'left out: sadness (6 faces)',
                'ferplus on ferplus: 1 of the 23 faces are exact duplicates of faces in its training split, as distr',
                'Two seeds are too few for an interval', 'Duplicates are counted pixel for pixel',
                'fer2013 is the split test of fer2013 (default)'):
    assert words in long, words
  assert long.count('| too few seeds |') == 4 and 'Wilson' not in long
  assert all(str(workdir).replace('_', '\\_') in long for workdir in runs)


def test_every_format_and_a_single_seed(runs):
  result = cross.measure(runs[1::-1])
  texts = {form: tables_of(result, form) for form in FORMS}
  cell = cell_of(result, 'fer2013', 'ferplus')
  number = f"{100 * cell['runs'][0]['accuracy']:.2f}"
  assert all(number in text for text in texts.values()) and 'Wilson' in texts[''] and '±' not in texts['']
  low, high = (100 * end for end in cell['runs'][0]['accuracy_interval'])
  line = next(line for line in csv.DictReader(io.StringIO(texts['.csv']))
              if (line['trained on'], line['tested on']) == ('fer2013', 'ferplus'))
  assert (line['accuracy, %'], line['95 % from'], line['95 % to']) == (number, f'{low:.2f}', f'{high:.2f}')
  assert 'longtable' in texts['.tex'] and 'LEAKY' in texts['.tex']
  untrained = copy.deepcopy(result)
  untrained['cells'][0]['runs'][0]['step'] = 0
  assert 'UNTRAINED' in tables_of(untrained) and 'UNTRAINED' not in texts['']


@pytest.mark.parametrize('text, parts', [
    ('ferplus', ('ferplus', '', '')), ('fer2013/votes', ('fer2013', 'votes', '')),
    ('sfew/aligned:valid', ('sfew', 'aligned', 'valid')), ('ferplus:train[:10%]', ('ferplus', '', 'train[:10%]'))])
def test_data_sets_are_named_by_variant_and_split(text, parts):
  assert cross.parse(text) == parts


def plan(*datasets, config='configs/baseline.py', seeds=1, workdir='runs/cross', changes=()):
  return cross.plan(str(ROOT / config), datasets, seeds, workdir, changes)


def test_the_plan_has_a_training_for_each_data_set_and_seed(data):
  jobs = plan('ferplus', 'fer2013/votes', seeds=2, changes=['epochs=1', 'model.backbone.width=4'])
  assert [(job.row, job.seed, job.workdir) for job in jobs] == [
      (row, seed, f'runs/cross/{row}-{seed}') for seed in (0, 1) for row in ('ferplus', 'fer2013_votes')]
  assert jobs[3].command == (
      sys.executable, '-m', 'fer_jax.train', f'--config={ROOT}/configs/baseline.py:fer2013', '--config.seed=1',
      '--workdir=runs/cross/fer2013_votes-1', '--config.epochs=1.0', '--config.model.backbone.width=4',
      '--config.data.variant=votes')
  row = plan('ferplus', 'fer2013', config='configs/ablations/pal.py:*:true_class')[1]
  assert f'--config={ROOT}/configs/ablations/pal.py:fer2013:true_class' in row.command


@pytest.mark.parametrize('datasets, options, message', [
    (['ferplus'], {}, 'name two data sets at least'), (['ferplus', 'ferplus'], {}, 'name two data sets at least'),
    (['fer plus', 'fer2013'], {}, "'fer plus': write NAME, NAME/VARIANT or NAME/VARIANT:SPLIT"),
    (['ferplus:test', 'fer2013'], {}, "leave out ':test', or give --set=data.test=test"),
    (['ferplus', 'fer2014'], {}, "unknown data set 'fer2014'; did you mean 'fer2013'"),
    (['ferplus', 'fer2013'], {'changes': ['epocs=1']}, '--set=epocs=1: Key "epocs" does not exist'),
    (['ferplus', 'fer2013'], {'changes': ['seed=1']}, '--set=seed: every run has its own'),
    (['ferplus', 'fer2013'], {'workdir': 'gs://bucket/cross'}, 'a bucket has no locks'),
    (['ferplus', 'fer2013'], {'config': 'configs/bseline.py'}, 'configs/bseline.py')])
def test_a_plan_that_cannot_be(data, datasets, options, message):
  with pytest.raises(UserError, match=message.replace('(', r'\(')):
    plan(*datasets, **options)


def test_what_would_fail_after_training_fails_before(data, tmp_path):
  data['fer2013', 'test'].classes = ('a', 'b', 'c', 'd', 'fear')
  with pytest.raises(UserError, match='share fear; a test needs two at least'):
    plan('ferplus', 'fer2013')
  data['fer2013', 'test'].classes = CLASSES['fer2013']
  config = config_files.load_config(str(ROOT / 'configs/baseline.py:ferplus'), ['epochs=2'])
  open_workdir(setup.settings(config), tmp_path / 'ferplus-0', [])
  assert len(plan('ferplus', 'fer2013', workdir=str(tmp_path), changes=['epochs=2'])) == 2
  with pytest.raises(UserError, match='ferplus-0 holds a run of another config: epochs is 2.0 there, 3.0 here'):
    plan('ferplus', 'fer2013', workdir=str(tmp_path), changes=['epochs=3'])


def test_the_command_trains_tests_and_goes_on(tmp_path, monkeypatch):
  monkeypatch.setenv('COLUMNS', '250')
  rng = np.random.default_rng(0)
  photos = {f'{split}/{name}/{i}.png': cv2.imencode('.png', draw_face(rng, name, 32).image[..., ::-1])[1].tobytes()
            for split, count in (('train', 5), ('test', 4)) for name in ('anger', 'happiness', 'fear')
            for i in range(count)}
  trees.build('faces_folder', tmp_path, photos, classes=('happiness', 'fear', 'anger'))
  changes = [argument.replace('--config.', '--set=') for argument in TINY if 'variant' not in argument]
  arguments = ['--config=configs/baseline.py', '--datasets=synthetic_faces/tiny,faces_folder', *changes,
               '--set=epochs=0.25', f'--workdir={tmp_path / "cross"}']
  status, out, err = call('cross', *arguments, data_dir=tmp_path / 'data')
  assert status == 0, err
  result = json.loads((tmp_path / 'cross/cross.json').read_text())
  assert [(cell['row'], cell['tested_on'], cell['classes']) for cell in result['cells']] == [
      ('synthetic_faces', 'synthetic_faces', list(face.EXPRESSIONS[:7])),
      ('synthetic_faces', 'faces_folder', ['happiness', 'anger', 'fear']),
      ('faces_folder', 'synthetic_faces', ['happiness', 'fear', 'anger']),
      ('faces_folder', 'faces_folder', ['happiness', 'fear', 'anger'])]
  for name, cell in (('synthetic_faces_tiny-0', result['cells'][0]), ('faces_folder-0', result['cells'][3])):
    evaluated = json.loads((tmp_path / 'cross' / name / 'evaluation/test.json').read_text())
    assert cell['runs'][0]['accuracy'] == evaluated['accuracy'] and cell['count'] == evaluated['count']
    assert json.loads((tmp_path / 'cross' / name / 'run.json').read_text())['evaluations'] == {'test': 1}
  assert 'rows trained on, columns tested on' in out
  status, out, err = call('cross', f"--workdirs={tmp_path / 'cross'}/*-0", f"--workdir={tmp_path / 'again'}",
                          f"--out={tmp_path / 'cross.csv'}", data_dir=tmp_path / 'data')
  assert status == 0, err
  again = json.loads((tmp_path / 'again/cross.json').read_text())['cells']
  assert sorted((cell['row'], cell['tested_on'], cell['runs'][0]['accuracy']) for cell in again) == sorted(
      (cell['row'], cell['tested_on'], cell['runs'][0]['accuracy']) for cell in result['cells'])
  assert 'table,trained on' in (tmp_path / 'cross.csv').read_text()
