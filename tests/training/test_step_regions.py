"""Steps of RAN and ARM: devices, forms of parallelism, whose attribution is aligned, rematerialisation, evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import arm, ran
from fer_jax.attribution.maps import tap_map
from fer_jax.data import augment
from fer_jax.data.reading import streams
from fer_jax.losses.alignment import PRESETS
from fer_jax.training import setup, step
from tests import faces


def make_ran(**changes):
  """RAN with the terms of all systems: cross-entropy, region bias, landmarks and action units."""
  made = faces.shrink(ran.get_config('synthetic_faces'), augment=ConfigDict({'flip': 0.5}), **changes)
  with made.unlocked():
    made.losses.pal = {'loss': 'alignment', 'weight': 1.0, 'mask': 'landmarks', **PRESETS['pal'], 'taps': ('stage3',)}
    made.losses.au_cues = {'loss': 'alignment', 'weight': 1.0, 'mask': 'action_units', **PRESETS['au_cues'],
                           'taps': ('stage3',)}
  return made


def make_arm(**changes):
  return faces.shrink(arm.get_config('synthetic_faces'), model__head__global_mean='batch',
                      augment=ConfigDict({'flip': 0.5}), **changes)


MAKERS = {'ran': make_ran, 'arm': make_arm}


def difference(a, b):
  return max(float(np.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@functools.cache
def reference(system):
  return faces.steps(MAKERS[system](), count=2)


@pytest.mark.parametrize('system, form, remat', [
    ('ran', 'jit', False), ('ran', 'pmap', True), ('arm', 'jit', False), ('arm', 'pmap', False)])
def test_eight_devices_equal_one_rematerialising_or_not(system, form, remat):
  one, sums = reference(system)
  state, meter = faces.steps(MAKERS[system](parallel=form, remat=remat), count=2, devices=8)
  assert difference(state.params, one.params) < 1e-5
  assert difference(state.batch_stats, one.batch_stats) < 1e-5
  for name, value in sums.items():
    np.testing.assert_allclose(meter[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_every_term_speaks_and_every_part_moves():
  for system, terms in (('ran', {'cross_entropy', 'region_bias', 'pal', 'au_cues'}), ('arm', {'cross_entropy'})):
    state, meter = reference(system)
    assert {name for name in meter if name.startswith('loss/')} == {f'loss/{term}' for term in terms}
    assert all(meter[f'share/{term}'] > 0 and meter[f'loss/{term}'] != 0 for term in terms)
    start = setup.make_system(MAKERS[system](), faces.CLASSES, 20).initial()
    for name in start.params['head']:
      assert difference(state.params['head'][name], start.params['head'][name]) > 0, name
  assert np.abs(reference('arm')[0].batch_stats['head']['global_mean']).max() > 0


@functools.cache
def make_context():
  """A forward pass of RAN in evaluation: its recipe, state, images (B, R, h, w, 3) and a maker of contexts."""
  config = make_ran()
  data = faces.source(maps=config.data.maps.to_dict())
  recipe = setup.make_system(config, data.classes, 20).recipe
  batch = jax.jit(lambda batch: augment.resize(batch, 16, recipe.regions))(streams.rows(data, range(2)))
  images = (np.repeat(batch['image'], 3, -1) - 0.5) / 0.25
  state = reference('ran')[0]
  return recipe, state, images, lambda: step.Context(recipe.model, state.variables(), images, batch, train=False)


def head_by_hand(params, features):
  """RAN's head, form 'code', in float64: features (B, R, C), pooled, to logits."""
  params = jax.tree.map(np.float64, params)
  softmax = lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)
  weights = lambda name, x: softmax(1 / (1 + np.exp(-(x @ params[name]['kernel'] + params[name]['bias'])[..., 0])))
  mean = lambda x, w: (x * w[..., None]).sum(1) / w.sum(1, keepdims=True)
  alpha = weights('alpha', features)
  pairs = np.concatenate([features, np.broadcast_to(mean(features, alpha)[:, None], features.shape)], -1)
  return mean(pairs, alpha * weights('beta', pairs)) @ params['fc']['kernel'] + params['fc']['bias']


def test_the_attribution_of_regions_is_the_full_faces():
  recipe, state, images, make = make_context()
  model = recipe.model
  variables = {name: values['backbone'] for name, values in state.variables().items()}
  backbone = jax.jit(lambda images: model.backbone.apply(variables, images, False)[0])
  features = np.stack([np.float64(backbone(images[:, region])) for region in range(images.shape[1])], 1)

  @jax.jit
  def explain():
    context = make()
    maps = tap_map(context, attribution='grad_input', target='logit_sum', tap='stage4', channels='all')
    return maps, context.outputs.logits

  maps, logits = explain()
  total = lambda features: head_by_hand(state.params['head'], features.mean((2, 3))).sum(1)
  np.testing.assert_allclose(logits, head_by_hand(state.params['head'], features.mean((2, 3))), rtol=1e-4, atol=1e-4)
  expected, move = np.zeros(maps.shape), 1e-5
  for i, j, c in np.ndindex(maps.shape[1:]):
    up, down = features.copy(), features.copy()
    up[:, 0, i, j, c] += move
    down[:, 0, i, j, c] -= move
    expected[:, i, j, c] = features[:, 0, i, j, c] * (total(up) - total(down)) / (2 * move)
  assert np.abs(expected).max() > 1e-4
  np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_moving_a_tap_moves_the_full_face_as_its_gradient_says():
  _, _, _, make = make_context()

  @jax.jit
  def slopes(key):
    context = make()
    gradient = context.gradient(jnp.ones_like(context.outputs.logits))
    out = {}
    for tap in ('stem', 'stage3'):
      direction = jax.random.normal(key, gradient[tap].shape)
      direction /= jnp.sqrt((direction**2).sum((1, 2, 3), keepdims=True))
      up, down = (context.logits({tap: context.outputs.taps[tap] + sign * 0.01 * direction}).sum(1) for sign in (1, -1))
      out[tap] = (gradient[tap] * direction).sum((1, 2, 3)), (up - down) / 0.02
    return out

  for along, numeric in slopes(jax.random.key(0)).values():
    np.testing.assert_allclose(along, numeric, rtol=0.05, atol=2e-3)
    assert np.abs(along).max() > 0.01


def test_rematerialising_keeps_fewer_bytes_for_the_backward_pass(monkeypatch):
  kept = []

  def watched(objective, has_aux):
    def value_and_grad(params):
      value, pull_back, aux = jax.vjp(objective, params, has_aux=has_aux)
      kept.append(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull_back)))
      return (value, aux), pull_back(jnp.ones_like(value))[0]
    return value_and_grad

  monkeypatch.setattr(jax, 'value_and_grad', watched)
  for remat in (False, True):
    config = make_ran(remat=remat)
    data = faces.source(maps=config.data.maps.to_dict())
    system = setup.make_system(config, data.classes, 20)
    jax.eval_shape(functools.partial(step.train_step, system.recipe), jax.eval_shape(system.initial),
                   step.new_meter(system.recipe.terms), {}, {**streams.rows(data, range(8)), 'triplet': np.full(8, -1)})
  assert 0 < kept[1] < 0.5 * kept[0]


def test_arms_batch_mean_in_an_evaluation_is_of_the_rows_that_are_not_padding():
  config = make_arm()
  data = faces.source(8, maps=config.data.maps.to_dict())
  system = setup.make_system(config, data.classes, 20)
  variables = reference('arm')[0].variables()
  evaluate = jax.jit(functools.partial(step.evaluation_step, system.recipe, {}))
  batch = streams.rows(data, range(8))
  logits = lambda mask, **changes: np.asarray(evaluate(variables, {**batch, **changes, 'mask': mask})['logits'])
  held, everyone = np.arange(8) < 5, np.ones(8, bool)
  other = batch['image'].copy()
  other[5:] = 255 - other[5:]
  np.testing.assert_allclose(logits(held, image=other)[:5], logits(held)[:5], atol=1e-5, rtol=1e-5)
  assert np.abs(logits(everyone, image=other)[:5] - logits(everyone)[:5]).max() > 1e-4
  assert np.abs(logits(held)[:5] - logits(everyone)[:5]).max() > 1e-4
