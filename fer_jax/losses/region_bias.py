"""Region-biased loss: one crop at least should outweigh the full face (RAN, arXiv 1905.04075, section III-C)."""

import jax
import jax.numpy as jnp

from fer_jax.attribution.forward import Forward
from fer_jax.errors import UserError


def rank_loss(weights: jax.Array, margin: float) -> jax.Array:
  """max(0, margin - (largest weight of a crop - weight of the full face)).

  Args:
    weights: (B, R) of the head ``region_attention``, the full face at 0.
    margin: in the units of the weights: 0.1 (FERPlus) or 0.03 (AffectNet) for the head's form 'code'; the paper's 0.02
      is for its form 'paper'.

  Returns:
    (B,).
  """
  return jnp.maximum(0.0, margin - (weights[:, 1:].max(axis=1) - weights[:, 0]))


def region_bias(forward: Forward, margin: float) -> jax.Array:
  """``rank_loss`` of a forward pass: (B,).

  Raises:
    UserError: the head has no region weights.
  """
  weights = forward.outputs.region_weights
  if weights is None:
    raise UserError("the loss 'region_bias' needs region weights: choose model.head 'region_attention' and a "
                    'config.regions.scheme.')
  return rank_loss(weights, margin)
