"""RAN's head: self-attention, then relation-attention, over the regions of a face (arXiv 1905.04075, section III)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax.errors import UserError


class RegionAttention(nn.Module):
  """The head.

  Attributes:
    form: 'paper': weights are sigmoids of a linear score; 'code': a softmax over the regions follows the sigmoid, which
      keeps the weights of R regions between 1 / (1 + (R - 1) e) and e / (e + R - 1). Margins of the region-biased loss
      do not carry over from one form to the other. Another form is a UserError.
    self_attention: weigh regions by their own features; False weighs them all alike, for ablations.
    relation_attention: weigh them again beside the whole face's mean; False classifies that mean, for ablations.
  """

  classes: int
  form: str = 'code'
  self_attention: bool = True
  relation_attention: bool = True
  takes_regions = True

  def __post_init__(self):
    if self.form not in ('code', 'paper'):
      raise UserError(f"model.head.form='{self.form}': choose 'code' or 'paper'.")
    super().__post_init__()

  @nn.compact
  def __call__(self, features: jax.Array, train: bool, mask: jax.Array | None = None
               ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Maps features (B, R, h, w, C) to logits (B, K), the embedding (B, 2 C) and the self-attention weights (B, R).

    Without relation-attention the embedding is (B, C); without self-attention the weights are 1 / R.
    """
    regions = features.astype(jnp.promote_types(features.dtype, jnp.float32)).mean(axis=(2, 3))
    if self.self_attention:
      weights = self._weights(nn.Dense(1, name='alpha')(regions))
    else:
      weights = jnp.full(regions.shape[:2], 1 / regions.shape[1])
    embedding = whole = _weighted_mean(regions, weights)
    if self.relation_attention:
      related = jnp.concatenate([regions, jnp.broadcast_to(whole[:, None], regions.shape)], axis=-1)
      embedding = _weighted_mean(related, weights * self._weights(nn.Dense(1, name='beta')(related)))
    return nn.Dense(self.classes, name='fc')(embedding), embedding, weights

  def _weights(self, scores: jax.Array) -> jax.Array:
    weights = jax.nn.sigmoid(scores[..., 0])
    return jax.nn.softmax(weights, axis=-1) if self.form == 'code' else weights


def _weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
  """Mean over regions of values (B, R, C) with weights (B, R)."""
  return (values * weights[..., None]).sum(axis=1) / weights.sum(axis=1, keepdims=True)
