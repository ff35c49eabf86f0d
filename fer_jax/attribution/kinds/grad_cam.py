"""Grad-CAM: ReLU(sum over c of w_c A_c), w_c = mean over pixels of ds/dA_c (arXiv 1610.02391)."""

import jax

from fer_jax.attribution.forward import Tap
from fer_jax.attribution.kinds._grad_cam import activation_and_gradient, weighted_relu


def grad_cam(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """The map (B, h, w, 1), non-negative, of the pulled-back ``cotangent`` (B, K)."""
  del steps
  x, g = activation_and_gradient(tap, cotangent)
  return weighted_relu(x, g.mean(axis=(1, 2)))
