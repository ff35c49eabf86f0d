"""The head as numbers: 68 iBUG points in three dimensions, how identity shapes them and how action units move them.

Head coordinates: x to the viewer's right, y down, z towards the viewer; the origin lies between the eyes inside the
head and the unit is half the width of the face. Tables list the left half and the midline; the right half is their
mirror image. All proportions and displacements are our own, drawn by hand after the descriptions in the Facial Action
Coding System (Ekman and Friesen, 1978).
"""

import numpy as np

# MIRROR[k] is the point that point k becomes when the face is mirrored.
MIRROR = np.r_[16:-1:-1, 26:16:-1, 27:31, 35:30:-1, 45:41:-1, 47, 46, 39:35:-1, 41, 40, 54:47:-1, 59:54:-1, 64:59:-1,
               67:64:-1]

_LEFT_FACE = {
    # jaw, ear to chin
    0: (-1.00, -.05, -.45), 1: (-.99, .22, -.41), 2: (-.96, .48, -.36), 3: (-.90, .74, -.30), 4: (-.79, .98, -.20),
    5: (-.62, 1.18, -.05), 6: (-.43, 1.33, .09), 7: (-.22, 1.42, .18), 8: (0, 1.45, .22),
    # brow, outer to inner
    17: (-.80, -.27, .12), 18: (-.68, -.37, .25), 19: (-.52, -.41, .34), 20: (-.36, -.39, .40), 21: (-.20, -.34, .43),
    # nose: bridge, then nostrils
    27: (0, -.06, .42), 28: (0, .12, .52), 29: (0, .29, .63), 30: (0, .46, .74), 31: (-.20, .57, .45),
    32: (-.10, .61, .50), 33: (0, .63, .54),
    # eye: outer corner, upper lid, inner corner, lower lid
    36: (-.70, .00, .10), 37: (-.57, -.11, .20), 38: (-.38, -.11, .22), 39: (-.23, .02, .18), 40: (-.38, .08, .20),
    41: (-.56, .08, .18),
    # mouth: outer contour, then inner contour
    48: (-.38, .91, .28), 49: (-.25, .83, .42), 50: (-.10, .79, .47), 51: (0, .81, .48), 57: (0, 1.05, .43),
    58: (-.12, 1.04, .42), 59: (-.26, .99, .37), 60: (-.33, .91, .30), 61: (-.15, .895, .42), 62: (0, .90, .44),
    66: (0, .91, .43), 67: (-.15, .91, .42),
}

# Left half of the outline above the jaw, ear to crown; no action unit moves it.
_LEFT_SKULL = ((-.95, .15, .02), (-.99, -.35, -.25), (-.93, -.75, -.2), (-.72, -1.1, -.15), (-.36, -1.31, -.1))

# Displacements (dx, dy) at full strength. AU 26 and 27 add up, as do 25 and 26.
_LEFT_SHIFTS = {
    1: {19: (0, -.08), 20: (.01, -.18), 21: (.02, -.24)},
    2: {17: (0, -.14), 18: (0, -.20), 19: (0, -.16), 20: (0, -.05)},
    4: {17: (.01, .03), 18: (.03, .07), 19: (.05, .12), 20: (.08, .16), 21: (.10, .18), 38: (0, .02)},
    5: {37: (0, -.09), 38: (0, -.09), 40: (0, .015), 41: (0, .015)},
    6: {40: (0, -.05), 41: (0, -.06), 36: (0, .01)},
    7: {37: (0, .035), 38: (0, .035), 40: (0, -.04), 41: (0, -.04)},
    9: {20: (.02, .07), 21: (.04, .10), 38: (0, .04), 40: (0, -.03), 30: (0, -.05), 31: (-.02, -.08), 32: (0, -.07),
        33: (0, -.06), 49: (0, -.06), 50: (0, -.07), 51: (0, -.06), 61: (0, -.05), 62: (0, -.05)},
    10: {31: (-.01, -.03), 49: (-.02, -.09), 50: (0, -.12), 51: (0, -.11), 61: (0, -.11), 62: (0, -.11)},
    12: {48: (-.14, -.14), 60: (-.14, -.13), 49: (-.08, -.05), 59: (-.09, -.06), 50: (-.02, .01), 51: (0, .02),
         58: (-.03, 0), 61: (-.03, 0), 67: (-.03, 0), 3: (-.02, 0), 4: (-.02, 0)},
    15: {48: (-.01, .14), 60: (-.01, .13), 49: (0, .04), 59: (-.01, .08), 58: (0, .01), 67: (0, .01), 61: (0, .01)},
    16: {57: (0, .09), 58: (-.01, .09), 59: (-.02, .06), 66: (0, .09), 67: (0, .09)},
    17: {6: (0, -.02), 7: (0, -.05), 8: (0, -.06), 48: (0, .03), 60: (0, .03), 50: (0, -.04), 51: (0, -.04),
         57: (0, -.07), 58: (0, -.07), 59: (0, -.03), 61: (0, -.04), 62: (0, -.04), 66: (0, -.05), 67: (0, -.05)},
    20: {48: (-.16, .03), 60: (-.16, .03), 49: (-.09, .01), 59: (-.09, .01), 58: (-.03, -.01), 50: (-.02, .01),
         61: (-.05, 0), 67: (-.05, .01), 4: (-.02, 0), 5: (-.02, 0)},
    23: {48: (.08, 0), 60: (.08, 0), 49: (.05, .02), 50: (.02, .03), 51: (0, .03), 57: (0, -.04), 58: (.02, -.04),
         59: (.05, -.03)},
    24: {48: (.02, .01), 60: (.02, .01), 49: (0, .03), 50: (0, .04), 51: (0, .04), 57: (0, -.05), 58: (0, -.05),
         59: (0, -.03)},
    25: {50: (0, -.02), 51: (0, -.02), 61: (0, -.025), 62: (0, -.03), 57: (0, .05), 58: (0, .05), 59: (0, .03),
         66: (0, .08), 67: (0, .07)},
    26: {3: (0, .02), 4: (.01, .06), 5: (.01, .10), 6: (0, .13), 7: (0, .14), 8: (0, .15), 48: (.02, .04),
         60: (.02, .04), 57: (0, .14), 58: (0, .14), 59: (0, .10), 66: (0, .15), 67: (0, .13)},
    27: {3: (0, .02), 4: (.01, .06), 5: (.01, .10), 6: (0, .13), 7: (0, .14), 8: (0, .15), 48: (.07, .03),
         60: (.07, .03), 49: (.03, -.01), 50: (.01, -.02), 51: (0, -.02), 61: (.01, -.03), 62: (0, -.03), 57: (0, .15),
         58: (.01, .14), 59: (.03, .11), 66: (0, .16), 67: (.01, .14)},
}


def _both_halves(left: dict[int, tuple[float, ...]], axes: int) -> np.ndarray:
  """(68, axes) from a table of the left half and the midline."""
  whole = np.zeros((68, axes))
  for point, values in left.items():
    whole[MIRROR[point]] = (-values[0], *values[1:])
    whole[point] = values
  return whole


FACE = _both_halves(_LEFT_FACE, 3)
SKULL = np.concatenate([_LEFT_SKULL, [(0, -1.38, -.1)], np.array(_LEFT_SKULL)[::-1] * (-1, 1, 1)])
SHIFTS = {unit: _both_halves(left, 2) for unit, left in _LEFT_SHIFTS.items()}

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
