"""PAL's loss: closed forms, finite differences, priors, masks, and what it costs."""

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.attribution.maps import attribution_map
from fer_jax.attribution.priors import prior_map
from fer_jax.errors import UserError
from fer_jax.losses.alignment import PRESETS, alignment
from fer_jax.models.classifier import Classifier, make_classifier
from fer_jax.models.heads.linear import Linear
from fer_jax.step import Context

SIZE, ROWS, CLASSES = 8, 4, 7


class Small(nn.Module):
  """Two convolutions with BatchNorm, each ending in a tap: compiles in a second, even in float64."""

  @nn.compact
  def __call__(self, x, train):
    taps = {}
    for name, stride in (('stage3', 1), ('stage4', 2)):
      x = nn.Conv(8, (3, 3), stride, use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
      taps[name] = x = self.perturb(name, x)
    return x, taps


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
    ours = attribution_map(context, attribution=kind, target=target, tap='stage4', channels='all')
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
  gradient = attribution_map(context, attribution='grad', target=target, tap='stage4', channels='all')
  np.testing.assert_allclose(gradient.std(axis=(1, 2)), 0, atol=1e-7)  # Flat in space: the trap of 'grad' here.


def test_attributions_sum_to_the_logits_without_their_bias(net, context):
  maps = attribution_map(context, attribution='grad_input', target='logit_sum', tap='stage4', channels='all')
  bias = net.variables['params']['head']['fc']['bias']
  np.testing.assert_allclose(maps.sum((1, 2, 3)), context.outputs.logits.sum(-1) - bias.sum(), rtol=1e-4, atol=1e-5)


def test_integrated_gradients_converge_to_the_difference_in_logits(net, context):
  # Completeness below a ReLU net: sum of a = s(x) - s(0), the better the more steps.
  x = context.outputs.taps['stage3']
  change = (context.outputs.logits - context.logits({'stage3': -x})).sum(-1)
  errors = []
  for steps in (4, 64):
    maps = attribution_map(context, attribution='integrated_gradients', target='logit_sum', tap='stage3',
                           channels='all', steps=steps)
    errors.append(float(jnp.abs(maps.sum((1, 2, 3)) - change).max()))
  assert errors[1] < errors[0] and errors[1] < 0.05 * float(jnp.abs(change).max())


def test_channel_strategies(net, context):
  options = {'attribution': 'grad_input', 'target': 'logit_sum', 'tap': 'stage4'}
  full = attribution_map(context, **options, channels='all')
  np.testing.assert_allclose(attribution_map(context, **options, channels='mean')[..., 0], full.mean(-1), rtol=1e-5)
  half = full[..., : full.shape[-1] // 2].mean(-1)
  np.testing.assert_allclose(attribution_map(context, **options, channels='half_mean')[..., 0], half, rtol=1e-5)


@pytest.mark.parametrize('tap', ['stage3', 'stage4'])
@pytest.mark.parametrize('attribution', ['grad', 'grad_input', 'integrated_gradients', 'activation'])
def test_gradient_of_the_loss_agrees_with_finite_differences(net, tap, attribution):
  # Directional derivatives in parameter space, in float64; the step is too small to move a unit across a ReLU's kink.
  options = PRESETS['pal'] | {'taps': (tap,), 'attribution': attribution, 'steps': 2}
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
  context = SimpleNamespace(outputs=context.outputs, gradient=context.gradient, batch=batch)
  losses = alignment(context, **PRESETS['pal'])
  assert losses[1] == 0 and (losses[np.array([0, 2, 3])] != 0).all()


def test_priors(net):
  size = (7, 7)
  for kind in ('landmark', 'action_unit', 'centred_gaussian', 'uniform', 'shuffled'):
    prior, valid = prior_map(net.batch, kind, size)
    assert prior.shape == (ROWS, *size) and valid.all() and 0 <= float(prior.min()) and float(prior.max()) <= 1
  landmark, _ = prior_map(net.batch, 'landmark', size)
  shuffled, _ = prior_map(net.batch, 'shuffled', size)
  np.testing.assert_array_equal(shuffled, landmark[np.array([1, 0, 3, 2])])
  gaussian, _ = prior_map(net.batch, 'centred_gaussian', (224, 224))
  assert np.unravel_index(gaussian[0].argmax(), (224, 224)) in [(130, 112), (129, 111), (130, 111), (129, 112)]


def test_unknown_names_suggest_the_nearest(net, context):
  good = {'attribution': 'grad_input', 'target': 'predicted', 'tap': 'stage4'}
  for change, message in [({'tap': 'stage5'}, "no tap 'stage5'"), ({'target': 'predict'}, "did you mean 'predicted'"),
                          ({'attribution': 'gradinput'}, "did you mean 'grad_input'"),
                          ({'channels': 'meen'}, "did you mean 'mean'")]:
    with pytest.raises(UserError, match=message):
      attribution_map(context, **(good | change))
  with pytest.raises(UserError, match="did you mean 'landmark'"):
    prior_map(net.batch, 'landmarks', (7, 7))


def flops(losses):
  """FLOPs of a compiled forward and backward pass of a full-width ResNet-18 at 96 pixels with these loss terms."""
  options = {'backbone': {'name': 'resnet'}, 'head': {'name': 'linear'}, 'dtype': 'float32'}
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
