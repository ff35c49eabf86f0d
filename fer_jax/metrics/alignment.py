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

_AT_ONCE = 64  # Maps and priors, as many as a core's cache holds.


def resize(image: np.ndarray, size: tuple[int, int], corners: bool = False, out: np.ndarray | None = None
           ) -> np.ndarray:
  """Bilinear resize of one map (h, w) to ``size`` = (H, W): half-pixel centres, edges repeated, not antialiased; with
  ``corners`` the form 'torch_ac_aa' of ``landmarks.resizing.mixing``, which moves the picture. Float64, or of the type
  of ``out`` (H, W), which is written over.
  """
  out = np.empty(size) if out is None else out
  image = np.asarray(image, out.dtype)
  if corners:
    rows, columns = (mixing(*sides, 'torch_ac_aa').astype(out.dtype) for sides in zip(image.shape, size, strict=True))
    return np.matmul(rows @ image, columns.T, out=out)
  return cv2.resize(image, size[::-1], out, interpolation=cv2.INTER_LINEAR)


def cosine(maps: np.ndarray, priors: np.ndarray) -> np.ndarray:
  """Cosine similarity of each map with its prior, <m, p> / (|m| |p|) (AU cues, arXiv 2402.00281, CAM-COS and ATT-COS).

  Maps (N, h, w), or one (1, h, w) for all priors, are real, of any scale and sign, and are resized bilinearly to the
  priors (N, H, W), which are not negative. Returns (N,) float64 in [-1, 1]; 0 where either is all zero, or the map is
  not finite.
  """
  return similarity(maps, priors)[0]


def pearson(maps: np.ndarray, priors: np.ndarray) -> np.ndarray:
  """Pearson correlation over pixels of each map with its prior; arguments and result as in ``cosine``.

  Where either is constant over space, up to rounding, the correlation is 0.
  """
  return similarity(maps, priors)[1]


def similarity(maps: np.ndarray, priors: np.ndarray) -> np.ndarray:
  """``cosine`` and ``pearson`` of the same maps and priors, float64 (2, N), for little more than the work of one."""
  maps, priors = np.asarray(maps), np.asarray(priors)
  return np.concatenate([np.zeros((2, 0)), *(
      _similarity(maps if len(maps) == 1 else maps[i:i + _AT_ONCE], priors[i:i + _AT_ONCE])
      for i in range(0, len(priors), _AT_ONCE))], axis=1)


def trivial_maps(size: tuple[int, int]) -> dict[str, np.ndarray]:
  """The maps that know nothing of the image, each (H, W) float64 with values in [0, 1].

  'uniform' is 1 everywhere. 'centred_gaussian' lies where faces lie in a crop: its centre at 0.5 of the width and 0.58
  of the height, its standard deviation 0.27 of the side (60 px at 224).
  """
  height, width = size
  y = ((np.arange(height) + 0.5) / height - 0.58) / 0.27
  x = ((np.arange(width) + 0.5) / width - 0.5) / 0.27
  return {'uniform': np.ones(size), 'centred_gaussian': np.exp(-0.5 * (y[:, None]**2 + x[None, :]**2))}


def min_max(images: np.ndarray) -> np.ndarray:
  """Scales maps (..., h, w), each to its own minimum 0 and maximum 1: float64; zeros where one is constant or not
  finite."""
  images = np.asarray(images, np.float64)
  low, high = (of(images, axis=(-2, -1), keepdims=True) for of in (np.min, np.max))
  with np.errstate(invalid='ignore'):
    varies = np.isfinite(high - low) & (high - low > FLAT * np.maximum(abs(low), abs(high)))
    return np.where(varies, (images - low) / np.where(varies, high - low, 1), 0)


def pointing(image: np.ndarray, inside: np.ndarray) -> float:
  """The pointing game (arXiv 1608.00507): 1 where the maximum of a map lies inside a region, or else 0.

  The map is real and finite, of any shape, the region bool of that shape. Where several pixels share the maximum it is
  the share of them that lies inside. So a constant map scores the share of the image that the region covers, which is
  what pointing blindly scores on average.
  """
  return share(top(image), inside)


def top(image: np.ndarray) -> np.ndarray:
  """Which pixels of a map are its maximum, bool of its shape."""
  high = image.max()
  return image >= high - _TIE * (high - image.min())


def share(pixels: np.ndarray, inside: np.ndarray) -> float:
  """The share of ``pixels`` that lie ``inside``, both bool of one shape."""
  return np.count_nonzero(pixels & inside) / np.count_nonzero(pixels)


def _similarity(maps: np.ndarray, priors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  resized = np.stack([resize(image, priors.shape[1:]) for image in maps])
  known, both = True, []
  for images in (resized, priors):
    images = images.reshape(len(images), -1).astype(np.float64)
    scale = np.abs(images).max(axis=1, keepdims=True)
    there = np.isfinite(scale) & (scale > 0)
    known = known & there[:, 0]
    # To unit scale first: squares of gradients of 1e-170 would vanish.
    both.append(np.divide(images, scale, out=np.zeros_like(images), where=there))
  cosines = _cosines(*both, known)
  for images in both:
    images -= images.mean(axis=1, keepdims=True)
    known = known & (np.abs(images).max(axis=1) >= FLAT)
  return cosines, _cosines(*both, known)


def _cosines(maps: np.ndarray, others: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Cosines of rows (N or 1, P) with rows (N, P), 0 where not ``known``."""
  product, *squares = (np.einsum('np,np->n', *pair) for pair in ((maps, others), (maps, maps), (others, others)))
  return np.clip(np.divide(product, np.sqrt(squares[0] * squares[1]), out=np.zeros_like(product), where=known), -1, 1)
