"""What the kinds made from a transformer's attention share."""

import jax

from fer_jax.attribution.forward import Tap
from fer_jax.errors import UserError


def block_attention(tap: Tap, kind: str) -> jax.Array:
  """The attention (B, L, T, T) of all blocks; a UserError where the backbone has none."""
  if tap.attention is None:
    raise UserError(f"attribution '{kind}' needs the attention of a transformer, and this backbone has none; "
                    "'activation', 'grad_cam' and 'layer_cam' go with every backbone.")
  return tap.attention


def patch_map(tap: Tap, tokens: jax.Array) -> jax.Array:
  """Lays one number per token (B, T), class token first, out at the patches of a tap: (B, h, w, 1)."""
  height, width = tap.activation.shape[1:3]
  patches = tokens.shape[-1] - 1
  if height * width != patches:
    raise UserError(f"tap '{tap.name}' is {height} x {width}, but the attention is between {patches} patches; choose a "
                    'tap of the transformer blocks.')
  return tokens[:, 1:].reshape(-1, height, width, 1)
