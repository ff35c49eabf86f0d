"""Curves through points, and anti-aliased filling and stroking of them with OpenCV.

Images may be grey, RGB or RGBA. What is drawn on an RGBA image of zeros has its colours multiplied by alpha, because
OpenCV blends all channels alike; ``over`` lays such an image over another.
"""

import functools

import cv2
import numpy as np

_SHIFT = 4  # OpenCV takes fixed-point coordinates with this many fractional bits.


@functools.cache
def _catmull_rom(count: int, samples: int, closed: bool) -> np.ndarray:
  """Matrix that takes ``count`` control points to points on the uniform Catmull-Rom spline through them."""
  segments = count if closed else count - 1
  matrix = np.zeros((segments * samples + (not closed), count))
  for row in range(len(matrix)):
    segment, t = min(row // samples, segments - 1), row / samples
    t -= segment
    weights = ((-t + 2 * t**2 - t**3) / 2, (2 - 5 * t**2 + 3 * t**3) / 2, (t + 4 * t**2 - 3 * t**3) / 2,
               (-t**2 + t**3) / 2)
    for offset, weight in zip(range(-1, 3), weights, strict=True):
      point = segment + offset
      matrix[row, point % count if closed else min(max(point, 0), count - 1)] += weight
  return matrix


def curve(points: np.ndarray, closed: bool = False, samples: int = 4) -> np.ndarray:
  """Points (n, 2) on a smooth curve through ``points`` (m, 2), ``samples`` to a segment."""
  return _catmull_rom(len(points), samples, closed) @ points


def _fixed(points: np.ndarray) -> np.ndarray:
  return np.rint(points * 2**_SHIFT).astype(np.int32)


def _opaque(colour) -> tuple[float, ...]:
  return (colour,) if np.isscalar(colour) else (*colour, 255.0)


def fill(image: np.ndarray, points: np.ndarray, colour) -> None:
  """Fills a polygon with corners ``points`` (n, 2), in pixels, in place."""
  cv2.fillPoly(image, [_fixed(points)], _opaque(colour), cv2.LINE_AA, _SHIFT)


def stroke(image: np.ndarray, points: np.ndarray, colour, width: float) -> None:
  """Draws an open line through ``points`` (n, 2), in pixels, in place; ``width`` is rounded to whole pixels."""
  cv2.polylines(image, [_fixed(points)], False, _opaque(colour), max(1, round(width)), cv2.LINE_AA, _SHIFT)


def ribbon(points: np.ndarray, widths: np.ndarray) -> np.ndarray:
  """Outline of a line through ``points`` (n, 2) whose width changes along it: ``widths`` (n,), in pixels."""
  along = np.gradient(points, axis=0)
  across = along[:, ::-1] * (-1, 1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-6)
  across = across * widths[:, None] / 2
  return np.concatenate([points + across, (points - across)[::-1]])


def disc(image: np.ndarray, centre: np.ndarray, radius: float, colour) -> None:
  """Fills a circle, in pixels, in place."""
  x, y = _fixed(centre).tolist()
  cv2.circle(image, (x, y), round(radius * 2**_SHIFT), _opaque(colour), cv2.FILLED, cv2.LINE_AA, _SHIFT)


def over(image: np.ndarray, layer: np.ndarray) -> np.ndarray:
  """Lays an RGBA ``layer``, colours multiplied by alpha, over an RGB ``image``, both uint8; returns RGB uint8."""
  *colours, alpha = cv2.split(layer)
  behind = cv2.multiply(image, cv2.merge([255 - alpha] * 3), scale=1 / 255)
  return cv2.add(behind, cv2.merge(colours))
