"""Priors an attribution map is compared with: anatomical ones, and controls that know no anatomy of this face."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from fer_jax.data.face import LANDMARK_SOURCES
from fer_jax.errors import UserError, nearest
from fer_jax.landmarks.resizing import RESIZES, mixing

# What each prior is drawn from.
SOURCES = {
    'landmark': 'landmark_heatmap',
    'action_unit': 'action_unit_map',
    'action_unit_generic': 'action_unit_generic_map',
    'action_unit_random': 'action_unit_random_map',
    'shuffled': 'landmark_heatmap',
}
PRIORS = (*SOURCES, 'centred_gaussian', 'uniform')

# Rows among which the prior 'shuffled' finds another face. They must lie on one device, whatever the number of devices.
BLOCK = 8

# Centre (x, y) and standard deviation of the control Gaussian in units of the image side: 60 px at (112, 130) of 224.
GAUSSIAN = (112 / 224, 130 / 224, 60 / 224)


def prior_map(batch: Mapping[str, jax.Array], kind: str, size: tuple[int, int], resize: str = 'antialias'
              ) -> tuple[jax.Array, jax.Array]:
  """The prior of every example in the size (h, w) of a map: ``resized`` what ``prior`` draws."""
  return resized(prior(batch, kind, size), size, resize)


def prior(batch: Mapping[str, jax.Array], kind: str, size: tuple[int, int]) -> jax.Array:
  """Draws the prior of every example.

  Args:
    batch: an augmented batch with the maps (B, H, W) float32 in [0, 1] that ``SOURCES`` names for ``kind``.
    kind: 'landmark'; 'action_unit' (of the labelled expression); 'action_unit_generic' (of all action units there are,
      so it tells no class); the controls 'action_unit_random' (of an expression that is drawn for this face, whatever
      its label; empty where 'action_unit' is), 'centred_gaussian', 'uniform' and 'shuffled' (the landmarks of another
      face of the batch: face-like, but not this face; empty where the landmarks of one of the two are not to be
      trusted).
    size: (h, w) of controls that are drawn from no map.

  Returns:
    (B, H, W), or (B, h, w) where it is drawn from no map.

  Raises:
    UserError: an unknown name, or the batch lacks the map.
  """
  if kind not in PRIORS:
    raise UserError(f"unknown prior '{kind}'{nearest(str(kind), PRIORS)}")
  if kind not in SOURCES:
    return jnp.broadcast_to(jnp.ones(size) if kind == 'uniform' else _gaussian(size), (len(batch['label']), *size))
  if SOURCES[kind] not in batch:
    raise UserError(f"prior '{kind}' needs the map '{SOURCES[kind]}', which the batch lacks; see config.data.maps.")
  source = batch[SOURCES[kind]]
  return _shuffled(batch, source) if kind == 'shuffled' else source


def trusted(batch: Mapping[str, jax.Array]) -> jax.Array:
  """Whether a detector or the data set found the landmarks, and not the whole image was taken for the face: (B,)."""
  found = batch['landmark_source'] >= LANDMARK_SOURCES.index('detector')
  return found & (batch['landmark_heatmap'].max(axis=(1, 2)) > 0)


def check_devices(rows: int, devices: int) -> None:
  """Raises UserError where a block of the prior 'shuffled' would lie on two devices of the mapped form.

  Args:
    rows: of the batch over all devices.
  """
  side = math.gcd(rows, BLOCK)
  if rows // devices % side:
    raise UserError(f"config.parallel='pmap' with the prior 'shuffled': {devices} devices get {rows // devices} rows "
                    f"each, no multiple of {side}; choose a batch_size that is a multiple of {devices * BLOCK}, or "
                    "parallel='jit'.")


def _shuffled(batch: Mapping[str, jax.Array], source: jax.Array) -> jax.Array:
  """In every block of rows the faces to be trusted stand in a circle, in the order of ``draw``: each gets the next
  one's map. Pairs that were the same in every step would have the same classes where the classes take turns."""
  if 'draw' not in batch:
    raise UserError("prior 'shuffled' needs 'draw', a random number in [0, 1) for every row of the batch.")
  side = math.gcd(len(source), BLOCK)
  known, draw = (values.reshape(-1, side) for values in (trusted(batch), batch['draw']))
  order = jnp.argsort(jnp.where(known, draw, 2.0), axis=1)
  count = known.sum(axis=1, keepdims=True)
  following = jnp.take_along_axis(order, (jnp.arange(side) + 1) % jnp.maximum(count, 1), axis=1)
  # From places in the circle to rows: a row stands at the place that the order of the order says.
  other = jnp.take_along_axis(following, jnp.argsort(order, axis=1), axis=1)
  blocks = source.reshape(-1, side, *source.shape[1:])
  drawn = jnp.take_along_axis(blocks, other[..., None, None], axis=1)
  return jnp.where((known & (count > 1))[..., None, None], drawn, 0).reshape(source.shape)


def resized(prior: jax.Array, size: tuple[int, int], resize: str) -> tuple[jax.Array, jax.Array]:
  """Brings priors to the size of a map.

  Args:
    prior: (B, H, W) float, non-negative.
    size: (h, w) of the result.
    resize: 'antialias'; 'plain', without a low-pass filter, so that a landmark can fall between pixels; 'torch_ac_aa',
      as the code of AU cues does it, see ``landmarks.resizing.mixing``.

  Returns:
    (B, h, w), between the smallest and the largest value of each prior, and ``valid`` (B,) bool: False where it is
    empty.

  Raises:
    UserError: an unknown form, or integers, which would be rounded to nothing.
  """
  if resize not in RESIZES:
    raise UserError(f"unknown resize '{resize}'{nearest(str(resize), RESIZES)}")
  if prior.ndim != 3 or not jnp.issubdtype(prior.dtype, jnp.floating):
    raise UserError(f'a prior is (B, H, W) of float, and this one {prior.shape} of {prior.dtype}; divide a heatmap of '
                    'uint8 by 255.')
  prior = prior.astype(jnp.promote_types(prior.dtype, jnp.float32))
  y, x = (jnp.asarray(mixing(*sides, resize), prior.dtype) for sides in zip(prior.shape[1:], size, strict=True))
  small = jnp.einsum('bij,hi,wj->bhw', prior, y, x, precision=jax.lax.Precision.HIGHEST)
  low, high = (f(axis=(1, 2), keepdims=True) for f in (prior.min, prior.max))
  return jnp.clip(small, low, high), high[:, 0, 0] > 0


def _gaussian(size: tuple[int, int]) -> jax.Array:
  cx, cy, sigma = GAUSSIAN
  y, x = ((jnp.arange(n) + 0.5) / n for n in size)
  return jnp.exp(-((x[None, :] - cx) ** 2 + (y[:, None] - cy) ** 2) / (2 * sigma**2))
