"""BatchNorm as every backbone uses it: over the whole batch, or over each region or device on its own."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

MOMENTUM, EPSILON = 0.9, 1e-5  # Decay of the running statistics; what is added to the variance. torchvision's.


def batch_norm(train: bool, dtype: Any, axis_name: str | None, regions: int = 1, epsilon: float = EPSILON,
               devices: int = 1) -> Callable[..., nn.Module]:
  """Returns ``norm(name=...)``, which makes a layer ``x (N, ..., c) -> (N, ..., c)`` inside a compact module.

  Args:
    train: normalise by the batch and update the running statistics; else normalise by these.
    dtype: of the computation; statistics and parameters are float32.
    axis_name: mapped axis over devices, or None under ``jax.jit``: a layer sees the rows of one device, or all.
    regions: R where the rows are B faces of R regions each and every region is to be normalised on its own, see
      ``RegionNorm``; 1 where a face is one row, or where all rows are to be normalised together.
    epsilon: added to the variance.
    devices: D where the rows are split over D devices and each is to normalise its own, see ``RegionNorm``; 1 where all
      rows are to be normalised together.
  """
  axis_name = axis_name if train else None
  if max(regions, devices) > 1 and train:
    return functools.partial(RegionNorm, regions, dtype, axis_name, epsilon, devices)
  return functools.partial(nn.BatchNorm, use_running_average=not train, momentum=MOMENTUM, epsilon=epsilon, dtype=dtype,
                           axis_name=axis_name)


class RegionNorm(nn.Module):
  """Training's BatchNorm for rows (device, face, region) flattened: each region by the statistics of its own rows.

  Parameters and running statistics are those of ``nn.BatchNorm`` and shared by all regions; the running statistics take
  one step per region, as if the net had been applied to one region after the other (RAN's code). With ``devices`` above
  1 each region of each device's rows is normalised by itself, and the running statistics are the mean of what they
  would be on each device, so that they stay the same on all.
  """

  regions: int
  dtype: Any
  axis_name: str | None
  epsilon: float = EPSILON
  devices: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises x (B R, ..., c)."""
    channels = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    running = {'mean': self.variable('batch_stats', 'mean', jnp.zeros, (channels,), jnp.float32),
               'var': self.variable('batch_stats', 'var', jnp.ones, (channels,), jnp.float32)}
    wide = jnp.promote_types(x.dtype, jnp.float32)
    apart = self.devices > 1
    # In the mapped form all rows that are here are one device's.
    rows = x.reshape(self.devices if apart and not self.axis_name else 1, -1, self.regions, *x.shape[1:])
    axes = (1, *range(3, rows.ndim - 1))
    mean, square = rows.mean(axes, dtype=wide), jnp.square(rows.astype(wide)).mean(axes)  # (devices, R, c)
    if self.axis_name and not apart:
      mean, square = jax.lax.pmean(jnp.stack([mean, square]), self.axis_name)
    var = jnp.maximum(square - jnp.square(mean), 0.0)
    left = jnp.stack([mean, var]).mean(axis=1)  # (2, R, c)
    if self.axis_name and apart:
      left = jax.lax.pmean(left, self.axis_name)
    # What R updates in a row leave of the old value and of each region's.
    shares = (1 - MOMENTUM) * MOMENTUM ** jnp.arange(self.regions - 1, -1, -1)[:, None]
    for name, value in (() if self.is_initializing() else zip(running, left, strict=True)):
      running[name].value = MOMENTUM**self.regions * running[name].value + (shares * value).sum(axis=0)
    factor = jax.lax.rsqrt(var + self.epsilon) * scale
    each = lambda value: value.reshape(len(rows), 1, self.regions, *[1] * (x.ndim - 2), channels)
    return ((rows - each(mean)) * each(factor) + bias).reshape(x.shape).astype(self.dtype)
