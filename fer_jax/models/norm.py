"""BatchNorm as every backbone uses it: over the whole batch, or over each region of the faces on its own."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

MOMENTUM, EPSILON = 0.9, 1e-5  # Decay of the running statistics; what is added to the variance. torchvision's.


def batch_norm(train: bool, dtype: Any, axis_name: str | None, regions: int = 1, epsilon: float = EPSILON
               ) -> Callable[..., nn.Module]:
  """Returns ``norm(name=...)``, which makes a layer ``x (N, ..., c) -> (N, ..., c)`` inside a compact module.

  Args:
    train: normalise by the batch and update the running statistics; else normalise by these.
    dtype: of the computation; statistics and parameters are float32.
    axis_name: mapped axis over which training statistics are averaged, or None under ``jax.jit``.
    regions: R where the rows are B faces of R regions each and every region is to be normalised on its own, see
      ``RegionNorm``; 1 where a face is one row, or where all rows are to be normalised together.
    epsilon: added to the variance.
  """
  axis_name = axis_name if train else None
  if regions > 1 and train:
    return functools.partial(RegionNorm, regions, dtype, axis_name, epsilon)
  return functools.partial(nn.BatchNorm, use_running_average=not train, momentum=MOMENTUM, epsilon=epsilon, dtype=dtype,
                           axis_name=axis_name)


class RegionNorm(nn.Module):
  """Training's BatchNorm for rows (face, region) flattened: each region by the statistics of its own rows.

  Parameters and running statistics are those of ``nn.BatchNorm`` and shared by all regions; the running statistics take
  one step per region, as if the net had been applied to one region after the other (RAN's code).
  """

  regions: int
  dtype: Any
  axis_name: str | None
  epsilon: float = EPSILON

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises x (B R, ..., c)."""
    channels = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    running = {'mean': self.variable('batch_stats', 'mean', jnp.zeros, (channels,), jnp.float32),
               'var': self.variable('batch_stats', 'var', jnp.ones, (channels,), jnp.float32)}
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rows = x.reshape(-1, self.regions, *x.shape[1:])
    axes = tuple(axis for axis in range(rows.ndim - 1) if axis != 1)
    mean, square = rows.mean(axes, dtype=wide), jnp.square(rows.astype(wide)).mean(axes)  # (R, c)
    if self.axis_name:
      mean, square = jax.lax.pmean(jnp.stack([mean, square]), self.axis_name)
    var = jnp.maximum(square - jnp.square(mean), 0.0)
    # What R updates in a row leave of the old value and of each region's.
    shares = (1 - MOMENTUM) * MOMENTUM ** jnp.arange(self.regions - 1, -1, -1)[:, None]
    for name, value in (() if self.is_initializing() else (('mean', mean), ('var', var))):
      running[name].value = MOMENTUM**self.regions * running[name].value + (shares * value).sum(axis=0)
    factor = jax.lax.rsqrt(var + self.epsilon) * scale
    each = lambda value: value.reshape(self.regions, *[1] * (x.ndim - 2), channels)
    return ((rows - each(mean)) * each(factor) + bias).reshape(x.shape).astype(self.dtype)
