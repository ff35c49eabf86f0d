"""Max-pooling on CPU where XLA's own is slow: the same sums in another form, chosen by platform.

XLA's gradient there searches every window again and keeps the places as whole arrays of numbers: at 56 x 56 x 64 it
takes thirty times as long as this one. On other platforms, and in what is traced ``convolution.for_any_platform``, this
is ``nn.max_pool`` and nothing else.
"""

import functools
import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from fer_jax.models.convolution import for_cpu


def max_pool(x: jax.Array, reach: tuple[int, int], strides: tuple[int, int],
             padding: str | Sequence[tuple[int, int]] = 'VALID') -> jax.Array:
  """``nn.max_pool`` with its arguments for x (N, H, W, c) float.

  Values are the same bit for bit. The gradient goes to the first of several largest pixels of a window, row by row, as
  XLA's does, and differs by rounding alone; gradients of any order are taken in reverse only.
  """
  pads = lax.padtype_to_pads(x.shape[1:3], reach, strides, padding) if isinstance(padding, str) else padding
  if not for_cpu() or x.ndim != 4 or min(map(min, pads)) < 0:
    return nn.max_pool(x, reach, strides, padding)
  return window_max(x, reach, strides, pads)


def window_max(x: jax.Array, reach: Sequence[int], strides: Sequence[int], pads: Sequence[tuple[int, int]]
               ) -> jax.Array:
  """``max_pool`` with numbers for padding, in its form for the CPU on every platform."""
  return _pool(tuple(reach), tuple(strides), tuple(map(tuple, pads)), x.shape[1:3], x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _pool(reach, strides, pads, sides, x):
  """The largest pixel of each window."""
  return functools.reduce(jnp.maximum, _moved(reach, strides, pads, x))


def _forward(reach, strides, pads, sides, x):
  top, *others = _moved(reach, strides, pads, lax.stop_gradient(x))
  place = jnp.zeros(top.shape, jnp.int32)
  for i, value in enumerate(others, 1):
    place, top = jnp.where(value > top, i, place), jnp.maximum(top, value)
  return _pool(reach, strides, pads, sides, x), place  # Not top: its derivative would share between equals.


def _backward(reach, strides, pads, sides, place, y):
  # Pixels whose rows leave the same rest by the stride are at the same places of their windows, and so for columns.
  def of(axis: int, rest: int) -> list[tuple[int, int]]:
    """Places along an axis of a window at which such pixels are, and by how many windows that is further."""
    return [(i, (rest + pads[axis][0] - i) // strides[axis]) for i in range(reach[axis])
            if (rest + pads[axis][0] - i) % strides[axis] == 0]

  counts = [-(-side // stride) for side, stride in zip(sides, strides, strict=True)]

  def summed(rests: tuple[int, int]) -> jax.Array:
    """The gradient of these pixels (N, H / stride, W / stride, c)."""
    total = jnp.zeros((y.shape[0], *counts, y.shape[3]), y.dtype)
    for (i, down), (j, right) in itertools.product(of(0, rests[0]), of(1, rests[1])):
      chosen = jnp.where(place == i * reach[1] + j, y, 0)
      moves = [(-by, count - side + by, 0) for by, count, side in zip((down, right), counts, y.shape[1:3], strict=True)]
      total += lax.pad(chosen, jnp.zeros((), y.dtype), ((0, 0, 0), *moves, (0, 0, 0)))
    return total

  rows = [jnp.stack([summed((row, column)) for column in range(strides[1])], 3) for row in range(strides[0])]
  whole = jnp.stack(rows, 2).reshape(y.shape[0], counts[0] * strides[0], counts[1] * strides[1], y.shape[3])
  return (whole[:, :sides[0], :sides[1]],)


_pool.defvjp(_forward, _backward)


def _moved(reach: Sequence[int], strides: Sequence[int], pads: Sequence[tuple[int, int]], x: jax.Array
           ) -> list[jax.Array]:
  """The pixels of all windows by their place in them, row by row."""
  height, width = ((side + sum(pad) - size) // stride + 1
                   for side, size, stride, pad in zip(x.shape[1:3], reach, strides, pads, strict=True))
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
  return [x[:, i:i + (height - 1) * strides[0] + 1:strides[0], j:j + (width - 1) * strides[1] + 1:strides[1]]
          for i, j in itertools.product(*map(range, reach))]
