"""The alignment loss, PAL and AU cues: closed forms, finite differences, priors, masks, and what it costs."""

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.attribution.maps import cotangent, tap_map
from fer_jax.attribution.priors import prior_map
from fer_jax.errors import UserError
from fer_jax.losses.alignment import PRESETS, alignment
from fer_jax.models.classifier import Classifier, make_classifier
from fer_jax.models.heads.linear import Linear
from fer_jax.models.taps import tapping
from fer_jax.training.step import Context

SIZE, ROWS, CLASSES = 8, 4, 7


class Small(nn.Module):
  """Two convolutions with BatchNorm, each ending in a tap: compiles in a second, even in float64."""

  @nn.compact
  def __call__(self, x, train):
    taps, tap = tapping(self)
    for name, stride in (('stage3', 1), ('stage4', 2)):
      x = nn.Conv(8, (3, 3), stride, use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
      x = tap(name, x)
    return x, taps, None


@dataclasses.dataclass
class Net:
  """A narrow ResNet with its variables and a batch of drawn blobs."""

  model: object
  variables: dict
  images: jax.Array
  batch: dict


@pytest.fixture(scope='module')
def context(net):
  return Context(net.model, net.variables, net.images, net.batch, False)


@pytest.fixture(scope='module')
def net():
  model = Classifier(Small(), Linear(CLASSES, 0.0))
  key = jax.random.key(0)
  images = jax.random.normal(key, (ROWS, SIZE, SIZE, 3))
  variables = jax.jit(lambda k: model.init(k, images, train=False))(key)
  # Non-zero biases: a net without them is homogeneous, and there all attributions times input agree.
  variables = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(jax.random.fold_in(key, a.size), a.shape), variables)
  variables['batch_stats'] = jax.tree.map(jnp.abs, variables['batch_stats'])
  y, x = np.mgrid[:56, :56] / 56
  centres = np.array([[0.3, 0.4], [0.6, 0.5], [0.5, 0.7], [0.4, 0.2]])
  heat = np.stack([np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.02) for cx, cy in centres]).astype(np.float32)
  batch = {'label': jnp.array([0, 3, 6, -1]), 'target': jax.nn.one_hot(jnp.array([0, 3, 6, -1]), CLASSES),
           'landmark_source': jnp.full(ROWS, 3), 'draw': jnp.arange(ROWS) / ROWS,
           'landmark_heatmap': jnp.asarray(heat), 'action_unit_map': jnp.asarray(heat[:, ::-1])}
  return Net(model, {'params': variables['params'], 'batch_stats': variables['batch_stats']}, images, batch)


def kernel(net):
  return net.variables['params']['head']['fc']['kernel']


@pytest.mark.parametrize('target, rows', [
    ('logit_sum', lambda w, logits, labels: w.sum(axis=1)[None]),
    ('predicted', lambda w, logits, labels: w.T[logits.argmax(-1)]),
    ('true_class', lambda w, logits, labels: jnp.where(labels[:, None] >= 0, w.T[labels], 0.0)),
])
def test_map_equals_the_closed_form_for_pooling_and_a_linear_head(net, context, target, rows):
  # a = v_c x / (h w), with v the column(s) of the head that the target sums.
  x = context.outputs.taps['stage4']
  v = rows(kernel(net), context.outputs.logits, net.batch['label'])
  expected = x * jnp.broadcast_to(v, (ROWS, x.shape[-1]))[:, None, None] / (x.shape[1] * x.shape[2])
  for kind in ('grad_input', 'integrated_gradients'):
    ours = tap_map(context, attribution=kind, target=target, tap='stage4', channels='all')
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
  gradient = tap_map(context, attribution='grad', target=target, tap='stage4', channels='all')
  np.testing.assert_allclose(gradient.std(axis=(1, 2)), 0, atol=1e-7)  # Flat in space: the trap of 'grad' here.


def test_attributions_sum_to_the_logits_without_their_bias(net, context):
  maps = tap_map(context, attribution='grad_input', target='logit_sum', tap='stage4', channels='all')
  bias = net.variables['params']['head']['fc']['bias']
  np.testing.assert_allclose(maps.sum((1, 2, 3)), context.outputs.logits.sum(-1) - bias.sum(), rtol=1e-4, atol=1e-5)


def test_integrated_gradients_converge_to_the_difference_in_logits(net, context):
  # Completeness below a ReLU net: sum of a = s(x) - s(0), the better the more steps.
  x = context.outputs.taps['stage3']
  change = (context.outputs.logits - context.logits({'stage3': jnp.zeros_like(x)})).sum(-1)
  errors = []
  for steps in (4, 64):
    maps = tap_map(context, attribution='integrated_gradients', target='logit_sum', tap='stage3', channels='all',
                   steps=steps)
    errors.append(float(jnp.abs(maps.sum((1, 2, 3)) - change).max()))
  assert errors[1] < errors[0] and errors[1] < 0.05 * float(jnp.abs(change).max())


def test_channel_strategies(net, context):
  options = {'attribution': 'grad_input', 'target': 'logit_sum', 'tap': 'stage4'}
  full = tap_map(context, **options, channels='all')
  np.testing.assert_allclose(tap_map(context, **options, channels='mean')[..., 0], full.mean(-1), rtol=1e-5)
  half = full[..., : full.shape[-1] // 2].mean(-1)
  np.testing.assert_allclose(tap_map(context, **options, channels='half_mean')[..., 0], half, rtol=1e-5)


@pytest.mark.parametrize('tap, attribution, target', [
    *[(tap, kind, 'logit_sum') for tap in ('stage3', 'stage4')
      for kind in ('grad', 'grad_input', 'integrated_gradients', 'activation')],
    ('stage4', 'cam', 'predicted'), ('stage3', 'grad_cam', 'cross_entropy'), ('stage3', 'layer_cam', 'predicted'),
    ('stage3', 'grad_cam_plus_plus', 'cross_entropy'), ('stage3', 'grad_cam_plus_plus_intended', 'predicted'),
])
def test_gradient_of_the_loss_agrees_with_finite_differences(net, tap, attribution, target):
  # Directional derivatives in parameter space, in float64; the step is too small to move a unit across a ReLU's kink.
  options = PRESETS['pal'] | {'taps': (tap,), 'attribution': attribution, 'target': target, 'steps': 2}
  with jax.enable_x64():
    wide = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree)
    variables, images, batch = wide(net.variables), wide(net.images), wide(net.batch)

    @jax.jit
    def loss(params):
      return alignment(Context(net.model, {**variables, 'params': params}, images, batch, False), **options).mean()

    params = variables['params']
    gradient = jax.grad(loss)(params)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    direction = tree.unflatten([jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)])
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
    moved = lambda e: float(loss(jax.tree.map(lambda p, d: p + e * d, params, direction)))
    measured = (moved(1e-7) - moved(-1e-7)) / 2e-7
  np.testing.assert_allclose(measured, float(slope), rtol=1e-5, atol=1e-7)
  # 'grad' at the last stage is flat in space, so there PAL has nothing to pull on.
  assert (abs(float(slope)) > 1e-3) == ((attribution, tap) != ('grad', 'stage4'))


def test_several_taps_are_averaged(net, context):
  one = lambda taps: alignment(context, **(PRESETS['pal'] | {'taps': taps}))
  both = one(('stage3', 'stage4'))
  np.testing.assert_allclose(both, (one(('stage3',)) + one(('stage4',))) / 2, rtol=1e-5, atol=1e-6)


def test_similarities_are_one_optimum_at_different_scales(net, context):
  loss = {kind: alignment(context, **(PRESETS['pal'] | {'similarity': kind})) for kind in ('pearson', 'zscore_sum')}
  prior, _ = prior_map(net.batch, 'landmark', context.outputs.taps['stage4'].shape[1:3])
  n = prior[0].size
  np.testing.assert_allclose(loss['zscore_sum'], n * prior.std(axis=(1, 2)) * loss['pearson'], rtol=1e-4)


def test_a_face_without_landmarks_carries_no_loss(net, context):
  batch = {**net.batch, 'landmark_heatmap': net.batch['landmark_heatmap'].at[1].set(0.0)}
  context = SimpleNamespace(outputs=context.outputs, gradient=context.gradient, class_weights=None, batch=batch)
  losses = alignment(context, **PRESETS['pal'])
  assert losses[1] == 0 and (losses[np.array([0, 2, 3])] != 0).all()


def linear_context(features, weights, **batch):
  """A forward pass that starts at the tap 'stage4', pooled globally, with weights (C, K) and no bias."""
  head = lambda x: x.mean(axis=(1, 2)) @ weights
  logits, pull_back = jax.vjp(head, features)
  return SimpleNamespace(outputs=SimpleNamespace(logits=logits, taps={'stage4': features}, attention=None), batch=batch,
                         class_weights=None, gradient=lambda cotangent: {'stage4': pull_back(cotangent)[0]})


def test_au_cues_agrees_with_numpy(net, context):
  for taps in (('stage4',), ('stage3', 'stage4')):
    expected = []
    for tap in taps:
      attention = np.asarray(context.outputs.taps[tap], np.float64).mean(axis=-1)
      size = attention.shape[1:]
      drawn = np.asarray(jax.image.resize(net.batch['action_unit_map'], (ROWS, *size), 'linear'), np.float64)
      product = (attention * drawn).sum(axis=(1, 2))
      norms = np.sqrt((attention**2).sum(axis=(1, 2)) * (drawn**2).sum(axis=(1, 2)))
      expected.append(1 - product / np.maximum(norms, 1e-8))
    ours = alignment(context, **(PRESETS['au_cues'] | {'taps': taps}))
    np.testing.assert_allclose(ours, np.mean(expected, axis=0), atol=1e-6)


def test_au_cues_of_a_map_of_zeros_is_one_without_a_gradient(net):
  loss = lambda x: alignment(linear_context(x, jnp.ones((3, CLASSES)), **net.batch), **PRESETS['au_cues']).sum()
  value, gradient = jax.value_and_grad(loss)(jnp.zeros((ROWS, 4, 4, 3)))
  assert value == ROWS and (gradient == 0).all()


@pytest.mark.parametrize('preset', ['pal', 'au_cues'])
def test_a_batch_without_priors_has_no_loss_and_no_gradient(net, preset):
  # All faces neutral: no action units. None found: no landmarks.
  empty = {name: jnp.zeros_like(net.batch[name]) for name in ('landmark_heatmap', 'action_unit_map')}

  @jax.jit
  def loss(params):
    context = Context(net.model, {**net.variables, 'params': params}, net.images, {**net.batch, **empty}, False)
    return alignment(context, **PRESETS[preset]).sum()

  value, gradient = jax.value_and_grad(loss)(net.variables['params'])
  assert value == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_an_invalid_face_does_not_change_the_others(net):
  one_neutral = {**net.batch, 'action_unit_map': net.batch['action_unit_map'].at[1].set(0.0)}
  images = net.images.at[1].mul(-3.0)
  losses = [alignment(Context(net.model, net.variables, images, batch, False), **PRESETS['au_cues'])
            for images, batch in ((net.images, net.batch), (net.images, one_neutral), (images, one_neutral))]
  others = np.array([0, 2, 3])
  for changed in losses[1:]:
    assert changed[1] == 0
    np.testing.assert_allclose(changed[others], losses[0][others], rtol=1e-5)


def test_pearson_of_a_constant_map_is_zero_without_a_gradient(net):
  options = PRESETS['pal'] | {'attribution': 'activation'}
  loss = lambda x: alignment(linear_context(x, jnp.ones((3, CLASSES)), **net.batch), **options).sum()
  value, gradient = jax.value_and_grad(loss)(jnp.full((ROWS, 4, 4, 3), 0.7))
  assert value == 0 and (gradient == 0).all()


@pytest.mark.parametrize('similarity', ['pearson', 'zscore_sum', 'cosine'])
@pytest.mark.parametrize('stats', ['sample', 'channel'])
def test_statistics_of_all_channels_agree_with_numpy(net, stats, similarity):
  rng = np.random.default_rng(0)
  # Channels of different means and scales, so that the two statistics differ; one is constant.
  x = np.float32(rng.normal(size=(ROWS, 4, 4, 3)) * [1, 5, 0] + [0, 3, 2])
  options = {'attribution': 'activation', 'target': 'logit_sum', 'taps': ('stage4',), 'channels': 'all',
             'prior': 'landmark', 'similarity': similarity, 'stats': stats}
  ours = alignment(linear_context(jnp.asarray(x), jnp.ones((3, CLASSES)), **net.batch), **options)
  drawn = np.asarray(prior_map(net.batch, 'landmark', (4, 4))[0], np.float64)

  def z(values, axes):
    deviation = values.std(axis=axes, keepdims=True)
    return np.where(deviation > 1e-6, (values - values.mean(axis=axes, keepdims=True)) / (deviation + 1e-12), 0)

  axes = (0, 1) if stats == 'channel' else (0, 1, 2)
  for i in range(ROWS):
    m, p = np.float64(x[i]), np.repeat(drawn[i][..., None], 3, axis=-1)
    norms = lambda values: np.sqrt((values**2).sum(axis=axes))
    expected = {'pearson': -(z(m, axes) * z(p, axes)).mean(), 'zscore_sum': -(z(m, axes) * p).sum(),
                'cosine': 1 - ((m * p).sum(axis=axes) / (norms(m) * norms(p))).mean()}[similarity]
    np.testing.assert_allclose(ours[i], expected, rtol=1e-4, atol=1e-5)


def test_statistics_are_one_for_one_channel(context):
  sample, channel = (alignment(context, **(PRESETS['pal'] | {'stats': stats})) for stats in ('sample', 'channel'))
  np.testing.assert_array_equal(sample, channel)


def test_cross_entropy_target_agrees_with_finite_differences(net):
  rng = np.random.default_rng(0)
  x, weights = rng.normal(size=(ROWS, 4, 4, 3)), rng.normal(size=(3, CLASSES))
  wanted = np.stack([np.eye(CLASSES)[2], rng.dirichlet(np.ones(CLASSES)), np.eye(CLASSES)[0], np.zeros(CLASSES)])

  def loss(logits):
    top = logits.max(axis=-1, keepdims=True)
    return -(wanted * (logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)))).sum(axis=-1)

  with jax.enable_x64():
    context = linear_context(jnp.asarray(x), jnp.asarray(weights), target=jnp.asarray(wanted))
    ours = np.asarray(cotangent(context.outputs.logits, 'cross_entropy', context.batch))
    maps = np.asarray(tap_map(context, attribution='grad', target='cross_entropy', tap='stage4', channels='all'))
  logits = x.mean(axis=(1, 2)) @ weights
  for k in range(CLASSES):
    step = 1e-6 * np.eye(CLASSES)[k]
    np.testing.assert_allclose(ours[:, k], (loss(logits + step) - loss(logits - step)) / 2e-6, atol=1e-8)
  np.testing.assert_allclose(maps, np.broadcast_to((ours @ weights.T)[:, None, None] / 16, x.shape), atol=1e-12)
  assert (ours[3] == 0).all()  # No target, nothing to explain.


def test_tokens_of_a_transformer_are_aligned_like_pixels(net):
  rng = np.random.default_rng(0)
  attention = rng.dirichlet(np.ones(17), size=(ROWS, 2, 17))
  context = linear_context(jnp.asarray(rng.normal(size=(ROWS, 4, 4, 3)), jnp.float32), jnp.ones((3, CLASSES)),
                           **net.batch)
  context.outputs.attention = jnp.asarray(attention, jnp.float32)
  options = PRESETS['au_cues'] | {'attribution': 'token_attention'}
  maps = attention[:, :, 0, 1:].sum(axis=1)
  drawn = np.asarray(prior_map(net.batch, 'action_unit', (4, 4))[0], np.float64).reshape(ROWS, -1)
  cosine = (maps * drawn).sum(axis=1) / (np.linalg.norm(maps, axis=1) * np.linalg.norm(drawn, axis=1))
  np.testing.assert_allclose(alignment(context, **options), 1 - cosine, atol=1e-6)


def test_the_form_of_resizing_reaches_the_prior(net, context):
  losses = [alignment(context, **(PRESETS['au_cues'] | {'resize': form})) for form in ('antialias', 'torch_ac_aa')]
  assert float(jnp.abs(losses[0] - losses[1]).min()) > 1e-4


def test_priors(net):
  size = (7, 7)
  for kind in ('landmark', 'action_unit', 'centred_gaussian', 'uniform', 'shuffled'):
    prior, valid = prior_map(net.batch, kind, size)
    assert prior.shape == (ROWS, *size) and valid.all() and 0 <= float(prior.min()) and float(prior.max()) <= 1
  landmark, _ = prior_map(net.batch, 'landmark', size)
  shuffled, _ = prior_map(net.batch, 'shuffled', size)
  np.testing.assert_array_equal(shuffled, landmark[np.array([1, 2, 3, 0])])
  gaussian, _ = prior_map(net.batch, 'centred_gaussian', (224, 224))
  assert np.unravel_index(gaussian[0].argmax(), (224, 224)) in [(130, 112), (129, 111), (130, 111), (129, 112)]


def test_unknown_names_suggest_the_nearest(net, context):
  good = {'attribution': 'grad_input', 'target': 'predicted', 'tap': 'stage4'}
  for change, message in [({'tap': 'stage5'}, "no tap 'stage5'"), ({'target': 'predict'}, "did you mean 'predicted'"),
                          ({'attribution': 'gradinput'}, "did you mean 'grad_input'"),
                          ({'channels': 'meen'}, "did you mean 'mean'")]:
    with pytest.raises(UserError, match=message):
      tap_map(context, **(good | change))
  for change, message in [({'stats': 'channels'}, "did you mean 'channel'"), ({'resize': 'plane'}, "mean 'plain'"),
                          ({'prior': 'landmarks'}, "did you mean 'landmark'"), ({'similarity': 'cosin'}, "'cosine'")]:
    with pytest.raises(UserError, match=message):
      alignment(context, **(PRESETS['pal'] | change))


def flops(losses):
  """FLOPs of a compiled forward and backward pass of a full-width ResNet-18 at 96 pixels with these loss terms."""
  options = {'backbone': {'name': 'resnet'}, 'head': {'name': 'linear'}, 'dtype': 'float32', 'region_norm': 'separate'}
  model = make_classifier(options, CLASSES)
  images = jnp.zeros((2, 96, 96, 3))
  batch = {'label': jnp.zeros(2, jnp.int32), 'landmark_heatmap': jnp.ones((2, 56, 56))}
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))

  def objective(params, stats, images, heat):
    variables = {'params': params, 'batch_stats': stats}
    context = Context(model, variables, images, {**batch, 'landmark_heatmap': heat}, True, jax.random.key(0))
    loss = -jax.nn.log_softmax(context.outputs.logits)[:, 0].mean()
    return loss + sum(alignment(context, **options).mean() for options in losses)

  compiled = jax.jit(jax.grad(objective)).lower(variables['params'], variables['batch_stats'], images,
                                                batch['landmark_heatmap']).compile()
  return compiled.cost_analysis()['flops']


def test_pal_costs_what_lies_above_its_tap():
  plain = flops([])
  assert flops([PRESETS['pal']]) / plain < 1.02
  assert 1.05 < flops([PRESETS['pal'] | {'taps': ('stage3',)}]) / plain < 1.30
