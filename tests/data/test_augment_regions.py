"""Regions in the augmentation: the full face untouched, crops cut in one resampling, one geometry for every region."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.data import augment
from fer_jax.landmarks.regions import TEMPLATE

SIDE = 24
EVERYTHING = {'rotation': 20.0, 'scale': (0.7, 1.2), 'translate': 0.1, 'brightness': 0.3, 'contrast': 0.3,
              'saturation': 0.3, 'hue': 0.1, 'noise': 0.05, 'erasing': 0.6, 'erasing_area': (0.05, 0.2)}
FIXED = [(0, 0, 1, 1), (0, 0, .75, .75), (.25, 0, 1, .75), (.125, .25, .875, 1), (.05, .05, .95, .95),
         (.075, .075, .925, .925)]
SCHEMES = [{'scheme': 'fixed5'}, {'scheme': 'random', 'count': 3, 'side': (0.4, 0.9)},
           {'scheme': 'landmark', 'landmark_side': 0.4}]
NAMES = [options['scheme'] for options in SCHEMES]


def make_batch(b=5, side=SIDE, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  landmarks = rng.uniform(0.1, 0.9, (b, 68, 2)).astype(np.float32)
  landmarks[0] = np.nan
  return {'image': rng.integers(0, 256, (b, side, side, channels), dtype=np.uint8), 'landmarks': landmarks,
          'landmark_heatmap': rng.integers(0, 256, (b, 14, 14), dtype=np.uint8), 'label': np.arange(b)}


def smooth_images(b, side):
  """Slow waves with three phases, so that bilinear sampling at any resolution gives nearly the same."""
  centres = (np.arange(side) + 0.5) / side
  x, y, k = centres[None, None, :], centres[None, :, None], np.arange(b)[:, None, None]
  waves = [np.sin(3 * x + 2 * y + k + phase) for phase in (0, 2, 4)]
  return np.rint(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


@functools.partial(jax.jit, static_argnames=('image_size', 'regions', 'options'))
def jitted(batch, keys, image_size, regions, options):
  return augment.augment(batch, keys, image_size=image_size, regions=dict(regions) or None, **dict(options))


def apply(batch, regions=None, image_size=SIDE, seed=0, step=0, rows=None, **options):
  keys = augment.example_keys(seed, step, np.arange(len(batch['image'])) if rows is None else rows)
  regions = tuple((regions or {}).items())
  return jax.device_get(jitted(batch, keys, image_size, regions, tuple(options.items())))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _resize(batch, image_size, regions):
  return augment.resize(batch, image_size, dict(regions) or None)


def resize(batch, image_size=SIDE, regions=None):
  return jax.device_get(_resize(batch, image_size, tuple((regions or {}).items())))


def crop(image, box, size):
  """Bilinear samples of ``image`` (H, W, C) at the centres of a ``size`` x ``size`` grid in the box, pixel by pixel."""
  height, width, channels = image.shape
  left, top, right, bottom = box
  out = np.zeros((size, size, channels))
  for i in range(size):
    for j in range(size):
      x = np.clip((left + (right - left) * (j + 0.5) / size) * width - 0.5, 0, width - 1)
      y = np.clip((top + (bottom - top) * (i + 0.5) / size) * height - 0.5, 0, height - 1)
      x0, y0 = int(x), int(y)
      x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
      for row, weight_y in ((y0, 1 - (y - y0)), (y1, y - y0)):
        for column, weight_x in ((x0, 1 - (x - x0)), (x1, x - x0)):
          out[i, j] += weight_y * weight_x * image[row, column].astype(np.float64)
  return out


def squares(points, side):
  corners = np.clip(points - side / 2, 0, 1 - side)
  return np.concatenate([corners, corners + side], 1)


def five_points(landmarks):
  points = np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[30], landmarks[48], landmarks[54]])
  return np.where(np.isfinite(points), points, TEMPLATE)


def box_of_ramp(image):
  """Reads the box (left, top, right, bottom) off a crop (h, w, C) of an image whose first two channels are x and y."""
  size = len(image)
  steps = (np.arange(size) + 0.5) / size
  (width, left), (height, top) = (np.polyfit(steps, image[..., k].mean(k), 1) for k in (0, 1))
  return np.array([left, top, left + width, top + height])


def ramps(b, side=128):
  """Images whose values are the coordinates themselves, between 0.1 and 0.9 of the range."""
  values = np.rint((np.arange(side) + 0.5) / side * 255)
  x, y = np.broadcast_to(values, (side, side)), np.broadcast_to(values[:, None], (side, side))
  return np.tile(np.stack([x, y, x], -1).astype(np.uint8), (b, 1, 1, 1))


@pytest.mark.parametrize('regions, fill', [
    (SCHEMES[0], ()), (SCHEMES[1], (0.2, 0.4, 0.6)), (SCHEMES[2], (0.2, 0.4, 0.6))], ids=NAMES)
def test_region_0_is_bit_for_bit_the_image_without_regions(regions, fill):
  batch = make_batch()
  plain = apply(batch, image_size=20, erasing_fill=fill, **EVERYTHING)
  several = apply(batch, regions, image_size=20, erasing_fill=fill, **EVERYTHING)
  np.testing.assert_array_equal(several['image'][:, 0], plain['image'])
  for name in ('landmarks', 'landmark_heatmap', 'label'):
    np.testing.assert_array_equal(several[name], plain[name])


@pytest.mark.parametrize('regions', SCHEMES, ids=NAMES)
def test_region_0_of_an_evaluation_is_bit_for_bit_the_image_without_regions(regions):
  batch = make_batch()
  np.testing.assert_array_equal(resize(batch, 31, regions)['image'][:, 0], resize(batch, 31)['image'])


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('regions, count', list(zip(SCHEMES, (6, 4, 6), strict=True)), ids=NAMES)
def test_shapes(regions, count, channels):
  batch = make_batch(channels=channels)
  keys = augment.example_keys(0, 0, np.arange(5))
  for out in (jax.eval_shape(lambda: augment.augment(batch, keys, image_size=20, regions=regions, **EVERYTHING)),
              jax.eval_shape(lambda: augment.resize(batch, 20, regions))):
    assert out['image'].shape == (5, count, 20, 20, channels) and out['image'].dtype == np.float32
    assert out['landmarks'].shape == (5, 68, 2) and out['landmark_heatmap'].shape == (5, 14, 14)


@pytest.mark.parametrize('size, channels', [(13, 1), (30, 3)])
def test_fixed_crops_are_bilinear_samples_of_the_stored_image(size, channels):
  batch = make_batch(b=2, channels=channels)
  for out in (resize(batch, size, {'scheme': 'fixed5'}), apply(batch, {'scheme': 'fixed5'}, size, flip=0.0)):
    for face, regions in zip(batch['image'], out['image'], strict=True):
      for box, region in zip(FIXED, regions, strict=True):
        np.testing.assert_allclose(region, crop(face, box, size) / 255, atol=1e-5)


def test_landmark_crops_are_bilinear_samples_of_the_stored_image():
  batch = make_batch(b=3)
  out = resize(batch, 16, {'scheme': 'landmark', 'landmark_side': 0.4})
  for face, landmarks, regions in zip(batch['image'], batch['landmarks'], out['image'], strict=True):
    for box, region in zip(squares(five_points(landmarks), 0.4), regions[1:], strict=True):
      np.testing.assert_allclose(region, crop(face, box, 16) / 255, atol=1e-4)


def test_crops_of_a_moved_face_are_cut_from_the_moved_face():
  batch = {**make_batch(b=4), 'image': smooth_images(4, 64)}
  moves = {'flip': 0.5, 'rotation': 30.0, 'scale': (0.8, 1.0)}
  fine = apply(batch, image_size=256, **moves)
  crops = apply(batch, {'scheme': 'fixed5'}, 16, **moves)['image']
  assert np.abs(crops[:, 0] - resize(batch, 16)['image']).max() > 0.1
  for face, regions in zip(fine['image'], crops, strict=True):
    for box, region in zip(FIXED, regions, strict=True):
      np.testing.assert_allclose(region, crop(face, box, 16), atol=0.012)


def test_landmark_crops_follow_the_moved_landmarks():
  batch = {**make_batch(b=4), 'image': smooth_images(4, 64)}
  moves = {'flip': 0.5, 'rotation': 30.0, 'scale': (0.8, 1.0)}
  fine = apply(batch, image_size=256, **moves)
  out = apply(batch, {'scheme': 'landmark', 'landmark_side': 0.3}, 16, **moves)
  assert np.isnan(out['landmarks'][0]).all()
  assert np.nanmax(np.abs(out['landmarks'] - batch['landmarks'])) > 0.1
  for face, landmarks, regions in zip(fine['image'], out['landmarks'], out['image'], strict=True):
    for box, region in zip(squares(five_points(landmarks), 0.3), regions[1:], strict=True):
      np.testing.assert_allclose(region, crop(face, box, 16), atol=0.012)


def test_the_same_area_of_the_face_is_erased_in_every_region():
  size = 48
  batch = {**make_batch(b=8), 'image': np.full((8, SIDE, SIDE, 3), 255, np.uint8)}
  out = apply(batch, {'scheme': 'fixed5'}, size, flip=0.5, rotation=20.0, erasing=0.7, erasing_area=(0.1, 0.3),
              erasing_fill=(0.0, 0.0, 0.0))
  erased = out['image'][..., 0] < 0.5
  seen = erased[:, 0].any((1, 2))
  assert seen.any() and not seen.all()
  for mask, chosen in zip(erased, seen, strict=True):
    if not chosen:
      assert not mask.any()
      continue
    rows, columns = (np.flatnonzero(mask[0].any(axis)) for axis in (1, 0))
    low = np.array([columns[0], rows[0]]) / size
    high = np.array([columns[-1] + 1, rows[-1] + 1]) / size
    for box, region in zip(FIXED, mask, strict=True):
      for i in range(size):
        for j in range(size):
          point = np.array(box[:2]) + (np.array(box[2:]) - box[:2]) * (np.array([j, i]) + 0.5) / size
          depth = np.minimum(point - low, high - point).min()
          if abs(depth) > 1 / size:
            assert region[i, j] == (depth > 0), (box, i, j)


def test_random_crops_are_a_function_of_seed_step_and_row():
  regions = {'scheme': 'random', 'count': 3, 'side': (0.4, 0.9)}
  batch = {**make_batch(b=6), 'image': ramps(6, 32)}
  base = apply(batch, regions, seed=2, step=5)['image']
  np.testing.assert_array_equal(base, apply(batch, regions, seed=2, step=5)['image'])
  rows = np.array([4, 2])
  part = apply({name: values[rows] for name, values in batch.items()}, regions, seed=2, step=5, rows=rows)['image']
  np.testing.assert_allclose(part, base[rows], atol=1e-6)
  for other in ({'seed': 3, 'step': 5}, {'seed': 2, 'step': 6}):
    assert (np.abs(apply(batch, regions, **other)['image'] - base)[:, 1:].max((2, 3, 4)) > 1e-3).all()


def test_random_crops_differ_between_rows_in_training_and_lie_in_the_image():
  batch = {**make_batch(b=40), 'image': ramps(40)}
  crops = apply(batch, {'scheme': 'random', 'count': 2, 'side': (0.5, 0.8)}, 12, flip=0.0)['image'][:, 1:]
  boxes = np.array([[box_of_ramp(region) for region in face] for face in crops]).reshape(80, 4)
  assert len(np.unique(np.round(boxes, 4), axis=0)) == 80
  sides = boxes[:, 2:] - boxes[:, :2]
  np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=0.01)
  assert 0.49 < sides.min() < 0.56 and 0.74 < sides.max() < 0.81
  assert boxes.min() > -0.01 and boxes.max() < 1.01
  assert boxes[:, :2].min() < 0.05 and boxes[:, 2:].max() > 0.95


def test_random_crops_are_the_same_for_every_face_in_evaluation():
  regions = {'scheme': 'random', 'count': 3, 'side': (0.4, 0.9)}
  batch = {**make_batch(b=6), 'image': ramps(6)}
  crops = resize(batch, 12, regions)['image']
  np.testing.assert_array_equal(crops, np.broadcast_to(crops[:1], crops.shape))
  assert len({region.tobytes() for region in crops[0]}) == 4
  few = resize({name: values[3:5] for name, values in batch.items()}, 12, regions)['image']
  np.testing.assert_allclose(few, crops[:2], atol=1e-6)


def test_a_sharded_batch_of_regions_stays_where_it_is():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  batch = {**make_batch(b=8), 'row': jnp.arange(8)}

  def step(batch):
    keys = augment.example_keys(0, 0, batch['row'])
    return augment.augment(batch, keys, image_size=12, regions={'scheme': 'landmark'}, rotation=20.0, erasing=0.5)

  text = jax.jit(step, in_shardings=sharding, out_shardings=sharding).lower(batch).compile().as_text()
  assert not any(word in text for word in ('all-gather', 'all-reduce', 'collective-permute', 'all-to-all'))
