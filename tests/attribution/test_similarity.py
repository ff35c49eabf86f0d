"""Similarities against hand-checked values, numpy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fer_jax.attribution.similarity import SIMILARITIES, similarity
from fer_jax.errors import UserError

M = jnp.array([[0.5, 0.0, 0.0, 1.0]])
P = jnp.array([[1.0, 0.0, 0.0, 0.0]])


@pytest.mark.parametrize('kind, value', [('cosine', 0.4472), ('pearson', 0.1741), ('zscore_sum', 0.3015)])
def test_hand_checked_values(kind, value):
  np.testing.assert_allclose(similarity(M, P, kind), [value], atol=5e-5)


@pytest.mark.parametrize('kind', SIMILARITIES)
@pytest.mark.parametrize('level', [0.0, 3.7, 1e-12])
def test_a_constant_map_is_like_nothing_and_has_no_gradient(kind, level):
  maps = jnp.full((1, 36), level)
  prior = jnp.linspace(0, 1, 36)[None]
  value, gradient = jax.value_and_grad(lambda m: similarity(m, prior, kind).sum())(maps)
  if kind != 'cosine' or level == 0.0:
    assert value == 0
    assert (gradient == 0).all()
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_uniform_maps_have_the_cosine_of_coverage():
  prior = jnp.zeros((1, 100)).at[0, :36].set(1.0)
  np.testing.assert_allclose(similarity(jnp.ones((1, 100)), prior, 'cosine'), [np.sqrt(0.36)], rtol=1e-6)


# Zero, or large enough to stay a normal float32 when the test scales it down.
numbers = st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-25)
values = hnp.arrays(np.float32, (2, 25), elements=numbers)


@settings(deadline=None, max_examples=50)
@given(maps=values, prior=values.map(np.abs))
def test_agrees_with_numpy_and_is_scale_free(maps, prior):
  for kind in SIMILARITIES:
    ours = np.asarray(similarity(jnp.asarray(maps), jnp.asarray(prior), kind))
    assert np.isfinite(ours).all()
    for i in range(2):
      m, p = maps[i].astype(np.float64), prior[i].astype(np.float64)
      if m.std() < 1e-3 * (1e-9 + abs(m).max()) or p.std() < 1e-3 * (1e-9 + p.max()):
        continue
      expected = {'cosine': m @ p / (np.linalg.norm(m) * np.linalg.norm(p)),
                  'pearson': np.corrcoef(m, p)[0, 1],
                  'zscore_sum': ((m - m.mean()) / m.std()) @ p}[kind]
      np.testing.assert_allclose(ours[i], expected, rtol=2e-3, atol=2e-3 * max(1.0, p.max()))
    # A power of two scales without rounding.
    tiny = np.asarray(similarity(jnp.asarray(maps) * np.float32(2.0**-30), jnp.asarray(prior), kind))
    np.testing.assert_allclose(tiny, ours, rtol=1e-3, atol=1e-3 * max(1.0, prior.max()))


@pytest.mark.parametrize('kind', SIMILARITIES)
def test_gradient_agrees_with_finite_differences(kind):
  key = jax.random.key(0)
  with jax.enable_x64():
    m = jax.random.normal(key, (1, 12), jnp.float64)
    p = jax.random.uniform(jax.random.fold_in(key, 1), (1, 12), jnp.float64)
    f = lambda x: similarity(x, p, kind).sum()
    gradient = jax.grad(f)(m)
    for i in range(12):
      e = jnp.zeros_like(m).at[0, i].set(1e-6)
      np.testing.assert_allclose((f(m + e) - f(m - e)) / 2e-6, gradient[0, i], rtol=1e-5, atol=1e-8)


def test_unknown_similarity():
  with pytest.raises(UserError, match="'person'; did you mean 'pearson'"):
    similarity(M, P, 'person')
