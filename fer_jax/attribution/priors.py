"""Priors an attribution map is compared with: anatomical ones, and controls that know no anatomy of this face."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from fer_jax.errors import UserError, nearest

PRIORS = ('landmark', 'action_unit', 'centred_gaussian', 'uniform', 'shuffled')

# Centre (x, y) and standard deviation of the control Gaussian in units of the image side: 60 px at (112, 130) of 224.
GAUSSIAN = (112 / 224, 130 / 224, 60 / 224)


def prior_map(batch: Mapping[str, jax.Array], kind: str, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
  """Draws the prior of every example.

  Args:
    batch: an augmented batch with 'landmark_heatmap' and 'action_unit_map' (B, H, W) float32 in [0, 1].
    kind: 'landmark'; 'action_unit' (of the labelled expression); the controls 'centred_gaussian', 'uniform' and
      'shuffled' (the landmarks of the other face in a pair of neighbouring rows: face-like, but not this face).
    size: (h, w) of the result. Maps are shrunk with antialiasing: without it a landmark can fall between pixels.

  Returns:
    The prior (B, h, w) in [0, 1] and ``valid`` (B,) bool: False where the drawn prior is empty.
  """
  if kind not in PRIORS:
    raise UserError(f"unknown prior '{kind}'{nearest(kind, PRIORS)}")
  heatmap = batch['landmark_heatmap']
  rows = heatmap.shape[0]
  if kind in ('uniform', 'centred_gaussian'):
    prior = jnp.ones(size) if kind == 'uniform' else _gaussian(size)
    return jnp.broadcast_to(prior, (rows, *size)), jnp.ones(rows, bool)
  source = batch['action_unit_map'] if kind == 'action_unit' else heatmap
  if kind == 'shuffled':
    partner = jnp.arange(rows) ^ 1  # Neighbours swap, so the pairs do not depend on how a batch is split over devices.
    source = source[jnp.where(partner < rows, partner, 0)]
  prior = jax.image.resize(source, (rows, *size), 'linear', antialias=True)
  return prior, source.max(axis=(1, 2)) > 0


def _gaussian(size: tuple[int, int]) -> jax.Array:
  cx, cy, sigma = GAUSSIAN
  y, x = ((jnp.arange(n) + 0.5) / n for n in size)
  return jnp.exp(-((x[None, :] - cx) ** 2 + (y[:, None] - cy) ** 2) / (2 * sigma**2))
