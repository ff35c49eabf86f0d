"""An expression embedding with a classifier beside it, both on pooled features (DeepFEVER, arXiv 2201.07781).

The size of the embedding and its unit length are FECNet's (arXiv 1811.11283), both recalled, hence options.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Embedding(nn.Module):
  """The head for ``classes`` classes with an embedding of ``dim`` numbers, of length 1 where ``normalised``."""

  classes: int
  dim: int = 16
  normalised: bool = True
  dropout: float = 0.0
  takes_regions = False

  @nn.compact
  def __call__(self, features: jax.Array, train: bool, mask: jax.Array | None = None
               ) -> tuple[jax.Array, jax.Array, None]:
    """Maps features (B, h, w, C) to logits (B, K), the embedding (B, dim), both float32 at least, and None."""
    pooled = features.astype(jnp.promote_types(features.dtype, jnp.float32)).mean(axis=(1, 2))
    pooled = nn.Dropout(self.dropout, deterministic=not train)(pooled)
    embedded = nn.Dense(self.dim, name='embed')(pooled)
    if self.normalised:
      # The root of a sum of squares has no gradient at 0; far from it, the added number changes no bit.
      embedded *= jax.lax.rsqrt(jnp.square(embedded).sum(axis=-1, keepdims=True) + 1e-12)
    return nn.Dense(self.classes, name='fc')(pooled), embedded, None
