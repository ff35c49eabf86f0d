"""Light and shadow on the face: the head's roundness, and the folds and bulges that action units make in the skin."""

import itertools

import cv2
import numpy as np

from fer_jax.data.builders.synthetic_faces.anatomy import MIRROR
from fer_jax.data.builders.synthetic_faces.canvas import curve, disc, fill, stroke

# Lines: (depth at rest, depth added by action unit, width, points), a point being (landmark, dx, dy) on the left half.
# Lines follow the landmarks they hang on.
_FOLDS = (
    # nasolabial fold: nostril to beside the corner of the mouth
    (.14, {9: .45, 10: .5, 12: .5, 6: .1, 20: .2}, .05, ((31, -.03, -.04), (49, -.17, -.08), (48, -.10, .02))),
    # marionette line: corner of the mouth downwards
    (.04, {15: .6, 17: .2}, .05, ((48, -.02, .03), (48, -.08, .12), (48, -.07, .24))),
    # end of a stretched mouth
    (0, {12: .4, 20: .5}, .04, ((48, -.06, -.08), (48, -.10, .0), (48, -.06, .09))),
    # lines across the forehead
    (.03, {1: .4, 2: .3}, .04, ((21, .20, -.10), (20, 0, -.12), (18, .02, -.14))),
    (.03, {1: .4, 2: .3}, .04, ((21, .20, -.22), (20, 0, -.24), (18, .04, -.25))),
    # upright line between the brows
    (.03, {4: .8, 9: .2}, .05, ((21, .11, -.12), (21, .10, .02), (21, .13, .14))),
    # nose wrinkles: from the bridge towards the inner corners of the eyes
    (0, {9: .9}, .04, ((27, 0, -.02), (27, -.09, .02), (27, -.16, .10))),
    (0, {9: .9}, .04, ((28, 0, -.05), (28, -.10, .00), (28, -.19, .10))),
    # crow's feet
    (.03, {6: .5}, .03, ((36, -.06, -.03), (36, -.12, -.07), (36, -.18, -.12))),
    (.03, {6: .5}, .03, ((36, -.06, .03), (36, -.13, .05), (36, -.19, .09))),
    # under the eye
    (.12, {6: .45, 7: .35, 9: .2}, .04, ((39, -.02, .07), (40, 0, .07), (41, 0, .08), (36, .03, .08))),
    # crease between lower lip and chin
    (.12, {17: .5, 24: .2}, .06, ((58, -.06, .11), (57, 0, .12))),
    # fold of the upper lid
    (.35, {4: .1}, .03, ((36, .0, -.06), (37, 0, -.075), (38, 0, -.075), (39, 0, -.05))),
    # wing of the nose
    (.5, {9: .2, 10: .1}, .04, ((31, -.02, -.12), (31, -.05, -.04), (31, .01, .03))),
)

# Bulges and hollows: (brightness at rest, brightness added by action unit, radius, (landmark, dx, dy)).
_BULGES = (
    (.05, {6: .2, 12: .1}, .20, (41, .02, .30)),  # apple of the cheek
    (-.08, {6: -.1, 12: -.12}, .14, (48, -.22, .02)),  # hollow beside the mouth
    (.05, {17: .3}, .14, (8, -.08, -.17)),  # boss of the chin
    (-.10, {4: -.1}, .12, (39, .02, -.10)),  # socket of the eye
    (0, {4: .2}, .09, (21, .06, -.06)),  # bunched skin between the brows
    (0, {15: .18}, .09, (48, -.08, .16)),  # pouch beside a drooping corner
)


def _rows(table, columns):
  """Splits anchors into landmark indices and offsets, left half first, then right."""
  anchors = [row[columns] for row in table]
  index = np.array([a[0] for a in anchors])
  offset = np.array([(a[1], a[2], .03) for a in anchors])
  return np.concatenate([index, MIRROR[index]]), np.concatenate([offset, offset * (-1, 1, 1)])


_FOLD_INDEX, _FOLD_OFFSET = _rows([(point,) for fold in _FOLDS for point in fold[3]], 0)
_FOLD_ENDS = np.cumsum([0] + [len(fold[3]) for fold in _FOLDS])
_JAW = np.arange(2, 15, 2)
_UPPER_LIP = np.array([(.62, .75, .3), (.3, .70, .45), (-.3, .70, .45), (-.62, .75, .3)])
_BULGE_INDEX, _BULGE_OFFSET = _rows(_BULGES, 3)


def _amount(rest: float, added: dict[int, float], action_units: dict[int, float]) -> float:
  return rest + sum(weight * action_units.get(unit, 0.0) for unit, weight in added.items())


def head_light(side: int, project, view) -> np.ndarray:
  """Lambertian light on an ellipsoid around the head as float32 (side, side)."""
  centre, right = project(np.array([(0, .1, 0), (.1, .1, 0)])) / 2
  radius = view.scale * side / 2
  x, y = np.meshgrid(*(np.arange(side // 2, dtype=np.float32) - np.float32(c) for c in centre))
  cos, sin = (right - centre) / np.linalg.norm(right - centre)
  u, v = (cos * x + sin * y) / (1.15 * radius), (cos * y - sin * x) / (1.55 * radius)
  nx, ny = cos * u - sin * v, sin * u + cos * v
  nz = np.sqrt(np.maximum(.05, 1 - u * u - v * v))
  lx, ly, lz = view.light
  lambert = (nx * lx + ny * ly + nz * lz) / np.sqrt(nx * nx + ny * ny + nz * nz)
  light = view.ambient + view.diffuse * np.maximum(0, lambert)
  return cv2.resize(light.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)


def relief(side: int, unit: float, face: np.ndarray, action_units: dict[int, float], person, view,
           project) -> np.ndarray:
  """Draws folds, bulges and the shadow of the nose as a factor on the light.

  Args:
    side: side of the drawing in pixels.
    unit: length of a head unit in pixels.
    face: (68, 3) expressive face in head coordinates.
    action_units: strength by number.
    person: depth of wrinkles.
    view: the light.
    project: takes (n, 3) head coordinates to (n, 2) pixels.

  Returns:
    float32 (side, side), 1 where the skin is even.
  """
  small = side // 2
  soft = np.full((small, small), 128, np.uint8)
  if person.stubble:
    beard = np.concatenate([face[_JAW], _UPPER_LIP])
    fill(soft, curve(project(beard) / 2, closed=True), 128.0 * (1 - person.stubble))
  bulges = project(face[_BULGE_INDEX] + _BULGE_OFFSET) / 2
  for k, centre in enumerate(bulges):
    rest, added, radius, _ = _BULGES[k % len(_BULGES)]
    amount = _amount(rest, added, action_units)
    if abs(amount) > .02:
      disc(soft, centre, radius * unit / 2, 128 + 127 * min(amount, 1))
  shadow = project(face[[27, 30, 33]]) / 2
  cast = shadow[1:] - np.sign(view.light[0]) * (.08 + .16 * abs(view.light[0])) * np.array([unit / 2, 0])
  fill(soft, np.concatenate([shadow, cast[::-1]]), 128 - 150 * view.diffuse * abs(view.light[0]) ** .5)
  fill(soft, project(face[[31, 33, 35]] + np.array([(0, .02, 0), (0, .16, -.1), (0, .02, 0)])) / 2, 100)
  soft = cv2.GaussianBlur(soft, (0, 0), .05 * unit / 2)
  sharp = np.full((side, side), 128, np.uint8)
  points = project(face[_FOLD_INDEX] + _FOLD_OFFSET)
  for (rest, added, width, _), (start, end) in zip(_FOLDS, itertools.pairwise(_FOLD_ENDS), strict=True):
    amount = person.wrinkles * _amount(rest, added, action_units)
    if amount > .02:
      for half in (0, _FOLD_ENDS[-1]):
        stroke(sharp, curve(points[half + start:half + end]), 128 - 80 * min(amount, 1.2), width * unit)
  sharp = cv2.GaussianBlur(sharp, (0, 0), .02 * unit)
  soft = cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR)
  return cv2.multiply(soft, sharp, scale=1 / 128**2, dtype=cv2.CV_32F)
