"""The head as numbers: 68 iBUG points in three dimensions, how identity shapes them and how action units move them.

Head coordinates: x to the viewer's right, y down, z towards the viewer; the origin lies between the eyes inside the
head and the unit is half the width of the face. All proportions and displacements are in ``head.toml``.
"""

import itertools
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

# MIRROR[k] is the point that point k becomes when the face is mirrored.
MIRROR = np.r_[16:-1:-1, 26:16:-1, 27:31, 35:30:-1, 45:41:-1, 47, 46, 39:35:-1, 41, 40, 54:47:-1, 59:54:-1, 64:59:-1,
               67:64:-1]

HEAD = tomllib.loads(Path(__file__).with_name('head.toml').read_text(encoding='utf-8'))


def _both_halves(left: Iterable[Sequence[float]], axes: int) -> np.ndarray:
  """(68, axes) from rows (point, values) of the left half and the midline."""
  whole = np.zeros((68, axes))
  for point, *values in left:
    whole[MIRROR[point]] = (-values[0], *values[1:])
    whole[point] = values
  return whole


FACE = _both_halves(itertools.chain(*HEAD['face'].values()), 3)
_LEFT_SKULL = np.array(HEAD['skull']['outline'])
SKULL = np.concatenate([_LEFT_SKULL, [(0, -1.38, -.1)], _LEFT_SKULL[::-1] * (-1, 1, 1)])
SHIFTS = {int(unit): _both_halves(left, 2) for unit, left in HEAD['shifts'].items()}

_LEFT = FACE[:, :1] < -1e-6
_RIGHT = FACE[:, :1] > 1e-6


def shape(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Draws an identity's neutral face (68, 3) and skull outline (11, 3) in head coordinates."""
  face, skull = FACE.copy(), SKULL.copy()
  u = rng.uniform

  def scale(points, around, x=1.0, y=1.0):
    face[points, :2] = around + (face[points, :2] - around) * (x, y)

  scale(slice(0, 17), (0, 0), x=u(.92, 1.06))
  face[4:13, 0] *= 1 + (u(.86, 1.12) - 1) * np.sin(np.linspace(.2, np.pi - .2, 9))  # narrow or square jaw
  face[5:12, 1] += u(-.08, .08)
  brow = slice(17, 27)
  face[brow, 1] += u(-.07, .05) + u(-.16, .16) * (np.abs(face[brow, 0]) - .5)  # height and slant
  scale(brow, (0, -.36), y=u(.4, 1.3))  # arch
  apart, wide, opened, slant = u(-.04, .04), u(.88, 1.12), u(.8, 1.25), u(-.12, .12)
  for eye, side in ((slice(36, 42), -1), (slice(42, 48), 1)):
    scale(eye, (side * .46, 0), wide, opened)
    face[eye, 1] += slant * (np.abs(face[eye, 0]) - .46)
    face[eye, 0] += side * apart
  scale(slice(31, 36), (0, .5), x=u(.8, 1.25))
  face[28:36, 1] += u(-.06, .05)
  face[30:36, 2] += u(-.08, .08)
  mouth = slice(48, 68)
  upper, lower, corner = u(.55, 1.35), u(.6, 1.35), u(-.04, .04)
  scale([49, 50, 51, 52, 53], (0, .9), y=upper)
  scale([55, 56, 57, 58, 59], (0, .91), y=lower)
  scale(mouth, (0, .91), x=u(.86, 1.14))
  face[[48, 54, 60, 64], 1] += corner
  face[mouth, 1] += u(-.04, .06)
  skull[:, :2] *= (u(.96, 1.04), u(.94, 1.06))
  return face, skull


def express(face: np.ndarray, action_units: dict[int, float], asymmetry: float = 0.0) -> np.ndarray:
  """Moves a neutral face by action units.

  Args:
    face: (68, 3) neutral face in head coordinates.
    action_units: strength in [0, 1] by number of the unit.
    asymmetry: the left half moves (1 + asymmetry) times, the right half (1 - asymmetry) times.

  Returns:
    (68, 3). Lids and lips meet but do not cross.
  """
  shift = np.zeros((68, 2))
  for unit, strength in action_units.items():
    shift += strength * SHIFTS[unit]
  moved = face.copy()
  moved[:, :2] += shift * (1 + asymmetry * (_LEFT.astype(float) - _RIGHT))
  y = moved[:, 1]
  for above, below, gap in ((37, 41, .03), (38, 40, .03), (44, 46, .03), (43, 47, .03),
                            (61, 67, 0), (62, 66, 0), (63, 65, 0)):
    excess = max(0.0, y[above] + gap - y[below]) / 2
    y[above] -= excess
    y[below] += excess
  y[[49, 50, 51, 52, 53]] = np.minimum(y[[49, 50, 51, 52, 53]], y[[61, 61, 62, 63, 63]] - .025)
  y[[58, 57, 56]] = np.maximum(y[[58, 57, 56]], y[[67, 66, 65]] + .03)
  return moved


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
  """(3, 3) rotation of head coordinates; angles in radians, positive: to the viewer's right, down, clockwise."""
  (sy, sp, sr), (cy, cp, cr) = np.sin([yaw, pitch, roll]), np.cos([yaw, pitch, roll])
  about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
  about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
  about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
  return about_z @ about_x @ about_y
