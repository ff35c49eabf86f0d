"""Plain activation: a = x at a tap. With the channel mean it is the attention map of AU cues (arXiv 2402.00281)."""

import jax

from fer_jax.attribution.forward import Tap


def activation(tap: Tap, cotangent: jax.Array, steps: int) -> jax.Array:
  """The activation itself: (B, h, w, c); no gradient, so ``cotangent`` plays no part."""
  return tap.activation
