"""What is behind and in front of the face: background, hair, glasses and occluders."""

import cv2
import numpy as np

from fer_jax.data.builders.synthetic_faces.canvas import curve, disc, fill, stroke

_HAT = np.array([(1.15, -1.1, -.1), (.8, -1.75, -.2), (0, -1.95, -.2), (-.8, -1.75, -.2), (-1.15, -1.1, -.1)])


def background(rng: np.random.Generator, side: int) -> np.ndarray:
  """Draws a gradient, soft clutter and texture as uint8 (side, side, 3)."""
  corners = rng.uniform(30, 225) + rng.uniform(-45, 45, 3) + rng.uniform(-35, 35, (2, 2, 3))
  image = cv2.resize(corners.clip(0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_LINEAR)
  for _ in range(rng.integers(0, 7)):
    colour = rng.uniform(40, 215) + rng.uniform(-60, 60, 3)
    if rng.random() < .5:
      disc(image, rng.uniform(0, side, 2), side * rng.uniform(.05, .25), colour)
    else:
      stroke(image, rng.uniform(-.2, 1.2, (2, 2)) * side, colour, side * rng.uniform(.02, .2))
  cells = int(rng.integers(4, 24))
  texture = rng.normal(0, rng.uniform(2, 14), (cells, cells, 1)) * np.ones(3)
  texture = cv2.resize(texture.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
  image = cv2.blur(image, (2 * int(side * rng.uniform(.004, .04)) + 1,) * 2)
  return (image + texture).clip(0, 255).astype(np.uint8)


def hair_behind(image, person, project) -> None:
  """Draws hair behind the head: its volume and what falls beside the face."""
  if person.bald:
    return
  if person.hair_length < .5:
    outline = person.skull[1:-1] * (1.08, 1.1, 1)
  else:
    ends = np.array([(x, y * person.hair_length, 0) for x, y in ((-1, 1), (-1.03, .6), (1.03, .6), (1, 1))])
    outline = np.concatenate([ends[:2], person.skull, ends[2:]]) * (1.2, 1.12, 1)
  fill(image, curve(project(outline + (0, 0, -.25))), person.hair * .72)


def hair_in_front(image, person, project, unit: float) -> None:
  """Draws the hair above the hairline, with a few lighter and darker strands."""
  if person.bald:
    return
  x = np.linspace(-.93, .93, 7)
  depth = .38 - .45 * x**2
  hairline = np.stack([x, person.hairline, depth], -1)
  crown = person.skull[1:-1] * (1.08, 1.08, 1)
  top, bottom = curve(project(crown)), curve(project(hairline))
  fill(image, np.concatenate([top, bottom[::-1]]), person.hair)
  roots, tips = top[np.linspace(2, len(top) - 3, 9).astype(int)], bottom[np.linspace(1, len(bottom) - 2, 9).astype(int)]
  for k in range(9):
    stroke(image, np.stack([roots[k], .15 * roots[k] + .85 * tips[k]]), person.hair * (.8, 1.25)[k % 2], .03 * unit)


def glasses(image, face: np.ndarray, project, colour, width: float, dark: bool) -> None:
  """Draws spectacles, or sunglasses where ``dark``, resting on the neutral face."""
  angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
  rims = []
  for eye, side in ((slice(36, 42), -1), (slice(42, 48), 1)):
    middle = face[eye].mean(0) + (0, .05, .12)
    rim = middle + np.stack([.34 * np.cos(angles), .27 * np.sin(angles), 0 * angles], -1)
    rims.append(project(rim))
    outline = curve(rims[-1], closed=True)
    if dark:
      fill(image, outline, colour)
    stroke(image, np.concatenate([outline, outline[:1]]), colour, width)
    stroke(image, project(np.array([middle + (side * .34, -.05, 0), (side * 1.0, -.08, -.4)])), colour, width)
  stroke(image, np.stack([rims[0][0], rims[1][4]]), colour, width)


def occlude(image, kind: str, rng: np.random.Generator, person, project, unit: float) -> None:
  """Draws the occluder ``kind`` over the face; ``unit`` is the length of a head unit in pixels."""
  u = rng.uniform
  colour = u(20, 235, 3)
  if kind == 'hand':
    side = rng.choice([-1, 1])
    palm = project(np.array([(side * u(.75, 1.05), u(.9, 1.5), .5)]))[0]
    towards = project(np.array([(side * u(.1, .5), u(.1, .5), .6)]))[0] - palm
    angle = np.arctan2(towards[1], towards[0])
    skin = person.skin * u(.82, .95)
    for k, length in enumerate((.72, .85, .82, .66)):
      bend = angle + .22 * (k - 1.5)
      start = palm + unit * .2 * (k - 1.5) * np.array([-np.sin(angle), np.cos(angle)])
      finger = np.stack([start, start + unit * length * np.array([np.cos(bend), np.sin(bend)])])
      stroke(image, finger, skin * .62, unit * .22)
      stroke(image, finger, skin, unit * .16)
    disc(image, palm, unit * .45, skin)
  elif kind == 'scarf':
    top = u(1.1, 1.3)
    x = np.linspace(-1.3, 1.3, 7)
    edge = project(np.stack([x, top + .18 * x**2 - .15 * np.abs(x), .5 - .6 * x**2], -1))
    low = project(np.array([(1.6, 3.0, 0), (-1.6, 3.0, 0)]))
    fill(image, np.concatenate([curve(edge), low]), colour)
    for drop in (.18, .4):
      stroke(image, curve(edge + (0, drop * unit)), colour * .75, unit * .05)
  elif kind == 'hat':
    brim = u(-.72, -.55)
    x = np.linspace(-1.1, 1.1, 7)
    edge = project(np.stack([x, brim + .2 * x**2, .55 - .7 * x**2], -1))
    crown = project(_HAT)
    fill(image, np.concatenate([curve(edge), curve(crown)]), colour)
    stroke(image, curve(edge - (0, .08 * unit)), colour * .7, unit * .16)
  elif kind == 'strands':
    side = rng.choice([-1, 1])
    for _ in range(5):
      start = np.array([side * u(.1, .5), -1.0, .4])
      middle, end = (side * u(.35, .8), u(-.5, -.2), .5), (side * u(.45, .95), u(.1, .8), .35)
      strand = curve(project(np.array([start, middle, end])), samples=6)
      stroke(image, strand, person.hair * u(.8, 1.2), unit * u(.03, .07))
  elif kind == 'sunglasses':
    glasses(image, person.face, project, colour * .2, unit * .07, dark=True)
  elif kind == 'mask':
    face = person.face
    top = np.array([face[2] + (.05, -.1, .1), face[30] + (0, -.12, .05), face[14] + (-.05, -.1, .1)])
    bottom = np.array([face[12], face[9], face[8] + (0, .1, .1), face[7], face[4]])
    shade = (colour + 2 * np.array([190, 215, 230])) / 3
    fill(image, np.concatenate([curve(project(top)), curve(project(bottom))]), shade)
    for y in (.65, .85, 1.05):
      stroke(image, curve(project(np.array([(-.6, y, .3), (0, y + .05, .6), (.6, y, .3)]))), shade * .86, unit * .03)
