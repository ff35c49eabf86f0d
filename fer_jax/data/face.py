"""The record every builder yields: one face, its label, its landmarks and the maps drawn from them.

Heatmaps are drawn here, by the one function each in ``fer_jax.landmarks``, so that a stored map can be drawn again from
the stored landmarks and compared.
"""

import io
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from fer_jax.landmarks.action_units import action_unit_map
from fer_jax.landmarks.heatmap import landmark_heatmap

# Canonical names. A builder's classes are a tuple of these in the data set's own order; join data sets by name only.
EXPRESSIONS = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt')

# Where landmarks come from; records store the index. 'image_box' points are untrustworthy: no face was detected.
LANDMARK_SOURCES = ('none', 'image_box', 'detector', 'exact')

MAP_SIZE = 56  # Side of the stored maps in pixels.


def png(image: np.ndarray) -> io.BytesIO:
  """Encodes a uint8 image (H, W) or RGB (H, W, 3) as PNG."""
  if image.ndim == 3:
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
  return io.BytesIO(cv2.imencode('.png', image)[1].tobytes())


def features(classes: tuple[str, ...], extra: dict[str, Any] | None = None) -> tfds.features.FeaturesDict:
  """TFDS features of the record with labels named ``classes``, plus a builder's ``extra`` features."""
  small_image = tfds.features.Image(shape=(MAP_SIZE, MAP_SIZE, 1), encoding_format='png')
  return tfds.features.FeaturesDict({
      'image': tfds.features.Image(shape=(None, None, None)),
      'label': tfds.features.ClassLabel(names=classes),
      'landmarks': tfds.features.Tensor(shape=(68, 2), dtype=np.float32),
      'landmark_source': tfds.features.Scalar(dtype=np.int32),
      'landmark_score': tfds.features.Scalar(dtype=np.float32),
      'landmark_heatmap': small_image,
      'action_unit_map': small_image,
      'name': tfds.features.Text(),
      **(extra or {}),
  })


def record(*, image: io.BytesIO | str, name: str, label: int, expression: str | None, size: tuple[int, int],
           landmarks: np.ndarray | None, source: str, score: float = 0.0, **extra: Any) -> dict[str, Any]:
  """Makes one record.

  Args:
    image: the encoded file as distributed (bytes or a path).
    name: the source's own file name; subset lists and duplicate lists key on it.
    label: index into the builder's classes, -1 if unknown.
    expression: canonical name of the class, or None; decides the action-unit map.
    size: (height, width) of the image in pixels.
    landmarks: (68, 2) x, y in pixels of the stored image, iBUG-68 order; None or NaN where not found.
    source: where the landmarks come from, one of ``LANDMARK_SOURCES``.
    score: the detector's score, 0 where there is none.
    **extra: values of the builder's extra features.

  Returns:
    A dict that fits ``features``.
  """
  if landmarks is None:
    landmarks = np.full((68, 2), np.nan)
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
