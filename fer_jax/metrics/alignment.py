"""How well an attribution map agrees with an anatomical prior: cosine and Pearson, and the constant maps to beat.

A cosine of non-negative maps is far above 0 for any map, even a uniform one; Pearson's correlation is 0 there. Print
both, beside the constant maps of ``trivial_maps``. The pointing game looks at a map's maximum alone.
"""

import cv2
import numpy as np

from fer_jax.landmarks.resizing import mixing

# Below this share of a map's largest magnitude, its variation is rounding noise, and the map is taken for constant.
FLAT = 1e-6

# Values this near to the maximum, as a share of the map's range, are as large: resizing rounds, ties must stay ties.
_TIE = 1e-6


def resize(image: np.ndarray, size: tuple[int, int], corners: bool = False) -> np.ndarray:
  """Bilinear resize of one map (h, w) to ``size`` = (H, W), float64: half-pixel centres, edges repeated, not
  antialiased; with ``corners`` the form 'torch_ac_aa' of ``landmarks.resizing.mixing``, which moves the picture.
  """
  height, width = size
  if corners:
    rows, columns = (mixing(*sides, 'torch_ac_aa') for sides in zip(image.shape, size, strict=True))
    return rows @ np.asarray(image, np.float64) @ columns.T
  return cv2.resize(np.asarray(image, np.float64), (width, height), interpolation=cv2.INTER_LINEAR)


def cosine(maps: np.ndarray, priors: np.ndarray) -> np.ndarray:
  """Cosine similarity of each map with its prior, <m, p> / (|m| |p|) (AU cues, arXiv 2402.00281, CAM-COS and ATT-COS).

  Maps (N, h, w) are real, of any scale and sign, and are resized bilinearly to the priors (N, H, W), which are not
  negative. Returns (N,) float64 in [-1, 1]; 0 where either is all zero, or the map is not finite.
  """
  return np.array([_similarity(*pair, centre=False) for pair in zip(maps, priors, strict=True)], np.float64)


def pearson(maps: np.ndarray, priors: np.ndarray) -> np.ndarray:
  """Pearson correlation over pixels of each map with its prior; arguments and result as in ``cosine``.

  Where either is constant over space, up to rounding, the correlation is 0.
  """
  return np.array([_similarity(*pair, centre=True) for pair in zip(maps, priors, strict=True)], np.float64)


def trivial_maps(size: tuple[int, int]) -> dict[str, np.ndarray]:
  """The maps that know nothing of the image, each (H, W) float64 with values in [0, 1].

  'uniform' is 1 everywhere. 'centred_gaussian' lies where faces lie in a crop: its centre at 0.5 of the width and 0.58
  of the height, its standard deviation 0.27 of the side (60 px at 224).
  """
  height, width = size
  y = ((np.arange(height) + 0.5) / height - 0.58) / 0.27
  x = ((np.arange(width) + 0.5) / width - 0.5) / 0.27
  return {'uniform': np.ones(size), 'centred_gaussian': np.exp(-0.5 * (y[:, None]**2 + x[None, :]**2))}


def min_max(image: np.ndarray) -> np.ndarray:
  """Scales a map (h, w) to its own minimum 0 and maximum 1: float64; zeros where it is constant or not finite."""
  image = np.asarray(image, np.float64)
  low, high = image.min(), image.max()
  if not np.isfinite(image).all() or high - low <= FLAT * max(abs(low), abs(high)):
    return np.zeros_like(image)
  return (image - low) / (high - low)


def pointing(image: np.ndarray, inside: np.ndarray) -> float:
  """The pointing game (arXiv 1608.00507): 1 where the maximum of a map lies inside a region, or else 0.

  The map is real and finite, of any shape, the region bool of that shape. Where several pixels share the maximum it is
  the share of them that lies inside. So a constant map scores the share of the image that the region covers, which is
  what pointing blindly scores on average.
  """
  top = image >= image.max() - _TIE * np.ptp(image)
  return np.count_nonzero(top & inside) / np.count_nonzero(top)


def _similarity(image: np.ndarray, prior: np.ndarray, centre: bool) -> float:
  image, prior = resize(image, prior.shape).ravel(), np.asarray(prior, np.float64).ravel()
  scales = np.abs(image).max(), np.abs(prior).max()
  if not np.isfinite(scales[0]) or min(scales) == 0:
    return 0.0
  # To unit scale first: squares of gradients of 1e-170 would vanish.
  image, prior = image / scales[0], prior / scales[1]
  if centre:
    image, prior = image - image.mean(), prior - prior.mean()
    if min(np.abs(image).max(), np.abs(prior).max()) < FLAT:
      return 0.0
  return float(np.clip(image @ prior / np.sqrt((image @ image) * (prior @ prior)), -1, 1))
