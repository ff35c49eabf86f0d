"""Convolutions on CPU where XLA's own are slow: other forms of the same sums, chosen by platform and shape.

On other platforms and for all other shapes this is ``lax.conv_general_dilated`` and nothing else.
"""

from collections.abc import Callable
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
    pads = padding
    if isinstance(pads, str):
      pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, pads)
    wide = jnp.promote_types(x.dtype, jnp.float32)  # XLA's sums of bfloat16 are float32 as well.
    return _depthwise(x.astype(wide), kernel.astype(wide), strides, pads).astype(x.dtype)
  return lax.conv_general_dilated(x, kernel, strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
                                  feature_group_count, **options)


def _depthwise(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Any) -> jax.Array:
  """The sum over a kernel (k, l, 1, c) of x (N, H, W, c), moved to each place of it, times the weight there."""
  reach = kernel.shape[:2]
  places = [(i, j) for i in range(reach[0]) for j in range(reach[1])]

  def moved(x: jax.Array) -> list[jax.Array]:
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    spans = [(side - size) // stride * stride + 1
             for side, size, stride in zip(x.shape[1:3], reach, strides, strict=True)]
    return [lax.slice(x, (0, i, j, 0), (x.shape[0], i + spans[0], j + spans[1], x.shape[3]), (1, *strides, 1))
            for i, j in places]

  def out(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return sum(part * kernel[i, j, 0] for (i, j), part in zip(places, moved(x), strict=True))

  def back(kernel: jax.Array, y: jax.Array) -> jax.Array:
    of = jax.ShapeDtypeStruct((y.shape[0], *x.shape[1:]), y.dtype)
    return jax.linear_transpose(lambda x: out(x, kernel), of)(y)[0]

  def weights(y: jax.Array, x: jax.Array) -> jax.Array:
    # One reduction of all products in one pass, a row at a time: alone each would write what it moved to memory.
    products = tuple(part * y for part in moved(x))
    rows = lax.reduce(products, (jnp.zeros((), y.dtype),) * len(products),
                      lambda sums, values: tuple(map(jnp.add, sums, values)), (2,))
    return jnp.stack(rows).sum((1, 2)).reshape(kernel.shape)

  return _trilinear(out, back, weights)(x, kernel)


def _trilinear(*forms: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """The first of the three derivatives (x, k) -> y, (k, y) -> x, (y, x) -> k of one form: each has the others' as its.
  """
  made = [jax.custom_vjp(form) for form in forms]
  for i, form in enumerate(made):
    form.defvjp(lambda a, b, form=form: (form(a, b), (a, b)),
                lambda kept, c, i=i: (made[i - 2](kept[1], c), made[i - 1](c, kept[0])))
  return made[0]
