"""Images through affine maps, in the form that suits the device: a gather, or products of matrices."""

import functools

import jax
import jax.numpy as jnp


def warp(images: jax.Array, matrices: jax.Array, size: int, fill: str = 'edge', turned: bool = True) -> jax.Array:
  """Resamples images through affine maps, bilinearly.

  On CPU and GPU it gathers four pixels for each of the output. TPUs are slow at that, and there it multiplies matrices,
  ``sum_i hat(i - y) sum_j hat(j - x) image[i, j]``, the same to 1e-3 of a grey level. The form is chosen when a program
  is lowered. On 2 CPU cores the products take 2 to 7 times as long as the gather, and 50 to 130 times where images are
  turned (their cost is then size^2 H W C). On GPU and TPU neither form was measured.

  Args:
    images: (b, H, W, C), any real dtype.
    matrices: (b, 2, 3), output to input, in fractions from the centre (see ``augment``); or (b, R, 2, 3), R outputs of
      each image; or (1, ...) for all images alike.
    size: side of the output in pixels.
    fill: outside the input, 'edge' continues its border and 'zero' is 0.
    turned: False promises that no map rotates or shears, the off-diagonal of A being 0: products then are cheap.

  Returns:
    (b, size, size, C), or (b, R, size, size, C), float32 in the units of the input; for the identity at equal size,
    exactly the input.
  """
  _, height, width, _ = images.shape
  # Vmapped, not one flat index into the batch, so that a sharded batch stays where it is.
  each = lambda one, axes, inner: jax.vmap(one if matrices.ndim == 3 else jax.vmap(one, inner), axes)
  x, y = each(functools.partial(_points, height=height, width=width, size=size), 0, 0)(matrices)
  alike = matrices.shape[0] == 1
  if alike:
    x, y = x[0], y[0]
  gather, products = (each(functools.partial(form, fill=fill), (0, None, None) if alike else 0, (None, 0, 0))
                      for form in (_gather, _products if turned else _separate_products))
  return jax.lax.platform_dependent(images, x, y, tpu=products, default=gather)


def _points(matrix: jax.Array, height: int, width: int, size: int) -> tuple[jax.Array, jax.Array]:
  """Where each pixel of the output is read from: x and y (size, size) in pixels of the input."""
  # Counted from the centre in pixels of the input, the identity gives whole numbers: no rounding error. No matrix
  # product either, because accelerators would round its factors.
  steps = jnp.arange(size) + 0.5 - size / 2
  row, column = steps[:, None], steps[None, :]
  x, y = (matrix[i, 0] * column + matrix[i, 1] * row for i in (0, 1))
  x = x * (width / size) + matrix[0, 2] * width + (width / 2 - 0.5)
  y = y * (height / size) + matrix[1, 2] * height + (height / 2 - 0.5)
  return x, y


def _inside(x: jax.Array, side: int) -> jax.Array:
  """Whether points along an axis lie on the image."""
  return abs(x - (side / 2 - 0.5)) <= side / 2


def _gather(image: jax.Array, x: jax.Array, y: jax.Array, *, fill: str) -> jax.Array:
  """An image (H, W, C) at points x and y (size, size): the four pixels around each of them, weighted."""
  height, width, channels = image.shape
  pixels = image.reshape(height * width, channels)
  inner_x, inner_y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)
  left, top = jnp.floor(inner_x).astype(jnp.int32), jnp.floor(inner_y).astype(jnp.int32)
  right, bottom = jnp.minimum(left + 1, width - 1), jnp.minimum(top + 1, height - 1)
  to_right, to_bottom = (inner_x - left)[..., None], (inner_y - top)[..., None]
  at = lambda y, x: pixels.at[y * width + x].get(mode='promise_in_bounds').astype(jnp.float32)
  above = at(top, left) * (1 - to_right) + at(top, right) * to_right
  below = at(bottom, left) * (1 - to_right) + at(bottom, right) * to_right
  value = above * (1 - to_bottom) + below * to_bottom
  if fill == 'zero':
    value *= (_inside(x, width) & _inside(y, height))[..., None]
  return value


def _products(image: jax.Array, x: jax.Array, y: jax.Array, *, fill: str) -> jax.Array:
  """The same as all pixels times their weights, along x and then along y."""
  height, width, _ = image.shape
  planes = _planes(image)

  def row(at: tuple[jax.Array, jax.Array]) -> jax.Array:
    across, down = _weights(at[0], width, fill), _weights(at[1], height, fill)
    columns = jnp.einsum('sw,chw->sch', across, planes, precision='highest')
    return (columns * down[:, None]).sum(axis=-1)

  return jax.lax.map(row, (x, y))  # Row by row: the columns of all of them are H times as much as the output.


def _separate_products(image: jax.Array, x: jax.Array, y: jax.Array, *, fill: str) -> jax.Array:
  """The same where x is that of its column and y that of its row."""
  height, width, _ = image.shape
  across, down = _weights(x[0], width, fill), _weights(y[:, 0], height, fill)
  rows = jnp.einsum('chw,sw->chs', _planes(image), across, precision='highest')
  return jnp.einsum('th,chs->tsc', down, rows, precision='highest')


def _planes(image: jax.Array) -> jax.Array:
  """(C, H, W) float32: three channels at the end would leave most of a TPU's lanes empty."""
  return image.astype(jnp.float32).transpose(2, 0, 1)


def _weights(x: jax.Array, side: int, fill: str) -> jax.Array:
  """What each pixel along an axis counts (n, side) at the points x (n,)."""
  weights = jnp.maximum(1 - abs(jnp.clip(x, 0, side - 1)[:, None] - jnp.arange(side)), 0)
  return weights * _inside(x, side)[:, None] if fill == 'zero' else weights
