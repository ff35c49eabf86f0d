"""Grad-CAM++ as it was published (arXiv 1710.11063): w_c = sum over pixels of alpha ReLU(g), g = ds/dA_c, with
alpha = g^2 / (2 g^2 + g^3 sum over pixels of A_c)."""

import jax
import jax.numpy as jnp

from fer_jax.attribution.forward import Tap
from fer_jax.attribution.kinds._grad_cam import weighted_relu


def grad_cam_plus_plus_intended(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """The map ReLU(sum_c w_c A_c), (B, h, w, 1), non-negative, of the pulled-back ``cotangent`` (B, K)."""
  return weighted_relu(tap, cotangent, _weights)


def _weights(x: jax.Array, g: jax.Array) -> jax.Array:
  # Cancelling g^2 leaves no 0 / 0 where the gradient vanishes, and squares nothing that is small already.
  positive = jax.nn.relu(g)
  denominator = 2 + positive * x.sum(axis=(1, 2), keepdims=True)
  # Only activations below zero, which the method does not foresee, can bring it to 0.
  denominator = jnp.where(denominator == 0, 1.0, denominator)
  return (positive / denominator).sum(axis=(1, 2))
