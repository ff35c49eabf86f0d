"""Maps that a run wants drawn otherwise than the builders drew them, from the landmarks of a record."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.data.face import MAP_SIZE
from fer_jax.errors import UserError, nearest
from fer_jax.landmarks.action_units import CODEBOOK, DRAWING, GEOMETRY, action_unit_map, action_unit_maps
from fer_jax.landmarks.heatmap import landmark_heatmap

# Every option there is, with the value that the builders draw with; '': as the geometry says.
DEFAULTS = {
    'landmark_heatmap': {'sigma': 3 / 224, 'points': 'no_jaw', 'combine': 'sum'},
    'action_unit_map': {'geometry': 'code', 'disgust': '', 'au20_right': '', 'au10': '', 'au6': '', 'radii': 'scaled'},
    'action_unit_generic_map': False,
    'action_unit_random_map': False,
}

WITH_UNITS = tuple(expression for expression, units in CODEBOOK.items() if units)

Draw = Callable[[np.ndarray, str | None, str], np.ndarray]


def redrawn(maps: Mapping[str, Any], image_size: int, drawing: int = DRAWING) -> dict[str, Draw]:
  """Returns how to draw the maps that are not to be taken from the records.

  Args:
    maps: as ``DEFAULTS``, where what is missing comes from: options of ``landmarks.heatmap.landmark_heatmap`` and
      ``landmarks.action_units.action_unit_map``, and whether the action-unit maps of no expression in particular and of
      a random one (``random_expression``) are wanted, which are drawn with the options of ``action_unit_map``. The
      random one is empty where that of the face's own expression is: both speak of the same faces.
    image_size: side in pixels of the images in a batch; what ``radii='fixed_px'`` is relative to.
    drawing: by which rules the maps of the records were drawn, see ``landmarks.action_units.DRAWING``.

  Returns:
    {map: draw}, where draw(landmarks, expression, name) takes (68, 2) fractions, a canonical name or None, and the data
    set's own name of the face, and returns uint8 (56, 56). Maps whose options and rules draw what the builders drew are
    not in it.

  Raises:
    UserError: an unknown map, option or value.
  """
  for name, value in maps.items():
    if name not in DEFAULTS:
      raise UserError(f"data.maps has no '{name}'{nearest(name, DEFAULTS)}")
    for option in value if isinstance(DEFAULTS[name], dict) else ():
      if option not in DEFAULTS[name]:
        raise UserError(f"data.maps.{name} has no option '{option}'{nearest(option, DEFAULTS[name])}")
  heatmap = {**DEFAULTS['landmark_heatmap'], **maps.get('landmark_heatmap', {})}
  draws = {}
  if heatmap != DEFAULTS['landmark_heatmap']:
    draws['landmark_heatmap'] = lambda landmarks, *_: landmark_heatmap(landmarks, MAP_SIZE, **heatmap)
  switches = _switches(maps)

  def draw_units(landmarks: np.ndarray, expression: str | None, _: str = '') -> np.ndarray:
    return action_unit_map(landmarks, expression, MAP_SIZE, image_size=image_size, **switches)

  def draw_random(landmarks: np.ndarray, expression: str | None, name: str) -> np.ndarray:
    own, at = draw_units(landmarks, expression), WITH_UNITS.index(random_expression(name))
    # On a face that is all but outside of the image an expression may show nothing, and the next one is taken.
    drawn = (draw_units(landmarks, other) for other in WITH_UNITS[at:] + WITH_UNITS[:at])
    return next(image for image in drawn if image.any()) if own.any() else own

  if drawing != DRAWING or _in_full(**switches) != _in_full(**_switches({})):
    draws['action_unit_map'] = draw_units
  if maps.get('action_unit_generic_map'):
    draws['action_unit_generic_map'] = lambda landmarks, *_: draw_units(landmarks, 'any')
  if maps.get('action_unit_random_map'):
    draws['action_unit_random_map'] = draw_random
  for name, draw in draws.items():
    try:
      draw(np.full((68, 2), 0.5), None, '')
    except (UserError, TypeError, ValueError, ZeroDivisionError) as error:
      raise UserError(f'data.maps.{name}: {error}') from error
  return draws


def unit_maps(landmarks: np.ndarray, expressions: Sequence[str | None], size: int, maps: Mapping[str, Any],
              image_size: int) -> np.ndarray:
  """Draws the action-unit maps of several expressions on one face.

  Args:
    landmarks: (68, 2) fractions.
    expressions: K canonical names, None for a class without one.
    size: side of the maps in pixels.
    maps: as in ``redrawn``, which has checked them.

  Returns:
    uint8 (K, size, size); zeros where an expression has no action units or the face no landmarks.
  """
  return action_unit_maps(landmarks, expressions, size, image_size=image_size, **_switches(maps))


def random_expression(name: str) -> str:
  """Returns one of ``WITH_UNITS``, all of them equally likely, whatever the label.

  Args:
    name: the data set's own name of the face, which alone decides: every process, split and run draws the same.
  """
  return WITH_UNITS[int.from_bytes(hashlib.sha256(name.encode()).digest()) % len(WITH_UNITS)]


def _switches(maps: Mapping[str, Any]) -> dict[str, str]:
  """The options of an action-unit map that are set."""
  units = {**DEFAULTS['action_unit_map'], **maps.get('action_unit_map', {})}
  return {key: value for key, value in units.items() if value != ''}


def _in_full(geometry: str = '', **switches: str) -> dict[str, str]:
  """The options of an action-unit map with what its geometry leaves unsaid."""
  return {**GEOMETRY.get(geometry, {}), **switches}
