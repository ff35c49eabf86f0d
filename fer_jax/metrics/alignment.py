"""How well an attribution map agrees with an anatomical prior: cosine and Pearson, and the constant maps to beat.

A cosine of non-negative maps is far above 0 for any map, even a uniform one; Pearson's correlation is 0 there. Print
both, beside the constant maps of ``trivial_maps``. The pointing game looks at a map's maximum alone.
"""

from collections.abc import Mapping

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
  return similarities({'': maps}, priors)[''][0]


def pearson(maps: np.ndarray, priors: np.ndarray) -> np.ndarray:
  """Pearson correlation over pixels of each map with its prior; arguments and result as in ``cosine``.

  Where either is constant over space, up to rounding, the correlation is 0.
  """
  return similarities({'': maps}, priors)[''][1]


def similarities(maps: Mapping[str, np.ndarray], priors: np.ndarray) -> dict[str, np.ndarray]:
  """``cosine`` and ``pearson``, (2, N), of several sets of maps {name: (N, h, w) or (1, h, w)} with one set of priors.

  It takes much less time than one after the other.
  """
  priors = np.asarray(priors)
  forms = lambda images: _forms(np.stack([resize(image, priors.shape[1:]) for image in images]))
  same = {name: forms(images) for name, images in maps.items() if len(images) == 1}
  scores = {name: [np.zeros((2, 0))] for name in maps}
  for i in range(0, len(priors), _AT_ONCE):
    theirs = _forms(priors[i:i + _AT_ONCE])
    for name, images in maps.items():
      ours = same.get(name) or forms(images[i:i + _AT_ONCE])
      scores[name].append(np.stack([_cosines(*pair) for pair in zip(ours, theirs, strict=True)]))
  return {name: np.concatenate(parts, axis=1) for name, parts in scores.items()}


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


def _forms(images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Images (n, H, W) as they are, and less their mean.

  Of both: (n, H * W) of a scale of their own, the sums of their squares (n,), and bool (n,): which have a direction.
  """
  images = images.reshape(len(images), -1).astype(np.float64)
  scale = np.abs(images).max(axis=1, keepdims=True)
  there = np.isfinite(scale) & (scale > 0)
  # To unit scale first: squares of gradients of 1e-170 would vanish.
  scaled = np.divide(images, scale, out=np.zeros_like(images), where=there)
  centred = scaled - scaled.mean(axis=1, keepdims=True)
  varies = there & (np.abs(centred).max(axis=1, keepdims=True) >= FLAT)
  return [(form, np.einsum('np,np->n', form, form), known[:, 0])
          for form, known in ((scaled, there), (centred, varies))]


def _cosines(ours: tuple[np.ndarray, ...], theirs: tuple[np.ndarray, ...]) -> np.ndarray:
  """Cosines of images (n, or one for all) with others (n), each as one of its ``_forms``; 0 where one has none."""
  (images, squares, known), (others, other_squares, other_known) = ours, theirs
  product = np.einsum('np,np->n', images, others)
  norms = np.sqrt(squares * other_squares)
  return np.clip(np.divide(product, norms, out=np.zeros_like(product), where=known & other_known), -1, 1)
