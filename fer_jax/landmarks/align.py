"""Brings faces to one size and position: a similarity transform of five points onto a template.

Points are (x, y) in pixels, where 0 is the left (top) edge of an image; a pixel's centre lies half a pixel further.
"""

import cv2
import numpy as np

# Eyes, nose tip and corners of the mouth in an image of side 1, from left to right as seen: where ArcFace has them
# (arXiv 1801.07698; 112 x 112 pixels).
TEMPLATE = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
                     (70.7299, 92.2041)]) / 112


def five_points(landmarks: np.ndarray) -> np.ndarray:
  """The points of ``TEMPLATE`` (5, 2) of 68 landmarks (68, 2) in iBUG order."""
  return np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[30], landmarks[48], landmarks[54]])


def similarity(points: np.ndarray, size: int, template: np.ndarray = TEMPLATE) -> np.ndarray:
  """The rotation, scale and shift that bring ``points`` nearest to the template in the sense of least squares.

  Args:
    points: (5, 2), of the image.
    size: side of the aligned image in pixels.
    template: (5, 2), where they are to lie in an image of side 1.

  Returns:
    (2, 3) float64 ``[A | t]``: ``A @ point + t`` is a point of the aligned image. It never mirrors.
  """
  # As complex numbers a similarity is z -> a z + b: linear in a and b.
  z, target = (np.asarray(values, np.float64) @ np.array([1, 1j]) for values in (points, np.multiply(template, size)))
  a, b = np.linalg.lstsq(np.stack([z, np.ones(5)], axis=1), target, rcond=None)[0]
  return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def fitted(box: tuple[float, float, float, float], size: int) -> np.ndarray:
  """The scale and shift (2, 3) that fit a box (left, top, right, bottom) into the middle of a square."""
  left, top, right, bottom = box
  scale = size / max(right - left, bottom - top)
  return np.array([[scale, 0, (size - scale * (left + right)) / 2], [0, scale, (size - scale * (top + bottom)) / 2]])


def move(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
  """Sends points (..., 2) through a transform (2, 3)."""
  return points @ matrix[:, :2].T + matrix[:, 2]


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
  """Sends an image through a similarity (2, 3).

  Args:
    image: uint8 (H, W) or (H, W, 3).
    matrix: from ``similarity`` or ``fitted``.
    size: side of the result in pixels.

  Returns:
    uint8 (size, size, ...), bilinear after an area average where the image shrinks; outside, its border continues.
  """
  scale = np.hypot(matrix[0, 0], matrix[1, 0])
  if scale < 1:
    height, width = image.shape[:2]
    small = max(round(width * scale), 1), max(round(height * scale), 1)
    image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    matrix = matrix @ np.diag([width / small[0], height / small[1], 1])
  # OpenCV counts from the centre of the first pixel.
  matrix = matrix.copy()
  matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
  return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
