"""Draws 68 facial landmarks as a heatmap, the anatomical prior of PAL, and names the groups of points.

Points are in the order of iBUG-68 (300-W), zero-based. Coordinates are continuous: 0 is the left (top) edge of the
image, 1 its right (bottom) edge, and pixel i of n covers [i/n, (i+1)/n].
"""

import math

import numpy as np

from fer_jax.errors import nearest

POINTS = {
    'no_jaw': [*range(17, 68)],
    'all': [*range(68)],
    'eyes_brows_mouth': [*range(17, 27), *range(36, 68)],
}

# Point k of a mirrored face is point FLIP[k] of the original: `mirrored = points[FLIP]; mirrored x = 1 - x`.
FLIP = np.array([
    *range(16, -1, -1),  # Jaw.
    *range(26, 16, -1),  # Brows.
    27, 28, 29, 30, *range(35, 30, -1),  # Nose.
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,  # Eyes: corners and upper lids, then lower lids.
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),  # Lips: outer, then inner.
])


def landmark_heatmap(landmarks: np.ndarray | None, size: int, sigma: float = 3 / 224, points: str = 'no_jaw',
                     combine: str = 'sum') -> np.ndarray:
  """Draws one Gaussian per landmark (PAL, arXiv 2203.12905: a blur of 3 px at 224 of ones at the landmarks).

  Each pixel holds the mean of the Gaussian over its area, not its value at the centre: so a small map keeps points that
  fall between the centres. Points outside the image are moved to its border.

  Args:
    landmarks: (68, 2) x, y as fractions of width and height; NaN rows draw nothing; None is all NaN.
    size: side of the map in pixels.
    sigma: standard deviation in units of the image width.
    points: which landmarks to draw, a key of ``POINTS``.
    combine: 'sum' of the Gaussians or their 'max' (the AU-cues map, arXiv 2402.00281, with sigma = 8 / 224).

  Returns:
    uint8 (size, size), 255 at the maximum; zeros if there is nothing to draw.
  """
  if points not in POINTS:
    raise ValueError(f"unknown points '{points}'{nearest(points, POINTS)}")
  if combine not in ('sum', 'max'):
    raise ValueError(f"combine is 'sum' or 'max', not '{combine}'")
  landmarks = np.full((68, 2), np.nan) if landmarks is None else np.asarray(landmarks, np.float64)
  chosen = landmarks[POINTS[points]]
  chosen = np.clip(chosen[np.isfinite(chosen).all(1)], 0, 1)
  if not len(chosen):
    return np.zeros((size, size), np.uint8)
  # Samples per pixel, at most half a sigma apart.
  fine = math.ceil(2 / (sigma * size))
  grid = (np.arange(size * fine) + 0.5) / (size * fine)
  profiles = np.exp(-0.5 * ((grid - chosen[:, :, None]) / sigma) ** 2)
  x, y = profiles.reshape(-1, 2, size, fine).mean(3).swapaxes(0, 1)
  heat = y.T @ x if combine == 'sum' else (y[:, :, None] * x[:, None, :]).max(0)
  return np.rint(255 * heat / heat.max()).astype(np.uint8)
