"""Priors an attribution map is compared with: anatomical ones, and controls that know no anatomy of this face."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from fer_jax.errors import UserError, nearest
from fer_jax.landmarks.resizing import RESIZES, mixing

# What each prior is drawn from.
SOURCES = {
    'landmark': 'landmark_heatmap',
    'action_unit': 'action_unit_map',
    'action_unit_generic': 'action_unit_generic_map',
    'shuffled': 'landmark_heatmap',
}
PRIORS = (*SOURCES, 'centred_gaussian', 'uniform')

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
      so it tells no class); the controls 'centred_gaussian', 'uniform' and 'shuffled' (the landmarks of the other face
      in a pair of neighbouring rows: face-like, but not this face).
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
  if kind == 'shuffled':
    # Neighbours swap: such pairs do not depend on how a batch is split over devices, and none leaves its device.
    paired = len(source) // 2 * 2
    swapped = source[:paired].reshape(-1, 2, *source.shape[1:])[:, ::-1].reshape(paired, *source.shape[1:])
    source = jnp.concatenate([swapped, source[:len(source) - paired]])  # An odd one out takes the first row's.
  return source


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
  y, x = (jnp.asarray(mixing(*sides, resize), prior.dtype) for sides in zip(prior.shape[1:], size, strict=True))
  small = jnp.einsum('bij,hi,wj->bhw', prior, y, x, precision=jax.lax.Precision.HIGHEST)
  low, high = (f(axis=(1, 2), keepdims=True) for f in (prior.min, prior.max))
  return jnp.clip(small, low, high), high[:, 0, 0] > 0


def _gaussian(size: tuple[int, int]) -> jax.Array:
  cx, cy, sigma = GAUSSIAN
  y, x = ((jnp.arange(n) + 0.5) / n for n in size)
  return jnp.exp(-((x[None, :] - cx) ** 2 + (y[:, None] - cy) ** 2) / (2 * sigma**2))
