"""Drawn corruptions of a face, on the device: pure functions of the image, a key and a severity.

A key is made of (seed, row of the split), so what happens to a face depends neither on the batch nor on the devices or
the order. The severity is an argument of the compiled program: all severities of a kind are one program. At severity 0
every kind returns the image bit for bit, and a face keeps its draw from severity to severity: its square grows around
one place, its noise gets louder, its head turns further in one direction.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data import augment
from fer_jax.errors import UserError, nearest

FILL = 0.5  # Grey of the square that occludes: the middle of the range.

# Largest standard deviation of a blur, as a share of the side: the compiled window reaches four times as far.
MAX_BLUR = 0.1

Apply = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Corruption:
  """One kind of corruption.

  Attributes:
    apply: (image (H, W, C) float32 in [0, 1], typed PRNG key, severity as a scalar) -> an image of the same form.
    severities: those that are measured, ascending, without 0.
    what: what a severity means, with its unit.
    label: how a severity is printed.
  """

  apply: Apply
  severities: tuple[float, ...]
  what: str
  label: Callable[[float], str]


def _occlusion(image: jax.Array, key: jax.Array, severity: jax.Array) -> jax.Array:
  """A grey square inside the image, its side the share ``severity`` of the image's, at a uniformly drawn place.

  With the corner at u (1 - side) the squares of one face are nested.
  """
  corner = jax.random.uniform(key, (2,)) * (1 - severity)
  centres = (jnp.arange(len(image)) + 0.5) / len(image)
  rows, columns = ((centres >= start) & (centres < start + severity) for start in corner)
  return jnp.where((rows[:, None] & columns)[..., None], FILL, image)


def _blur(image: jax.Array, _: jax.Array, severity: jax.Array) -> jax.Array:
  """A Gaussian blur whose standard deviation is the share ``severity`` of the side; borders are continued."""
  side = len(image)
  reach = int(np.ceil(4 * MAX_BLUR * side))
  padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode='edge')
  distance = np.arange(side)[:, None] + reach - np.arange(side + 2 * reach)
  # Far below a pixel nothing is left but the pixel itself, and there is no division by 0.
  weights = jnp.where(abs(distance) <= reach, jnp.exp(-0.5 * (distance / jnp.maximum(severity * side, 1e-3)) ** 2), 0)
  weights /= weights.sum(axis=1, keepdims=True)
  # One axis after the other. Accelerators would round the factors of a matrix product.
  rows = jnp.einsum('ip,pqc->iqc', weights, padded, precision='highest')
  return jnp.einsum('jq,iqc->ijc', weights, rows, precision='highest')


def _noise(image: jax.Array, key: jax.Array, severity: jax.Array) -> jax.Array:
  """Gaussian noise of the standard deviation ``severity``, in every pixel and channel."""
  return image + severity * jax.random.normal(key, image.shape)


def _rotation(image: jax.Array, key: jax.Array, severity: jax.Array) -> jax.Array:
  """A turn around the centre by ``severity`` degrees, to the left or to the right; borders are continued."""
  return augment.warp(image[None], _turn(key, severity)[None], len(image))[0]


def _turn(key: jax.Array, severity: jax.Array) -> jax.Array:
  """The affine map (2, 3) of a rotation, from the output to the input (``data/augment.py``)."""
  angle = jnp.deg2rad(severity) * jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return jnp.array([[cos, -sin, 0.0], [sin, cos, 0.0]])


def _brightness(image: jax.Array, _: jax.Array, severity: jax.Array) -> jax.Array:
  """All values times 2^severity, and what is brighter than white is white."""
  return image * jnp.exp2(severity)


def _gamma(image: jax.Array, _: jax.Array, severity: jax.Array) -> jax.Array:
  """All values to the power 2^-severity: black and white stay, the tones between get brighter above 0."""
  return image ** jnp.exp2(-severity)


_percent = lambda severity: f'{100 * severity:g} %'

KINDS = {
    'occlusion': Corruption(_occlusion, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 'side of a grey square, of the image side',
                            _percent),
    'blur': Corruption(_blur, (0.01, 0.02, 0.03, 0.04, 0.06, 0.08), 'standard deviation, of the image side', _percent),
    'noise': Corruption(_noise, (0.02, 0.04, 0.08, 0.12, 0.16, 0.24), 'standard deviation, values in [0, 1]',
                        '{:g}'.format),
    'rotation': Corruption(_rotation, (5.0, 10.0, 15.0, 20.0, 30.0, 45.0), 'degrees to the left or right',
                           '{:g}°'.format),
    'brightness': Corruption(_brightness, (-3.0, -2.0, -1.0, 0.5, 1.0, 1.5), 'factor on the values',
                             lambda severity: f'×{2 ** severity:.3g}'),
    'gamma': Corruption(_gamma, (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0), 'exponent of the values',
                        lambda severity: f'{2 ** -severity:.3g}'),
}


def check_kinds(kinds: tuple[str, ...]) -> None:
  """Raises UserError where one of ``kinds`` is none of ``KINDS`` or is named twice."""
  for kind in kinds:
    if kind not in KINDS:
      raise UserError(f"--kinds: there is no corruption '{kind}'{nearest(kind, KINDS)}")
    if kinds.count(kind) > 1:
      raise UserError(f"--kinds names '{kind}' {kinds.count(kind)} times.")


def corrupt_images(kind: str, images: jax.Array, keys: jax.Array, severity: jax.Array | float) -> jax.Array:
  """Corrupts images by a kind of ``KINDS``.

  Args:
    images: (b, H, H, C) float32 in [0, 1].
    keys: (b,) typed PRNG keys.
    severity: one number for all of them, which may be traced; of a blur at most ``MAX_BLUR``.

  Returns:
    (b, H, H, C) float32 in [0, 1]; at severity 0 the images, bit for bit.
  """
  severity = jnp.asarray(severity, jnp.float32)
  corrupted = jax.vmap(KINDS[kind].apply, (0, 0, None))(images, keys, severity)
  return jnp.where(severity == 0, images, jnp.clip(corrupted, 0, 1))


def corrupt(batch: augment.Batch, kind: str, severity: jax.Array | float, seed: int = 0) -> augment.Batch:
  """Corrupts the faces of an evaluation batch, before anything is cut from them or resized.

  Args:
    batch: ``image`` (b, H, H, C) uint8, ``row`` (b,) int, and where present ``landmarks`` (b, 68, 2), which a rotation
      takes along: regions at landmarks are cut where the parts of the face are now.
    kind: a name in ``KINDS``; ``severity`` is as in ``corrupt_images``.

  Returns:
    The batch with ``image`` uint8 again, as a camera would give it; without maps, which would not fit any more.
  """
  keys = augment.example_keys(seed, 0, batch['row'])
  images = corrupt_images(kind, batch['image'] * np.float32(1 / 255), keys, severity)
  changed = {'image': jnp.round(images * 255).astype(jnp.uint8)}
  if kind == 'rotation' and 'landmarks' in batch:
    matrices = jax.vmap(_turn, (0, None))(keys, jnp.asarray(severity, jnp.float32))
    moved = augment.move_landmarks(batch['landmarks'], matrices)
    changed['landmarks'] = jnp.where(jnp.asarray(severity) == 0, batch['landmarks'], moved)
  return {name: value for name, value in batch.items() if name not in augment.MAPS} | changed
