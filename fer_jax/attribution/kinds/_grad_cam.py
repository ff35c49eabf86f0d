"""What the Grad-CAM family shares."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fer_jax.attribution.forward import Tap


def weighted_relu(tap: Tap, cotangent: jax.Array, weigh: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
  """ReLU(sum_c w_c A_c), (B, h, w, 1), with w (B, c) or (B, h, w, c) = ``weigh(A, ds/dA)``, both (B, h, w, c).

  In float32 at least: sums over channels cancel in bfloat16.
  """
  x, g = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (tap.activation, tap.gradient(cotangent)))
  weights = weigh(x, g)
  if weights.ndim == 2:
    weights = weights[:, None, None]
  return jax.nn.relu((weights * x).sum(axis=-1, keepdims=True))
