"""Deletion and insertion: curves known by hand, a slow form, any batch size and number of devices, the command."""

import dataclasses
import json

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import ndimage

from configs import ran
from fer_jax.analysis import faithfulness
from fer_jax.data import augment
from fer_jax.data.reading import streams
from fer_jax.errors import UserError
from fer_jax.metrics import action_units
from fer_jax.metrics.faithfulness import portions
from fer_jax.models.classifier import Classifier
from fer_jax.models.taps import tapping
from fer_jax.runtime import cluster, storage
from fer_jax.training import checkpoint, evaluation, setup, step
from fer_jax.training.data import Data
from fer_jax.training.workdir import commit, now, open_workdir, read_run
from tests import faces
from tests.processes import TINY, call, finish, start_together

SIDE, BLOCK, STEPS = 16, (slice(1, 5), slice(11, 15)), 32


class Pixels(nn.Module):
  """A backbone whose features are the image."""

  @nn.compact
  def __call__(self, images, train):
    taps, tap = tapping(self)
    return tap('pixels', images), taps, None


class Block(nn.Module):
  """A head that looks at one block of pixels: two classes, the logit of the second is the block's mean value."""

  takes_regions = False

  @nn.compact
  def __call__(self, features, train, mask=None):
    evidence = features[(slice(None), *BLOCK)].mean(axis=(1, 2, 3))
    return jnp.stack([jnp.zeros_like(evidence), evidence], axis=1), features.mean(axis=(1, 2)), None


def block_curves(batch):
  """Curves of the network that sees one block, whose map is gradient times pixel."""
  recipe = setup.make_system(faces.config(), faces.CLASSES, 1).recipe
  recipe = dataclasses.replace(recipe, model=Classifier(Pixels(), Block()))
  explain = {'perfect': {'attribution': 'grad_input', 'target': 'predicted', 'tap': 'pixels'}}
  compute = jax.jit(lambda batch: faithfulness.curves(recipe, explain, STEPS, {'params': {}, 'batch_stats': {}}, batch))
  return jax.device_get(compute(batch))


def block_batch():
  """Dark faces of noise with a white block; a landmark map that ranks the block last."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 40, (5, SIDE, SIDE, 1), dtype=np.uint8)
  heatmaps = np.full((5, SIDE, SIDE), 255, np.uint8)
  images[(slice(None), *BLOCK)], heatmaps[(slice(None), *BLOCK)] = 255, 0
  return {'image': images, 'landmark_heatmap': heatmaps, 'label': np.zeros(5, np.int32), 'row': np.arange(5)}


def test_a_linear_network_with_one_block_of_evidence_has_the_curve_that_arithmetic_says():
  batch = block_batch()
  table = block_curves(batch)
  images = batch['image'][..., 0] / 255
  gone = images.mean(axis=(1, 2))
  counts = portions(SIDE**2, STEPS)
  left = np.clip(1 - counts / 16, 0, 1)  # Share of the block's 16 pixels that are still there.
  values = left * 1.0 + (1 - left) * gone[:, None]
  expected = 1 / (1 + np.exp(-(values - 0.5) / 0.25))
  np.testing.assert_allclose(table['map/perfect'][:, :, 0], expected, rtol=1e-5)
  np.testing.assert_allclose(table['whole'], expected[:, 0], rtol=1e-5)
  np.testing.assert_allclose(table['deleted'], expected[:, -1], rtol=1e-5)
  # Insertion: once the block is back, so is the whole answer.
  assert (counts == 16).any()
  np.testing.assert_allclose(table['map/perfect'][:, counts >= 16, 1], table['whole'][:, None].repeat(31, 1), rtol=1e-5)
  np.testing.assert_array_equal(table['map/perfect'][:, 0, 1], table['blurred'])
  # The reverse order keeps the answer until the very end.
  np.testing.assert_allclose(table['baseline/landmarks'][:, counts <= 240, 0], table['whole'][:, None].repeat(31, 1),
                             rtol=1e-5)


def test_a_perfect_map_beats_a_random_order_and_the_gaussian_for_every_face():
  table = block_curves(block_batch())
  deletion, insertion = ({name: table[name][:, :, i].mean(axis=1) for name in table if '/' in name} for i in (0, 1))
  for other in ('uniform', 'centred_gaussian', 'landmarks'):
    assert (deletion['map/perfect'] < deletion[f'baseline/{other}'] - 0.1).all()
    assert (insertion['map/perfect'] > insertion[f'baseline/{other}'] + 0.05).all()


def test_a_random_order_is_a_faces_own():
  batch = block_batch()
  batch['image'][1] = batch['image'][0]
  first = block_curves(batch)['baseline/uniform']
  assert abs(first[0] - first[1]).max() > 1e-3  # The same image in another row.
  flipped = block_curves({name: values[::-1] for name, values in batch.items()})['baseline/uniform']
  np.testing.assert_allclose(flipped[::-1], first, rtol=1e-5)


def make_pal():
  return faces.config(data__size=24)


def make_ran():
  return faces.shrink(ran.get_config('synthetic_faces'), augment=ConfigDict({'flip': 0.5}), data__size=24)


@pytest.mark.parametrize('make', [make_pal, make_ran])
def test_curves_are_those_of_a_slow_loop(make):
  """Without regions on the pixels that the network sees, with regions on those that they are cut from."""
  config = make()
  system = setup.make_system(config, faces.CLASSES, 10)
  recipe, variables = system.recipe, system.initial().variables()
  variables['params']['head']['fc']['kernel'] *= 20  # Decided answers.
  side = 24 if recipe.regions else 16
  batch = streams.rows(faces.source(3, size=24, seed=3), range(3))
  batch['image'] = np.random.default_rng(1).integers(0, 256, batch['image'].shape, dtype=np.uint8)
  # One map without ties, so that the order needs no random numbers: different in every place.
  shuffled = np.stack([np.random.default_rng(i).permutation(side * side) for i in range(3)]).reshape(3, side, side)
  batch['landmark_heatmap'] = shuffled.astype(np.float32)
  steps = 5
  table = jax.jit(lambda batch: faithfulness.curves(recipe, {}, steps, variables, batch))(batch)

  answer = jax.jit(lambda batch: step.evaluation_step(recipe, {}, variables, batch)['logits'])
  softmax = lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
  predicted = np.asarray(answer(batch)).argmax(axis=1)
  face = np.float32(batch['image']) if recipe.regions else 255 * np.asarray(augment.resize(batch, 16)['image'])
  gone = face.mean(axis=(1, 2), keepdims=True)
  sigma = (0, 0.1 * side, 0.1 * side, 0)
  smooth = lambda x: ndimage.gaussian_filter(x, sigma, mode='constant', truncate=20)
  blurred = smooth(face) / smooth(np.ones_like(face))
  for at, count in enumerate(portions(side * side, steps)):
    taken = (shuffled >= side * side - count)[..., None]
    for i, images in enumerate((np.where(taken, gone, face), np.where(taken, face, blurred))):
      expected = softmax(np.asarray(answer({**batch, 'image': np.float32(images)})))[np.arange(3), predicted]
      np.testing.assert_allclose(table['baseline/landmarks'][:, at, i], expected, rtol=2e-4, atol=1e-6)
  np.testing.assert_allclose(table['whole'], softmax(np.asarray(answer(batch))).max(axis=1), rtol=1e-5)


def test_places_are_the_order_of_levels_and_ties_that_of_the_noise():
  rng = np.random.default_rng(0)
  levels, noise = rng.integers(0, 5, (3, 50), dtype=np.uint16), rng.integers(0, 2**32, (3, 50), dtype=np.uint32)
  found = faithfulness.places(jnp.asarray(levels), jnp.asarray(noise))
  for row in range(3):
    order = np.lexsort((noise[row], -levels[row].astype(int)))
    np.testing.assert_array_equal(np.asarray(found[row])[order], np.arange(50))


def test_levels_are_the_resized_map_and_nothing_where_there_is_no_map():
  rng = np.random.default_rng(0)
  maps = np.float32(rng.normal(size=(6, 3, 3)))
  maps[1], maps[2], maps[3] = 4.0, 4.0 + 1e-7 * maps[2], 1e-30 * maps[0]
  maps[4, 1, 1], maps[5, 0, 0] = np.nan, np.inf
  levels = np.asarray(faithfulness.levels(jnp.asarray(maps), 12)).reshape(6, 12, 12)
  expected = cv2.resize((maps[0] - maps[0].min()) / np.ptp(maps[0]), (12, 12), interpolation=cv2.INTER_LINEAR)
  np.testing.assert_allclose(levels[0] / 65535, expected, atol=2e-5)
  np.testing.assert_allclose(levels[3] / 65535, expected, atol=2e-5)
  assert not levels[[1, 2, 4, 5]].any()


def test_faces_are_evenly_spaced():
  assert action_units.evenly(10, 4).tolist() == [0, 2, 5, 7]
  assert action_units.evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
  assert action_units.evenly(7, 1).tolist() == [0]


def test_any_batch_size_and_eight_devices_give_the_same_curves():
  config = faces.config()
  system = setup.make_system(config, faces.CLASSES, 10)
  variables = system.initial().variables()
  variables['params']['head']['fc']['kernel'] *= 20
  source, first = faces.source(11), None
  for devices, batch_size in ((1, 11), (1, 4), (8, 8)):
    mesh = cluster.make_mesh(jax.devices()[:devices])
    evaluator = faithfulness.make_evaluator(system, 4, mesh)
    table = evaluation.outputs_of(evaluator, cluster.replicate(variables, mesh), source, batch_size, mesh)
    first = table if first is None else first
    assert set(table) == set(first) and {f'map/{name}' for name in config.explain} < set(table)
    assert first['map/predicted'].shape == (11, 5, 2)
    for name, values in table.items():
      if values.dtype == np.float32:  # Where rounding has changed the order of two pixels, a little more.
        np.testing.assert_allclose(values, first[name], atol=2e-3, rtol=1e-3)
        np.testing.assert_allclose(np.median(abs(values - first[name])), 0, atol=1e-6)


@pytest.fixture
def workdir(monkeypatch, tmp_path):
  """A finished run of two maps at its first parameters, and its splits in memory."""
  made = {'train': faces.source(24, seed=0), 'test': faces.source(17, seed=2)}
  monkeypatch.setattr(Data, 'open', lambda self, split: made[split])
  return make_run(tmp_path / 'run')


def make_run(workdir, finished=True, **changes):
  config = faces.config(**changes)
  with config.unlocked():
    if 'explain' not in changes:
      config.explain = ConfigDict({name: config.explain[name] for name in ('predicted', 'attention')})
  system = setup.make_system(config, faces.CLASSES, 1)
  record = open_workdir(setup.settings(config), workdir, [])
  storage.write_json(workdir / 'run.json', record | {'classes': list(faces.CLASSES), 'steps': 1} |
                     ({'finished': now()} if finished else {}))
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', write=True)
  checkpoints.save(1, system.initial())
  checkpoints.close()
  return workdir


def test_a_run_is_explained_on_chosen_faces_and_all_is_written(workdir):
  result = faithfulness.explain_run(workdir, faces=6, steps=3)
  assert json.loads((workdir / 'explanations/test.json').read_text()) == json.loads(json.dumps(result))
  protocol = result['protocol']
  assert (protocol['faces'], protocol['of'], protocol['steps'], protocol['pixels']) == (6, 17, 3, [16, 16])
  assert protocol['split'] == 'test' and not protocol['leaky'] and protocol['seeds_of_random_parameters'] == [1, 2, 3]
  assert result['step'] == 1 and result['commit'] == commit() and result['hardware'] == cluster.hardware()
  assert result['shares'] == [0, pytest.approx(85 / 256), pytest.approx(171 / 256), 1]
  assert set(result['maps']) == {'predicted', 'attention'}
  assert set(result['baselines']) == {'uniform', 'centred_gaussian', 'landmarks'}
  assert set(result['maps']['predicted']['deletion']['gain']) == {'uniform', 'centred_gaussian'}
  assert 'accuracy' not in json.dumps(result) and read_run(workdir).get('evaluations') is None

  with np.load(workdir / 'explanations/test.npz') as file:
    left = dict(file)
  assert left['row'].tolist() == [0, 2, 5, 8, 11, 14] and left['deletion'].shape == (5, 6, 4)
  for i, name in enumerate(left['maps']):
    for kind in ('deletion', 'insertion'):
      measured = (result['maps'] | result['baselines'])[str(name)][kind]
      np.testing.assert_allclose(left[kind][i].mean(axis=0), measured['curve'], rtol=1e-5)
      low, high = measured['interval']
      assert low <= measured['area'] <= high
      areas = np.trapezoid(left[kind][i], left['shares'], axis=1)
      np.testing.assert_allclose(areas.mean(), measured['area'], rtol=1e-5)
  np.testing.assert_allclose(left['deletion'][:, :, 0].mean(), result['ends']['whole'], rtol=1e-5)

  again = faithfulness.explain_run(workdir, faces=6, steps=3)
  assert {**again, 'evaluated': ''} == {**result, 'evaluated': ''}
  assert faithfulness.explain_run(workdir, 'train', faces=1, steps=2)['protocol']['seen_in_training']


@pytest.mark.parametrize('options, message', [
    ({'faces': 0}, '--faces=0: give a number from 1 up'), ({'steps': 1}, '--steps=1: give a number from 2 up')])
def test_bad_numbers(options, message, tmp_path):
  with pytest.raises(UserError, match=message):
    faithfulness.explain_run(tmp_path, **options)


def test_runs_that_cannot_be_explained(workdir, tmp_path):
  with pytest.raises(UserError, match='holds no run'):
    faithfulness.explain_run(tmp_path / 'nothing')
  with pytest.raises(UserError, match='unfinished has not finished; give its command again'):
    faithfulness.explain_run(make_run(tmp_path / 'unfinished', finished=False))
  with pytest.raises(UserError, match='has no maps to explain'):
    faithfulness.explain_run(make_run(tmp_path / 'no_maps', explain=ConfigDict()))
  head = ConfigDict({'name': 'arm', 'block': 4, 'kernel': 4, 'stride': 2, 'global_mean': 'batch'})
  with pytest.raises(UserError, match="global_mean='batch': an answer depends on the other faces of its batch"):
    faithfulness.explain_run(make_run(tmp_path / 'arm', model__head=head))


def test_the_command_alone_and_by_two_processes(tmp_path, monkeypatch):
  monkeypatch.setenv('COLUMNS', '200')
  workdir = tmp_path / 'run'
  status, _, err = call('train', '--config=configs/quickstart.py', f'--workdir={workdir}', *TINY,
                        '--config.epochs=0.25', data_dir=tmp_path)
  assert status == 0, err
  arguments = (f'--workdir={workdir}', '--faces=5', '--steps=2')
  status, out, err = call('explain', *arguments, data_dir=tmp_path)
  assert status == 0, err
  assert 'random order' in out and 'random parameters' in out and 'accuracy' not in out
  assert f'Report: {workdir / "report.html"}' in out
  assert 'Are the maps faithful?' in (workdir / 'report.html').read_text()
  alone = json.loads((workdir / 'explanations/test.json').read_text())
  (out, _), (silent, _) = finish(start_together(2, 'explain', *arguments, data_dir=tmp_path))
  assert 'random order' in out and 'random order' not in silent
  together = json.loads((workdir / 'explanations/test.json').read_text())
  assert together['hardware'].endswith('in 2 processes')
  for group in ('maps', 'baselines'):
    for name, measured in alone[group].items():
      for kind in ('deletion', 'insertion'):
        np.testing.assert_allclose(together[group][name][kind]['curve'], measured[kind]['curve'], atol=1e-3)
  assert [row['random'] for row in together['randomised']] == [row['random'] for row in alone['randomised']]
  status, _, err = call('explain', f'--workdir={workdir}', '--split=tset', data_dir=tmp_path)
  assert status == 2 and "bad split 'tset'" in err and len([x for x in err.splitlines() if 'error: ' in x]) == 1
