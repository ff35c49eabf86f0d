"""BatchNorms that go into the layer before them: the same function in every backbone, and where one cannot go."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import registry
from fer_jax.models.folding import fold
from tests import backbones

# Of each backbone: options of a small one, the side of its images, and how many of its BatchNorms stay: IR-50 has one
# before the first convolution of each block and one before its embedding's dense layer.
NETS = {
    'resnet': ({'depth': 10, 'width': 4}, 32, 0), 'vgg': ({'batch_norm': True, 'width': 4}, 32, 0),
    'ir': ({'width': 4, 'embedding': True}, 32, 5), 'mobilenet_v1': ({'width': 4}, 32, 0),
    'mobilenet_v2': ({'width': 0.25}, 32, 0), 'mobilefacenet': ({'width': 4}, 32, 0),
    'efficientnet_lite0': ({}, 32, 0), 'inception_resnet_v1': ({'width': 4, 'embedding': True}, 75, 0),
    'dlib_resnet': ({'width': 4}, 103, 0), 'vit': ({'depth': 4, 'width': 12, 'heads': 3, 'patch': 8}, 16, None)}


def randomised(shapes):
  """Variables of a scale that keeps activations in bounds, with running statistics as of a trained network."""
  rng = np.random.default_rng(0)

  def leaf(path, shape):
    name, size = path[-1].key, shape.shape
    if name in ('kernel', 'pos_embed', 'cls_token'):
      return (rng.normal(size=size) / np.sqrt(max(np.prod(size[:-1]), 1))).astype(np.float32)
    return (rng.uniform(0.5, 2, size) if name in ('var', 'scale') else rng.normal(0, 0.3, size)).astype(np.float32)

  found = jax.tree_util.tree_map_with_path(leaf, shapes)
  return {'params': found['params'], 'batch_stats': found.get('batch_stats', {})}


@pytest.mark.parametrize('name', NETS)
def test_every_backbone_is_the_same_function(name, monkeypatch):
  backbones.shorten(monkeypatch)
  options, side, rest = NETS[name]
  net = registry.find('models.backbones', name)(**options)
  images = jnp.asarray(np.random.default_rng(1).normal(size=(2, side, side, 3)), jnp.float32)
  shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), images, False))
  variables = randomised({kind: shapes[kind] for kind in ('params', 'batch_stats') if kind in shapes})
  folded = fold(lambda known: net.apply(known, images, False), variables)
  traced = lambda known: jax.jit(lambda known: net.apply(known, images, False)[:2]).trace(known)  # Anew each time.
  with folded.applied():
    lean = traced(folded.variables)
  whole = traced(variables)
  features, taps = lean.lower().compile()(folded.variables)
  expected, places = whole.lower().compile()(variables)
  for key, value in {**places, 'features': expected}.items():
    np.testing.assert_allclose({**taps, 'features': features}[key], value, rtol=0,
                               atol=1e-5 * float(jnp.abs(value).max()), err_msg=key)
  if rest is None:
    assert not folded.into
  else:
    assert 'rsqrt' not in str(lean.jaxpr) and str(whole.jaxpr).count('rsqrt') == len(folded.into)
    assert len([layer for layer in folded.into.values() if not layer]) == rest


class Odd(nn.Module):
  """BatchNorms in the places where one can go into a layer, and where not."""

  @nn.compact
  def __call__(self, x):
    norm = lambda name: nn.BatchNorm(use_running_average=True, name=name)
    x = norm('first')(x)
    x = norm('after_bias')(nn.Conv(4, (3, 3), name='biased')(x))
    y = nn.Conv(4, (3, 3), name='seen_twice')(x)
    x = norm('beside_a_reader')(y) + y
    x = norm('after_a_sum')(x)
    shared = nn.Conv(4, (1, 1), name='shared')
    x = norm('one')(shared(x)) + norm('other')(shared(nn.relu(x)))
    return norm('after_dense')(nn.Dense(3, use_bias=False, name='dense')(x.mean(axis=(1, 2))))


def test_a_layer_that_others_see_keeps_its_numbers():
  x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 5, 3)), jnp.float32)
  shapes = jax.eval_shape(lambda: Odd().init(jax.random.key(0), x))
  variables = randomised(shapes)
  folded = fold(lambda known: Odd().apply(known, x), variables)
  assert folded.into == {'first': '', 'after_bias': 'biased', 'beside_a_reader': '', 'after_a_sum': '', 'one': '',
                         'other': '', 'after_dense': 'dense'}
  with folded.applied():
    found = Odd().apply(folded.variables, x)
  np.testing.assert_allclose(found, Odd().apply(variables, x), atol=1e-5)
  assert jax.tree.map(jnp.shape, folded.variables['params']) == jax.tree.map(jnp.shape, variables['params'])


def test_the_numbers_are_those_of_the_definition():
  x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)

  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.BatchNorm(use_running_average=True, epsilon=0.1, name='norm')(nn.Dense(2, name='dense')(x))

  variables = randomised(jax.eval_shape(lambda: Net().init(jax.random.key(0), x)))
  folded = fold(lambda known: Net().apply(known, x), variables).variables['params']['dense']
  dense, norm, kept = (variables[kind][name] for kind, name in (
      ('params', 'dense'), ('params', 'norm'), ('batch_stats', 'norm')))
  gain = norm['scale'] / np.sqrt(kept['var'] + 0.1)
  np.testing.assert_allclose(folded['kernel'], dense['kernel'] * gain, rtol=1e-6)
  np.testing.assert_allclose(folded['bias'], (dense['bias'] - kept['mean']) * gain + norm['bias'], rtol=1e-5)
