"""The embedding head against numpy: its length, its independence of the classifier, its gradient at nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models.heads.embedding import Embedding

FEATURES = np.random.default_rng(0).normal(size=(5, 2, 3, 6)).astype(np.float32)


def init(head):
  return head.init(jax.random.key(0), FEATURES, False)


def test_equals_numpy():
  head = Embedding(7, dim=3)
  variables = init(head)
  # Biases start at 0; others tell a missing one.
  variables = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.arange(leaf.size).reshape(leaf.shape), variables)
  weights = jax.tree.map(np.float64, variables['params'])
  logits, embedded, region_weights = head.apply(variables, FEATURES, False)
  pooled = np.float64(FEATURES).mean(axis=(1, 2))
  expected = pooled @ weights['embed']['kernel'] + weights['embed']['bias']
  np.testing.assert_allclose(logits, pooled @ weights['fc']['kernel'] + weights['fc']['bias'], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(embedded, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-4, atol=1e-5)
  plain = Embedding(7, dim=3, normalised=False).apply(variables, FEATURES, False)
  np.testing.assert_allclose(plain[1], expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(plain[0], logits)
  assert region_weights is None


@pytest.mark.parametrize('dim', [1, 16])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_shapes_and_lengths(dim, dtype):
  for normalised in (True, False):
    head = Embedding(7, dim=dim, normalised=normalised)
    logits, embedded, _ = head.apply(init(head), FEATURES.astype(dtype), False)
    assert logits.shape == (5, 7) and embedded.shape == (5, dim)
    assert logits.dtype == embedded.dtype == jnp.float32
    lengths = np.linalg.norm(embedded, axis=1)
    if normalised:
      np.testing.assert_allclose(lengths, 1, rtol=1e-6)
    else:
      assert (np.abs(lengths - 1) > 1e-3).all()


def test_a_normalised_embedding_does_not_depend_on_the_scale_of_features():
  head = Embedding(7, dim=4)
  variables = init(head)  # Without a bias so far.
  one, other = (head.apply(variables, scale * FEATURES, False)[1] for scale in (1, 1000))
  np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_logits_do_not_depend_on_the_embedding():
  heads = [Embedding(7, dim=dim) for dim in (2, 16)]
  variables = [init(head) for head in heads]
  logits = [head.apply(own, FEATURES, False)[0] for head, own in zip(heads, variables, strict=True)]
  np.testing.assert_array_equal(*logits)  # Not even their initial weights do.
  own = variables[0]['params']
  changed = {**own, 'embed': jax.tree.map(lambda leaf: leaf + 1, own['embed'])}
  np.testing.assert_array_equal(heads[0].apply({'params': changed}, FEATURES, False)[0], logits[0])
  slope = jax.grad(lambda own: heads[0].apply(own, FEATURES, False)[0].sum())(variables[0])['params']
  assert not slope['embed']['kernel'].any() and slope['fc']['kernel'].any()


def test_rows_are_independent():
  head = Embedding(7, dim=4)
  variables = init(head)
  for all_rows, one in zip(head.apply(variables, FEATURES, True)[:2], head.apply(variables, FEATURES[2:3], True)[:2],
                           strict=True):
    np.testing.assert_allclose(all_rows[2:3], one, rtol=1e-5)


@pytest.mark.parametrize('normalised', [True, False])
def test_zero_features_have_a_finite_embedding_and_gradient(normalised):
  head = Embedding(7, dim=4, normalised=normalised)
  variables = init(head)

  def loss(variables, features):
    _, embedded, _ = head.apply(variables, features, False)
    return jnp.square(embedded - 0.5).sum(), embedded

  (_, embedded), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(variables, 0 * FEATURES)
  assert (embedded == 0).all()
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_dropout_in_training_alone():
  plain, head = Embedding(7, dim=4), Embedding(7, dim=4, dropout=0.5)
  variables = init(head)
  apply = lambda train, seed: head.apply(variables, FEATURES, train, rngs={'dropout': jax.random.key(seed)})[:2]
  for i, expected in enumerate(plain.apply(variables, FEATURES, True)[:2]):
    np.testing.assert_array_equal(apply(False, 0)[i], expected)
    np.testing.assert_array_equal(apply(True, 0)[i], apply(True, 0)[i])
    assert (apply(True, 0)[i] != expected).any() and (apply(True, 0)[i] != apply(True, 1)[i]).any()


def test_dropout_hits_both_outputs_alike():
  # Weights of 1 make every output the sum of what dropout has left of the pooled features.
  head = Embedding(7, dim=4, normalised=False, dropout=0.5)
  ones = jax.tree.map(lambda leaf: jnp.full_like(leaf, leaf.ndim - 1), init(head))
  logits, embedded, _ = head.apply(ones, FEATURES, True, rngs={'dropout': jax.random.key(0)})
  np.testing.assert_allclose(logits[:, :4], embedded, rtol=1e-6)
