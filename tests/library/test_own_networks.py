"""The library in networks that know nothing of it, against the configs' way and against numpy, on the same numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import fer_jax
from fer_jax.losses.alignment import PRESETS, alignment
from fer_jax.models.classifier import Classifier
from fer_jax.models.taps import tapping
from fer_jax.training.step import Context

ROWS, SIDE, WIDTH, CLASSES = 3, 8, 4, 5
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(ROWS, SIDE, SIDE, 3)).astype(np.float32)
HEATMAPS = np.stack([fer_jax.landmark_heatmap(points, 16) for points in RNG.uniform(0.2, 0.8, (ROWS, 68, 2))]) / 255
PARAMS = {'kernel': RNG.normal(size=(3, 3, 3, WIDTH)), 'fc': RNG.normal(size=(WIDTH, CLASSES)),
          'bias': RNG.normal(size=CLASSES)}
PARAMS = jax.tree.map(np.float32, PARAMS)


def pal(features, logits_of):
  """The mean loss of a network in two parts, the second without its parameters."""
  return fer_jax.alignment_loss(fer_jax.attribution_map(logits_of, features), HEATMAPS).mean()


def features(params, images):
  return jax.nn.relu(jax.lax.conv_general_dilated(images, params['kernel'], (2, 2), 'SAME',
                                                  dimension_numbers=('NHWC', 'HWIO', 'NHWC')))


def logits(params, x):
  return jnp.tanh(x.mean(axis=(1, 2))) @ params['fc'] + params['bias']


@jax.jit
@jax.value_and_grad
def plain(params):
  return pal(features(params, IMAGES), lambda x: logits(params, x))


class Trunk(nn.Module):
  """The same features, with a tap, as a backbone of this package."""

  @nn.compact
  def __call__(self, images, train):
    taps, tap = tapping(self)
    return tap('stage4', nn.relu(nn.Conv(WIDTH, (3, 3), 2, use_bias=False)(images))), taps, None


class Head(nn.Module):
  """And the same logits."""

  @nn.compact
  def __call__(self, x, train, mask=None):
    embedding = jnp.tanh(x.mean(axis=(1, 2)))
    return nn.Dense(CLASSES)(embedding), embedding, None


def configured(params):
  """The loss as a config's term computes it."""
  named = {'backbone': {'Conv_0': {'kernel': params['kernel']}},
           'head': {'Dense_0': {'kernel': params['fc'], 'bias': params['bias']}}}
  batch = {'landmark_heatmap': jnp.float32(HEATMAPS)}
  context = Context(Classifier(Trunk(), Head()), {'params': named, 'batch_stats': {}}, IMAGES, batch, False)
  return alignment(context, **PRESETS['pal']).mean()


def same_as_configured(value, gradient):
  expected, slope = jax.jit(jax.value_and_grad(configured))(PARAMS)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  for name in ('kernel', 'fc'):
    np.testing.assert_allclose(gradient[name], slope[name], rtol=1e-3, atol=1e-5)
    assert np.isfinite(gradient[name]).all() and np.abs(gradient[name]).max() > 1e-3


def test_a_function_of_a_dict():
  value, gradient = plain(PARAMS)
  same_as_configured(value, gradient)
  # PAL in numpy: a = x * d(sum of logits)/dx, the mean over channels, and Pearson's correlation with the heatmaps,
  # shrunk by triangles twice as wide as a pixel of the map.
  x = np.float64(features(PARAMS, IMAGES))
  pooled = x.mean(axis=(1, 2))
  slopes = (1 - np.tanh(pooled)**2) * np.float64(PARAMS['fc']).sum(axis=1) / x[0, ..., 0].size
  maps = (x * slopes[:, None, None]).mean(axis=-1).reshape(ROWS, -1)
  places = 4 * (np.arange(4) + 0.5) - 0.5
  mixing = np.maximum(1 - np.abs(places[:, None] - np.arange(16)) / 4, 0)
  mixing /= mixing.sum(axis=1, keepdims=True)
  priors = (mixing @ HEATMAPS @ mixing.T).reshape(ROWS, -1)
  expected = -np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(maps, priors, strict=True)])
  np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_a_module_of_nnx():
  class Net(nnx.Module):
    def __init__(self):
      self.conv = nnx.Conv(3, WIDTH, (3, 3), 2, use_bias=False, rngs=nnx.Rngs(0))
      self.fc = nnx.Linear(WIDTH, CLASSES, rngs=nnx.Rngs(0))
      self.conv.kernel[...], self.fc.kernel[...], self.fc.bias[...] = PARAMS['kernel'], PARAMS['fc'], PARAMS['bias']

    def features(self, images):
      return nnx.relu(self.conv(images))

    def logits(self, x):
      return self.fc(jnp.tanh(x.mean(axis=(1, 2))))

  value, gradient = nnx.jit(nnx.value_and_grad(lambda net: pal(net.features(IMAGES), net.logits)))(Net())
  same_as_configured(value, {'kernel': gradient.conv.kernel[...], 'fc': gradient.fc.kernel[...]})
