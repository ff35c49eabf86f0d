"""What the Grad-CAM family shares."""

import jax
import jax.numpy as jnp

from fer_jax.attribution.forward import Tap


def activation_and_gradient(tap: Tap, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
  """A tap and the gradient there, both (B, h, w, c), in float32 at least: sums over channels cancel in bfloat16."""
  pair = tap.activation, tap.gradient(cotangent)
  return tuple(x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in pair)


def weighted_relu(features: jax.Array, weights: jax.Array) -> jax.Array:
  """ReLU(sum_c w_c A_c), (B, h, w, 1), of features (B, h, w, C) with weights (B, C) or (B, h, w, C)."""
  if weights.ndim == 2:
    weights = weights[:, None, None]
  return jax.nn.relu((weights * features).sum(axis=-1, keepdims=True))
