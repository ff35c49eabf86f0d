"""Augmentation on the device: pure functions of a batch and one key per example, to be called inside the jitted step.

Flip, rotation, scaled crop and shift are composed into one affine map per example, and further with the box of each
region where a face is seen as several; the image is resampled once. The maps and the landmarks go through the affine
map of the full face. Colour, noise and erasing touch the image only. Every effect has random numbers of its own, so
switching one on does not change the others, and an example's augmentation does not depend on the batch, the devices or
the processes around it.

An affine map is a (2, 3) matrix ``[A | t]`` that sends a point of the output to the point of the input it is read from,
both as (x, y) fractions of the image side measured from the image centre: ``input = A @ output + t``. Images are square
(``reading.splits`` makes them so).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.resampling import warp
from fer_jax.landmarks.heatmap import FLIP
from fer_jax.landmarks.regions import FULL, RANDOM_CROPS, region_boxes

Batch = dict[str, Any]
Drawn = dict[str, jax.Array]  # By the names of _DRAWN.

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # Of ImageNet's RGB values in [0, 1], as in torchvision.

MAPS = ('landmark_heatmap', 'action_unit_map', 'action_unit_generic_map', 'action_unit_random_map', 'causal_mask')

# What is drawn for an example, one uniform number each. Append only, or old seeds give other pictures: with JAX's
# counter-based generator a number depends on its place alone.
_DRAWN = ('flip', 'rotation', 'rotate', 'scale', 'shift_x', 'shift_y', 'brightness', 'contrast', 'saturation', 'hue',
          'jitter', 'grey', 'noisy', 'erase', 'area', 'ratio', 'top', 'left')
_STREAMS = ('pixel_noise', 'fill', 'target', 'regions')  # What draws more than a number has a key of its own.

# A product, not a quotient by 255: XLA's rounding of the quotient depends on what it is compiled with.
_LEVEL = np.float32(1 / 255)

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601 weights of R, G, B.


def example_keys(seed: int, step: int | jax.Array, rows: jax.Array) -> jax.Array:
  """Returns one typed PRNG key per row of the global batch, ``rows`` (b,) int: (b,). ``step`` may be traced."""
  step_key = jax.random.fold_in(jax.random.key(seed), step)
  return jax.vmap(lambda row: jax.random.fold_in(step_key, row))(rows)


def augment(batch: Batch, keys: jax.Array, *, image_size: int, regions: Mapping[str, Any] | None = None,
            flip: float = 0.5, rotation: float = 0.0, rotation_probability: float = 1.0,
            scale: tuple[float, float] = (1.0, 1.0), translate: float = 0.0,
            brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0,
            jitter_probability: float = 1.0, grey: float = 0.0, noise: float = 0.0, noise_probability: float = 1.0,
            erasing: float = 0.0, erasing_area: tuple[float, float] = (0.02, 0.1),
            erasing_ratio: tuple[float, float] = (0.3, 3.3), erasing_fill: tuple[float, ...] = MEAN) -> Batch:
  """Augments a batch.

  Args:
    batch: ``image`` (b, H, H, C) uint8 with C in {1, 3}; where present, ``MAPS`` (b, h, h) uint8 and ``landmarks``
      (b, 68, 2) fractions of width and height, NaN where there is none. Other fields pass through.
    keys: (b,) typed PRNG keys, from ``example_keys``.
    image_size: side of the output image in pixels. Bilinear without a low-pass filter: to shrink by much, set the
      stored side with ``splits.Split``'s ``size``.
    regions: keyword arguments of ``landmarks.regions.region_boxes``: each face becomes R images, cut from the input
      image in the same resampling; region 0 is bit for bit the full face. Needs ``landmarks``. None: one image.
    flip: probability of a mirror image; landmarks are renumbered.
    rotation: the angle is uniform in +-``rotation`` degrees, around the image centre.
    rotation_probability: share of the examples that are rotated.
    scale: range of the crop's side as a fraction of the image side, uniform; its position is uniform in the image (a
      side above 1 shrinks the image). Outside, images continue their border and maps are 0.
    translate: the crop is shifted further by up to this fraction of the image side, uniform in x and y.
    brightness: factor on the values, uniform in 1 +- ``brightness``.
    contrast: factor on the distance from the image's mean luma, uniform in 1 +- ``contrast``.
    saturation: factor on the distance from the pixel's luma, uniform in 1 +- ``saturation``.
    hue: rotation about the grey axis of RGB, uniform in +-``hue`` of a full turn.
    jitter_probability: share of the examples whose brightness, contrast, saturation and hue are changed.
    grey: probability that the colours of an image are replaced by its luma.
    noise: standard deviation of Gaussian noise, values in [0, 1].
    noise_probability: share of the examples that get noise.
    erasing: probability that one rectangle is erased (Zhong et al., Random Erasing, arXiv 1708.04896, algorithm 1; a
      rectangle that does not fit is cut to the image instead of drawn again).
    erasing_area: range of its area as a fraction of the image.
    erasing_ratio: range of its height over its width; log-uniform.
    erasing_fill: its colour in [0, 1], one value per RGB channel (their mean for grey images); empty: uniform noise.
      The default is what becomes 0 in ``normalise``.

  Returns:
    The batch with ``image`` float32 (b, image_size, image_size, C) in [0, 1], or (b, R, image_size, image_size, C) with
    regions, maps float32 (b, h, h) in [0, 1] and ``landmarks`` as fractions of the new image (they may leave [0, 1]).
  """
  drawn = jax.vmap(lambda key: dict(zip(_DRAWN, jax.random.uniform(key, (len(_DRAWN),)), strict=True)))(keys)
  image, strengths = batch['image'], (brightness, contrast, saturation, hue)
  if any(strengths) or grey:
    # Before the warp, where images are smaller as a rule, and XLA gathers once and not once per term of the colours.
    image = jax.vmap(lambda *one: _recolour(*one, strengths, jitter_probability, grey))(image, drawn)
  uniform = jax.vmap(lambda key: _region_numbers(_stream(key, 'regions'), regions))(keys)
  matrices = jax.vmap(lambda one: _affine(one, flip, rotation, rotation_probability, scale, translate))(drawn)
  batch, boxes = _resample({**batch, 'image': image}, matrices, image_size, regions, uniform, turned=rotation != 0)
  image = batch['image']
  if noise:
    # Compiled for itself: in one kernel with the resampling, the number of regions would decide how XLA rounds the sum.
    image = jax.lax.optimization_barrier(image)
    image = jax.vmap(lambda *one: _add_noise(*one, noise, noise_probability))(image, drawn, keys)
  if erasing:
    image = jax.vmap(lambda *one: _erase(*one, erasing, erasing_area, erasing_ratio, erasing_fill)
                     )(image, drawn, keys, boxes)
  return {**batch, 'image': image if regions else image[:, 0]}


def resize(batch: Batch, image_size: int, regions: Mapping[str, Any] | None = None) -> Batch:
  """Returns the evaluation form of a batch: ``augment``'s output for no augmentation at all.

  Not random: random regions are the same for every face.
  """
  # One map for all faces, and one set of regions where these do not follow the landmarks: computed once.
  uniform = _region_numbers(jax.random.key(0), regions)[None]
  batch, _ = _resample(batch, None, image_size, regions, uniform, turned=False)
  return batch if regions else {**batch, 'image': batch['image'][:, 0]}


def normalise(images: jax.Array, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> jax.Array:
  """Returns (images - mean) / std as float32 (..., h, w, 3); ``images`` (..., h, w, C) in [0, 1], grey is repeated."""
  images = jnp.broadcast_to(images, (*images.shape[:-1], 3))
  mean, std = (jnp.broadcast_to(np.float32(values), images.shape) for values in (mean, std))
  return (images.astype(jnp.float32) - mean) / std


def draw_target(target: jax.Array, keys: jax.Array) -> jax.Array:
  """Draws one class per example from its distribution, FERPlus' rule 'probability' (Barsoum et al., ICMI 2016, 4.2).

  Args:
    target: (b, K) distributions; a row of zeros (unknown) stays zero.

  Returns:
    (b, K) float32, one-hot.
  """
  draw = lambda key, logits: jax.random.categorical(_stream(key, 'target'), logits)
  classes = jax.vmap(draw)(keys, jnp.log(target))
  return jax.nn.one_hot(classes, target.shape[1]) * (target.sum(1, keepdims=True) > 0)


def move_landmarks(landmarks: jax.Array, matrices: jax.Array) -> jax.Array:
  """Moves landmarks (b, 68, 2), fractions of the image side, the way ``warp`` moves the image; NaN stays NaN."""
  (a, b, t), (c, d, u) = jnp.moveaxis(matrices[..., None], 0, 2)
  x, y = landmarks[..., 0] - 0.5 - t, landmarks[..., 1] - 0.5 - u
  determinant = a * d - b * c
  moved = jnp.stack([d * x - b * y, a * y - c * x], -1) / determinant[..., None] + 0.5
  return jnp.where(determinant[..., None] < 0, moved[:, FLIP], moved)


def _resample(batch: Batch, matrices: jax.Array | None, image_size: int, regions: Mapping[str, Any] | None,
              uniform: jax.Array, turned: bool) -> tuple[Batch, jax.Array]:
  """Sends maps, landmarks and every region of the image through affine maps; the batch, and the regions' boxes.

  ``matrices`` (b, 2, 3), or None: the identity for all faces, ``uniform`` being (1, count, 3).
  """
  still, matrices = matrices is None, jnp.eye(2, 3)[None] if matrices is None else matrices

  def moved_by(matrices: jax.Array, images: jax.Array, size: int, fill: str) -> jax.Array:
    if still and matrices.ndim == 3 and size == images.shape[1]:
      return images.astype(jnp.float32)  # As the warp would give it, bit for bit.
    return warp(images, matrices, size, fill, turned)

  moved = {name: moved_by(matrices, batch[name][..., None], batch[name].shape[1], 'zero')[..., 0] * _LEVEL
           for name in MAPS if name in batch}
  if 'landmarks' in batch:
    moved['landmarks'] = move_landmarks(batch['landmarks'], matrices)
  if regions:
    points = moved['landmarks'] if regions['scheme'] == 'landmark' else jnp.zeros((uniform.shape[0], 68, 2))
    uniform = jnp.broadcast_to(uniform, (points.shape[0], *uniform.shape[1:]))
    boxes = jax.vmap(lambda points, numbers: region_boxes(points, numbers, **regions))(points, uniform)
    image = moved_by(_within(matrices, boxes), batch['image'], image_size, 'edge')
  else:
    boxes = jnp.broadcast_to(jnp.float32(FULL), (len(matrices), 1, 4))
    image = moved_by(matrices, batch['image'], image_size, 'edge')[:, None]
  return {**batch, **moved, 'image': image * _LEVEL}, boxes


def _within(matrices: jax.Array, boxes: jax.Array) -> jax.Array:
  """Affine maps (b, R, 2, 3) of the boxes (b, R, 4) cut from the outputs of affine maps (b, 2, 3)."""
  # Sums of products instead of a matrix product, which accelerators round; the full face keeps its matrix exactly.
  linear, offset = matrices[:, None, :, :2], matrices[:, None, :, 2]
  sides = boxes[..., 2:] - boxes[..., :2]
  centres = (boxes[..., 2:] + boxes[..., :2]) / 2 - 0.5
  moved = linear[..., 0] * centres[..., :1] + linear[..., 1] * centres[..., 1:] + offset
  return jnp.concatenate([linear * sides[..., None, :], moved[..., None]], axis=-1)


def _region_numbers(key: jax.Array, regions: Mapping[str, Any] | None) -> jax.Array:
  """The uniform numbers (count, 3) that random regions are made from."""
  return jax.random.uniform(key, ((regions or {}).get('count', RANDOM_CROPS), 3))


def _between(drawn: jax.Array, low: float, high: float) -> jax.Array:
  return low + (high - low) * drawn


def _stream(key: jax.Array, name: str) -> jax.Array:
  return jax.random.fold_in(key, _STREAMS.index(name))


def _affine(drawn: Drawn, flip: float, rotation: float, rotation_probability: float, scale: tuple[float, float],
            translate: float) -> jax.Array:
  """One example's affine map (2, 3): rotate around the centre, cut out, flip; here from the output backwards."""
  mirror = jnp.where(drawn['flip'] < flip, -1.0, 1.0)
  angle = jnp.deg2rad(_between(drawn['rotation'], -rotation, rotation)) * (drawn['rotate'] < rotation_probability)
  side = _between(drawn['scale'], *scale)
  reach = abs(1 - side) / 2 + translate
  x, y = (_between(drawn[name], -reach, reach) for name in ('shift_x', 'shift_y'))
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return jnp.array([[cos * side * mirror, -sin * side, cos * x - sin * y],
                    [sin * side * mirror, cos * side, sin * x + cos * y]])


def _recolour(image: jax.Array, drawn: Drawn, strengths: tuple[float, ...], probability: float, grey: float
              ) -> jax.Array:
  """Brightness, contrast, saturation, hue, grey in this order, as one affine map of one image's colours.

  The formulas are torchvision's except for hue. Values (0 to 255) are clipped once, at the end.
  """
  image = image.astype(jnp.float32)
  channels = image.shape[-1]
  *strengths, hue = strengths
  bright, contrasted, saturated = (_between(drawn[name], 1 - strength, 1 + strength) for name, strength in zip(
      ('brightness', 'contrast', 'saturation'), strengths, strict=True))
  angle = 2 * jnp.pi * _between(drawn['hue'], -hue, hue)
  eye, luma = np.eye(3, dtype=np.float32), np.tile(np.float32(_LUMA), (3, 1))
  mean = (jnp.broadcast_to(image.mean((0, 1)), 3) * luma[0]).sum()
  offset = (1 - contrasted) * bright * mean  # What follows leaves greys alone, so the offset stays one number.
  matrix = bright * contrasted * (luma + saturated * (eye - luma))
  cross = (np.roll(eye, 1, 0) - np.roll(eye, -1, 0)) / np.sqrt(3, dtype=np.float32)
  turn = jnp.cos(angle) * eye + (1 - jnp.cos(angle)) / 3 + jnp.sin(angle) * cross  # Rodrigues, about (1, 1, 1).
  matrix = jnp.matmul(turn, matrix, precision='highest')
  jittered = drawn['jitter'] < probability
  matrix, offset = jnp.where(jittered, matrix, eye), jnp.where(jittered, offset, 0)
  matrix = jnp.where(drawn['grey'] < grey, jnp.matmul(luma, matrix, precision='highest'), matrix)
  # The product channel by channel as sums of rolled images: 20 times as fast as a dot over an axis of 3 on the CPU. A
  # grey image has one channel k, and its rolls are itself.
  k = np.arange(channels)
  weights = [jnp.broadcast_to(matrix[k, (k + shift) % 3], image.shape) for shift in range(3)]
  image = sum(weight * jnp.roll(image, -shift, -1) for shift, weight in enumerate(weights))
  return jnp.clip(image + offset, 0, 255)


def _add_noise(image: jax.Array, drawn: Drawn, key: jax.Array, noise: float, probability: float) -> jax.Array:
  """Adds Gaussian noise to the regions (R, h, w, C) of one face, if it is chosen."""
  noise = jnp.where(drawn['noisy'] < probability, noise, 0.0)
  return jnp.clip(image + noise * jax.random.normal(_stream(key, 'pixel_noise'), image.shape), 0, 1)


def _erase(image: jax.Array, drawn: Drawn, key: jax.Array, boxes: jax.Array, probability: float,
           area: tuple[float, float], ratio: tuple[float, float], fill: tuple[float, ...]) -> jax.Array:
  """Erases one rectangle of the face in all its regions (R, h, w, C), cut at ``boxes`` (R, 4), if it is chosen."""
  _, rows, columns, channels = image.shape
  area = _between(drawn['area'], *area)
  ratio = jnp.exp(_between(drawn['ratio'], *np.log(ratio)))

  def inside(start, side, size, axis):
    side = jnp.minimum(side, 1)
    low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
    centres = low + (high - low) * ((jnp.arange(size) + 0.5) / size)
    return (centres >= start * (1 - side)) & (centres <= start * (1 - side) + side)

  erased = inside(drawn['top'], jnp.sqrt(area * ratio), rows, 1)[:, :, None, None]
  erased &= inside(drawn['left'], jnp.sqrt(area / ratio), columns, 0)[:, None, :, None]
  if len(fill) == 0:
    colour = jax.random.uniform(_stream(key, 'fill'), image.shape)
  else:
    colour = jnp.broadcast_to(np.float32(fill if channels == 3 else [np.mean(fill)]), image.shape)
  return jnp.where(erased & (drawn['erase'] < probability), colour, image)
