"""Who is drawn, doing what, seen how: everything random about a face, drawn once so that it can be rendered twice.

Angles are in radians, lengths in head units (half the width of the face) unless said otherwise; colours are RGB in
[0, 255].
"""

import types

import numpy as np

from fer_jax.data.builders.synthetic_faces import anatomy
from fer_jax.errors import UserError, nearest
from fer_jax.landmarks.action_units import CODEBOOK

_SKINS = np.array([(255, 219, 196), (240, 194, 162), (224, 172, 132), (198, 138, 98), (150, 98, 66), (104, 66, 46)],
                  float)
_HAIRS = np.array([(28, 22, 20), (58, 38, 26), (100, 66, 38), (168, 122, 66), (214, 180, 120), (140, 58, 32),
                   (170, 168, 166)], float)
_IRISES = np.array([(60, 38, 24), (96, 62, 34), (74, 104, 66), (70, 112, 156), (98, 108, 116)], float)

# Lips cannot be pressed together and open, so a face that should do both does one of the two.
_CLOSING, _OPENING = {23, 24}, {10, 16, 25, 26, 27}

OCCLUDERS = ('none', 'hand', 'scarf', 'hat', 'strands', 'sunglasses', 'mask')
_OCCLUDER_ODDS = (.78, .05, .03, .06, .04, .02, .02)


def draw_person(rng: np.random.Generator) -> types.SimpleNamespace:
  """Draws an identity; its skin, hair, iris, lips and cloth are colours."""
  u = rng.uniform
  face, skull = anatomy.shape(rng)
  tone = u(0, len(_SKINS) - 1)
  low = int(tone)
  skin = _SKINS[low] + (tone - low) * (_SKINS[min(low + 1, len(_SKINS) - 1)] - _SKINS[low]) + u(-9, 9, 3)
  hair = _HAIRS[rng.choice(len(_HAIRS) if tone < 2.5 else 2)] * u(.8, 1.15)
  makeup = u(0, 1) ** 2
  part = u(-.6, .6)
  across = np.linspace(-1, 1, 7)
  return types.SimpleNamespace(
      face=face,  # (68, 3) neutral face in head coordinates
      skull=skull,  # (11, 3)
      skin=skin, hair=hair, iris=_IRISES[rng.choice(len(_IRISES) if tone < 2.5 else 2)],
      lips=skin * (.86 - .08 * makeup, .60 - .22 * makeup, .58 - .14 * makeup),
      cloth=u(20, 235, 3),
      hairline=u(-1.0, -.72) + u(-.08, .25) * (across - part) ** 2 + u(-.05, .05, 7),  # its height, left to right
      hair_length=rng.choice([0, u(.7, 2.2)], p=[.55, .45]),  # y to which hair falls beside the face; 0: it does not
      bald=rng.random() < .07, brow_width=u(.075, .14), brow_shade=u(.55, .9),
      wrinkles=u(.55, 1.1),  # how deep lines are
      stubble=max(0.0, u(-.4, .3)),
      glasses=rng.choice([0, .03, .06], p=[.84, .1, .06]))  # width of the frame; 0 without


def draw_view(rng: np.random.Generator) -> types.SimpleNamespace:
  """Draws pose, light and camera."""
  u = rng.uniform
  light = np.array([u(-1, 1), u(-.9, .35), u(.35, 1)])
  return types.SimpleNamespace(
      rotation=anatomy.rotation(*np.deg2rad(u(-1, 1, 3) * (30, 14, 20))),
      scale=u(.32, .39),  # head units to fractions of the image
      centre=.5 + u(-.08, .08, 2),  # fraction of the image where the middle of the face is seen
      gaze=u(-1, 1, 2) * (.05, .02),
      light=light / np.linalg.norm(light),  # towards the light
      ambient=u(.5, .8), diffuse=u(.25, .6),
      tint=u(.82, 1.12) * u(.92, 1.08, 3),  # gain of the colour channels
      blur=max(0.0, u(-.006, .012)),  # standard deviation in fractions of the image
      noise=u(1, 8),  # standard deviation in grey levels
      saturation=rng.choice([0, u(.5, 1), 1], p=[.12, .4, .48]))


def draw_action_units(rng: np.random.Generator, expression: str) -> tuple[dict[int, float], float]:
  """Draws what a face does.

  Args:
    expression: one that has action units in the codebook, or 'neutral': a trace of a few random ones.

  Returns:
    (strength in (0, 1] by action unit, intensity): intensity is in [0.5, 1], 0 for neutral. Each unit has its own
    strength around the intensity, and some are left out.

  Raises:
    UserError: the expression is neither.
  """
  drawable = {name for name, units in CODEBOOK.items() if units or name == 'neutral'}
  if expression not in drawable:
    raise UserError(f"synthetic_faces cannot draw '{expression}'{nearest(expression, drawable)}")
  if expression == 'neutral':
    units = rng.choice(sorted(anatomy.SHIFTS), size=rng.integers(0, 4), replace=False)
    return {int(unit): float(rng.uniform(.03, .14)) for unit in units}, 0.0
  intensity = float(rng.uniform(.5, 1))
  units = [unit for unit in CODEBOOK[expression] if rng.random() > .1] or list(CODEBOOK[expression])
  if _CLOSING & set(units) and _OPENING & set(units):
    dropped = _CLOSING if rng.random() < .5 else _OPENING
    units = [unit for unit in units if unit not in dropped]
  return {unit: float(np.clip(intensity * rng.uniform(.75, 1.25), 0, 1)) for unit in units}, intensity


def draw_occluder(rng: np.random.Generator) -> str:
  """Draws one of ``OCCLUDERS``; most faces have none."""
  return str(rng.choice(OCCLUDERS, p=_OCCLUDER_ODDS))
