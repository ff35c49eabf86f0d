"""Cross-entropy against numpy: hard, soft, smoothed and weighted targets."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.losses.cross_entropy import cross_entropy
from tests import traces

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 4))
TARGET = RNG.dirichlet(np.ones(4), 5)


def loss(target, **options):
  context = SimpleNamespace(outputs=SimpleNamespace(logits=jnp.asarray(LOGITS, jnp.float32)),
                            batch={'target': jnp.asarray(target, jnp.float32)})
  return cross_entropy(context, **options)


def ours(target=TARGET, **options):
  return np.asarray(loss(target, **options))


def by_hand(target):
  log_p = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
  return -(target * log_p).sum(1)


def test_soft_and_hard_targets():
  np.testing.assert_allclose(ours(), by_hand(TARGET), rtol=1e-5)
  np.testing.assert_allclose(ours(np.eye(4)[[0, 1, 2, 3, 0]]), by_hand(np.eye(4)[[0, 1, 2, 3, 0]]), rtol=1e-5)


def test_smoothing_spreads_over_all_classes():
  np.testing.assert_allclose(ours(smoothing=0.2), by_hand(0.8 * TARGET + 0.2 / 4), rtol=1e-5)


def test_class_weights_follow_the_target():
  weights = np.array([1.0, 2.0, 0.5, 0.0])
  np.testing.assert_allclose(ours(class_weights=weights), by_hand(TARGET) * (TARGET @ weights), rtol=1e-5)
  assert not traces.rounded(jax.make_jaxpr(lambda target: loss(target, class_weights=weights))(TARGET).jaxpr)


def test_wrong_number_of_class_weights():
  with pytest.raises(UserError, match='has 2 numbers for 4 classes'):
    ours(class_weights=(1.0, 2.0))
