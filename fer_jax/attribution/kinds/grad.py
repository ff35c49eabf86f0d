"""Gradient attribution: a = ds/dx at a tap (PAL, arXiv 2203.12905)."""

import jax

from fer_jax.attribution.forward import Tap


def grad(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """Pulls ``cotangent`` (B, K) on the logits back to the tap: (B, h, w, c)."""
  return tap.gradient(cotangent)
