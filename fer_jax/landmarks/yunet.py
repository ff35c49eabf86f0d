"""Finds faces on a photograph with YuNet, a small network that OpenCV runs from a user's file.

Wu et al., "YuNet: A tiny millisecond-level face detector", Machine Intelligence Research 2023. It finds five points of
a face, which are those of ``align.TEMPLATE`` in their order: the person's right eye, which is on the left of the
picture, comes first, then the left eye, the nose, the right and the left corner of the mouth.
"""

import os
from pathlib import Path

import cv2
import numpy as np

from fer_jax.errors import UserError
from fer_jax.landmarks import detect

_SCORE = 0.6  # Of a face at least: the default of the example in OpenCV's model zoo.
_OVERLAP = 0.3  # Intersection over union from which two boxes are one face: OpenCV's.
# Photographs are reduced to it. The zoo says that faces of about 10 to 300 pixels are found, for so it was trained:
# here those from 1/64 to a half of the long side.
_LONG_SIDE = 640


class YuNet:
  """A YuNet file; where dlib is installed, its predictor adds the 68 landmarks."""

  def __init__(self, path: str, landmark_model: str | None = None):
    """Loads the model.

    Args:
      path: the .onnx file.
      landmark_model: dlib's 68-point model; None: the one of ``face_recognition_models``.

    Raises:
      UserError: there is no such file, it is no YuNet, or a ``landmark_model`` is given and cannot be used.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
      raise UserError(f'no face detector at {path}; give the path of a YuNet .onnx file (face_detection_yunet of '
                      "OpenCV's model zoo).")
    try:
      self._detector = cv2.FaceDetectorYN.create(str(path), '', (64, 64), _SCORE, _OVERLAP)
      self._detector.detect(np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
      raise UserError(f'{path} is not a YuNet face detector: {error.err or error}') from error
    try:
      self._landmarks = detect.detector(landmark_model)
    except UserError:
      if landmark_model:
        raise
      self._landmarks = None

  def faces(self, image: np.ndarray) -> list[detect.Detected]:
    """Finds all faces on a photograph, the surest first.

    Args:
      image: uint8 (H, W) or RGB (H, W, 3), upright.
    """
    height, width = image.shape[:2]
    small = detect.resized(image, min(1, _LONG_SIDE / max(height, width)))
    self._detector.setInputSize(small.shape[1::-1])
    rows = self._detector.detect(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR if small.ndim == 2 else cv2.COLOR_RGB2BGR))[1]
    factors, found = np.array([width / small.shape[1], height / small.shape[0]]), []
    for row in sorted([] if rows is None else rows, key=lambda row: -row[14]):
      left, top = row[:2] * factors
      right, bottom = (row[:2] + row[2:4]) * factors
      points = (row[4:14].reshape(5, 2) * factors).astype(np.float32)
      landmarks = self._landmarks and self._landmarks.landmarks_at(image, points)
      found.append(detect.Detected((float(left), float(top), float(right), float(bottom)), float(row[14]), points,
                                   landmarks))
    return found
