"""Global average pooling and one linear layer: the plain classifier's head."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Linear(nn.Module):
  """The head for ``classes`` classes, with ``dropout`` (a probability) before the linear layer."""

  classes: int
  dropout: float = 0.0
  takes_regions = False

  @nn.compact
  def __call__(self, features: jax.Array, train: bool, mask: jax.Array | None = None
               ) -> tuple[jax.Array, jax.Array, None]:
    """Maps features (B, h, w, C) to logits (B, K), the pooled embedding (B, C), both float32 at least, and None."""
    embedding = features.astype(jnp.promote_types(features.dtype, jnp.float32)).mean(axis=(1, 2))
    dropped = nn.Dropout(self.dropout, deterministic=not train)(embedding)
    return nn.Dense(self.classes, name='fc')(dropped), embedding, None
