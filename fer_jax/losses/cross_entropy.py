"""Cross-entropy with a class distribution as target."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from fer_jax.attribution.forward import Forward
from fer_jax.errors import UserError


def cross_entropy(forward: Forward, smoothing: float = 0.0, class_weights: Sequence[float] = ()) -> jax.Array:
  """Cross-entropy of the logits with ``batch['target']`` (B, K), a distribution (one-hot for hard labels).

  Args:
    smoothing: this share of the target is spread evenly over all classes, in [0, 1).
    class_weights: empty, or one factor per class; an example is weighted by its target's mean factor.

  Returns:
    (B,) nats.
  """
  logits = forward.outputs.logits
  target = optax.smooth_labels(forward.batch['target'], smoothing)
  loss = optax.softmax_cross_entropy(logits, target)
  if len(class_weights):
    if len(class_weights) != logits.shape[-1]:
      raise UserError(f'cross_entropy.class_weights has {len(class_weights)} numbers for {logits.shape[-1]} classes.')
    loss *= (forward.batch['target'] * jnp.asarray(class_weights, jnp.float32)).sum(axis=-1)
  return loss
