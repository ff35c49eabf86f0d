"""ARM's head against numpy loops: arrangement, de-albino, batch normalisation, sharing affinity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models.heads.arm import Arm, arrange

K = 3
SMALL = {'block': 2, 'kernel': 3, 'stride': 2}  # 3 x 3 x 8 features: two planes of 6 x 6, a map of 2 x 2.
SHAPE = (4, 3, 3, 8)
MASK = np.array([True, True, False, True])


def draw(seed=0, shape=SHAPE, **options):
  """A head, variables of random numbers, features."""
  rng = np.random.default_rng(seed)
  head = Arm(K, **{**SMALL, **options})
  features = rng.normal(size=shape).astype(np.float32)
  shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, False))
  variables = jax.tree.map(lambda leaf: rng.uniform(0.3, 1.5, leaf.shape).astype(np.float32), shapes)
  return head, variables, features


def arranged(x, block):
  rows, height, width, channels = x.shape
  planes = np.zeros((rows, height * block, width * block, channels // block**2))
  for (b, i, j, channel), value in np.ndenumerate(x):
    plane, rest = divmod(channel, block**2)
    u, v = divmod(rest, block)
    planes[b, block * i + u, block * j + v, plane] = value
  return planes


def by_hand(variables, x, train, mask=None, global_mean='running', arrangement=True, de_albino=True, decay=0.99,
            block=2, kernel=3, stride=2):
  """The head in float64: logits, amended map, and the running statistics afterwards."""
  params, stats = (jax.tree.map(np.float64, variables[name]) for name in ('params', 'batch_stats'))
  planes = arranged(x, block) if arrangement else np.float64(x)
  window = params['de_albino']['kernel'][..., 0, 0] if de_albino else np.full((kernel, kernel), 1 / kernel**2)
  rows, side, _, count = planes.shape
  out = (side - kernel) // stride + 1
  z = np.zeros((rows, out, out, count))
  for b, i, j, c in np.ndindex(*z.shape):
    z[b, i, j, c] = (planes[b, stride * i:stride * i + kernel, stride * j:stride * j + kernel, c] * window).sum()
  updated = {'mean': [], 'var': []}
  for c in range(count):
    mean, var = (z[..., c].mean(), z[..., c].var()) if train else (stats['bn']['mean'][c], stats['bn']['var'][c])
    updated['mean'].append(0.9 * stats['bn']['mean'][c] + 0.1 * mean)
    updated['var'].append(0.9 * stats['bn']['var'][c] + 0.1 * var)
    z[..., c] = (z[..., c] - mean) / np.sqrt(var + 1e-5) * params['bn']['scale'][c] + params['bn']['bias'][c]
  m = np.stack([z[b].sum(-1) / count for b in range(rows)])
  kept = [b for b in range(rows) if mask is None or mask[b]]
  batch_mean = sum(m[b] for b in kept) / len(kept)
  g = batch_mean if train or global_mean == 'batch' else stats['global_mean']
  amended = m if global_mean == 'none' else m + params['alpha'] * g
  after = {'bn': updated, 'global_mean': decay * stats['global_mean'] + (1 - decay) * batch_mean}
  flat = amended.reshape(rows, -1)
  return flat @ params['fc']['kernel'] + params['fc']['bias'], flat, after


def evaluate(head, variables, features, mask=None):
  return np.asarray(head.apply(variables, features, False, mask)[0])


def train(head, variables, features, mask=None):
  (logits, embedding, _), updates = head.apply(variables, features, True, mask, mutable=['batch_stats'])
  return logits, embedding, updates['batch_stats']


@pytest.mark.parametrize('shape, block', [((2, 2, 3, 8), 2), ((1, 2, 2, 9), 3), ((2, 3, 1, 16), 4), ((1, 2, 2, 3), 1)])
def test_arrangement_equals_loops(shape, block):
  x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  np.testing.assert_array_equal(arrange(jnp.asarray(x), block), np.float32(arranged(x, block)))


@pytest.mark.parametrize('i, j, c, u, v', [(0, 0, 0, 0, 0), (6, 2, 1, 15, 3), (3, 5, 0, 7, 12), (6, 6, 1, 15, 15)])
def test_a_one_hot_feature_becomes_one_pixel(i, j, c, u, v):
  x = np.zeros((1, 7, 7, 512), np.float32)
  x[0, i, j, 256 * c + 16 * u + v] = 1
  planes = np.asarray(arrange(jnp.asarray(x), 16))
  assert planes.shape == (1, 112, 112, 2)
  assert np.argwhere(planes).tolist() == [[0, 16 * i + u, 16 * j + v, c]] and planes.sum() == 1


def test_with_one_plane_arrangement_is_depth_to_space():
  x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
  expected = np.zeros((2, 6, 6, 1), np.float32)
  for u in range(2):
    for v in range(2):
      expected[:, u::2, v::2, 0] = x[..., 2 * u + v]
  np.testing.assert_array_equal(arrange(jnp.asarray(x), 2), expected)


def test_parameter_counts_of_the_paper():
  head = Arm(7)
  shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), jnp.zeros((1, 7, 7, 512)), False))
  sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in shapes['params'].items()}
  assert sizes == {'de_albino': 1024, 'bn': 4, 'alpha': 1, 'fc': 854}
  assert sum(sizes.values()) == 1883 < 512 * 7 + 7
  assert shapes['batch_stats']['global_mean'].shape == (11, 11)


def test_alpha_starts_at_1_and_the_running_mean_at_0():
  head = Arm(K, **SMALL)
  variables = head.init(jax.random.key(0), draw()[2], False)
  assert variables['params']['alpha'] == 1 and not np.any(variables['batch_stats']['global_mean'])


def test_pixels_near_the_border_enter_fewer_windows():
  head = Arm(7)
  features = jnp.zeros((1, 7, 7, 512))
  variables = head.init(jax.random.key(0), features, False)
  variables['params']['de_albino']['kernel'] = jnp.ones((32, 32, 1, 1))

  def total(features):
    _, seen = head.apply(variables, features, False, capture_intermediates=True, mutable=['intermediates'])
    maps = seen['intermediates']['de_albino']['__call__'][0]
    assert maps.shape == (2, 11, 11, 1)
    return maps.sum()

  windows = arranged(np.asarray(jax.grad(total)(features)), 16)[0]
  strips = [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 3, 2, 1]
  assert sum(strips) == 44
  along = np.repeat(strips, 8)
  for plane in range(2):
    np.testing.assert_allclose(windows[..., plane], np.outer(along, along), rtol=1e-6)
  assert windows[0, 0, 0] == windows[111, 111, 1] == 1 and windows[56, 56, 0] == 16


@pytest.mark.parametrize('options', [
    {}, {'global_mean': 'batch'}, {'global_mean': 'none'}, {'arrangement': False, 'kernel': 2, 'stride': 1},
    {'de_albino': False}, {'arrangement': False, 'de_albino': False}])
@pytest.mark.parametrize('mask', [None, MASK], ids=['all', 'padded'])
def test_equals_loops(options, mask):
  head, variables, features = draw(**options)
  ours = head.apply(variables, features, False, mask)
  logits, embedding, _ = by_hand(variables, features, False, mask, **{**SMALL, **options})
  np.testing.assert_allclose(ours[0], logits, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(ours[1], embedding, rtol=1e-4, atol=1e-4)
  assert ours[2] is None and ours[0].dtype == jnp.float32
  assert ('de_albino' in variables['params']) == options.get('de_albino', True)
  trained = train(head, variables, features, mask)
  logits, embedding, after = by_hand(variables, features, True, mask, **{**SMALL, **options})
  np.testing.assert_allclose(trained[0], logits, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(trained[1], embedding, rtol=1e-3, atol=1e-3)
  for name in ('mean', 'var'):
    np.testing.assert_allclose(trained[2]['bn'][name], after['bn'][name], rtol=1e-4)
  np.testing.assert_allclose(trained[2]['global_mean'], after['global_mean'], rtol=1e-4, atol=1e-5)


def test_the_running_mean_moves_by_its_decay():
  head, variables, features = draw(decay=0.75)
  after = train(head, variables, features)[2]['global_mean']
  expected = by_hand(variables, features, True, decay=0.75)[2]['global_mean']
  np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)
  default = train(draw()[0], variables, features)[2]['global_mean']
  start = variables['batch_stats']['global_mean']
  np.testing.assert_allclose(default - start, (after - start) * 0.01 / 0.25, rtol=1e-3, atol=1e-5)


def test_evaluation_leaves_the_running_mean_alone():
  head, variables, features = draw(global_mean='batch')
  _, updates = head.apply(variables, features, False, mutable=['batch_stats'])
  for a, b in zip(jax.tree.leaves(updates['batch_stats']), jax.tree.leaves(variables['batch_stats']), strict=True):
    np.testing.assert_array_equal(a, b)


def test_running_and_none_differ_by_one_constant_vector():
  _, variables, features = draw()
  running, none = (evaluate(draw(global_mean=kind)[0], variables, features) for kind in ('running', 'none'))
  shift = running - none
  np.testing.assert_allclose(shift, np.broadcast_to(shift[:1], shift.shape), atol=1e-5)
  constant = (variables['params']['alpha'] * variables['batch_stats']['global_mean']).reshape(-1)
  np.testing.assert_allclose(shift[0], constant @ variables['params']['fc']['kernel'], rtol=1e-4, atol=1e-5)
  assert np.abs(shift).max() > 0.1


def test_the_mean_of_a_batch_of_one_doubles_the_map():
  _, variables, features = draw()
  variables['params']['alpha'] = np.float32(1)
  doubled, single = (draw(global_mean=kind)[0].apply(variables, features[:1], False)[1] for kind in ('batch', 'none'))
  np.testing.assert_allclose(doubled, 2 * single, rtol=1e-5)


@pytest.mark.parametrize('global_mean', ['running', 'batch', 'none'])
def test_only_with_batch_do_logits_depend_on_other_rows(global_mean):
  head, variables, features = draw(global_mean=global_mean)
  others = features.copy()
  others[1:] = draw(seed=1)[2][1:]
  change = np.abs(evaluate(head, variables, others)[0] - evaluate(head, variables, features)[0]).max()
  alone = np.abs(evaluate(head, variables, features[:1])[0] - evaluate(head, variables, features)[0]).max()
  if global_mean == 'batch':
    assert change > 0.01 and alone > 0.01
  else:
    assert max(change, alone) < 1e-5


@pytest.mark.parametrize('global_mean', ['running', 'batch', 'none'])
def test_padding_never_changes_the_other_rows(global_mean):
  head, variables, features = draw(global_mean=global_mean)
  padded = features.copy()
  padded[~MASK] = 1e4
  logits = evaluate(head, variables, padded, MASK)[MASK]
  np.testing.assert_allclose(logits, evaluate(head, variables, features[MASK]), rtol=1e-4, atol=1e-4)


def test_a_batch_of_padding_alone_is_finite():
  head, variables, features = draw(global_mean='batch')
  assert np.isfinite(evaluate(head, variables, features, np.zeros(4, bool))).all()


@pytest.mark.parametrize('mask', [None, MASK], ids=['all', 'padded'])
def test_gradients_flow_through_the_global_mean_and_alpha(mask):
  head, variables, features = draw()
  weights = np.random.default_rng(3).normal(size=(4, K))
  weights[1:] = 0  # A loss on row 0 alone reaches the other rows through the means.

  def loss(params, features):
    return (train(head, {**variables, 'params': params}, features, mask)[0] * weights).sum()

  by_params, by_features = jax.grad(loss, (0, 1))(variables['params'], features)

  def numeric(**moved):
    params = {**variables['params'], 'alpha': variables['params']['alpha'] + moved.get('alpha', 0.0)}
    logits = by_hand({**variables, 'params': params}, features + moved.get('features', 0.0), True, mask)[0]
    return (logits * weights).sum()

  step = 1e-4
  slope = (numeric(alpha=step) - numeric(alpha=-step)) / (2 * step)
  np.testing.assert_allclose(by_params['alpha'], slope, rtol=1e-3)
  assert abs(slope) > 1e-3
  for row in range(4):
    direction = np.zeros(features.shape)
    direction[row] = np.random.default_rng(row).normal(size=features.shape[1:])
    slope = (numeric(features=step * direction) - numeric(features=-step * direction)) / (2 * step)
    np.testing.assert_allclose((by_features * direction).sum(), slope, rtol=2e-3, atol=1e-4)
    assert abs(slope) > 1e-3


def test_bfloat16_features_give_float32_outputs():
  head, variables, features = draw()
  logits, embedding, _ = head.apply(variables, jnp.bfloat16(features), False)
  assert logits.dtype == embedding.dtype == jnp.float32


@pytest.mark.parametrize('options, message', [
    ({'block': 3}, 'model.head.block=3: its square 9 does not divide the 8 channels'),
    ({'kernel': 7}, 'model.head.kernel=7 is larger than the 6 x 6 planes'),
    ({'arrangement': False, 'kernel': 4}, 'model.head.kernel=4 is larger than the 3 x 3 planes'),
    ({'global_mean': 'ema'}, "model.head.global_mean='ema': choose one of running, batch, none")])
def test_bad_options_are_named(options, message):
  with pytest.raises(UserError, match=message):
    draw(**options)
