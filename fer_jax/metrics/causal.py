"""How well an attribution map finds the pixels that truly carry the expression, where a drawn face lets us know them.

The causal mask marks the pixels that change between a face and the same face at neutral. The share of mass asks how
much of the explanation lies there; the area under the ROC curve asks whether pixels inside are ranked above those
outside, whatever the map's scale and offset; the pointing game asks for the map's maximum alone.
"""

import itertools
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

  Maps (N, h, w), or one (1, h, w) for all masks, are real, resized bilinearly to the mask, then clipped at 0; masks (N,
  H, W) are bool, or uint8 whose pixels are inside from 128 up. It is 0 for a map without positive mass or not finite,
  which explains nothing. A uniform map scores the share of the image that the mask covers.
  """
  def mass(image: np.ndarray) -> np.ndarray:
    positive = np.maximum(resize(image, masks.shape[1:]), 0)
    peak = positive.max()  # A sum of denormals, or of values near the largest float, would not be one.
    return positive / peak if 0 < peak < np.inf else np.zeros_like(positive)

  def inside(positive: np.ndarray, inside: np.ndarray) -> float:
    within, without = positive[inside].sum(), positive[~inside].sum()
    return within / ((within + without) or 1)  # Never above 1, whatever the order of the sums.

  return _each(mass, inside, maps, masks)


def area_under_curve(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """ROC AUC of map values as a detector of mask pixels, per image: the chance that a pixel inside outranks one outside.

  By ranks, as scikit-learn's ``roc_auc_score`` takes eight times as long for the same number. Maps and masks are those
  of ``mass_inside``; ties count half, so a constant map scores 0.5. Returns (N,) float64 in [0, 1]; NaN where the mask
  is empty or full (see ``usable``) or the map is not finite.
  """
  def ranks(image: np.ndarray) -> np.ndarray:
    image = resize(image, masks.shape[1:]).astype(np.float32)  # Resizing rounds: equal values must stay ties.
    # SciPy 1.18 keeps the type of the image, float32. The rank of NaN is NaN.
    return scipy.stats.rankdata(image if np.isfinite(image).all() else np.full_like(image, np.nan)).astype(np.float64)

  def area(ranks: np.ndarray, inside: np.ndarray) -> float:
    positives = int(inside.sum())
    negatives = inside.size - positives
    # Mann-Whitney: the mean rank inside, less the least it could be, over the number of pixels outside.
    return (ranks[inside.ravel()].mean() - (positives + 1) / 2) / negatives if positives and negatives else np.nan

  return _each(ranks, area, maps, masks)


def pointing(maps: np.ndarray, masks: np.ndarray, size: int = 224) -> np.ndarray:
  """The pointing game of each map with its mask, see ``alignment.pointing``, (N,) float64 in [0, 1].

  Maps and masks are those of ``mass_inside``. The maximum is looked for in ``size`` x ``size`` pixels: maps are scaled
  to minimum and maximum, then resized bilinearly, as for action units, masks to the nearest pixel. A map that is
  constant or not finite points everywhere and scores the mask's share.
  """
  rows, columns = (np.arange(size) * side // size for side in masks.shape[1:])
  return _each(lambda image: alignment.top(resize(alignment.min_max(image), (size, size))),
               lambda top, inside: alignment.share(top, inside[rows[:, None], columns]), maps, masks)


def _each(prepare: Callable[[np.ndarray], np.ndarray], score: Callable[[np.ndarray, np.ndarray], float],
          maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """(N,) float64 scores of what is prepared of maps, once for one that all masks share, and what is inside of masks."""
  prepared = map(prepare, maps)
  prepared = itertools.repeat(next(prepared), len(masks)) if len(maps) == 1 else prepared
  return np.array([score(*pair) for pair in zip(prepared, _inside(masks), strict=True)], np.float64)


def _inside(masks: np.ndarray) -> np.ndarray:
  masks = np.asarray(masks)
  return masks if masks.dtype == bool else masks >= 128
