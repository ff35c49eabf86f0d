"""The region-biased loss against numpy and by hand."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.losses.region_bias import region_bias


def loss(weights, margin):
  weights = None if weights is None else jnp.asarray(weights)
  return region_bias(types.SimpleNamespace(outputs=types.SimpleNamespace(region_weights=weights)), margin)


def by_hand(weights, margin):
  out = []
  for row in weights:
    best = -np.inf
    for weight in row[1:]:
      best = max(best, weight)
    out.append(max(0.0, margin - (best - row[0])))
  return np.array(out)


@pytest.mark.parametrize('margin', [0.02, 0.1, 0.5])
@pytest.mark.parametrize('regions', [2, 6])
def test_equals_numpy(regions, margin):
  weights = np.random.default_rng(0).uniform(size=(20, regions)).astype(np.float32)
  values = loss(weights, margin)
  assert values.shape == (20,)
  np.testing.assert_allclose(values, by_hand(weights, margin), atol=1e-6)
  assert 0 < (np.asarray(values) > 0).sum() < 20


def test_the_full_face_is_not_among_the_crops():
  np.testing.assert_allclose(loss([[0.9, 0.1, 0.2]], 0.1), [0.1 + 0.7], atol=1e-6)
  np.testing.assert_allclose(loss([[0.1, 0.2, 0.9]], 0.1), [0.0], atol=1e-6)


@pytest.mark.parametrize('margin', [0.02, 0.1])
@pytest.mark.parametrize('weight', [1 / 6, 0.5])
def test_equal_weights_give_the_margin(weight, margin):
  np.testing.assert_allclose(loss(np.full((3, 6), weight, np.float32), margin), margin, rtol=1e-6)


def test_the_published_margin_in_both_forms():
  sigmoids = np.float32([[0.5, 0.7311, 0.8808]])
  softmaxed = np.exp(sigmoids) / np.exp(sigmoids).sum()
  np.testing.assert_allclose(loss(sigmoids, 0.4), [0.4 - 0.3808], atol=1e-4)
  np.testing.assert_allclose(loss(softmaxed, 0.2), [0.2 - 0.1244], atol=1e-4)
  np.testing.assert_array_equal(loss(softmaxed, 0.1), [0.0])


def test_a_head_without_region_weights_is_refused():
  with pytest.raises(UserError, match="needs region weights.*'region_attention'"):
    loss(None, 0.1)


def test_gradient_by_finite_differences():
  weights = np.random.default_rng(1).uniform(0.2, 0.8, (6, 4))
  gradient = np.asarray(jax.grad(lambda w: loss(w, 0.15).sum())(jnp.float32(weights)))
  step = 1e-6
  for row in range(6):
    for region in range(4):
      up, down = weights.copy(), weights.copy()
      up[row, region] += step
      down[row, region] -= step
      slope = (by_hand(up, 0.15) - by_hand(down, 0.15)).sum() / (2 * step)
      np.testing.assert_allclose(gradient[row, region], slope, atol=1e-5)
  assert (np.abs(gradient).sum(1) == 0).any() and (gradient[:, 0] == 1).any()
