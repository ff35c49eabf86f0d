"""LayerCAM: ReLU(sum over c of ReLU(ds/dA_c) A_c), a weight for every pixel (Jiang et al., IEEE TIP 2021)."""

from typing import Any

import jax

from fer_jax.attribution.closed_forms import weighted_relu
from fer_jax.attribution.kinds._float32 import activation_and_gradient


def layer_cam(context: Any, tap: str, cotangent: jax.Array, steps: int) -> jax.Array:
  """The map (B, h, w, 1), non-negative, of the pulled-back ``cotangent`` (B, K)."""
  del steps
  x, g = activation_and_gradient(context, tap, cotangent)
  return weighted_relu(x, jax.nn.relu(g))
