"""Class activation map: sum over c of W_c A_c, W the head's weights for the target (CAM, arXiv 1512.04150)."""

from typing import Any

import jax

from fer_jax.attribution import closed_forms
from fer_jax.errors import UserError


def cam(context: Any, tap: str, cotangent: jax.Array, steps: int) -> jax.Array:
  """The terms W_c A_c, (B, h, w, c), of either sign, without a backward pass; (B, K) ``cotangent`` picks the class.

  The tap must be the features that the head pools: the last of a CNN.

  Raises:
    UserError: the head is not pooling and one linear layer, or the tap cannot be what it pools.
  """
  del steps
  features, weights = context.outputs.taps[tap], context.class_weights(cotangent)
  if features.shape[-1] != weights.shape[-1]:
    raise UserError(f"attribution 'cam' needs the tap that the head pools, with {weights.shape[-1]} channels; "
                    f"'{tap}' has {features.shape[-1]}. Take the last tap, or 'grad_cam', which goes with every tap.")
  return closed_forms.cam(features, weights)
