"""Convolutions on CPU where XLA's own are slow: other forms of the same sums, chosen by platform and shape.

On other platforms, for all other shapes, and in what is traced ``for_any_platform`` this is
``lax.conv_general_dilated`` and nothing else.
"""

import contextlib
import contextvars
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

CHANNELS_LAST = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))  # Images NHWC, kernels HWIO, as flax has them.
SMALL = 4  # Pixels a side of the largest results that are products of matrices; for larger ones XLA is as fast.

_ANY_PLATFORM = contextvars.ContextVar('any_platform', default=False)


@contextlib.contextmanager
def for_any_platform() -> Iterator[None]:
  """A context for tracing programs that run elsewhere: convolutions and poolings in it are XLA's, here on CPU too."""
  token = _ANY_PLATFORM.set(True)
  try:
    yield
  finally:
    _ANY_PLATFORM.reset(token)


def for_cpu() -> bool:
  """Whether what is traced now is for the CPU here, and may take a form that is made for it."""
  return jax.default_backend() == 'cpu' and not _ANY_PLATFORM.get()


def convolve(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: str | Sequence[tuple[int, int]],
             lhs_dilation: Any = None, rhs_dilation: Any = None, dimension_numbers: Any = None,
             feature_group_count: int = 1, precision: Any = None, **options: Any) -> jax.Array:
  """``lax.conv_general_dilated`` with its arguments, for ``nn.Conv(conv_general_dilated=convolve)``.

  Forms differ from XLA's by rounding alone (1e-5 in float32), and so do their gradients of any order. These are taken
  in reverse only, and in ``shard_map`` with ``check_vma=False``.
  """
  if (for_cpu() and x.ndim == 4 and jnp.issubdtype(x.dtype, jnp.floating) and not options
      and lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers) == CHANNELS_LAST
      and {*(lhs_dilation or ()), *(rhs_dilation or ())} <= {1}):
    reach, pads = kernel.shape[:2], padding
    if isinstance(pads, str):
      pads = lax.padtype_to_pads(x.shape[1:3], reach, strides, pads)
    wide = jnp.promote_types(x.dtype, jnp.float32)  # XLA's sums of bfloat16 are float32 as well.
    if min(map(min, pads)) >= 0 and (form := _form(x.shape, kernel.shape, strides, pads, feature_group_count)):
      return form(x.astype(wide), kernel.astype(wide), strides, pads, precision).astype(x.dtype)
  return lax.conv_general_dilated(x, kernel, strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
                                  feature_group_count, precision=precision, **options)


def _form(x: Sequence[int], kernel: Sequence[int], strides: Sequence[int], pads: Any,
          groups: int) -> Callable[..., jax.Array] | None:
  """The form that was measured to be faster than XLA's, forward and back, for these shapes; None: XLA's is."""
  reach = kernel[:2]
  if 1 < groups == x[3] == kernel[3]:
    if reach == x[1:3] and not any(map(any, pads)):
      return _weighted_sum
    return _depthwise if reach in ((3, 3), (5, 5)) else None
  if groups == 1 and max(_sides(x, reach, strides, pads)) <= SMALL and (
      reach == (1, 1) or reach == (3, 3) and max(x[1:3]) <= SMALL + 1):
    return _products
  return _pointwise if groups == 1 and reach == (1, 1) and not any(map(any, pads)) else None


def _sides(x: Sequence[int], reach: Sequence[int], strides: Sequence[int], pads: Any) -> list[int]:
  """Height and width of what a kernel of this reach makes of x (N, H, W, c)."""
  return [(side + sum(pad) - size) // stride + 1
          for side, size, stride, pad in zip(x[1:3], reach, strides, pads, strict=True)]


def _weighted_sum(x: jax.Array, kernel: jax.Array, *_: Any) -> jax.Array:
  """Depthwise over the whole map: (N, H, W, c), (H, W, 1, c) -> (N, 1, 1, c)."""
  return (x * kernel[:, :, 0]).sum((1, 2), keepdims=True)


def _depthwise(x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Any, _: Any) -> jax.Array:
  """The sum over a kernel (k, l, 1, c) of x (N, H, W, c), moved to each place of it, times the weight there."""
  reach = kernel.shape[:2]
  height, width = _sides(x.shape, reach, strides, pads)
  places = list(itertools.product(*map(range, reach)))

  def moved(x: jax.Array) -> list[jax.Array]:
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return [x[:, i:i + height * strides[0]:strides[0], j:j + width * strides[1]:strides[1]] for i, j in places]

  def out(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return sum(part * kernel[i, j, 0] for (i, j), part in zip(places, moved(x), strict=True))

  def back(kernel: jax.Array, y: jax.Array) -> jax.Array:
    y = lax.optimization_barrier(y)  # Computed once: fused with what follows it would be at every place of the kernel.
    of = jax.ShapeDtypeStruct((y.shape[0], *x.shape[1:]), y.dtype)
    return jax.linear_transpose(lambda x: out(x, kernel), of)(y)[0]

  def weights(y: jax.Array, x: jax.Array) -> jax.Array:
    y, x = lax.optimization_barrier((y, x))  # Likewise.
    # One reduction of all products in one pass, a row at a time: alone each would write what it moved to memory.
    products = tuple(part * y for part in moved(x))
    rows = lax.reduce(products, (jnp.zeros((), y.dtype),) * len(products),
                      lambda sums, values: tuple(map(jnp.add, sums, values)), (2,))
    return jnp.stack(rows).sum((1, 2)).reshape(kernel.shape)

  return _trilinear(out, back, weights)(x, kernel)


def _products(x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Any, precision: Any) -> jax.Array:
  """The sum over a kernel of its matrix at each place times what of x is there, without products with the padding."""
  sides = _sides(x.shape, kernel.shape[:2], strides, pads)

  def met(axis: int, place: int) -> tuple[slice, tuple[int, int]]:
    """The pixels of x at this place of the kernel along an axis, and how many of the result are before and after."""
    ahead, stride = place - pads[axis][0], strides[axis]
    first, end = max(0, -(ahead // stride)), min(sides[axis], (x.shape[axis + 1] - 1 - ahead) // stride + 1)
    return slice(first * stride + ahead, end * stride + ahead, stride), (first, sides[axis] - end)

  total = jnp.zeros((x.shape[0], *sides, kernel.shape[3]), x.dtype)
  for i, j in itertools.product(*map(range, kernel.shape[:2])):
    (rows, above_below), (columns, left_right) = met(0, i), met(1, j)
    if rows.start < rows.stop and columns.start < columns.stop:
      part = x[:, rows, columns]
      product = jnp.matmul(part.reshape(-1, x.shape[3]), kernel[i, j], precision=precision)
      total += jnp.pad(product.reshape(*part.shape[:3], -1), ((0, 0), above_below, left_right, (0, 0)))
  return total


def _pointwise(x: jax.Array, kernel: jax.Array, strides: Sequence[int], _: Any, precision: Any) -> jax.Array:
  """1 x 1: XLA's without its stride, which it is slow with, and the kernel's gradient as a product of matrices."""
  plain = lambda x, kernel: lax.conv_general_dilated(x, kernel, (1, 1), 'VALID', precision=precision,
                                                     dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  rows = lambda a: a.reshape(-1, a.shape[-1])
  weights = lambda y, x: jnp.matmul(rows(x).T, rows(y), precision=precision)[None, None]
  back = lambda kernel, y: plain(y, kernel.swapaxes(2, 3))
  return _trilinear(plain, back, weights)(x[:, ::strides[0], ::strides[1]], kernel)


def _trilinear(*forms: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """The first of the derivatives (x, k) -> y, (k, y) -> x and (y, x) -> k of one form; each has the others' as its."""
  made = [jax.custom_vjp(form) for form in forms]
  for i, form in enumerate(made):
    form.defvjp(lambda a, b, form=form: (form(a, b), (a, b)),
                lambda kept, c, i=i: (made[i - 2](kept[1], c), made[i - 1](c, kept[0])))
  return made[0]
