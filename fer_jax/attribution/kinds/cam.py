"""Class activation map: sum over c of W_c A_c, W the head's weights for the target (CAM, arXiv 1512.04150)."""

import jax

from fer_jax.attribution.forward import Tap
from fer_jax.errors import UserError


def cam(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """The terms W_c A_c, (B, h, w, c), of either sign, without a backward pass; (B, K) ``cotangent`` picks the class.

  The tap must be the features that the head pools: the last of a CNN.
  """
  if tap.class_weights is None:
    raise UserError("attribution 'cam' needs the weights of a linear head, which a function of the tap does not tell; "
                    "'grad_cam' goes with every function.")
  features, weights = tap.activation, tap.class_weights(cotangent)
  if features.shape[-1] != weights.shape[-1]:
    raise UserError(f"attribution 'cam' needs the tap that the head pools, with {weights.shape[-1]} channels; "
                    f"'{tap.name}' has {features.shape[-1]}. Take the last tap, or 'grad_cam', which goes with all.")
  return features * weights[:, None, None]
