"""Integrated gradients from a zero activation: a = x * mean over t of ds/dx at (t / S) x, t = 1..S.

Sundararajan et al., "Axiomatic attribution for deep networks", section 3; the layer form of PAL (arXiv 2203.12905).
"""

import jax
import jax.numpy as jnp

from fer_jax.attribution.forward import Tap


def integrated_gradients(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """Integrates the pulled-back ``cotangent`` (B, K) along ``steps`` points of a straight path: (B, h, w, c).

  Only what is above the tap is evaluated ``steps`` times. Places on the path and means are float32 at least.
  """
  wide = jnp.promote_types(tap.activation.dtype, jnp.float32)
  x = tap.activation.astype(wide)

  def gradient(fraction: jax.Array) -> jax.Array:
    place = (fraction * x).astype(tap.activation.dtype)
    return jax.vjp(tap.logits, place)[1](cotangent)[0].astype(wide)

  fractions = (jnp.arange(steps, dtype=wide) + 1) / steps
  # One after the other: vmap would put the steps before the rows, and XLA then lose how these are split over devices.
  return x * jax.lax.map(gradient, fractions).mean(axis=0)
