"""Convolutions on CPU where XLA's own are slow: other forms of the same sums, chosen by platform and shape.

On other platforms and for all other shapes this is ``lax.conv_general_dilated`` and nothing else.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

CHANNELS_LAST = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))  # Images NHWC, kernels HWIO, as flax has them.


def convolve(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Any, lhs_dilation: Any = None,
             rhs_dilation: Any = None, dimension_numbers: Any = None, feature_group_count: int = 1,
             **options: Any) -> jax.Array:
  """``lax.conv_general_dilated`` with its arguments, for ``nn.Conv(conv_general_dilated=convolve)``.

  Forms differ from XLA's by rounding alone (1e-5 in float32), as their derivatives of any order do.
  """
  plain = (jax.default_backend() == 'cpu' and x.ndim == 4 and tuple(dimension_numbers or ()) == CHANNELS_LAST
           and {*(lhs_dilation or ()), *(rhs_dilation or ())} <= {1})
  if plain and 1 < feature_group_count == x.shape[-1] == kernel.shape[-1] and kernel.shape[:2] == (3, 3):
    return _shifted(_padded(x, kernel, strides, padding), kernel, strides)
  return lax.conv_general_dilated(x, kernel, strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
                                  feature_group_count, **options)


def _padded(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Any) -> jax.Array:
  """x (N, H, W, c) with its padding of zeros, if any."""
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
  return jnp.pad(x, ((0, 0), *padding, (0, 0))) if any(map(any, padding)) else x


def _shifted(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...]) -> jax.Array:
  """Depthwise: the sum over a kernel (k, l, 1, c) of x (N, H, W, c), moved to each place of it, times its weight."""
  height, width = ((side - reach) // stride + 1
                   for side, reach, stride in zip(x.shape[1:3], kernel.shape, strides, strict=False))
  ends = lambda i, j: (x.shape[0], i + (height - 1) * strides[0] + 1, j + (width - 1) * strides[1] + 1, x.shape[3])
  return sum(lax.slice(x, (0, i, j, 0), ends(i, j), (1, *strides, 1)) * kernel[i, j, 0]
             for i in range(kernel.shape[0]) for j in range(kernel.shape[1]))
