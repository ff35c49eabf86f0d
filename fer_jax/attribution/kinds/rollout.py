"""Attention rollout: how much of each patch the class token holds after all blocks (arXiv 2005.00928)."""

import jax
import jax.numpy as jnp

from fer_jax.attribution.forward import Tap
from fer_jax.attribution.kinds._attention import block_attention, patch_map


def rollout(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """The class token's row of A'_L ... A'_1, A'_l = A_l / 2 + I / 2 with rows of sum 1, at the patches: (B, h, w, 1).

  Non-negative; the same for every class and every tap of the right size.
  """
  attention = block_attention(tap, 'rollout')
  mixed = (attention + jnp.eye(attention.shape[-1], dtype=attention.dtype)) / 2
  mixed /= mixed.sum(axis=-1, keepdims=True)
  row = mixed[:, -1, 0]
  # One row through the product from the left costs T^2 a block, the whole product T^3.
  for block in reversed(range(mixed.shape[1] - 1)):
    row = jnp.einsum('bt,btu->bu', row, mixed[:, block], precision=jax.lax.Precision.HIGHEST)
  return patch_map(tap, row)
