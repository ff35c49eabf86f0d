"""What the Grad-CAM family starts from."""

from typing import Any

import jax
import jax.numpy as jnp


def activation_and_gradient(context: Any, tap: str, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
  """A tap and the gradient there, both (B, h, w, c), in float32 at least: sums over channels cancel in bfloat16."""
  pair = context.outputs.taps[tap], context.gradient(cotangent)[tap]
  return tuple(x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in pair)
