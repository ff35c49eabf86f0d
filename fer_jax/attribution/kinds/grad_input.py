"""Gradient times input: a = x * ds/dx at a tap (PAL, arXiv 2203.12905).

With global average pooling and a linear head W it is v_c x / (h w), v = W s', with no backward pass left after XLA has
simplified it; it does not change across a ReLU.
"""

import jax
import jax.numpy as jnp

from fer_jax.attribution.forward import Tap


def grad_input(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """Activation times the pulled-back ``cotangent`` (B, K) at the tap: (B, h, w, c).

  In float32 at least: sums over channels cancel in bfloat16.
  """
  wide = jnp.promote_types(tap.activation.dtype, jnp.float32)
  return tap.activation.astype(wide) * tap.gradient(cotangent)
