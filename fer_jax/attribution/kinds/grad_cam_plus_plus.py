"""Grad-CAM++ as the code of AU cues computes it (arXiv 2402.00281): w_c = sum over pixels of g^2 ReLU(g), g = ds/dA_c.

There the division in alpha acts on a copy and is lost. ``grad_cam_plus_plus_intended`` is the map as it was published.
"""

import jax

from fer_jax.attribution.forward import Tap
from fer_jax.attribution.kinds._grad_cam import weighted_relu


def grad_cam_plus_plus(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """The map ReLU(sum_c w_c A_c), (B, h, w, 1), non-negative, of the pulled-back ``cotangent`` (B, K)."""
  return weighted_relu(tap, cotangent, lambda x, g: (jax.nn.relu(g) ** 3).sum(axis=(1, 2)))
