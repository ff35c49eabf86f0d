"""Light and shadow on the face: the head's roundness, and the folds and bulges that action units make in the skin."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from fer_jax.data.builders.synthetic_faces.anatomy import HEAD, MIRROR
from fer_jax.data.builders.synthetic_faces.canvas import curve, disc, fill, stroke

_FOLDS, _BULGES = HEAD['folds'], HEAD['bulges']


def _both_halves(anchors: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
  """Landmark indices and offsets of anchors (landmark, dx, dy), left half first, then right."""
  index = np.array([point for point, _, _ in anchors])
  offset = np.array([(dx, dy, .03) for _, dx, dy in anchors])
  return np.concatenate([index, MIRROR[index]]), np.concatenate([offset, offset * (-1, 1, 1)])


_FOLD_INDEX, _FOLD_OFFSET = _both_halves([point for fold in _FOLDS for point in fold['points']])
_FOLD_ENDS = np.cumsum([0] + [len(fold['points']) for fold in _FOLDS])
_BULGE_INDEX, _BULGE_OFFSET = _both_halves([bulge['point'] for bulge in _BULGES])
_JAW = np.arange(2, 15, 2)
_UPPER_LIP = np.array([(.62, .75, .3), (.3, .70, .45), (-.3, .70, .45), (-.62, .75, .3)])


def _amount(of: Mapping[str, Any], action_units: dict[int, float]) -> float:
  """The depth of a fold or the brightness of a bulge."""
  return of['rest'] + sum(weight * action_units.get(int(unit), 0.0) for unit, weight in of['added'].items())


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
    bulge = _BULGES[k % len(_BULGES)]
    amount = _amount(bulge, action_units)
    if abs(amount) > .02:
      disc(soft, centre, bulge['radius'] * unit / 2, 128 + 127 * min(amount, 1))
  shadow = project(face[[27, 30, 33]]) / 2
  cast = shadow[1:] - np.sign(view.light[0]) * (.08 + .16 * abs(view.light[0])) * np.array([unit / 2, 0])
  fill(soft, np.concatenate([shadow, cast[::-1]]), 128 - 150 * view.diffuse * abs(view.light[0]) ** .5)
  fill(soft, project(face[[31, 33, 35]] + np.array([(0, .02, 0), (0, .16, -.1), (0, .02, 0)])) / 2, 100)
  soft = cv2.GaussianBlur(soft, (0, 0), .05 * unit / 2)
  sharp = np.full((side, side), 128, np.uint8)
  points = project(face[_FOLD_INDEX] + _FOLD_OFFSET)
  for fold, (start, end) in zip(_FOLDS, itertools.pairwise(_FOLD_ENDS), strict=True):
    amount = person.wrinkles * _amount(fold, action_units)
    if amount > .02:
      for half in (0, _FOLD_ENDS[-1]):
        stroke(sharp, curve(points[half + start:half + end]), 128 - 80 * min(amount, 1.2), fold['width'] * unit)
  sharp = cv2.GaussianBlur(sharp, (0, 0), .02 * unit)
  soft = cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR)
  return cv2.multiply(soft, sharp, scale=1 / 128**2, dtype=cv2.CV_32F)
