"""Draws the map of facial action units of an expression from 68 landmarks, the anatomical prior of AU cues.

Source: arXiv 2402.00281 and its code (sbelharbi/interpretable-fer-aus). The geometry of the code differs from that of
the paper in four places; ``GEOMETRY`` names them.
"""

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np

from fer_jax.errors import UserError, nearest

# The codebook of FACS action units. Neutral shows none. Contempt has no entry in the source: it is a *one-sided* AU 12
# and 14, and two-sided they would be the map of a smile, so it has none here either.
CODEBOOK = {
    'neutral': (),
    'happiness': (6, 12, 25),
    'surprise': (1, 2, 5, 26, 27),
    'sadness': (1, 4, 6, 15, 17),
    'anger': (4, 5, 7, 10, 17, 23, 24, 25, 26),
    'disgust': (9, 5, 16, 17, 25, 26),  # The code's; GEOMETRY['disgust'] may put AU 10, the paper's, for AU 5.
    'fear': (1, 2, 4, 5, 20, 25, 26, 27),
    'contempt': (),
}

# The action units of the codebook. The expression 'any' shows them all: a map of where expressions lie that tells no
# class. The source's own such map has two more, the dimple and the closed eye, which the geometry 'code' draws too.
UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 23, 24, 25, 26, 27)
MORE_UNITS = (14, 43)
ANY = 'any'

RADII = ('scaled', 'fixed_px')

# The four switches and what each preset sets: ``code`` is what the published numbers were made with, ``intended`` what
# the paper's figures say and what is symmetric.
GEOMETRY = {
    'code': {'disgust': 'au5', 'au20_right': 'p50', 'au10': 'code', 'au6': 'offset'},
    'intended': {'disgust': 'au10', 'au20_right': 'p54', 'au10': 'midpoints', 'au6': 'cheek'},
}

# What the rules of this file draw: prepared data say by which of them their maps were drawn, and those drawn by others
# are drawn again when they are read. To be raised where a map changes.
DRAWING = 2

_CANVAS = 224  # The source's radii are for images of this side in pixels; its integer truncation is done at it.
_COARSE = 28
_BITS = 8  # Of the fractions of a pixel that OpenCV is told.


def action_unit_map(landmarks: np.ndarray | None, expression: str | None, size: int, geometry: str = 'code',
                    radii: str = 'scaled', image_size: int = _CANVAS, **switches: str) -> np.ndarray:
  """Draws the action units of ``expression`` (arXiv 2402.00281, section 3).

  Each action unit is one or two filled ellipses, as OpenCV fills them, on a canvas of 224 px, shrunk to 28 by bilinear
  sampling, blurred by a 3x3 box and enlarged again; the map is the pixel-wise maximum over action units, scaled to its
  own minimum and maximum.

  Args:
    landmarks: (68, 2) x, y as fractions of width and height, iBUG-68 order; None or any NaN where not known.
    expression: a key of ``CODEBOOK``; 'any' for all action units, whatever the face shows; None if unknown.
    size: side of the map in pixels.
    geometry: a key of ``GEOMETRY``.
    radii: 'scaled': radii that the source gives in pixels are shares of the image side, as they are at 224 px;
      'fixed_px': they stay that many pixels on an image of another side, as in the source's code.
    image_size: side in pixels of the image, for 'fixed_px'.
    **switches: single entries of the preset to override: disgust, au20_right, au10, au6.

  Returns:
    uint8 (size, size); zeros where nothing is to be drawn: no landmarks, no action units, or all outside the image.

  Raises:
    UserError: an unknown name; the message lists the choices.
  """
  return action_unit_maps(landmarks, [expression], size, geometry, radii, image_size, **switches)[0]


def action_unit_maps(landmarks: np.ndarray | None, expressions: Sequence[str | None], size: int, geometry: str = 'code',
                     radii: str = 'scaled', image_size: int = _CANVAS, **switches: str) -> np.ndarray:
  """Draws the maps of K expressions on one face, where an action unit that they share is drawn once.

  Everything is as in ``action_unit_map``; the result is uint8 (K, size, size).
  """
  if geometry not in GEOMETRY:
    raise UserError(f"unknown geometry '{geometry}'{nearest(geometry, GEOMETRY)}")
  if radii not in RADII:
    raise UserError(f"unknown radii '{radii}'{nearest(radii, RADII)}")
  choice = GEOMETRY[geometry] | switches
  for name, value in switches.items():
    if value not in (known := {preset.get(name) for preset in GEOMETRY.values()}):
      raise UserError(f"unknown geometry switch {name}='{value}'; known values: {known}")
  for expression in expressions:
    if expression not in (None, ANY, *CODEBOOK):
      raise UserError(f"unknown expression '{expression}'{nearest(expression, (ANY, *CODEBOOK))}")
  maps = np.zeros((len(expressions), size, size), np.uint8)
  if landmarks is None or not np.isfinite(landmarks).all():
    return maps
  # Truncated like the source's; the small term keeps a whole pixel whole after its way through float32 fractions.
  p = np.trunc(np.clip(np.asarray(landmarks, np.float64), -99, 99) * _CANVAS + 1e-3).tolist()
  pixel = 1.0 if radii == 'scaled' else _CANVAS / image_size
  # Made once and written over: making arrays of this size takes longer than filling them.
  result, *room = np.empty((1 + len(UNITS + MORE_UNITS), size, size), np.float32)
  drawn = functools.cache(lambda *ellipses: _enlarged(_draw(ellipses), room.pop()))  # Some units share them.
  layer = functools.cache(lambda unit: drawn(*_ellipses(unit, p, choice, pixel)))
  for i, expression in enumerate(expressions):
    units = _units(expression, choice) + MORE_UNITS * (expression == ANY and geometry == 'code')
    result[:] = 0
    for rows, image in map(layer, units):
      part = result[rows]
      np.maximum(part, image, out=part)
    low, high, *_ = cv2.minMaxLoc(result)
    if (low, high) == (0, 4):  # As they mostly are; the same numbers in one pass.
      cv2.convertScaleAbs(result, maps[i], alpha=255 / 4)
    elif high > low:
      result -= low
      result *= 255
      result /= high - low
      np.copyto(maps[i], np.rint(result, out=result), casting='unsafe')
  return maps


def _units(expression: str | None, choice: dict[str, str]) -> tuple[int, ...]:
  """The action units that are drawn for an expression."""
  units = UNITS if expression == ANY else CODEBOOK.get(expression, ())
  if expression == 'disgust' and choice['disgust'] == 'au10':
    units = tuple(10 if unit == 5 else unit for unit in units)
  return units


def _draw(ellipses: Sequence[tuple]) -> np.ndarray:
  """Filled ellipses (centre x, centre y, horizontal and vertical semi-axis) on the canvas, shrunk and blurred: float32
  (28, 28), 4 inside and 0 outside."""
  canvas = np.zeros((_CANVAS, _CANVAS), np.uint8)
  fine = lambda value: round(value * 2**_BITS)
  for x, y, a, b in ellipses:
    cv2.ellipse(canvas, (fine(x), fine(y)), (fine(a), fine(b)), 0, 0, 360, 4, cv2.FILLED, shift=_BITS)
  # Each is the mean of four pixels, so a whole number; bytes are a fourth of the work of floats.
  coarse = cv2.resize(canvas, (_COARSE, _COARSE), interpolation=cv2.INTER_LINEAR)
  return cv2.blur(np.float32(coarse), (3, 3))


def _enlarged(coarse: np.ndarray, room: np.ndarray) -> tuple[slice, np.ndarray]:
  """A unit (28, 28) enlarged to the size of ``room``: rows beyond which it is 0, and what they hold."""
  size, first, end = len(room), 0, _COARSE
  if size % _COARSE == 0 and len(there := coarse.any(axis=1).nonzero()[0]):  # With a row of zeros on either side.
    first, end = max(there[0] - 1, 0), min(there[-1] + 2, _COARSE)
  rows = slice(first * size // _COARSE, end * size // _COARSE)
  image = room[:rows.stop - rows.start]
  return rows, cv2.resize(coarse[first:end], image.shape[::-1], image, interpolation=cv2.INTER_LINEAR)


def _ellipses(unit: int, p: Sequence[Sequence[float]], choice: dict[str, str], pixel: float) -> list[tuple]:
  """The ellipses of one action unit for points (68, 2) in whole pixels of the canvas.

  A radius in the source's pixels is ``pixel`` times as many of the canvas; radii that are shares of the side are not.
  """
  def point(i, j, down=0):
    return p[i][0], p[j][1] + down

  def middle(i, j):
    return math.trunc((p[i][0] + p[j][0]) / 2), math.trunc((p[i][1] + p[j][1]) / 2)

  def between(left, right, top, bottom, otherwise=5, extra=0):
    halves = math.trunc((p[right][0] - p[left][0]) / 2), math.trunc((p[bottom][1] - p[top][1] + extra) / 2)
    return (middle(left, right)[0], middle(top, bottom)[1], *(h if h > 0 else otherwise * pixel for h in halves))

  def eyes(extra=0, otherwise=5):
    return [between(i, i + 3, i + 2, i + 5, otherwise, extra) for i in (36, 42)]

  def share_at(*centres, a, b=22):
    return [(*centre, a, b) for centre in centres]

  def pixels_at(*centres, a=20, b=20):
    return share_at(*centres, a=a * pixel, b=b * pixel)

  match unit:
    case 1:
      return share_at(p[20], p[23], a=28)
    case 2:
      return share_at(p[18], p[25], a=28)
    case 4:
      return [between(19, 24, 19, 24, otherwise=10)]
    case 5:
      return eyes()
    case 6:
      centres = (middle(41, 6), middle(46, 10)) if choice['au6'] == 'cheek' else (point(41, 41, 37), point(46, 46, 37))
      return share_at(*centres, a=22)
    case 7:
      return eyes(20 * pixel)
    case 9:
      return pixels_at(point(31, 29), point(35, 29))
    case 10:
      midpoints = choice['au10'] == 'midpoints'
      return pixels_at(*((middle(48, 50), middle(52, 54)) if midpoints else (point(48, 50), point(52, 54))))
    case 12 | 15:
      return pixels_at(p[48], p[54])
    case 14:
      left, right = max(p[48][0] - 20 * pixel, 0), min(p[54][0] + 20 * pixel, _CANVAS)
      return pixels_at((left, p[48][1]), (right, p[54][1]))
    case 16:
      return pixels_at(p[59], p[55])
    case 17:
      return [between(59, 8, 59, 8)]
    case 20:
      return pixels_at(middle(48, 6), middle(54 if choice['au20_right'] == 'p54' else 50, 10))
    case 23 | 24 | 26 | 27:
      return [between(48, 54, 51, 57)]
    case 25:
      return pixels_at(p[51], p[57], a=25, b=10)
    case 43:
      return eyes(20 * pixel, otherwise=0)
  raise ValueError(f'action unit {unit} has no geometry')
