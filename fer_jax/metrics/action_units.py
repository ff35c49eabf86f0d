"""How well attribution maps agree with the action units of a face: CAM-COS, ATT-COS, and what they are worth.

After AU cues, arXiv 2402.00281. A cosine of non-negative maps is high for any map that lies on the face. So beside
the published numbers stand Pearson's correlation, 0 for a uniform picture; the contrast with the maps of other
expressions, 0 on average for any picture that does not know the expression; and two pictures to compare with, the
constant one of ``training_mean`` and 'class_free'.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from fer_jax.metrics.alignment import min_max, resize, share, top

SIZE = 224  # Side in pixels at which the paper compares maps.
CLASS_FREE = 'class_free'
FACES_OF_A_CLASS = 200  # That training_mean looks at, at most.

_EPSILON = 1e-8  # The paper's: the least product of norms that a cosine is divided by.
_MEANS = ('cosine', 'published_cosine', 'pearson', 'predicted_cosine', 'contrast', 'pointing')


def comparable(images: np.ndarray, attention: bool = False) -> np.ndarray:
  """Brings maps (N, h, w) to the range in which they are compared: float64 in [0, 1].

  A map of the CAM family is scaled to its own minimum 0 and maximum 1 at native size. An attention map, which is the
  channel mean of a layer, is only shifted where it has negative values, for two reasons: the paper shifts it, which
  would be idle after scaling, and its cosine is the one that the loss of AU cues raises. Zeros come of a map that is
  not finite, or that is constant and no attention.
  """
  if not attention:
    return min_max(images)
  finite = np.isfinite(images).all(axis=(1, 2), keepdims=True)
  images = np.where(finite, images, np.float64(0))
  images -= np.minimum(images.min(axis=(1, 2), keepdims=True), 0)
  # To unit scale, which changes no cosine, so that epsilon does not depend on the scale of a layer.
  scale = images.max(axis=(1, 2), keepdims=True)
  return images / np.where(scale > 0, scale, 1)


def measure(maps: Mapping[str, np.ndarray], unit_maps: Callable[[int], np.ndarray], faces: Sequence[int],
            label: np.ndarray, prediction: np.ndarray, classes: Sequence[str], constants: Mapping[str, np.ndarray],
            attention: Collection[str] = ()) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
  """Compares maps with the action-unit maps of the same faces.

  A face counts where its class has action units and any of them are inside the image, however it was classified. Every
  mean is over the faces of an expression first and then, unweighted, over the expressions that occur.

  Args:
    maps: {name: (N, h, w) real}.
    unit_maps: row -> uint8 (K, S, S), the action-unit maps of all classes drawn from the landmarks of that one face;
      zeros for a class without action units.
    faces: the rows whose landmarks are to be trusted.
    label, prediction: (N,) int, a label -1 unknown.
    constants: {name: (h, w) in [0, 1]}, pictures that are the same for all faces and compared as they are.
    attention: names of ``maps`` that are attention, see ``comparable``.

  Returns:
    {name: row} for maps, constants and 'class_free', the mean of the class maps of a face, which knows the face's
    landmarks and not its class; empty where no face counts. A row, with None for what no face has:
      action_unit_published_cosine: with the map of the true class, CAM-COS or ATT-COS as the authors' code has it,
      which enlarges attention, and it alone, with ``corners`` (``alignment.resize``); action_unit_cosine: the same, and
      all that follows, with the map where the network sees it; action_unit_cosine_by_class {class: its mean};
      action_unit_count: faces that count; action_unit_pearson: likewise; action_unit_contrast: the cosine less the mean
      of the cosines with the maps of the other classes; action_unit_pointing: ``alignment.pointing`` at where the map
      of the true class is at least half its maximum; action_unit_predicted_cosine: with the map of the predicted class;
      action_unit_predicted_left_out: faces that count otherwise, but have no such map.
    And 'class_free' of each face, float32 (N, S / 4, S / 4), rounded up; zeros where there are no landmarks.
  """
  names = [*maps, *constants, CLASS_FREE]
  moved = [name for name in maps if name in attention]  # Their pictures with ``corners`` come last.
  scaled = {name: comparable(values, name in attention) for name, values in maps.items()}
  cosine = np.full((len(names) + len(moved), len(label), len(classes)), np.nan)
  pearson, points = np.full((2, len(names), len(label)), np.nan)
  counted, class_free = np.zeros(len(label), bool), np.zeros((len(label), 1, 1), np.float32)
  pictures = None
  for row in faces:
    drawn = unit_maps(int(row))
    size = drawn.shape[-1]
    if pictures is None:
      # Made once and written over: making arrays of this size takes longer than the sums over them.
      pictures, shifts = np.zeros((len(cosine), size, size), np.float32), np.zeros(len(cosine))
      room = np.zeros(drawn.shape, np.float32)
      class_free = np.zeros((len(label), *2 * [-(-size // 4)]), np.float32)
      for i, constant in enumerate(constants.values(), len(maps)):
        shifts[i] = _enlarge(constant, pictures[i])
      tops = {i: top(pictures[i]) for i in range(len(maps), len(names) - 1)}
    there = np.flatnonzero(drawn.any(axis=(1, 2)))
    if not len(there):
      continue
    units = room[:len(there)]
    for unit, k in zip(units, there, strict=True):
      np.copyto(unit, drawn[k])
    free = np.sum(units, axis=0, out=pictures[len(names) - 1])
    free /= 255 * len(there)
    resize(free, class_free.shape[1:], out=class_free[row])
    counted[row] = label[row] in there
    if counted[row]:
      for i, name in enumerate(maps):
        shifts[i] = _enlarge(scaled[name][row], pictures[i])
      for i, name in enumerate(moved, len(names)):
        shifts[i] = _enlarge(scaled[name][row], pictures[i], corners=True)
      cosines, correlations = similarities(*(maps.reshape(len(maps), -1) for maps in (pictures, units)), shifts)
      cosine[:, row, there], pearson[:, row] = cosines, correlations[:len(names), there == label[row]][:, 0]
      inside = drawn[label[row]] >= 128
      points[:, row] = [share(tops[i] if i in tops else top(pictures[i]), inside) for i in range(len(names))]
  if not counted.any():
    return {}, class_free
  published = [cosine[len(names) + moved.index(name) if name in moved else i] for i, name in enumerate(names)]
  rows = [_row(*(of[counted] for of in values), label[counted], prediction[counted], classes)
          for values in zip(cosine[:len(names)], published, pearson, points, strict=True)]
  return dict(zip(names, rows, strict=True)), class_free


def _enlarge(image: np.ndarray, picture: np.ndarray, corners: bool = False) -> float:
  """Writes a map (h, w) less its mean, which is returned, into a picture of another size."""
  mean = float(image.mean())
  resize(image - mean, picture.shape, corners, out=picture)
  return mean


def similarities(pictures: np.ndarray, units: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Cosine, with the paper's epsilon, and Pearson correlation of maps with others, from their sums.

  Args:
    pictures: (R, P) float32, maps in [0, 1] less a number each that is near their mean, so that float32 suffices.
    units: (K, P) float32 whole numbers, not negative.
    shifts: (R,) float64, those numbers.

  Returns:
    (R, K) float64 each; the cosine in [0, 1], as maps are not negative; the correlation in [-1, 1], 0 where either is
    constant.
  """
  count = pictures.shape[1]
  products = np.array([units @ picture for picture in pictures], np.float64)
  # OpenCV adds up in float64.
  sums, unit_sums = (np.array([cv2.sumElems(image)[0] for image in maps]) for maps in (pictures, units))
  squares, unit_squares = (np.array([cv2.norm(image, cv2.NORM_L2SQR) for image in maps]) for maps in (pictures, units))
  whole = squares + shifts * (2 * sums + shifts * count)
  cosines = (products + np.outer(shifts, unit_sums)) / np.maximum(np.sqrt(np.outer(whole, unit_squares)), _EPSILON)
  # Below this share of its square, the variance of a map is the rounding of a constant.
  spread = [np.where(varied > 1e-12 * square, varied, 0) for varied, square in (
      (squares - sums**2 / count, whole), (unit_squares - unit_sums**2 / count, unit_squares))]
  norms = np.sqrt(np.outer(*spread))
  correlations = np.divide(products - np.outer(sums, unit_sums) / count, norms, out=np.zeros_like(products),
                           where=norms > 0)
  return np.clip(cosines, 0, 1), np.clip(correlations, -1, 1)


def training_mean(unit_map: Callable[[int, int], np.ndarray], rows: np.ndarray, labels: np.ndarray
                  ) -> np.ndarray | None:
  """The constant picture that knows where action units lie in a data set, and neither a face nor a class.

  ``unit_map`` gives of a row and a label the action-unit map uint8 (S, S) of the class, zeros where there is none; of
  the ``rows`` (N,) of the training split ``labels`` (N,) are known, or -1.

  Returns float64 (S, S) in [0, 1]: the unweighted mean over classes of the mean map of a class, over up to
  ``FACES_OF_A_CLASS`` of its rows, evenly spaced; None where no class has a map.
  """
  means = []
  for label in np.unique(labels[labels >= 0]):
    of = rows[labels == label]
    drawn = [unit_map(int(row), int(label)) for row in of[evenly(len(of), FACES_OF_A_CLASS)]]
    if drawn := [image / 255 for image in drawn if image.any()]:
      means.append(np.mean(drawn, axis=0))
  return np.mean(means, axis=0) if means else None


def evenly(count: int, most: int) -> np.ndarray:
  """(min(count, most),) indices below ``count``, evenly spaced."""
  kept = min(count, most)
  return np.arange(kept) * count // max(kept, 1)


def _row(cosine: np.ndarray, published: np.ndarray, pearson: np.ndarray, points: np.ndarray, label: np.ndarray,
         prediction: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
  """The row of a map from its cosines (n, K), NaN where a class has no map, and what else is known of n faces."""
  own, theirs, predicted = (np.take_along_axis(values, which[:, None], axis=1)[:, 0] for values, which in (
      (cosine, label), (published, label), (cosine, prediction)))
  others = np.isfinite(cosine).sum(axis=1) - 1
  rest = np.full(len(own), np.nan)
  np.divide(np.nansum(cosine, axis=1) - own, others, out=rest, where=others > 0)
  by_class = {key: {name: float(values[known].mean()) for k, name in enumerate(classes)
                    if (known := (label == k) & np.isfinite(values)).any()}
              for key, values in zip(_MEANS, (own, theirs, pearson, predicted, own - rest, points), strict=True)}
  return {**{f'action_unit_{key}': float(np.mean(list(means.values()))) if means else None
             for key, means in by_class.items()},
          'action_unit_cosine_by_class': by_class['cosine'],
          'action_unit_count': len(label),
          'action_unit_predicted_left_out': int(np.isnan(predicted).sum())}
