"""LayerCAM: ReLU(sum over c of ReLU(ds/dA_c) A_c), a weight for every pixel (Jiang et al., IEEE TIP 2021)."""

import jax

from fer_jax.attribution.forward import Tap
from fer_jax.attribution.kinds._grad_cam import weighted_relu


def layer_cam(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """The map (B, h, w, 1), non-negative, of the pulled-back ``cotangent`` (B, K)."""
  return weighted_relu(tap, cotangent, lambda x, g: jax.nn.relu(g))
