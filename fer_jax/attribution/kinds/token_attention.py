"""Token attention: the class token's attention to the patches, summed over blocks (TS-CAM, arXiv 2103.14862)."""

import jax

from fer_jax.attribution.forward import Tap
from fer_jax.attribution.kinds._attention import block_attention, patch_map


def token_attention(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """The class token's rows, mean over heads and sum over blocks, at the patches: (B, h, w, 1).

  Non-negative; the same for every class and every tap of the right size. TS-CAM multiplies it with the class's map.
  """
  return patch_map(tap, block_attention(tap, 'token_attention')[:, :, 0].sum(axis=1))
