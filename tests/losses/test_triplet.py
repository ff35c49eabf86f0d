"""The triplet loss against a loop over rows, what holds of it in general, and its gradients."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.errors import UserError
from fer_jax.losses.triplet import triplet
from fer_jax.models.heads.embedding import Embedding

MARGINS = (0.1, 0.2, 0.2)


def loss(embedding, types, **options):
  context = SimpleNamespace(outputs=SimpleNamespace(embedding=jnp.asarray(embedding)),
                            batch={'triplet': jnp.asarray(types, jnp.int32)})
  return triplet(context, **options)


def by_hand(embedding, types, margins=MARGINS):
  """{first row of a triplet: its loss}."""
  out = {}
  for row, kind in enumerate(types):
    if kind >= 0:
      first, second, odd = (np.asarray(embedding[row + k], np.float64) for k in range(3))
      distance = lambda a, b: sum((x - y)**2 for x, y in zip(a, b, strict=True))
      alike, margin = distance(first, second), margins[kind]
      out[row] = max(0, alike - distance(first, odd) + margin) + max(0, alike - distance(second, odd) + margin)
  return out


def batch(seed, blocks, scale=1.0, dim=4):
  """Embeddings and types: each block is a triplet of a type, 0 to 2, or for -1 a row of something else."""
  types = sum(([kind, -1, -1] if kind >= 0 else [-1] for kind in blocks), [])
  return np.float32(scale * np.random.default_rng(seed).normal(size=(len(types), dim))), np.int32(types)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.lists(st.integers(-1, 2), min_size=1, max_size=6), st.sampled_from([0.1, 0.3, 1.0]))
def test_equals_a_loop(seed, blocks, scale):
  # Padded to one length, so that little is compiled.
  embedding, types = batch(seed, blocks + [-1] * (18 - sum(3 if kind >= 0 else 1 for kind in blocks)), scale)
  values = np.asarray(loss(embedding, types))
  assert values.shape == (18,) and (values >= 0).all()
  for row, value in by_hand(embedding, types).items():
    # A difference of squared distances of up to 50: float32 holds them to 4e-6.
    np.testing.assert_allclose(values[row], value, rtol=1e-5, atol=1e-5)


def test_equals_a_loop_under_jit_up_to_the_last_row():
  embedding, types = batch(0, [-1, 0, 1, -1, 2, 0], scale=0.3)
  values, expected = np.asarray(jax.jit(loss)(embedding, types)), by_hand(embedding, types)
  np.testing.assert_allclose(values[list(expected)], list(expected.values()), rtol=1e-5)
  assert sorted(expected) == [1, 4, 8, 11] and 0 < sum(value > 0 for value in expected.values())


def test_margins_go_by_type():
  embedding, types = batch(3, [0, 1, 2], scale=0.3)
  values = np.asarray(loss(embedding, types, margins=(1.0, 2.0, 3.0)))
  for row, value in by_hand(embedding, types, (1.0, 2.0, 3.0)).items():
    np.testing.assert_allclose(values[row], value, rtol=1e-5)


def test_a_collapsed_embedding_costs_twice_the_margin():
  values = loss(np.full((9, 4), 0.5, np.float32), [0, -1, -1, 1, -1, -1, 2, -1, -1])
  np.testing.assert_allclose(values[::3], [0.2, 0.4, 0.4], rtol=1e-6)


def test_what_is_ordered_well_costs_nothing():
  embedding = np.float32([[0, 1], [0, 1], [1, 0]])
  assert loss(embedding, [0, -1, -1])[0] == 0
  np.testing.assert_allclose(loss(embedding[[0, 2, 1]], [0, -1, -1])[0], (2 - 0 + 0.1) + (2 - 2 + 0.1), rtol=1e-6)


def test_the_two_that_are_alike_can_change_places():
  embedding, types = batch(1, [0, 1, 2], scale=0.4)
  values, swapped = loss(embedding, types), loss(embedding[[1, 0, 2, 4, 3, 5, 7, 6, 8]], types)
  np.testing.assert_allclose(values[::3], swapped[::3], rtol=1e-6)


def test_other_rows_change_no_triplet():
  embedding, types = batch(2, [-1, 0, -1, -1, 2, -1])
  changed = np.where(np.isin(np.arange(10), [1, 2, 3, 6, 7, 8])[:, None], embedding, np.float32(100))
  np.testing.assert_array_equal(loss(embedding, types)[np.array([1, 6])], loss(changed, types)[np.array([1, 6])])


def test_of_unit_embeddings_at_most_4_and_a_half_and_the_margins():
  # D12 is 4 at most. The sum is largest with the odd one between two that are 2 arccos(1/4) apart.
  embedding, types = batch(0, [0, 1, 2] * 100, dim=2)
  embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
  assert (loss(embedding, types)[types >= 0] <= 4.5 + 2 * np.array(MARGINS)[types[types >= 0]]).all()
  angle = np.arccos(1 / 4)
  worst = np.float32([[np.cos(angle), np.sin(angle)], [np.cos(angle), -np.sin(angle)], [1, 0]])
  np.testing.assert_allclose(loss(worst, [0, -1, -1])[0], 4.5 + 0.2, rtol=1e-6)
  opposite = np.float32([[1, 0], [-1, 0], [1, 0]])
  np.testing.assert_allclose(loss(opposite, [0, -1, -1])[0], (4 - 0 + 0.1) + (4 - 4 + 0.1), rtol=1e-6)


def total(embedding, types):
  return jnp.where(jnp.asarray(types) >= 0, loss(embedding, types), 0.0).sum()


def test_gradient_by_finite_differences():
  embedding, types = batch(5, [0, -1, 1, 2], scale=0.4)
  gradient = np.asarray(jax.grad(total)(jnp.asarray(embedding), types))
  wide, step = np.float64(embedding), 1e-6
  value = lambda moved: sum(by_hand(moved, types).values())
  for place in np.ndindex(wide.shape):
    move = np.zeros_like(wide)
    move[place] = step
    np.testing.assert_allclose(gradient[place], (value(wide + move) - value(wide - move)) / (2 * step), atol=1e-4)
  assert not gradient[3].any() and np.abs(gradient[:3]).sum() > 0


def test_gradient_is_finite_at_a_collapsed_embedding():
  gradient = jax.grad(total)(jnp.full((6, 4), 0.5), [0, -1, -1, 2, -1, -1])
  assert np.isfinite(gradient).all()


def test_gradient_is_finite_where_a_normalised_embedding_was_zero():
  # Zero features and no bias: the head has nothing to normalise. One such face, and all of them.
  head = Embedding(3, dim=4)
  features = np.random.default_rng(0).normal(size=(3, 1, 1, 5)).astype(np.float32)
  variables = head.init(jax.random.key(0), features, False)

  @jax.jit
  def gradient(variables, features):
    return jax.grad(lambda *arguments: total(head.apply(*arguments, False)[1], [1, -1, -1]), (0, 1))(
        variables, features)

  for zero in ([0], [2], [0, 1, 2]):
    changed = features.copy()
    changed[zero] = 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(variables, changed)))


@pytest.mark.parametrize('margins', [(), (0.1,), (0.1, 0.2, 0.2, 0.2)])
def test_not_one_margin_for_each_type(margins):
  with pytest.raises(UserError, match='triplet.margins=.*give three numbers, for one, two and three classes'):
    loss(np.zeros((3, 2), np.float32), [0, -1, -1], margins=margins)
