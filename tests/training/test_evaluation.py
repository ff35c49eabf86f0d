"""Exact evaluation: every example once, on any number of devices, in any order; changed configs, subsets, the panel."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from fer_jax.data import face
from fer_jax.data.reading import streams
from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError
from fer_jax.landmarks.action_units import action_unit_map
from fer_jax.metrics import alignment
from fer_jax.metrics.intervals import mean_rate, wilson
from fer_jax.reports.page import write_report
from fer_jax.reports.table import print_evaluation
from fer_jax.runtime import cluster, storage
from fer_jax.training import calibration, checkpoint, evaluation, privacy, setup
from fer_jax.training.data import Data
from fer_jax.training.workdir import open_workdir, read_run
from tests import faces

CONFIG = faces.config()


@pytest.fixture(scope='module')
def system():
  return setup.make_system(CONFIG, faces.CLASSES, 10)


@pytest.fixture(scope='module')
def meshes(system):
  out = {}
  for devices in (1, 8):
    mesh = cluster.make_mesh(jax.devices()[:devices])
    out[devices] = (mesh, cluster.replicate(system.initial(), mesh).variables(),
                    setup.make_evaluator(system, mesh))
  return out


def test_ragged_splits_give_the_same_table_on_one_and_eight_devices(system, meshes):
  whole = None
  for count in (17, 1, 7, 8, 9):
    source = faces.source(count)
    for mesh, variables, evaluator in meshes.values():
      table = evaluation.collect(evaluator, variables, source, 8, mesh)
      assert len(table['label']) == count and list(table['row']) == list(range(count))
      np.testing.assert_array_equal(table['label'], source.labels)
      whole = table if whole is None else whole  # Of the 17: the others are its beginning, but for the noise's seed.
      np.testing.assert_allclose(table['logits'][0], whole['logits'][0], atol=1e-5)
      assert table['maps']['predicted'].shape == (count, 2, 2)
      p = np.exp(table['logits'] - table['logits'].max(1, keepdims=True))
      p /= p.sum(1, keepdims=True)
      np.testing.assert_allclose(table['nll'], -np.log(p[np.arange(count), table['label']]), rtol=1e-4)
      np.testing.assert_array_equal(table['prediction'], p.argmax(1))


def test_faces_without_a_label_are_predicted_and_not_scored(system, meshes):
  source = faces.source(9)
  source.records[4]['label'] = -1
  mesh, variables, evaluator = meshes[1]
  table = evaluation.collect(evaluator, variables, source, 8, mesh)
  assert len(table['prediction']) == 9 and np.isnan(table['nll'][4]) and np.isfinite(np.delete(table['nll'], 4)).all()


def test_fallback_landmarks_are_no_valid_prior(system, meshes):
  source = faces.source(9)
  source.records[2]['landmark_source'] = 1
  mesh, variables, evaluator = meshes[1]
  table = evaluation.collect(evaluator, variables, source, 8, mesh)
  assert list(np.flatnonzero(~table['landmarks_valid'])) == [2]


def test_outputs_leave_the_devices_two_batches_behind(meshes):
  read, under_way = [], []

  class Late:
    """Logits that are not there before they are asked for."""

    def __init__(self, rows):
      self.rows = rows

    def __array__(self, *_, **__):
      read.append(self.rows.min())
      return self.rows[:, None]

  def evaluator(variables, batch):
    under_way.append(len(read))
    return {name: batch[name] for name in ('row', 'mask')} | {'logits': Late(np.asarray(batch['row']))}

  table = evaluation.outputs_of(evaluator, {}, faces.source(48), 8, meshes[1][0])
  assert under_way == [0, 0, 0, 1, 2, 3] and read == [0, 8, 16, 24, 32, 40]
  np.testing.assert_array_equal(table['logits'][:, 0], np.arange(48))


def test_an_evaluator_without_maps_computes_and_keeps_none(system, meshes):
  mesh, variables, explaining = meshes[1]
  batch = streams.rows(faces.source(8), range(8))
  plain = setup.make_evaluator(system, mesh, explain=False).eval_shape(variables, batch)
  assert set(plain) == {'logits', 'embedding', 'pooled', 'label', 'row', 'mask'}
  assert set(explaining.eval_shape(variables, batch)) - set(plain) == {
      *(f'map/{name}' for name in CONFIG.explain), 'landmark_source', 'landmark_heatmap'}


def test_panel_shows_the_first_faces_of_every_class(system, meshes, tmp_path):
  mesh, variables, evaluator = meshes[8]
  protocol = setup.make_protocol(faces.config(eval_batch_size=16))
  trained = setup.Trained(tmp_path, protocol, {}, system, variables, 1, lambda: [])
  evaluation.draw_panel(trained, variables, evaluator, faces.source(20), mesh)
  panel = np.load(tmp_path / 'panel.npz')
  assert list(panel['labels']) == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2] and list(panel['names'][:2]) == ['0.png', '1.png']
  np.testing.assert_allclose(panel['before/predicted'], panel['after/predicted'])


@pytest.mark.parametrize('count, asked', [(60, False), (20, False), (60, True)])
def test_faces_whose_terms_forbid_it_are_in_no_file_unless_asked_for(system, meshes, tmp_path, count, asked):
  mesh, variables, evaluator = meshes[8]
  protocol = setup.make_protocol(faces.config(eval_batch_size=16, report__faces=asked))
  source = faces.source(count, shareable=False)
  trained = setup.Trained(tmp_path, protocol, {}, system, variables, 1, list)
  evaluation.draw_panel(trained, variables, evaluator, source, mesh)
  table = {'label': source.labels, 'embedding': np.random.default_rng(0).normal(size=(count, 3))}
  evaluation.draw_neighbours(table, source, tmp_path, privacy.keeps(protocol, source))
  panel, neighbours = (storage.read_npz(tmp_path / f'{name}.npz') for name in ('panel', 'neighbours'))
  assert ('images' in panel) == ('images' in neighbours) == asked != ('mean_face' in panel)
  assert neighbours['labels'].shape == neighbours['distances'].shape == (7, 7)
  if not asked:  # Of all 60, or of fewer than a mean should have.
    mean = np.mean([source.example(row)['image'] for row in range(count)], axis=0) if count == 60 else 128
    np.testing.assert_allclose(panel['mean_face'], np.broadcast_to(mean, (16, 16, 1)), atol=0.51)


ORDERS = ('stored', 'shuffled', 'sorted')


def test_the_order_changes_no_row_of_a_model_that_looks_at_one_face(system, meshes):
  source = faces.source(17)
  mesh, variables, evaluator = meshes[8]
  stored, *others = (evaluation.collect(evaluator, variables, source, 8, mesh, order) for order in ORDERS)
  for table in others:
    for name in ('label', 'row', 'prediction', 'landmark_heatmap'):
      np.testing.assert_array_equal(table[name], stored[name])
    np.testing.assert_allclose(table['logits'], stored['logits'], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table['maps']['predicted'], stored['maps']['predicted'], rtol=1e-3, atol=1e-6)


def arm(global_mean):
  head = ConfigDict({'name': 'arm', 'block': 4, 'kernel': 4, 'stride': 2, 'global_mean': global_mean})
  return faces.config(model__head=head, losses=ConfigDict({'cross_entropy': CONFIG.losses.cross_entropy.to_dict()}))


@pytest.fixture
def splits(monkeypatch, tmp_path):
  """Splits in memory; three of the 17 test images are training images too."""
  made = {'train': faces.source(24, seed=0), 'test': faces.source(17, seed=2)}
  for row in (1, 8, 9):
    made['test'].records[row]['image'] = made['train'].records[row]['image']
  monkeypatch.setattr(Data, 'open', lambda self, split: made[split])
  return made


def make_run(config, workdir):
  """A workdir as a run leaves it that was stopped before its first step."""
  system = setup.make_system(config, faces.CLASSES, 1)
  record = open_workdir(setup.settings(config), workdir, [])
  storage.write_json(workdir / 'run.json', record | {'classes': list(faces.CLASSES), 'steps': 1})
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', write=True)
  checkpoints.save(1, system.initial())
  checkpoints.close()
  return workdir


def make_calibrated(workdir):
  """A finished run of a 16-pixel network of grey faces that was calibrated."""
  made = faces.config()
  made.data.channels = 1
  workdir = make_run(made, workdir)
  record = storage.read_json(workdir / 'run.json')
  storage.write_json(workdir / 'run.json', record | {'channels': 1, 'size': 16, 'align_size': 0, 'frame': None,
                                                     'finished': 'today'})
  storage.write_json(workdir / calibration.FILE, {
      'step': 1, 'temperature': 2.5, 'threshold': 0.3, 'temperature_interval': None, 'count': 20, 'split': 'valid',
      'wanted': {'coverage': 0.9}, 'at_bound': False})
  return workdir


def logits(workdir, name):
  with np.load(workdir / 'evaluation' / f'{name}.npz') as file:
    return file['logits']


def test_changes_make_evaluations_of_their_own_and_a_batch_mean_is_marked(splits, tmp_path):
  workdir = make_run(arm('running'), tmp_path / 'arm')
  plain = evaluation.evaluate_run(workdir)
  assert not plain['protocol']['leaky'] and plain['overrides'] == [] and 'eval_order' not in plain['protocol']
  assert 'subsets' not in plain and 'without_duplicates' not in plain
  changes = ['model.head.global_mean=batch', 'eval_order=sorted']
  changed = evaluation.evaluate_run(workdir, changes=changes)
  name = 'test,model.head.global_mean=batch,eval_order=sorted'
  assert sorted(p.name for p in (workdir / 'evaluation').iterdir()) == [f'{name}.json', f'{name}.npz', 'test.json',
                                                                        'test.npz']
  assert json.loads((workdir / 'evaluation' / f'{name}.json').read_text()) == json.loads(json.dumps(changed))
  protocol = changed['protocol']
  assert changed['overrides'] == changes and protocol['leaky'] and not protocol['seen_in_training']
  assert (protocol['eval_order'], protocol['eval_batch_size'], protocol['evaluations']) == ('sorted', 8, 2)
  # Batches differ by order, so do the answers; without the batch mean they do not.
  evaluation.evaluate_run(workdir, changes=['eval_order=sorted'])
  np.testing.assert_allclose(logits(workdir, 'test,eval_order=sorted'), logits(workdir, 'test'), rtol=1e-5, atol=1e-6)
  evaluation.evaluate_run(workdir, changes=['model.head.global_mean="batch"'])
  stored, ordered = logits(workdir, 'test,model.head.global_mean=batch'), logits(workdir, name)
  assert abs(stored - ordered).max() > 1e-3 < abs(stored - logits(workdir, 'test')).max()
  # The mean over a batch is one more term, the same for all of its rows: also where the batch is filled up.
  shift = stored - logits(workdir, 'test')
  for rows in (slice(0, 8), slice(8, 16), slice(16, 17)):
    np.testing.assert_allclose(shift[rows], np.broadcast_to(shift[rows][:1], shift[rows].shape), rtol=1e-3, atol=1e-5)


def test_maps_are_compared_with_the_action_units_of_the_true_class(splits, tmp_path):
  test = splits['test']
  test.records[3]['landmark_source'] = face.LANDMARK_SOURCES.index('image_box')
  test.records[4]['label'] = -1
  # Another geometry than the stored maps', as the run has it.
  test.maps = splits['train'].maps = {'action_unit_map': {'geometry': 'intended'}}
  workdir = make_run(CONFIG, tmp_path / 'run')
  result = evaluation.evaluate_run(workdir)
  rows = result['alignment']
  assert list(rows) == [*CONFIG.explain, 'uniform', 'centred_gaussian', 'training_mean', 'class_free']
  network = setup.load(workdir, cluster.make_mesh())
  evaluator = setup.make_evaluator(network.system, cluster.make_mesh())
  table = evaluation.collect(evaluator, network.variables, test, 8, cluster.make_mesh())
  assert not {'unit_maps', 'training_mean'} & table.keys()  # What evaluations during training do not pay for.

  def scores(row, image):
    label = test.records[row]['label']
    drawn = action_unit_map(test.records[row]['landmarks'] / np.float32(16), faces.CLASSES[label], 224,
                            geometry='intended')
    a, b = image.ravel(), drawn.ravel().astype(float)
    return a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-8) if drawn.any() else None

  def by_class(images):
    found = {}
    for row, record in enumerate(test.records):
      if row not in (3, 4) and (value := scores(row, images(row))) is not None:
        found.setdefault(faces.CLASSES[record['label']], []).append(value)
    return {name: np.mean(values) for name, values in found.items()}

  def cam(row):
    image = table['maps']['cam'][row].astype(float)
    return alignment.resize((image - image.min()) / np.ptp(image), (224, 224))

  pictures = {
      'cam': cam, 'attention': lambda row: alignment.resize(table['maps']['attention'][row], (224, 224)),
      'uniform': lambda row: np.ones((224, 224))}
  for name, images in pictures.items():
    expected = by_class(images)
    assert rows[name]['action_unit_cosine_by_class'] == pytest.approx(expected, abs=1e-5), name
    assert rows[name]['action_unit_cosine'] == pytest.approx(np.mean(list(expected.values())), abs=1e-5)
  assert rows['cam']['action_unit_count'] == 17 - 2 - 3  # Three are neutral.
  # The trivial maps are judged like the rest, from the training split and the faces themselves.
  assert rows['class_free']['action_unit_cosine'] > rows['uniform']['action_unit_cosine']
  means = []
  for k, name in list(enumerate(faces.CLASSES))[1:]:
    train = [record['landmarks'] / np.float32(16) for record in splits['train'].records if record['label'] == k]
    means.append(np.mean([action_unit_map(points, name, 224, geometry='intended') for points in train], axis=0))
  expected = by_class(lambda row: np.mean(means, axis=0))
  assert rows['training_mean']['action_unit_cosine_by_class'] == pytest.approx(expected, abs=1e-6)


def test_process_0_alone_compares_and_all_have_its_result(splits, tmp_path, monkeypatch):
  mesh = cluster.make_mesh()
  first, second = (setup.load(make_run(CONFIG, tmp_path / name), mesh) for name in ('first', 'second'))
  evaluator = setup.make_evaluator(first.system, mesh)
  theirs = evaluation.evaluate_split(first, evaluator, splits['test'], 'test', mesh, finishes=True)
  received = json.dumps(theirs)
  for name in ('summarise', 'draw_neighbours'):  # Another process than 0 calls neither.
    monkeypatch.setattr(evaluation, name, None)
  monkeypatch.setattr(cluster, 'is_main', lambda: False)
  monkeypatch.setattr(cluster, 'once', lambda action: json.loads(received))
  ours = evaluation.evaluate_split(second, evaluator, splits['test'], 'test', mesh, finishes=True)
  assert ours | {'evaluated': 0} == theirs | {'evaluated': 0}


def test_a_training_split_that_is_gone_costs_one_row_only(splits, tmp_path, capsys):
  workdir = make_run(CONFIG, tmp_path / 'run')

  def open_split(self, split):
    if split == 'train':
      raise UserError('synthetic_faces is not prepared')
    return splits[split]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Data, 'open', open_split)
    rows = evaluation.evaluate_run(workdir)['alignment']
  assert "'training_mean' is left out: synthetic_faces is not prepared" in ' '.join(capsys.readouterr().out.split())
  assert 'training_mean' not in rows and rows['cam']['action_unit_cosine'] > 0


def test_the_training_mean_is_drawn_once_for_a_data_set(tmp_path, monkeypatch):
  drawn = []
  draw = Split.unit_maps
  monkeypatch.setattr(Split, 'unit_maps', lambda self, row, *args: drawn.append(row) or draw(self, row, *args))
  opened = lambda **options: faces.source(24, fingerprint='f', digest='d', folder=str(tmp_path), **options)
  monkeypatch.setattr(Data, 'open', lambda self, split: opened())
  data = setup.make_protocol(CONFIG).data
  first = data.training_mean()
  assert len(drawn) == 24 and first.shape == (224, 224)
  np.testing.assert_array_equal(data.training_mean(), first)
  assert len(drawn) == 24
  monkeypatch.setattr(Data, 'open', lambda self, split: opened(maps={'action_unit_map': {'geometry': 'intended'}}))
  assert abs(data.training_mean() - first).max() > 0.1 and len(drawn) == 48


def test_data_that_changed_since_training_are_told(splits, tmp_path, capsys):
  workdir = make_run(CONFIG, tmp_path / 'run')
  storage.write_json(workdir / 'run.json', read_run(workdir) | {'digest': 'a' * 64})
  for digest, told in (('a' * 64, None), ('', None), ('b' * 64, ['a' * 64, 'b' * 64])):
    splits['test'].digest = digest
    result = evaluation.evaluate_run(workdir)
    assert result['protocol'].get('other_data') == told
  print_evaluation(result)
  assert f"their digest was {'a' * 12}, now it is {'b' * 12}" in ' '.join(capsys.readouterr().out.split())
  write_report(workdir)
  assert f"but the data are not those of the training: their digest was {'a' * 12}" in (
      workdir / 'report.html').read_text()


def test_classes_in_another_order_are_refused_and_predictions_name_theirs(splits, tmp_path):
  workdir = make_run(CONFIG, tmp_path / 'run')
  evaluation.evaluate_run(workdir)
  with np.load(workdir / 'evaluation' / 'test.npz') as file:
    assert tuple(file['classes']) == faces.CLASSES and file['prediction'].max() < len(faces.CLASSES)
  splits['test'].classes = faces.CLASSES[::-1]
  with pytest.raises(UserError, match='speaks of the classes neutral, .* in this order, the data set now of fear, '):
    evaluation.evaluate_run(workdir)


@pytest.mark.parametrize('changes, message', [
    (['model.head.global_meen=batch'], '--set=model.head.global_meen=batch: Key "global_meen" does not exist'),
    (['batch_size=many'], "--set=batch_size=many: Could not override field 'batch_size'"),
    (['eval_order'], '--set=eval_order: write --set=KEY=VALUE'), (['eval_batch_size=3'], 'eval_batch_size=3'),
    (['data.train=all'], '--set=data.train=all: the network in .* is made by'),
    (['eval_order=backwards'], "unknown order 'backwards'"), (['model.backbone.width=8'], 'cannot restore step 1')])
def test_changes_that_cannot_be(changes, message, splits, tmp_path):
  with pytest.raises(UserError, match=message):
    evaluation.evaluate_run(make_run(CONFIG, tmp_path / 'run'), changes=changes)


@pytest.fixture
def lists(tmp_path):
  """Two lists of test faces: classes 0 and 1 with a repeated, an unknown and a mislabelled line; and class 1 alone."""
  (tmp_path / 'pose.txt').write_text('0/0.jpg\r\n1/1.jpg\r\n0/7.jpg\r\n2/8.jpg\r\n1/1.jpg\r\n1/99.jpg')
  (tmp_path / 'plain.txt').write_text('1.png\n8.png\n15.png\n')
  return [str(tmp_path / 'pose.txt'), str(tmp_path / 'plain.txt')]


def rates(result, rows):
  """Rates of rows of class 0 and 1, from the saved predictions."""
  label, hits = np.array(rows) % 7, result['hits'][rows]
  classes = [hits[label == k] for k in (0, 1) if (label == k).any()]
  return {'count': len(rows), 'accuracy': pytest.approx(hits.mean()),
          'accuracy_interval': pytest.approx(wilson(int(hits.sum()), len(rows))),
          'mean_class_accuracy': pytest.approx(np.mean([each.mean() for each in classes])),
          'mean_class_interval': pytest.approx(mean_rate(*np.array([(each.sum(), each.size) for each in classes]).T))}


def test_subsets_are_scored_from_saved_predictions_without_another_look(splits, lists, tmp_path, monkeypatch, capsys):
  workdir = make_run(CONFIG, tmp_path / 'run')
  plain = evaluation.evaluate_run(workdir)
  path = workdir / 'evaluation' / 'test.npz'
  label = np.arange(17) % 7
  prediction = np.where(np.isin(np.arange(17), (0, 1, 9)), label, 6)  # As if the model had said so.
  with np.load(path) as file:
    np.savez(path, **(dict(file) | {'prediction': prediction}))
  hits = {'hits': prediction == label}

  with monkeypatch.context() as patch:
    patch.setattr(setup, 'make_evaluator', None)  # The model must not run.
    result = evaluation.evaluate_run(workdir, subset_lists=lists, duplicates=True)
    assert 'no further evaluation of test' in capsys.readouterr().out
    assert evaluation.evaluate_run(workdir, duplicates=True) == result  # What is there stays.
  assert json.loads((workdir / 'evaluation' / 'test.json').read_text()) == json.loads(json.dumps(result))
  assert result['protocol'] == plain['protocol'] and read_run(workdir)['evaluations'] == {'test': 1}
  assert {name: result[name] for name in plain} == json.loads(json.dumps(plain))
  assert result['subsets'] == {
      'pose': {**rates(hits, [0, 1, 7, 8]), 'listed': 6, 'duplicates': 1, 'unmatched': 1, 'disagreeing': 1,
               'without_duplicates': rates(hits, [0, 7])},
      'plain': {**rates(hits, [1, 8, 15]), 'listed': 3, 'duplicates': 0, 'unmatched': 0, 'disagreeing': 0,
                'without_duplicates': rates(hits, [15])}}
  assert result['without_duplicates']['count'] == 14
  assert result['without_duplicates']['accuracy'] == pytest.approx(np.delete(hits['hits'], [1, 8, 9]).mean())


def test_predictions_of_something_else_are_not_used(splits, lists, tmp_path):
  config = faces.config(data__subsets=tuple(lists))
  workdir = make_run(config, tmp_path / 'run')
  evaluation.evaluate_run(workdir)
  path = workdir / 'evaluation' / 'test.json'
  result = path.read_text()
  trained = setup.load(workdir, cluster.make_mesh())

  def add(at=1, text=result, split='test'):
    path.write_text(text)
    return evaluation.add_subsets(dataclasses.replace(trained, step=at), splits[split], 'test')

  assert add() == json.loads(result)
  assert add(at=2) is None
  assert add(text=result.replace('"fingerprint": ""', '"fingerprint": "another"')) is None
  assert add(split='train') is None
  assert add(text=result[:50]) is None
  path.with_suffix('.npz').unlink()
  assert add() is None
  again = evaluation.evaluate_run(workdir, subset_lists=lists[:1])
  assert again['protocol']['evaluations'] == 2 and set(again['subsets']) == {'pose', 'plain'}


def test_subsets_of_the_config_are_part_of_every_evaluation(splits, lists, tmp_path):
  config = faces.config(data__subsets=tuple(lists), data__duplicates=True)
  result = evaluation.evaluate_run(make_run(config, tmp_path / 'run'), changes=['eval_order=shuffled'])
  assert set(result['subsets']) == {'pose', 'plain'} and result['subsets']['pose']['count'] == 4
  assert result['without_duplicates']['count'] == 14 and result['protocol']['evaluations'] == 1


def test_mistakes_in_orders_and_lists_show_when_a_split_is_opened(tmp_path):
  for changes, message in (({'data__order': 'ballanced'}, "config.data.order: .*did you mean 'balanced'"),
                           ({'eval_order': 'sort'}, "config.eval_order: .*did you mean 'sorted'"),
                           ({'data__subsets': (str(tmp_path / 'no.txt'),)}, 'cannot read the subset list')):
    with pytest.raises(UserError, match=message):
      setup.make_protocol(faces.config(**changes)).data.open('train')
