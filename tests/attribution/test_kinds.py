"""Kinds of attribution: hand-checked maps, closed forms, and the general forms, all against numpy."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import registry
from fer_jax.attribution.maps import tap_map
from fer_jax.attribution.similarity import similarity
from fer_jax.errors import UserError
from fer_jax.losses.alignment import alignment
from fer_jax.models.classifier import Classifier
from fer_jax.models.heads.linear import Linear
from fer_jax.models.taps import tapping
from fer_jax.training.step import Context

FAMILY = ('grad_cam', 'grad_cam_plus_plus', 'grad_cam_plus_plus_intended', 'layer_cam')


def context_of(features, head, attention=None, **batch):
  """A forward pass that starts at the tap 'x': ``head`` maps features (B, h, w, c) to logits."""
  features = jnp.asarray(features)
  logits, pull_back = jax.vjp(head, features)
  return SimpleNamespace(
      outputs=SimpleNamespace(logits=logits, taps={'x': features}, attention=attention), batch=batch,
      gradient=lambda cotangent: {'x': pull_back(cotangent)[0]},
      logits=lambda activations: head(activations['x']), class_weights=None)


def pooled(features, weights, bias=0.0, **batch):
  """The same with global average pooling and a linear layer, weights (C, K)."""
  context = context_of(features, lambda x: x.mean(axis=(1, 2)) @ weights + bias, **batch)
  context.class_weights = lambda cotangent: cotangent @ jnp.asarray(weights).T
  return context


def draw(context, attribution, target='true_class', channels='mean', tap='x'):
  return np.asarray(tap_map(context, attribution=attribution, target=target, tap=tap, channels=channels))


def span(maps):
  low, high = maps.min(), maps.max()
  return (maps - low) / (high - low)


# Two channels of 2 x 2 pixels; the class explained is 1 of 3.
A = np.float32([[[1, 0], [0, 0]], [[0, 0], [0, 2]]]).transpose(1, 2, 0)[None]
W = np.float32([[5, 2, -3], [4, -1, 7]])
PEAK = [[1, 0], [0, 0]]


@pytest.fixture(scope='module')
def hand():
  return pooled(A, W, np.float32([1, 2, 3]), label=jnp.array([1]))


def test_cam_by_hand(hand):
  cam = draw(hand, 'cam', channels='all').sum(-1)[0]
  np.testing.assert_array_equal(cam, [[2, 0], [0, -2]])
  np.testing.assert_array_equal(draw(hand, 'cam')[0, ..., 0], cam / 2)  # The mean over two channels.
  np.testing.assert_array_equal(span(cam), [[1, 0.5], [0.5, 0]])


@pytest.mark.parametrize('kind', FAMILY)
def test_grad_cams_by_hand(hand, kind):
  np.testing.assert_array_equal(span(draw(hand, kind)[0, ..., 0]), PEAK)


def test_scales_of_both_grad_cam_plus_plus_by_hand(hand):
  # g = W / 4 = 1/2 at four pixels; the sum of A_1 is 1.
  np.testing.assert_allclose(draw(hand, 'grad_cam_plus_plus').max(), 4 * 0.5**3)
  np.testing.assert_allclose(draw(hand, 'grad_cam_plus_plus_intended').max(), 4 * 0.5 / (2 + 0.5))


def test_attention_by_hand(hand):
  np.testing.assert_array_equal(draw(hand, 'activation')[0, ..., 0], [[0.5, 0], [0, 1]])


@pytest.mark.parametrize('kind, value', [('cam', 0.8165), ('grad_cam', 1), ('layer_cam', 1), ('activation', 0.4472)])
def test_cosines_by_hand(hand, kind, value):
  maps = span(draw(hand, kind)).reshape(1, -1)
  np.testing.assert_allclose(similarity(jnp.asarray(maps), jnp.float32(PEAK).reshape(1, -1), 'cosine'), value,
                             atol=5e-5)


def test_an_all_negative_cam_has_an_empty_grad_cam_of_cosine_zero():
  weights = -np.abs(W)
  batch = {'label': jnp.array([1]), 'landmark_heatmap': jnp.float32([PEAK])}
  assert (draw(pooled(A, weights, **batch), 'grad_cam') == 0).all()

  def loss(features):
    return alignment(pooled(features, weights, **batch), 'grad_cam', 'true_class', ('x',), 'mean', 'landmark',
                     'cosine')[0]

  value, gradient = jax.value_and_grad(loss)(jnp.asarray(A))
  assert value == 1 and (gradient == 0).all()  # Counted, as a cosine of 0.


# Three examples with random features and weights, some of either sign.
ROWS, SIZE, CHANNELS, CLASSES = 3, (4, 5), 6, 4
RNG = np.random.default_rng(0)
FEATURES = np.maximum(RNG.normal(size=(ROWS, *SIZE, CHANNELS)), 0).astype(np.float32)
WEIGHTS = RNG.normal(size=(CHANNELS, CLASSES)).astype(np.float32)
LABELS = np.array([2, 0, 3])


def numpy_map(kind, x, g):
  """One example's map from its activations and gradients (h, w, c), with loops over channels, in float64."""
  x, g = np.float64(x), np.float64(g)
  total = np.zeros(x.shape[:2])
  for c in range(x.shape[-1]):
    a, d = x[..., c], g[..., c]
    up = np.maximum(d, 0)
    if kind == 'cam' or kind == 'grad_cam':
      total += d.mean() * a
    elif kind == 'grad_cam_plus_plus':
      total += (d**2 * up).sum() * a
    elif kind == 'grad_cam_plus_plus_intended':
      alpha = np.divide(d**2, 2 * d**2 + d**3 * a.sum(), out=np.zeros_like(d), where=d != 0)
      total += (alpha * up).sum() * a
    elif kind == 'layer_cam':
      total += up * a
    elif kind in ('grad_input', 'integrated_gradients'):
      total += d * a
  return np.maximum(total, 0) if kind in FAMILY else total


def weighted(features, weights):
  return np.maximum((features * weights[:, None, None]).sum(axis=-1), 0)


# Maps up to a positive factor, of features (B, h, w, C) that are pooled and the head's weights (B, C) for the class:
# the gradient is the weights over h w, the same at every pixel.
CLOSED_FORMS = {
    'cam': lambda a, w: (a * w[:, None, None]).sum(axis=-1),
    'grad_input': lambda a, w: (a * w[:, None, None]).sum(axis=-1),
    'integrated_gradients': lambda a, w: (a * w[:, None, None]).sum(axis=-1),
    'grad_cam': weighted,
    'layer_cam': lambda a, w: weighted(a, np.maximum(w, 0)),
    'grad_cam_plus_plus': lambda a, w: weighted(a, np.maximum(w, 0) ** 3),
    'grad_cam_plus_plus_intended': lambda a, w: weighted(
        a, np.maximum(w, 0) / (2 + np.maximum(w, 0) * a.mean(axis=(1, 2)))),
}


def unit(maps):
  """Scales every example to norm 1: what is left is the map up to a positive factor."""
  maps = np.float64(maps).reshape(len(maps), -1)
  return maps / np.linalg.norm(maps, axis=1, keepdims=True)


@pytest.mark.parametrize('kind', CLOSED_FORMS)
def test_closed_forms_gradient_forms_and_numpy_agree_up_to_scale(kind):
  context = pooled(FEATURES, WEIGHTS, label=jnp.asarray(LABELS))
  flat = np.broadcast_to(WEIGHTS.T[LABELS][:, None, None] / np.prod(SIZE), FEATURES.shape)
  expected = unit(np.stack([numpy_map(kind, x, g) for x, g in zip(FEATURES, flat, strict=True)]))
  closed = CLOSED_FORMS[kind](np.float64(FEATURES), np.float64(WEIGHTS.T[LABELS]))
  np.testing.assert_allclose(unit(closed), expected, atol=1e-6)
  np.testing.assert_allclose(unit(draw(context, kind)), expected, atol=1e-6)


@pytest.mark.parametrize('kind', FAMILY)
@pytest.mark.parametrize('signed', [False, True])
def test_general_forms_agree_with_numpy_where_gradients_vary_over_space(kind, signed):
  # A small hidden layer over all pixels, with the gradient written out; tokens of a transformer may be negative.
  x = FEATURES - 0.3 * signed
  first = RNG.normal(size=(x[0].size, 8)).astype(np.float32) / 8
  second = RNG.normal(size=(8, CLASSES)).astype(np.float32)
  context = context_of(x, lambda x: jnp.tanh(x.reshape(ROWS, -1) @ first) @ second, label=jnp.asarray(LABELS))
  hidden = np.tanh(np.float64(x.reshape(ROWS, -1)) @ first)
  g = (((1 - hidden**2) * second.T[LABELS]) @ first.T).reshape(x.shape)
  ours = draw(context, kind)
  assert ours.shape == (ROWS, *SIZE, 1) and ours.min() >= 0
  for i in range(ROWS):
    expected = numpy_map(kind, x[i], g[i])
    np.testing.assert_allclose(ours[i, ..., 0], expected, rtol=1e-3, atol=1e-4 * max(expected.max(), 1e-6))


@pytest.mark.parametrize('kind', ['cam', *FAMILY])
def test_maps_of_a_bfloat16_net_are_float32(kind):
  context = pooled(jnp.asarray(FEATURES, jnp.bfloat16), WEIGHTS, label=jnp.asarray(LABELS))
  maps = draw(context, kind)
  assert maps.dtype == np.float32
  rounded = pooled(jnp.asarray(FEATURES, jnp.bfloat16).astype(jnp.float32), WEIGHTS, label=jnp.asarray(LABELS))
  np.testing.assert_allclose(unit(maps), unit(draw(rounded, kind)), atol=0.01)


@pytest.mark.parametrize('kind', ['grad_input', 'integrated_gradients'])
def test_products_of_bfloat16_factors_are_not_rounded(kind):
  # (1 + u)^2 - (1 + 2 u) = u^2, of which bfloat16 would leave nothing.
  u = 2.0**-7
  slopes = jnp.array([1 + u, -1], jnp.bfloat16)
  context = context_of(jnp.array([[[[1 + u, 1 + 2 * u]]]], jnp.bfloat16), lambda x: (x * slopes).sum(axis=(1, 2)))
  assert draw(context, kind, 'logit_sum') == u**2 / 2


def test_a_sum_of_softmax_outputs_has_no_attribution():
  context = context_of(FEATURES, lambda x: jax.nn.softmax(x.mean(axis=(1, 2)) @ WEIGHTS))
  np.testing.assert_allclose(draw(context, 'grad_input', 'logit_sum'), 0, atol=1e-8)


def test_pooling_and_a_linear_head_by_the_sum_of_logits():
  # a = v x / (h w) with v the row sums of W; its sum is that of the logits without their biases.
  bias = RNG.normal(size=CLASSES).astype(np.float32)
  context = pooled(FEATURES, WEIGHTS, bias)
  maps = draw(context, 'grad_input', 'logit_sum', 'all')
  np.testing.assert_allclose(maps, FEATURES * WEIGHTS.sum(axis=1) / np.prod(SIZE), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(maps.sum(axis=(1, 2, 3)), (context.outputs.logits - bias).sum(axis=1), rtol=1e-4)
  np.testing.assert_allclose(draw(context, 'integrated_gradients', 'logit_sum', 'all'), maps, rtol=1e-4, atol=1e-6)


def test_the_softmax_cannot_see_what_the_sum_of_logits_explains():
  u = RNG.normal(size=(CHANNELS, 1)).astype(np.float32)
  before, after = pooled(FEATURES, WEIGHTS), pooled(FEATURES, WEIGHTS + u)
  np.testing.assert_allclose(jax.nn.softmax(before.outputs.logits), jax.nn.softmax(after.outputs.logits), atol=1e-6)
  moved = after.class_weights(jnp.ones((1, CLASSES))) - before.class_weights(jnp.ones((1, CLASSES)))
  np.testing.assert_allclose(moved, CLASSES * u.T, rtol=1e-4, atol=1e-5)


def test_grad_input_is_equal_before_and_after_a_relu():
  x = RNG.normal(size=FEATURES.shape).astype(np.float32)
  head = lambda x: jnp.sin(x).sum(axis=(1, 2)) @ WEIGHTS
  before = context_of(x, lambda x: head(jax.nn.relu(x)))
  after = context_of(np.maximum(x, 0), head)
  np.testing.assert_allclose(*(draw(c, 'grad_input', 'logit_sum', 'all') for c in (before, after)), atol=1e-6)


def test_all_channels_of_the_last_vgg16_tap_are_100352_numbers():
  maps = jax.eval_shape(lambda x: tap_map(pooled(x, jnp.ones((512, 7))), attribution='grad_input', tap='x',
                                          target='logit_sum', channels='all'), jnp.zeros((1, 14, 14, 512)))
  assert maps.size == 100_352


def attention_of(rows=2, blocks=3, tokens=7):
  raw = np.exp(np.random.default_rng(1).normal(size=(rows, blocks, tokens, tokens)))
  return raw / raw.sum(axis=-1, keepdims=True)


def transformer(attention, size=(2, 3)):
  features = np.ones((len(attention), *size, 4), np.float32)
  return context_of(features, lambda x: x.mean(axis=(1, 2)), jnp.asarray(attention, jnp.float32))


def test_rollout_agrees_with_a_loop_over_blocks():
  attention = attention_of()
  for i, maps in enumerate(draw(transformer(attention), 'rollout', 'logit_sum')):
    product = np.eye(7)
    for block in attention[i]:
      mixed = 0.5 * block + 0.5 * np.eye(7)
      product = (mixed / mixed.sum(axis=1, keepdims=True)) @ product
    np.testing.assert_allclose(maps[..., 0], product[0, 1:].reshape(2, 3), rtol=1e-5)


def test_rollout_by_hand():
  # Tokens that look at themselves tell nothing of the patches; one even look halves between the class and all tokens.
  looks = np.stack([np.eye(7), np.full((7, 7), 1 / 7)])[:, None]
  maps = draw(transformer(looks), 'rollout', 'logit_sum')
  np.testing.assert_allclose(maps[0], 0)
  np.testing.assert_allclose(maps[1], 0.5 / 7, rtol=1e-6)


def test_token_attention_sums_the_class_tokens_rows_over_blocks():
  attention = attention_of()
  expected = sum(attention[:, block, 0, 1:] for block in range(3)).reshape(2, 2, 3, 1)
  np.testing.assert_allclose(draw(transformer(attention), 'token_attention', 'logit_sum'), expected, rtol=1e-5)


@pytest.mark.parametrize('kind', ['rollout', 'token_attention'])
def test_attention_kinds_want_a_transformer_and_its_taps(kind):
  with pytest.raises(UserError, match=f"'{kind}' needs the attention of a transformer"):
    draw(pooled(FEATURES, WEIGHTS), kind, 'logit_sum')
  with pytest.raises(UserError, match='4 x 5, but the attention is between 6 patches'):
    draw(transformer(attention_of(), (4, 5)), kind, 'logit_sum')


@pytest.mark.parametrize('kind', FAMILY)
def test_one_channel_has_no_half(kind):
  with pytest.raises(UserError, match="choose channels 'mean'"):
    draw(pooled(FEATURES, WEIGHTS), kind, 'logit_sum', 'half_mean')


class Trunk(nn.Module):
  """Two taps of different width."""

  @nn.compact
  def __call__(self, x, train):
    taps, tap = tapping(self)
    for name, width in (('first', 4), ('last', 6)):
      x = tap(name, nn.relu(nn.Conv(width, (3, 3))(x)))
    return x, taps, None


class Hidden(nn.Module):
  """A head that is not linear in the pooled features."""

  @nn.compact
  def __call__(self, features, train, mask=None):
    embedding = nn.tanh(nn.Dense(5)(features.mean(axis=(1, 2))))
    return nn.Dense(CLASSES, name='fc')(embedding), embedding, None


def context_with(head):
  images = jax.random.normal(jax.random.key(0), (ROWS, 5, 5, 3))
  model = Classifier(Trunk(), head)
  variables = {'batch_stats': {}, 'params': model.init(jax.random.key(1), images, False)['params']}
  return Context(model, variables, images, {'label': jnp.asarray(LABELS)}, False), variables['params']


def test_cam_of_a_net_takes_the_weights_of_its_head():
  context, params = context_with(Linear(CLASSES))
  kernel = np.asarray(params['head']['fc']['kernel'])
  expected = np.asarray(context.outputs.taps['last']) * kernel.T[LABELS][:, None, None]
  np.testing.assert_allclose(draw(context, 'cam', channels='all', tap='last'), expected, rtol=1e-5)
  np.testing.assert_allclose(draw(context, 'cam', tap='last') / 25, draw(context, 'grad_input', tap='last'), atol=1e-6)


def test_cam_wants_the_pooled_tap_of_a_linear_head():
  with pytest.raises(UserError, match="with 6 channels; 'first' has 4"):
    draw(context_with(Linear(CLASSES))[0], 'cam', tap='first')
  with pytest.raises(UserError, match="head 'linear'"):
    draw(context_with(Hidden())[0], 'cam', tap='last')


def test_kinds_are_found_by_name():
  assert {'cam', *FAMILY, 'rollout', 'token_attention', 'activation', 'grad', 'grad_input', 'integrated_gradients'} == (
      set(registry.names('attribution.kinds')))
  with pytest.raises(UserError, match="did you mean 'layer_cam'"):
    draw(pooled(FEATURES, WEIGHTS), 'layercam', 'logit_sum')
