"""The form of max-pooling for the CPU against XLA's: values, gradients, gradients of gradients, ties and NaN."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models.pooling import max_pool

ONE = ((1, 1), (1, 1))

# Sides of x, reach, strides, padding.
CASES = [
    ((8, 6), (3, 3), (2, 2), ONE),
    ((7, 9), (3, 3), (2, 2), ONE),
    ((9, 8), (3, 3), (2, 2), 'VALID'),
    ((8, 7), (3, 3), (2, 2), 'SAME'),
    ((8, 7), (3, 3), (2, 2), ((0, 1), (0, 2))),  # Caffe's.
    ((8, 6), (2, 2), (2, 2), 'VALID'),
    ((7, 6), (2, 2), (2, 2), 'VALID'),  # The last row is in no window.
    ((5, 6), (3, 2), (1, 3), ((0, 1), (1, 0))),
    ((8, 9), (2, 2), (3, 3), 'VALID'),
    ((1, 2), (3, 3), (2, 2), ONE),
]


def pixels(sides, kind='float64'):
  # Few values, so that windows have several largest pixels.
  return jnp.asarray(np.random.default_rng(0).integers(-2, 3, (3, *sides, 4)), kind)


@pytest.mark.parametrize('sides, reach, strides, padding', CASES)
def test_it_is_xlas_up_to_the_second_order(sides, reach, strides, padding):
  with jax.enable_x64(True):
    x = pixels(sides)

    def up_to_second_order(pool):
      value = pool(x, reach, strides, padding)
      weights = jnp.asarray(np.random.default_rng(1).normal(size=value.shape))
      first = jax.grad(lambda x: (weights * jnp.sin(pool(x, reach, strides, padding))).sum())
      return value, first(x), jax.grad(lambda x: (first(x)**3).sum())(x)

    ours, theirs = jax.jit(lambda: [up_to_second_order(pool) for pool in (max_pool, nn.max_pool)])()
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-12)
      assert np.abs(b).max() > 0.1


@pytest.mark.parametrize('kind', ['float32', 'bfloat16'])
def test_it_keeps_the_type_and_what_is_no_number(kind):
  x = pixels((8, 8), kind).at[0, 3, 4, 1].set(jnp.nan)
  value, pull = jax.vjp(lambda x: max_pool(x, (3, 3), (2, 2), ONE), x)
  wanted = nn.max_pool(x, (3, 3), (2, 2), padding=ONE)
  np.testing.assert_array_equal(np.float32(value), np.float32(wanted))
  assert value.dtype == pull(value)[0].dtype == kind and int(jnp.isnan(value).sum()) == 2


def steps_of(pool, x, padding):
  return str(jax.make_jaxpr(lambda x: pool(x, (3, 3), (2, 2), padding=padding))(x))


def test_other_platforms_run_xlas(monkeypatch):
  x = pixels((8, 8), 'float32')
  assert 'reduce_window' not in steps_of(max_pool, x, ONE)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert steps_of(max_pool, x, ONE) == steps_of(nn.max_pool, x, ONE)
