"""How well an attribution map finds the pixels that truly carry the expression, where a drawn face lets us know them.

The causal mask marks the pixels that change between a face and the same face at neutral. The share of mass asks how
much of the explanation lies there; the area under the ROC curve asks whether pixels inside are ranked above those
outside, whatever the map's scale and offset; the pointing game asks for the map's maximum alone.
"""

from collections.abc import Callable

import numpy as np
import scipy  # Its parts load when they are first used.

from fer_jax.metrics import alignment
from fer_jax.metrics.alignment import resize


def usable(masks: np.ndarray) -> np.ndarray:
  """(N,) bool: which of the masks (N, H, W) are neither empty (a neutral face) nor full; only these can be scored."""
  inside = _inside(masks).reshape(len(masks), -1)
  return inside.any(axis=1) & ~inside.all(axis=1)


def mass_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """Share of each map's positive mass that lies inside its mask, (N,) float64 in [0, 1].

  Maps (N, h, w) are real, resized bilinearly to the mask, then clipped at 0; masks (N, H, W) are bool, or uint8 whose
  pixels are inside from 128 up. It is 0 for a map without positive mass or not finite, which explains nothing. A
  uniform map scores the share of the image that the mask covers.
  """
  def share(image: np.ndarray, inside: np.ndarray) -> float:
    positive = np.maximum(resize(image, inside.shape), 0)
    if not 0 < (peak := positive.max()) < np.inf:
      return 0.0
    positive /= peak  # A sum of denormals, or of values near the largest float, would not be one.
    within, without = positive[inside].sum(), positive[~inside].sum()
    return within / (within + without)  # Never above 1, whatever the order of the sums.

  return _each(share, maps, masks)


def area_under_curve(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """ROC AUC of map values as a detector of mask pixels, per image: the chance that a pixel inside outranks one outside.

  By ranks, as scikit-learn's ``roc_auc_score`` takes eight times as long for the same number. Maps and masks are those
  of ``mass_inside``; ties count half, so a constant map scores 0.5. Returns (N,) float64 in [0, 1]; NaN where the mask
  is empty or full (see ``usable``) or the map is not finite.
  """
  def area(image: np.ndarray, inside: np.ndarray) -> float:
    positives = int(inside.sum())
    negatives = inside.size - positives
    image = resize(image, inside.shape).astype(np.float32)  # Resizing rounds: equal values must stay ties.
    if not positives or not negatives or not np.isfinite(image).all():
      return np.nan
    # Mann-Whitney: the mean rank inside, less the least it could be, over the number of pixels outside.
    ranks = scipy.stats.rankdata(image).astype(np.float64)  # SciPy 1.18 keeps the type of the image, float32.
    return (ranks[inside.ravel()].mean() - (positives + 1) / 2) / negatives

  return _each(area, maps, masks)


def pointing(maps: np.ndarray, masks: np.ndarray, size: int = 224) -> np.ndarray:
  """The pointing game of each map with its mask, see ``alignment.pointing``, (N,) float64 in [0, 1].

  Maps and masks are those of ``mass_inside``. The maximum is looked for in ``size`` x ``size`` pixels: maps are scaled
  to minimum and maximum, then resized bilinearly, as for action units, masks to the nearest pixel. A map that is
  constant or not finite points everywhere and scores the mask's share.
  """
  rows, columns = (np.arange(size) * side // size for side in masks.shape[1:])
  return _each(lambda image, inside: alignment.pointing(
      resize(alignment.min_max(image), (size, size)), inside[rows[:, None], columns]), maps, masks)


def _each(score: Callable[[np.ndarray, np.ndarray], float], maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """(N,) float64 scores of maps and what is inside of masks."""
  return np.array([score(*pair) for pair in zip(maps, _inside(masks), strict=True)], np.float64)


def _inside(masks: np.ndarray) -> np.ndarray:
  masks = np.asarray(masks)
  return masks if masks.dtype == bool else masks >= 128
