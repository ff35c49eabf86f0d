"""The record every builder yields: one face, its label, its landmarks and the maps drawn from them.

Heatmaps are drawn here, by the one function each in ``fer_jax.landmarks``, so that a stored map can be drawn again from
the stored landmarks and compared.
"""

import io
from typing import Any

import cv2
import numpy as np

from fer_jax.landmarks.action_units import action_unit_map
from fer_jax.landmarks.heatmap import landmark_heatmap

# Canonical names. A builder's classes are a tuple of these in the data set's own order; join data sets by name only.
EXPRESSIONS = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt')

# What data sets call them, in lower case.
_SYNONYMS = {
    'neutral': ('neutrality', 'normal'), 'happiness': ('happy', 'joy'), 'surprise': ('surprised',),
    'sadness': ('sad',), 'anger': ('angry',), 'disgust': ('disgusted',), 'fear': ('fearful', 'afraid'),
    'contempt': ('contemptuous',),
}
_CANONICAL = {name: expression for expression, names in _SYNONYMS.items() for name in (expression, *names)}

# Where landmarks come from; records store the index. 'image_box' points are untrustworthy: no face was detected.
# 'released' ones came with the data set. Append only: prepared data sets hold the numbers.
LANDMARK_SOURCES = ('none', 'image_box', 'detector', 'exact', 'released')

MAP_SIZE = 56  # Side of the stored maps in pixels.


def canonical(name: str) -> str | None:
  """The canonical name of an expression that a data set calls ``name``, in whatever case; None if it is none."""
  return _CANONICAL.get(name.strip().lower())


def png(image: np.ndarray) -> io.BytesIO:
  """Encodes a uint8 image (H, W) or RGB (H, W, 3) as PNG."""
  return _encoded(image, '.png')


def jpeg(image: np.ndarray) -> io.BytesIO:
  """Encodes a uint8 image (H, W) or RGB (H, W, 3) as JPEG of quality 95."""
  return _encoded(image, '.jpg', cv2.IMWRITE_JPEG_QUALITY, 95)


def _encoded(image: np.ndarray, ending: str, *options: int) -> io.BytesIO:
  if image.ndim == 3:
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
  return io.BytesIO(cv2.imencode(ending, image, options)[1].tobytes())


def record(*, image: io.BytesIO | str, name: str, label: int, expression: str | None, size: tuple[int, int],
           landmarks: np.ndarray, source: str, score: float = 0.0, **extra: Any) -> dict[str, Any]:
  """Makes one record.

  Args:
    image: the encoded file as distributed (bytes or a path).
    name: the data set's own file name; subset lists and duplicate lists key on it.
    label: index into the builder's classes, -1 if unknown.
    expression: canonical name of the class, or None; decides the action-unit map.
    size: (height, width) of the image in pixels.
    landmarks: (68, 2) x, y in pixels of the stored image, iBUG-68 order; NaN where not found.
    source: where the landmarks come from, one of ``LANDMARK_SOURCES``.
    score: the detector's score, 0 where there is none.
    **extra: values of the builder's extra features.

  Returns:
    A dict that fits the features of ``preparing.builder``.
  """
  landmarks = np.asarray(landmarks, np.float32)
  fractions = landmarks / np.asarray([size[1], size[0]], np.float32)
  return {
      'image': image,
      'label': label,
      'landmarks': landmarks,
      'landmark_source': LANDMARK_SOURCES.index(source),
      'landmark_score': score,
      'landmark_heatmap': png(landmark_heatmap(fractions, MAP_SIZE)),
      'action_unit_map': png(action_unit_map(fractions, expression, MAP_SIZE)),
      'name': name,
      **extra,
  }
