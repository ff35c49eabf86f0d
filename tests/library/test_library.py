"""The names of the library: what they load, and what they say where a function is not enough."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fer_jax
from fer_jax.errors import UserError

FEATURES = np.float32(np.random.default_rng(0).normal(size=(2, 3, 3, 4)))
WEIGHTS = np.float32(np.random.default_rng(1).normal(size=(4, 5)))


def logits_of(x):
  return x.mean(axis=(1, 2)) @ WEIGHTS


def test_importing_the_package_loads_nothing():
  code = ('import sys, fer_jax; assert set(fer_jax.__all__) <= set(dir(fer_jax));'
          'assert not {"jax", "numpy"} & set(sys.modules)')
  subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(fer_jax.__file__).parents[1])


def test_every_name_is_there_and_explained():
  for name in fer_jax.__all__:
    assert getattr(fer_jax, name).__name__ == name and getattr(fer_jax, name).__doc__
  assert (Path(fer_jax.__file__).parent / 'py.typed').exists()
  with pytest.raises(AttributeError, match="has no attribute 'attribution_mop'"):
    _ = fer_jax.attribution_mop


@pytest.mark.parametrize('target', ['logit_sum', 'true_class', 'predicted', 'cross_entropy'])
def test_every_target_of_a_linear_head(target):
  labels = np.array([3, -1])
  maps = fer_jax.attribution_map(logits_of, FEATURES, target=target, channels='all', labels=labels)
  logits = logits_of(FEATURES)
  hot = lambda classes: np.arange(5) == np.array(classes)[:, None]
  expected = {'logit_sum': np.ones((2, 5)), 'true_class': hot(labels), 'predicted': hot(logits.argmax(axis=1)),
              'cross_entropy': (jax.nn.softmax(logits) - hot(labels)) * (labels >= 0)[:, None]}[target]
  np.testing.assert_allclose(maps, FEATURES * (expected @ WEIGHTS.T)[:, None, None] / 9, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('options, message', [
    ({'attribution': 'cam'}, "'cam' needs the weights of a linear head"),
    ({'attribution': 'rollout'}, "'rollout' needs the attention of a transformer"),
    ({'attribution': 'gradinput'}, "did you mean 'grad_input'"),
    ({'target': 'true_class'}, "'true_class' needs labels="),
    ({'target': 'sum'}, "unknown attribution target 'sum'"),
])
def test_what_a_function_is_not_enough_for(options, message):
  with pytest.raises(UserError, match=message):
    fer_jax.attribution_map(logits_of, FEATURES, **options)


def test_shapes_are_checked():
  with pytest.raises(UserError, match=r'wants a tap \(B, h, w, c\).*got \(2, 9, 4\)'):
    fer_jax.attribution_map(lambda x: x.mean(axis=1) @ WEIGHTS, FEATURES.reshape(2, 9, 4))
  with pytest.raises(UserError, match='a prior is .* this one .3, 3. of float'):
    fer_jax.alignment_loss(FEATURES, np.ones((3, 3)))


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, bool])
def test_priors_of_integers_raise(dtype):
  with pytest.raises(UserError, match='divide a heatmap of uint8 by 255'):
    fer_jax.alignment_loss(FEATURES, np.ones((2, 6, 6), dtype), np.array([True, False]))


def test_an_invalid_example_may_hold_anything():
  prior = np.random.default_rng(2).uniform(size=(2, 6, 6))
  prior[1] = np.nan
  loss = lambda maps: fer_jax.alignment_loss(maps, prior, valid=np.array([True, False]))
  values, gradient = loss(FEATURES), jax.grad(lambda maps: loss(maps).sum())(jnp.asarray(FEATURES))
  assert values[0] != 0 and values[1] == 0 and gradient[0].any() and not gradient[1].any()
  one = fer_jax.alignment_loss(FEATURES[..., 0], prior)  # (B, h, w) is one channel.
  np.testing.assert_array_equal(one[0], fer_jax.alignment_loss(FEATURES[..., :1], prior)[0])


@pytest.mark.parametrize('loss', [fer_jax.alignment_loss, lambda a, b: fer_jax.triplet_loss(a, b, a[::-1])])
def test_losses_of_bfloat16_are_computed_in_float32(loss):
  a, b = (np.random.default_rng(seed).uniform(size=(2, 6, 6)) for seed in (0, 1))
  rounded = [jnp.asarray(x, jnp.bfloat16) for x in (a, b)]
  np.testing.assert_array_equal(loss(*rounded), loss(*(x.astype(jnp.float32) for x in rounded)))


def test_the_triplet_loss_by_hand():
  first, second, odd = np.float32([[0, 0], [0, 0]]), np.float32([[1, 0], [0, 0]]), np.float32([[0, 1], [3, 0]])
  np.testing.assert_allclose(fer_jax.triplet_loss(first, second, odd, 0.1), [(1 - 1 + 0.1) + 0, 0], rtol=1e-6)


def test_heads_are_modules_of_linen():
  for head, features in ((fer_jax.RegionAttention(5), jnp.ones((2, 6, 1, 1, 8))),
                         (fer_jax.Arm(5, block=2, kernel=2), jnp.ones((2, 3, 3, 8)))):
    (logits, *_), _ = head.init_with_output(jax.random.key(0), features, False)
    assert logits.shape == (2, 5)
  np.testing.assert_allclose(fer_jax.rank_loss(jnp.full((2, 6), 1 / 6), 0.1), 0.1, rtol=1e-6)
