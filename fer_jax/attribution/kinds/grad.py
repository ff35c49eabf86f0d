"""Gradient attribution: a = ds/dx at a tap (PAL, arXiv 2203.12905)."""

from typing import Any

import jax


def grad(context: Any, tap: str, cotangent: jax.Array, steps: int) -> jax.Array:
  """Pulls ``cotangent`` (B, K) on the logits back to the tap: (B, h, w, c)."""
  del steps
  return context.gradient(cotangent)[tap]
