"""Integrated gradients from a zero activation: a = x * mean over t of ds/dx at (t / S) x, t = 1..S.

Sundararajan et al., "Axiomatic attribution for deep networks", section 3; the layer form of PAL (arXiv 2203.12905).
"""

import jax
import jax.numpy as jnp

from fer_jax.attribution.forward import Tap


def integrated_gradients(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """Integrates the pulled-back ``cotangent`` (B, K) along ``steps`` points of a straight path: (B, h, w, c).

  Only the part of the net above the tap is evaluated ``steps`` times.
  """
  x = tap.activation

  def gradient(fraction: jax.Array) -> jax.Array:
    # Adding (fraction - 1) x moves the tap's value to fraction * x.
    return jax.vjp(tap.moved, (fraction - 1.0) * x)[1](cotangent)[0]

  fractions = (jnp.arange(steps, dtype=x.dtype) + 1) / steps
  # One after the other: vmap would put the steps before the rows, and XLA then lose how these are split over devices.
  return x * jax.lax.map(gradient, fractions).mean(axis=0)
