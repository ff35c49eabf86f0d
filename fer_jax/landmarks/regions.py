"""Regions of a face as boxes: RAN's crops (arXiv 1905.04075). Pure arithmetic on numpy or JAX arrays alike.

A box is (left, top, right, bottom) in fractions of the image side. Region 0 is always the full face.
"""

from typing import Any

import numpy as np

from fer_jax.errors import UserError, nearest

FULL = (0.0, 0.0, 1.0, 1.0)

# The crops of RAN's code: corners and centres of the face.
_CORNERS = ((0.0, 0.0, 0.75, 0.75), (0.25, 0.0, 1.0, 0.75), (0.125, 0.25, 0.875, 1.0), (0.05, 0.05, 0.95, 0.95))
FIXED = {
    'fixed5': (*_CORNERS, (0.075, 0.075, 0.925, 0.925)),
    'affectnet7': (*_CORNERS, (0.1, 0.1, 0.9, 0.9), (0.125, 0.125, 0.875, 0.875), (0.125, 0.0, 0.875, 0.75)),
}
SCHEMES = ('none', *FIXED, 'random', 'landmark')

RANDOM_CROPS = 5  # Crops of the scheme 'random' where nothing else is said.

# Five points (eyes, tip of the nose, corners of the mouth) as means of iBUG-68 points, and where they lie in an aligned
# face: the place of a crop whose landmarks are not known.
FIVE_POINTS = (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,))
TEMPLATE = np.float32([(0.342, 0.461), (0.656, 0.460), (0.500, 0.641), (0.371, 0.825), (0.631, 0.823)])


def region_count(scheme: str = 'none', count: int = RANDOM_CROPS, side: tuple[float, float] = (0.7, 0.95),
                 landmark_side: float = 0.5) -> int:
  """Number R of images per face, the full face included, for the options of ``region_boxes``.

  Raises:
    UserError: an unknown scheme, or values out of range.
  """
  if scheme not in SCHEMES:
    raise UserError(f"config.regions.scheme='{scheme}' is unknown{nearest(str(scheme), SCHEMES)}")
  if scheme == 'random' and count < 1:
    raise UserError(f'config.regions.count={count}: at least one crop beside the full face.')
  if not 0 < min(*side, landmark_side) <= max(*side, landmark_side) <= 1:
    raise UserError(f'config.regions.side={tuple(side)}, landmark_side={landmark_side}: shares of the image side in '
                    '(0, 1].')
  crops = {'none': 0, 'random': count, 'landmark': len(FIVE_POINTS)}
  return 1 + (crops[scheme] if scheme in crops else len(FIXED[scheme]))


def region_boxes(landmarks: Any, uniform: Any, scheme: str, count: int = RANDOM_CROPS,
                 side: tuple[float, float] = (0.7, 0.95), landmark_side: float = 0.5) -> Any:
  """The boxes of one face's regions (RAN, arXiv 1905.04075, section III-A; the fixed ones as in its code).

  Args:
    landmarks: (68, 2) fractions of the image, iBUG-68 order; points that are NaN are replaced by ``TEMPLATE``.
    uniform: (count, 3) numbers in [0, 1), which decide random crops: side, left, top.
    scheme: 'none' (the full face alone); 'fixed5' and 'affectnet7', the crops of RAN's code; 'random', ``count``
      squares anywhere in the image with a side in the range ``side``; 'landmark', squares of ``landmark_side`` centred
      on five points, shifted into the image. Sides are shares of the image's.

  Returns:
    (R, 4) left, top, right, bottom in fractions of the image, the full face first.
  """
  xp = landmarks.__array_namespace__()
  if scheme == 'random':
    sides = side[0] + (side[1] - side[0]) * uniform[:count, :1]
    corners = uniform[:count, 1:] * (1 - sides)
    crops = xp.concat([corners, corners + sides], axis=1)
  elif scheme == 'landmark':
    points = xp.stack([landmarks[np.asarray(group)].mean(axis=0) for group in FIVE_POINTS])
    points = xp.where(xp.isfinite(points), points, TEMPLATE)
    corners = xp.clip(points - landmark_side / 2, 0, 1 - landmark_side)
    crops = xp.concat([corners, corners + landmark_side], axis=1)
  else:
    crops = xp.asarray(np.float32(FIXED.get(scheme, ())).reshape(-1, 4))
  return xp.concat([xp.asarray(np.float32([FULL])), crops])
