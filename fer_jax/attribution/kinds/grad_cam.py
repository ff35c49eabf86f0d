"""Grad-CAM: ReLU(sum over c of w_c A_c), w_c = mean over pixels of ds/dA_c (arXiv 1610.02391)."""

from typing import Any

import jax

from fer_jax.attribution.closed_forms import weighted_relu
from fer_jax.attribution.kinds._float32 import activation_and_gradient


def grad_cam(context: Any, tap: str, cotangent: jax.Array, steps: int) -> jax.Array:
  """The map (B, h, w, 1), non-negative, of the pulled-back ``cotangent`` (B, K)."""
  del steps
  x, g = activation_and_gradient(context, tap, cotangent)
  return weighted_relu(x, g.mean(axis=(1, 2)))
