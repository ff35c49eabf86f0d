"""A frozen network on other faces: what its features are of, what its scores learn from, and where tuning starts."""

import dataclasses
import json
import re

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_jax.analysis import transfer
from fer_jax.errors import UserError
from fer_jax.runtime import cluster
from fer_jax.training import loop, setup, start
from fer_jax.training.data import Data
from fer_jax.training.state import with_backbone
from fer_jax.training.workdir import open_workdir, read_config, read_run
from tests import faces

HEAD = ConfigDict({'name': 'embedding', 'dim': 6, 'normalised': True, 'dropout': 0.0})

# Images of each class in the target's splits. The classes are sorted by name, and the network knows two of them.
TRAIN, TEST = {'anger': 6, 'happiness': 9, 'puzzled': 7}, {'anger': 4, 'happiness': 3, 'puzzled': 5}


def config(**changes):
  """A classifier with an embedding and one attribution map."""
  made = faces.config(**{'model__head': HEAD, 'epochs': 1.0, 'losses__pal__weight': 0.0, **changes})
  with made.unlocked():
    del made.explain.logit_sum
  return made


def noise(rng, height=16, width=16, channels=1, spot=None):
  """An image of noise, grey or RGB, with a bright spot at row ``spot``."""
  image = rng.integers(0, 160, (height, width, channels), dtype=np.uint8)
  if spot is not None:
    image[spot:spot + 3] = 255
  return image[..., 0] if channels == 1 else image


def write(path, image):
  path.parent.mkdir(parents=True, exist_ok=True)
  assert cv2.imwrite(str(path), image if image.ndim == 2 else image[..., ::-1])


def write_classes(folder, counts, seed):
  """FOLDER/CLASS/<i>.png; grey and RGB, and the place of a bright spot tells the class."""
  rng = np.random.default_rng(seed)
  for k, (name, count) in enumerate(counts.items()):
    for i in range(count):
      write(folder / name / f'{i}.png', noise(rng, 20, 20, channels=1 + 2 * (i % 2), spot=3 + 5 * k))


@pytest.fixture(scope='module')
def mesh():
  return cluster.make_mesh(jax.devices()[:1])


@pytest.fixture(scope='module')
def trained(tmp_path_factory, mesh):
  """A network with an embedding that was trained for a few steps on grey faces of 16 pixels."""
  splits = {'train': faces.source(24, seed=0), 'valid': faces.source(8, seed=1), 'test': faces.source(8, seed=2)}
  workdir = tmp_path_factory.mktemp('runs') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Data, 'open', lambda self, split: splits[split])
    loop.train(config(), workdir)
  return setup.load(workdir, mesh)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Nine images of many forms, {name: image}, and what is no image of anybody."""
  folder, rng = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
  forms = [(16, 16, 3), (16, 16, 1), (40, 40, 1), (9, 9, 3), (30, 20, 3), (16, 31, 1), (16, 16, 1), (50, 49, 3),
           (16, 16, 3)]
  names = [f'{where}{i}.png' for i, where in enumerate(('', '', 'b/', 'a/', 'a/', 'a/deep/er/', 'b/', '', 'Z/'))]
  images = {name: noise(rng, *form) for name, form in zip(names, forms, strict=True)}
  for name, image in images.items():
    write(folder / name, image)
  write(folder / '.hidden.png', noise(rng))
  write(folder / '.cache/thumb.png', noise(rng))
  (folder / 'a/notes.txt').write_text('')
  return folder, images


def features_of(trained, folder, mesh):
  source = transfer.open_faces(trained, 'folder', '', '', str(folder))
  return source, transfer.features(trained, source, mesh)


@pytest.fixture(scope='module')
def found(trained, photos, mesh):
  return features_of(trained, photos[0], mesh)


def test_features_of_a_folder_have_a_row_for_each_image(trained, photos, found):
  source, table = found
  assert source.names == sorted(photos[1]) and len(source.names) == 9
  width = trained.variables['params']['head']['fc']['kernel'].shape[0]
  assert {name: values.shape for name, values in table.items()} == {
      'pooled': (9, width), 'embedding': (9, 6), 'logits': (9, 7), 'label': (9,)}
  assert all(table[name].dtype == np.float32 and np.isfinite(table[name]).all()
             for name in ('pooled', 'embedding', 'logits'))
  assert (table['label'] == -1).all()
  np.testing.assert_allclose(np.linalg.norm(table['embedding'], axis=1), 1, atol=1e-5)
  assert len(np.unique(table['pooled'], axis=0)) == 9  # Noise is told apart: the rows are of different images.


def test_each_row_depends_on_its_own_image_alone(trained, photos, found, tmp_path, mesh):
  source, table = found
  kept = [source.names[row] for row in (7, 2, 4)]
  for i, name in enumerate(kept):  # In another order, in another folder, beside another image.
    write(tmp_path / f'{i}.png', photos[1][name])
  write(tmp_path / '3.png', np.full((16, 16), 255, np.uint8))
  _, part = features_of(trained, tmp_path, mesh)
  for name in ('pooled', 'embedding', 'logits'):
    np.testing.assert_allclose(part[name][:3], table[name][[7, 2, 4]], atol=1e-5)


def test_features_are_those_of_the_plain_model(trained, photos, found):
  source, table = found
  rows = [row for row, name in enumerate(source.names) if photos[1][name].shape[:2] == (16, 16)]
  images = [photos[1][source.names[row]] for row in rows]
  grey = np.stack([image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images])
  assert len(grey) == 4 and any(image.ndim == 3 for image in images)
  assert trained.protocol.variables == 'ema' and list(trained.system.recipe.normalise['mean']) == [0.5] * 3
  inputs = jnp.repeat((grey[..., None] / np.float32(255) - 0.5) / 0.25, 3, axis=-1)
  outputs = jax.jit(lambda variables: trained.system.recipe.model.apply(variables, inputs, False))(trained.variables)
  for name in ('pooled', 'embedding', 'logits'):
    np.testing.assert_allclose(table[name][rows], getattr(outputs, name), atol=1e-4)


def test_devices_change_nothing(trained, photos, found):
  eight = cluster.make_mesh()
  _, table = features_of(setup.load(trained.workdir, eight), photos[0], eight)
  assert eight.size == 8
  for name, values in table.items():
    np.testing.assert_allclose(values, found[1][name], atol=1e-5)


def test_other_variables_give_other_features(trained, photos, found, mesh):
  source, table = found
  changed = dataclasses.replace(trained, variables=jax.tree.map(lambda leaf: leaf * 0.5, trained.variables))
  other = transfer.features(changed, source, mesh)
  assert np.abs(other['pooled'] - table['pooled']).max() > 1e-3


def test_a_network_of_grey_faces_sees_grey(trained, photos):
  assert trained.record['channels'] == 1
  source = transfer.open_faces(trained, 'folder', '', '', str(photos[0]))
  assert source.channels == 1 and source.size == 16
  row = source.names.index('Z/8.png')
  expected = cv2.cvtColor(photos[1][source.names[row]], cv2.COLOR_RGB2GRAY)
  np.testing.assert_array_equal(source.example(row)['image'][..., 0], expected)
  colour = dataclasses.replace(trained, record={**trained.record, 'channels': 3})
  source = transfer.open_faces(colour, 'folder', '', '', str(photos[0]))
  np.testing.assert_array_equal(source.example(row)['image'], photos[1][source.names[row]])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('images') / 'my faces'
  write_classes(folder / 'train', TRAIN, seed=1)
  write_classes(folder / 'test', TEST, seed=2)
  return folder


def target(folder, **options):
  return transfer.Target('folder', **{'variant': 'classes', 'data_dir': str(folder), **options})


@pytest.fixture(scope='module')
def transferred(trained, folder, mesh):
  """A transfer with everything, and the states that fine-tuning began with."""
  began = []

  def spy(state, variables):
    began.append((state, with_backbone(state, variables)))
    return began[-1][1]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(start, 'with_backbone', spy)
    result = transfer.transfer(trained, target(folder), mesh, shots=(1, 2), draws=2, finetune_epochs=0.5)
  return result, jax.device_get(began[-1])  # Before it, shapes alone went through, for mistakes to show early.


def row(result, features, method='-'):
  rows = [row for row in result['rows'] if (row['features'], row['method']) == (features, method)]
  assert len(rows) == 1
  return rows[0]


def test_a_transfer_is_written_whole(trained, folder, transferred):
  result, _ = transferred
  files = [path.name for path in (trained.workdir / 'transfer').iterdir()]
  assert 'my_faces_classes_train_test_pooled.json' in files
  assert json.loads((trained.workdir / 'transfer/my_faces_classes_train_test_pooled.json').read_text()) == result
  opened = [transfer.open_faces(trained, 'folder', 'classes', split, str(folder)) for split in ('train', 'test')]
  assert result['target'] == {
      'dataset': 'my faces', 'variant': 'classes', 'train': 'train', 'test': 'test',
      'classes': ['anger', 'happiness', 'puzzled'], 'train_count': 22, 'test_count': 12,
      'fingerprints': [source.fingerprint for source in opened]}
  assert result['layer'] == 'pooled' and result['dim'] == 32
  assert result['step'] == trained.step == 3 and result['commit'] == trained.record['commit']
  assert result['leaks'] == []
  assert result['seen_in_training'] == ['anger', 'happiness']


def test_every_classifier_has_a_row(transferred):
  result, _ = transferred
  assert [(row['features'], row['method']) for row in result['rows']] == [
      ('this network', 'linear probe'), ('this network', 'k-NN'), ('this network', 'linear SVM'),
      ('untrained network', 'linear probe'), ('majority class', '-'), ('fine-tuned end to end', '-')]
  for entry in result['rows']:
    low, high = entry['accuracy_interval']
    assert 0 <= low <= entry['accuracy'] <= high <= 1 and 0 <= entry['mean_class_accuracy'] <= 1
    assert entry['accuracy'] * 12 == pytest.approx(round(entry['accuracy'] * 12))


def test_the_majority_is_that_of_the_train_split(transferred):
  majority = row(transferred[0], 'majority class')  # Happiness, which the test split has least of.
  assert majority['accuracy'] == 3 / 12 and majority['mean_class_accuracy'] == pytest.approx(1 / 3)


def splits_of(trained, folder, mesh):
  """Labels and features of the two splits."""
  for split in ('train', 'test'):
    source = transfer.open_faces(trained, 'folder', 'classes', split, str(folder))
    table = transfer.features(trained, source, mesh)
    yield table['label'], table['pooled'].astype(np.float64)


@pytest.mark.parametrize('features', ['this network', 'untrained network'])
def test_the_linear_probe_is_scikit_learns(trained, folder, mesh, transferred, features):
  blind = dataclasses.replace(trained, variables=cluster.replicate(trained.system.initial().variables(), mesh))
  network = blind if features == 'untrained network' else trained
  (y, x), (test_y, test_x) = splits_of(network, folder, mesh)
  assert np.bincount(y).tolist() == list(TRAIN.values()) and np.bincount(test_y).tolist() == list(TEST.values())
  probes = {c: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))
            for c in (0.001, 0.01, 0.1, 1, 10)}
  folds = StratifiedKFold(5, shuffle=True, random_state=0)
  scores = {c: cross_val_score(probe, x, y, cv=folds).mean() for c, probe in probes.items()}
  best = next(c for c in probes if scores[c] >= max(scores.values()) - 1e-9)
  found = row(transferred[0], features, 'linear probe')
  assert found['chosen'] == {'C': best, 'cross-validated': True, 'converged': True}
  predictions = probes[best].fit(x, y).predict(test_x)
  assert found['accuracy'] == pytest.approx((predictions == test_y).mean())
  assert found['mean_class_accuracy'] == pytest.approx(
      np.mean([(predictions[test_y == k] == k).mean() for k in range(3)]))


def test_few_shot_curves_are_of_both_networks(transferred):
  curve = transferred[0]['few_shot']
  assert [(point['features'], point['shots']) for point in curve] == [
      ('this network', 1), ('this network', 2), ('untrained network', 1), ('untrained network', 2)]
  for point in curve:
    assert point['draws'] == len(point['accuracies']) == 2 and point['short_classes'] == 0
    assert point['accuracy'] == pytest.approx(np.mean(point['accuracies']))


def test_fine_tuning_starts_from_the_backbone_with_a_new_head(trained, transferred):
  _, (initial, first) = transferred
  for kind, variables in (('params', first.params), ('batch_stats', first.batch_stats),
                          ('params', first.ema['params']), ('batch_stats', first.ema['batch_stats'])):
    jax.tree.map(np.testing.assert_array_equal, variables['backbone'],
                 jax.device_get(trained.variables[kind]['backbone']))
  assert first.params['head'].keys() == {'fc'} and first.params['head']['fc']['kernel'].shape == (32, 3)
  jax.tree.map(np.testing.assert_array_equal, first.params['head'], initial.params['head'])
  assert first.step == 0


def test_fine_tuning_is_a_run_of_its_own(trained, folder, transferred):
  result, _ = transferred
  workdir = trained.workdir / 'transfer/my_faces_classes_train_test_finetuned_0.5'
  tuned, record = read_config(workdir), read_run(workdir)
  assert tuned.init_from == str(trained.workdir) and tuned.epochs == 0.5 and record['finished']
  assert (tuned.data.dataset, tuned.data.dir, tuned.data.variant) == ('folder', str(folder), 'classes')
  assert (tuned.data.train, tuned.data.holdout, tuned.data.test) == ('train', '', 'test')
  assert tuned.optimizer.learning_rate == pytest.approx(read_config(trained.workdir).optimizer.learning_rate / 10)
  assert tuned.model.head.name == 'linear' and list(tuned.losses) == ['cross_entropy']
  assert record['classes'] == ['anger', 'happiness', 'puzzled'] and record['steps'] == 1  # 22 faces, 8 at a time.
  scored = json.loads((workdir / 'evaluation/test.json').read_text())
  found = row(result, 'fine-tuned end to end')
  assert scored['count'] == 12 and scored['protocol']['evaluations'] == 1
  assert all(found[key] == scored[key] for key in ('accuracy', 'accuracy_interval', 'mean_class_accuracy'))
  assert found['chosen'] == {'epochs': 0.5, 'learning_rate': pytest.approx(tuned.optimizer.learning_rate),
                             'batch_size': 8}
  # The run itself stays what it was.
  again = setup.load(trained.workdir, cluster.make_mesh(jax.devices()[:1]))
  theirs = read_config(trained.workdir)
  assert theirs.model.head.name == 'embedding' and again.step == trained.step and not theirs.init_from
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(again.variables), jax.device_get(trained.variables))


def test_some_classes_of_the_embedding_alone(trained, folder, mesh):
  taught = dataclasses.replace(trained, record={**trained.record, 'teacher': {'classes': ['puzzled']}})
  result = transfer.transfer(taught, target(folder, classes=('puzzled', 'anger')), mesh, layer='embedding')
  assert result['target']['classes'] == ['puzzled', 'anger'] and result['dim'] == 6
  assert (result['target']['train_count'], result['target']['test_count']) == (13, 9)
  assert row(result, 'majority class')['accuracy'] == pytest.approx(5 / 9)
  assert result['seen_in_training'] == ['puzzled', 'anger']  # One by its teacher only.
  assert result['few_shot'] == [] and 'fine-tuned end to end' not in {row['features'] for row in result['rows']}
  path = trained.workdir / 'transfer/my_faces_classes_train_test_puzzled-anger_embedding.json'
  assert json.loads(path.read_text()) == result
  assert not list(path.parent.glob('*puzzled-anger*finetuned*'))


def test_shots_below_one(trained, folder, mesh):
  with pytest.raises(UserError, match=r'shots=\[0, 5\]: give numbers from 1 up'):
    transfer.transfer(trained, target(folder), mesh, shots=[0, 5])


def test_one_split_for_both_is_a_leak_in_the_result(trained, folder, mesh):
  result = transfer.transfer(trained, target(folder, train='test'), mesh)
  count = result['target']['test_count']
  assert result['leaks'] == [f'{count} of {count} test images were trained on by the classifiers']
  assert row(result, 'this network', 'k-NN')['accuracy'] >= row(result, 'majority class')['accuracy']


@pytest.fixture(scope='module')
def states():
  """The state of a network with a linear head, and variables of one with an embedding; both with an average."""
  one, two = (setup.make_system(made, faces.CLASSES, 10).initial()
              for made in (faces.config(), config(seed=3)))
  return jax.device_get((one, jax.tree.map(lambda leaf: leaf + 0.25, two.variables())))


def test_a_backbone_is_replaced_bit_for_bit(states):
  state, variables = states
  replaced = with_backbone(state, variables)
  for kind in ('params', 'batch_stats'):
    for ours in (getattr(replaced, kind), replaced.ema[kind]):
      jax.tree.map(np.testing.assert_array_equal, ours['backbone'], variables[kind]['backbone'])
  same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  same(replaced.params['head'], state.params['head'])
  same(replaced.ema['params']['head'], state.ema['params']['head'])
  assert jax.tree.structure(replaced) == jax.tree.structure(state)
  same(replaced.opt_state, state.opt_state)
  for leaf, other in zip(jax.tree.leaves(replaced.ema), jax.tree.leaves({
      'params': replaced.params, 'batch_stats': replaced.batch_stats}), strict=True):
    assert not np.shares_memory(leaf, other)  # They are donated together.
  without = with_backbone(state.replace(ema=None), variables)
  assert without.ema is None
  same(without.params, replaced.params)


@pytest.mark.parametrize('changes', [{'model__backbone__width': 8}, {'model__backbone__depth': 18}])
def test_another_backbone_is_refused_by_a_parameters_name(states, changes):
  other = jax.eval_shape(setup.make_system(faces.config(**changes), faces.CLASSES, 10).initial).variables()
  with pytest.raises(UserError, match=r"config.init_from: it has another backbone: '\w+(/\w+)+' is") as error:
    with_backbone(states[0], other)
  names = {jax.tree_util.keystr(path, simple=True, separator='/')
           for tree in (states[0].params, other['params'])
           for path, _ in jax.tree_util.tree_leaves_with_path(tree['backbone'])}
  assert re.search("'(.+?)'", str(error.value))[1] in names
  assert ('absent' in str(error.value)) == ('model__backbone__depth' in changes)


def test_no_features_to_choose_of_another_layer(trained, folder, mesh):
  with pytest.raises(UserError, match="layer='logits': choose 'pooled' or 'embedding'"):
    transfer.transfer(trained, target(folder), mesh, layer='logits')


def test_splits_of_different_classes(trained, tmp_path, mesh):
  write_classes(tmp_path / 'train', {'anger': 2, 'happiness': 2}, seed=0)
  write_classes(tmp_path / 'test', {'anger': 2, 'happiness': 2, 'fear': 1}, seed=0)
  with pytest.raises(UserError, match='train has the classes anger, happiness, test has anger, fear, happiness'):
    transfer.transfer(trained, target(tmp_path), mesh)
  assert not (trained.workdir / 'transfer' / f'{tmp_path.name}_classes_train_test_pooled.json').exists()


def test_a_folder_without_labels(trained, folder, mesh):
  with pytest.raises(UserError, match='my faces: 0 labelled faces in train and 0 in test; both need some'):
    transfer.transfer(trained, target(folder, variant=''), mesh)


@pytest.mark.parametrize('changes, message', [
    ({'data_dir': 'nowhere'}, 'there is no folder nowhere'), ({'test': 'tets'}, 'there is no folder .*tets'),
    ({'classes': ('angry',)}, "'angry' is unknown; did you mean 'anger'"),
    ({'variant': 'labels'}, "no variant 'labels'"), ({'dataset': 'ferpluss', 'variant': ''}, "did you mean 'ferplus'")])
def test_no_such_target(trained, folder, mesh, changes, message):
  with pytest.raises(UserError, match=message):
    transfer.transfer(trained, dataclasses.replace(target(folder), **changes), mesh)


def test_no_run(tmp_path, mesh):
  with pytest.raises(UserError, match='holds no run'):
    setup.load(tmp_path, mesh)
  open_workdir(setup.settings(config()), tmp_path / 'begun', [])
  with pytest.raises(UserError, match='has not begun to train'):
    setup.load(tmp_path / 'begun', mesh)
