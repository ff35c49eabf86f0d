"""WILDCAT's pooling: several maps per class, of which the brightest half of the pixels counts (CVPR 2017)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax.errors import UserError


class Wildcat(nn.Module):
  """The head as AU cues uses it (arXiv 2402.00281): the minimum term of WILDCAT has no part there.

  Attributes:
    modalities: maps per class, averaged.
    share: of the pixels whose values are averaged to the class's logit, the largest ones, in (0, 1]; else UserError.
  """

  classes: int
  modalities: int = 5
  share: float = 0.5
  takes_regions = False

  def __post_init__(self):
    if not 0 < self.share <= 1:
      raise UserError(f'model.head.share={self.share}: a share of the pixels, in (0, 1].')
    super().__post_init__()

  @nn.compact
  def __call__(self, features: jax.Array, train: bool, mask: jax.Array | None = None
               ) -> tuple[jax.Array, jax.Array, None]:
    """Maps features (B, h, w, C) to logits (B, K), their mean over space as embedding (B, C), and None."""
    x = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    rows, height, width, _ = x.shape
    maps = nn.Dense(self.classes * self.modalities, name='maps')(x)
    maps = maps.reshape(rows, height * width, self.classes, self.modalities).mean(axis=-1)
    brightest = max(round(self.share * height * width), 1)
    logits = jax.lax.top_k(maps.swapaxes(1, 2), brightest)[0].mean(axis=-1)
    return logits, x.mean(axis=(1, 2)), None
