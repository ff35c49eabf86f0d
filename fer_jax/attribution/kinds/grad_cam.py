"""Grad-CAM: ReLU(sum over c of w_c A_c), w_c = mean over pixels of ds/dA_c (arXiv 1610.02391)."""

import jax

from fer_jax.attribution.forward import Tap
from fer_jax.attribution.kinds._grad_cam import weighted_relu


def grad_cam(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """The map (B, h, w, 1), non-negative, of the pulled-back ``cotangent`` (B, K)."""
  return weighted_relu(tap, cotangent, lambda x, g: g.mean(axis=(1, 2)))
