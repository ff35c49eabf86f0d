"""Draws one face: the same person twice, with and without expression, from back to front."""

import dataclasses
import functools

import cv2
import numpy as np

from fer_jax.data.builders.synthetic_faces import anatomy, casting, surroundings
from fer_jax.data.builders.synthetic_faces.canvas import curve, disc, fill, over, ribbon, stroke
from fer_jax.data.builders.synthetic_faces.relief import head_light, relief

_MIDDLE = np.array([0, .42, .2])  # The point of the head that lies in the middle of the image, in head coordinates.
_CAMERA = 7.0  # Distance of the camera in head units: weak perspective.
_OVERSAMPLING = 2
_CHANGED = 8  # Grey levels by which a pixel must change to belong to the causal mask.

_BROWS = np.array([(17, 18, 19, 20, 21), (26, 25, 24, 23, 22)])  # outer to inner
_BROW_PROFILE = np.array([.3, .8, 1.0, 1.15, .9])
_BODY = np.array([(-.62, .9, -.5), (.62, .9, -.5), (.68, 1.9, -.5), (1.9, 2.4, -.6), (2, 3.2, -.6), (-2, 3.2, -.6),
                  (-1.9, 2.4, -.6), (-.68, 1.9, -.5)])
_EARS = np.array([(-.98, .2, -.4), (.98, .2, -.4)])
_EYES = np.array([(36, 37, 38, 39, 40, 41), (45, 44, 43, 42, 47, 46)])  # outer corner, upper, inner corner, lower


@dataclasses.dataclass(frozen=True)
class Face:
  """A drawn face."""

  image: np.ndarray  # uint8 (size, size, 3), RGB.
  landmarks: np.ndarray  # float32 (68, 2), x, y in pixels, iBUG-68 order; 0 is the left (top) edge of the image.
  causal_mask: np.ndarray  # uint8 (size, size), 255 where the image differs from that of the same face at neutral.
  action_units: dict[int, float]  # Strength in (0, 1] by number of the unit.
  intensity: float  # Of the expression, in [0.5, 1]; 0 for neutral.


def draw_face(rng: np.random.Generator, expression: str, size: int = 64) -> Face:
  """Draws a random face.

  Args:
    expression: 'neutral', or one that has action units in ``fer_jax.landmarks.action_units.CODEBOOK``.
    size: side of the image in pixels.

  Returns:
    The face. The causal mask compares two renderings without noise in which only the action units differ; that of a
    neutral face is empty.

  Raises:
    UserError: the expression cannot be drawn.
  """
  person, view = casting.draw_person(rng), casting.draw_view(rng)
  action_units, intensity = casting.draw_action_units(rng, expression)
  asymmetry = rng.uniform(-.15, .15)
  occluder = casting.draw_occluder(rng)
  side = size * _OVERSAMPLING

  def project(points: np.ndarray) -> np.ndarray:
    """(n, 3) head coordinates to (n, 2) pixels of the drawing, where 0 is the middle of the first pixel."""
    turned = (points - _MIDDLE) @ view.rotation.T
    near = _CAMERA / (_CAMERA - turned[:, 2:])
    return side * (view.centre + view.scale * near * turned[:, :2]) - .5

  behind = _behind(surroundings.background(rng, side), person, view, project)
  light = head_light(side, project, view)
  in_front = _in_front(side, occluder, rng, person, view, project)

  def photograph(face: np.ndarray, strengths: dict[int, float]) -> np.ndarray:
    head = _head(behind.copy(), light, face, strengths, person, view, project)
    return _develop(over(head, in_front), view, size)

  face = anatomy.express(person.face, action_units, asymmetry)
  image = photograph(face, action_units)
  changed = np.zeros((size, size), np.uint8)
  if intensity:
    difference = cv2.absdiff(image, photograph(anatomy.express(person.face, {}), {}))
    changed[functools.reduce(cv2.max, cv2.split(difference)) > _CHANGED] = 255
  noise = view.noise * rng.standard_normal((size, size, 3), np.float32)  # Last, so that size changes nothing else.
  landmarks = (project(face) + .5) / _OVERSAMPLING
  return Face((image + noise).clip(0, 255).astype(np.uint8), landmarks.astype(np.float32), changed, action_units,
              intensity)


def _develop(image: np.ndarray, view, size: int) -> np.ndarray:
  """The camera: pixels of the final size, blur, saturation and tint; float32 (size, size, 3)."""
  image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
  if view.blur * size > .2:
    image = cv2.GaussianBlur(image, (0, 0), view.blur * size)
  colour = view.saturation * np.eye(3) + (1 - view.saturation) / 3
  return np.clip(cv2.transform(image.astype(np.float32), view.tint[:, None] * colour), 0, 255)


def _behind(image: np.ndarray, person, view, project) -> np.ndarray:
  """Draws hair, neck, shoulders and ears over the background."""
  surroundings.hair_behind(image, person, project)
  body = project(_BODY)
  fill(image, body[[0, 1, 2, -1]], person.skin * .62)
  fill(image, body[2:], person.cloth * .8)
  for ear in project(_EARS):
    disc(image, ear, .17 * view.scale * len(image), person.skin * .72)
  return image


def _in_front(side: int, occluder: str, rng: np.random.Generator, person, view, project) -> np.ndarray:
  """Draws hair, glasses and an occluder as an RGBA layer, uint8 (side, side, 4)."""
  unit = view.scale * side
  layer = np.zeros((side, side, 4), np.uint8)
  surroundings.hair_in_front(layer, person, project, unit)
  if person.glasses:
    surroundings.glasses(layer, person.face, project, person.hair * .5, person.glasses * unit, dark=False)
  surroundings.occlude(layer, occluder, rng, person, project, unit)
  exposure = min(1.0, view.ambient + .5 * view.diffuse)
  return cv2.multiply(layer, (exposure, exposure, exposure, 1.0))


def _head(image: np.ndarray, light: np.ndarray, face: np.ndarray, strengths: dict[int, float], person, view,
          project) -> np.ndarray:
  """Draws the head over ``image``, lit by ``light`` (side, side)."""
  side = len(image)
  unit = view.scale * side
  p = project(face)
  outline = cv2.convexHull(np.concatenate([p[:17], project(person.skull)]).astype(np.float32))[:, 0]
  skin = np.zeros((side, side), np.uint8)
  fill(skin, outline, 255.0)
  fill(image, outline, person.skin)
  _mouth(image, p, person, unit)
  gaze = project(face[_EYES].mean(1) + (*view.gaze, 0))
  for k in range(2):
    _eye(image, p[_EYES[k]], gaze[k], person, unit)
    _brow(image, p[_BROWS[k]], person, unit)
    disc(image, p[(32, 34)[k]] - (0, .01 * unit), .045 * unit, person.skin * .35)  # nostril
  light = light * relief(side, unit, face, strengths, person, view, project)
  amount = 1 + (light - 1) * (skin * np.float32(1 / 255))
  return cv2.multiply(image, cv2.merge([amount] * 3), dtype=cv2.CV_8U)


def _mouth(image, p: np.ndarray, person, unit: float) -> None:
  """Draws lips, and the cavity with teeth and tongue where they part."""
  top, bottom = curve(p[48:55]), curve(p[[54, 55, 56, 57, 58, 59, 48]])
  fill(image, np.concatenate([top, bottom]), person.lips)
  upper, lower = curve(p[60:65]), curve(p[[60, 67, 66, 65, 64]])
  fill(image, np.concatenate([top, upper[::-1]]), person.lips * .86)
  gap = np.linalg.norm(p[66] - p[62])
  cavity = np.concatenate([upper, lower[::-1]])
  if gap > .03 * unit:
    mask = np.zeros(image.shape[:2], np.uint8)
    fill(mask, cavity, 255)
    inside = image.copy()
    inside[:] = (62, 22, 24)
    down = (p[66] - p[62]) / gap
    disc(inside, p[66] + .02 * unit * down, min(.2 * unit, .5 * gap), (168, 76, 78))
    edge = p[62] + min(.11 * unit, .6 * gap) * down + .8 * (p[[64, 60]] - p[[64, 60]].mean(0))
    fill(inside, np.concatenate([upper, edge]), (236, 232, 222))
    cv2.copyTo(inside, mask, image)
  stroke(image, upper, person.lips * .42, .035 * unit)
  if gap > .03 * unit:
    stroke(image, lower, person.lips * .7, .02 * unit)


def _eye(image, p: np.ndarray, gaze: np.ndarray, person, unit: float) -> None:
  """Draws an eye from its six points (outer corner, upper lid, inner corner, lower lid)."""
  upper, lower = curve(p[:4]), curve(p[[3, 4, 5, 0]])
  low, high = np.floor(p.min(0) - .1 * unit).astype(int), np.ceil(p.max(0) + .1 * unit).astype(int)
  low, high = low.clip(0, len(image)), high.clip(0, len(image))
  patch = image[low[1]:high[1], low[0]:high[0]]
  if patch.size == 0:
    return
  inside = np.empty_like(patch)
  inside[:] = (232, 228, 224)
  mask = np.zeros(patch.shape[:2], np.uint8)
  fill(mask, np.concatenate([upper, lower]) - low, 255)
  disc(inside, gaze - low, .125 * unit, person.iris * .6)
  disc(inside, gaze - low, .105 * unit, person.iris)
  disc(inside, gaze - low, .055 * unit, (12, 10, 10))
  disc(inside, gaze - low + (.04 * unit, -.04 * unit), .028 * unit, (250, 250, 250))
  cv2.copyTo(inside, mask, patch)
  stroke(image, upper, person.skin * .18, .05 * unit)
  stroke(image, lower, person.skin * .55, .025 * unit)


def _brow(image, p: np.ndarray, person, unit: float) -> None:
  """Draws a brow from its five points, outer to inner."""
  line = curve(p)
  widths = person.brow_width * unit * curve(_BROW_PROFILE)
  shade = person.brow_shade
  fill(image, ribbon(line, widths), person.skin * (1 - shade) * .6 + person.hair * shade * .8)
