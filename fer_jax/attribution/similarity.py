"""How alike a map and a prior are. A constant map is like nothing: similarity 0 with gradient 0, never NaN."""

import jax
import jax.numpy as jnp

from fer_jax.errors import UserError, nearest

SIMILARITIES = ('pearson', 'zscore_sum', 'cosine')

# A map whose deviations are below this share of its largest value is constant up to float32 rounding.
CONSTANT = 1e-6


def similarity(maps: jax.Array, prior: jax.Array, kind: str) -> jax.Array:
  """Compares maps with priors over the last axis.

  Args:
    maps: (..., N) float32.
    prior: (..., N) float32, non-negative.
    kind: 'pearson' (correlation, [-1, 1]); 'zscore_sum' (sum of z(m) * p, PAL's own form: it equals
      N * std(p) * pearson, so its scale grows with N); 'cosine' (un-centred, [-1, 1]).

  Returns:
    (...) float32; larger is more alike.
  """
  if kind == 'cosine':
    return _unit(maps, maps, (prior * jax.lax.rsqrt(jnp.maximum((prior**2).sum(-1, keepdims=True), 1e-12))))
  centred = maps - maps.mean(axis=-1, keepdims=True)
  if kind == 'zscore_sum':
    return _unit(centred, maps, prior) * jnp.sqrt(float(maps.shape[-1]))
  if kind == 'pearson':
    p = prior - prior.mean(axis=-1, keepdims=True)
    norm = (p**2).sum(axis=-1, keepdims=True)
    varies = norm > (CONSTANT * prior.max(axis=-1, keepdims=True)) ** 2 * maps.shape[-1]
    return _unit(centred, maps, jnp.where(varies, p * jax.lax.rsqrt(jnp.where(varies, norm, 1.0)), 0.0))
  raise UserError(f"unknown similarity '{kind}'{nearest(kind, SIMILARITIES)}")


def _unit(vectors: jax.Array, maps: jax.Array, other: jax.Array) -> jax.Array:
  """<v / |v|, other>, with v = 0 where it is zero up to the rounding of ``maps``."""
  # Dividing by the largest value first keeps tiny attributions (1e-20 and less) from underflowing when squared.
  scale = jax.lax.stop_gradient(jnp.abs(maps).max(axis=-1, keepdims=True))
  v = vectors / jnp.where(scale > 0, scale, 1.0)
  norm = (v**2).sum(axis=-1, keepdims=True)
  varies = norm > CONSTANT**2 * maps.shape[-1]
  return (jnp.where(varies, v * jax.lax.rsqrt(jnp.where(varies, norm, 1.0)), 0.0) * other).sum(axis=-1)
