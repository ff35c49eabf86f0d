"""The augmentation: exact where nothing is asked, one geometry for image, maps and landmarks, independent examples."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data import augment
from fer_jax.landmarks.heatmap import FLIP

SIDE = 24
EVERYTHING = {'rotation': 20.0, 'scale': (0.7, 1.2), 'translate': 0.1, 'brightness': 0.3, 'contrast': 0.3,
              'saturation': 0.3, 'hue': 0.1, 'grey': 0.2, 'noise': 0.05, 'erasing': 0.5}
STILL = {'flip': 0.0}


def make_batch(b=6, side=SIDE, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  landmarks = rng.uniform(0, 1, (b, 68, 2)).astype(np.float32)
  landmarks[0] = np.nan
  return {
      'image': rng.integers(0, 256, (b, side, side, channels), dtype=np.uint8),
      'landmark_heatmap': rng.integers(0, 256, (b, 56, 56), dtype=np.uint8),
      'action_unit_map': rng.integers(0, 256, (b, 56, 56), dtype=np.uint8),
      'landmarks': landmarks, 'label': np.arange(b, dtype=np.int32)}


@functools.partial(jax.jit, static_argnames=('image_size', 'options'))
def jitted(batch, keys, image_size, options):
  return augment.augment(batch, keys, image_size=image_size, **dict(options))


def apply(batch, image_size=SIDE, seed=0, step=0, rows=None, **options):
  keys = augment.example_keys(seed, step, np.arange(len(batch['image'])) if rows is None else rows)
  return jax.device_get(jitted(batch, keys, image_size, tuple(options.items())))


def images(**kwargs):
  """A batch of nothing but images: quicker to compile."""
  return {'image': make_batch(**kwargs)['image']}


jitted_resize = jax.jit(augment.resize, static_argnums=1)


@pytest.mark.parametrize('channels', [1, 3])
def test_nothing_asked_is_exact(channels):
  batch = make_batch(channels=channels)
  still = apply(batch, **STILL)
  for out in (still, jitted_resize(batch, SIDE)):
    for name in ('image', 'landmark_heatmap', 'action_unit_map'):
      assert out[name].dtype == np.float32
      np.testing.assert_array_equal(out[name], batch[name] * np.float32(1 / 255))
    np.testing.assert_allclose(out['landmarks'], batch['landmarks'], atol=1e-6)
    np.testing.assert_array_equal(out['label'], batch['label'])
  assert still['image'].max() <= 1


def test_enlarging_is_opencvs_bilinear():
  batch = images()
  out = jitted_resize(batch, 61)['image']
  for got, image in zip(out, batch['image'], strict=True):
    np.testing.assert_allclose(got, cv2.resize(image.astype(np.float32), (61, 61)) / 255, atol=2e-5)


def test_a_certain_flip_mirrors_everything():
  batch = make_batch()
  out = apply(batch, flip=1.0)
  np.testing.assert_allclose(out['image'], batch['image'][:, :, ::-1] / 255, atol=1e-6)
  np.testing.assert_allclose(out['landmark_heatmap'], batch['landmark_heatmap'][:, :, ::-1] / 255, atol=1e-6)
  mirrored = batch['landmarks'][:, FLIP] * [-1, 1] + [1, 0]
  np.testing.assert_allclose(out['landmarks'], mirrored, atol=1e-6)
  assert np.isnan(out['landmarks'][0]).all() and not np.isnan(out['landmarks'][1:]).any()


def test_flips_happen_as_often_as_asked():
  batch = images(b=400, side=4, channels=1)
  out = apply(batch, image_size=4, flip=0.25)
  flipped = np.abs(out['image'] - batch['image'] / 255).max((1, 2, 3)) > 0.01
  assert 60 < flipped.sum() < 140


def centre_of_mass(image):
  """(x, y) as fractions, of images (b, h, w)."""
  centres = (np.arange(image.shape[1]) + 0.5) / image.shape[1]
  mass = image.sum((1, 2))
  return np.stack([image.sum(1) @ centres, image.sum(2) @ centres], -1) / mass[:, None]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_image_maps_and_landmarks_move_together(seed):
  rng = np.random.default_rng(seed)
  b, side = 8, 48
  points = rng.uniform(0.35, 0.65, (b, 2)).astype(np.float32)
  def blob(size):
    centres = (np.arange(size) + 0.5) / size
    x, y = points[:, 0, None, None], points[:, 1, None, None]
    return (255 * np.exp(-((centres - x) ** 2 + (centres[:, None] - y) ** 2) / (2 * 0.06**2))).astype(np.uint8)
  batch = {'image': blob(side)[..., None], 'landmark_heatmap': blob(56), 'causal_mask': blob(56),
           'landmarks': np.tile(points[:, None], (1, 68, 1))}
  out = apply(batch, image_size=64, seed=seed, rotation=40.0, scale=(0.9, 1.2), translate=0.05)
  moved = out['landmarks'][:, 0]
  assert np.abs(moved - points).max() > 0.02
  np.testing.assert_allclose(centre_of_mass(out['image'][..., 0]), moved, atol=0.006)
  np.testing.assert_allclose(centre_of_mass(out['landmark_heatmap']), moved, atol=0.006)
  np.testing.assert_allclose(centre_of_mass(out['causal_mask']), moved, atol=0.006)


def test_a_quarter_turn():
  batch = make_batch()
  quarter = jnp.tile(jnp.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]), (len(batch['image']), 1, 1))
  turned = augment.warp(batch['image'], quarter, SIDE)
  np.testing.assert_allclose(turned, np.rot90(batch['image'], 1, (1, 2)), atol=1e-3)


def test_outside_images_continue_and_maps_are_zero():
  right = jnp.array([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])  # Reads half a side further right.
  image = np.tile(np.arange(1, 9, dtype=np.uint8), (8, 1))[None, :, :, None]
  expected = np.array([5, 6, 7, 8, 8, 8, 8, 8])
  np.testing.assert_array_equal(augment.warp(image, right, 8)[0, 3, :, 0], expected)
  np.testing.assert_array_equal(augment.warp(image, right, 8, 'zero')[0, 3, :, 0], expected * (np.arange(8) < 4))


def test_crops_stay_inside_the_image_and_have_their_side():
  batch = make_batch(b=200)
  batch['landmarks'] = np.tile(np.float32([[0, 0], [1, 1]] * 34), (200, 1, 1))
  corners = apply(batch, flip=0.0, scale=(0.6, 0.8))['landmarks'][:, :2]  # The old image in the new one.
  assert (corners[:, 0] <= 1e-6).all() and (corners[:, 1] >= 1 - 1e-6).all()
  sides = 1 / (corners[:, 1] - corners[:, 0])
  assert sides.min() >= 0.6 - 1e-5 and sides.max() <= 0.8 + 1e-5 and np.ptp(sides) > 0.15
  np.testing.assert_allclose(sides[:, 0], sides[:, 1], rtol=1e-5)


def test_colours_by_hand():
  batch = images(b=50)
  out = apply(batch, **STILL, grey=1.0)['image']
  luma = (batch['image'] / 255) @ [0.299, 0.587, 0.114]
  np.testing.assert_allclose(out, np.tile(luma[..., None], 3), atol=1e-5)

  dark = images(b=50)
  dark['image'] = dark['image'] // 3 + 40  # Nothing is clipped.
  x = dark['image'] / 255
  factors = apply(dark, **STILL, brightness=0.5)['image'].mean((1, 2, 3)) / x.mean((1, 2, 3))
  assert 0.5 <= factors.min() < 0.7 and 1.3 < factors.max() <= 1.5
  out = apply(dark, **STILL, contrast=0.3)['image']
  mean = (x @ [0.299, 0.587, 0.114]).mean((1, 2))[:, None, None, None]
  factors = ((out - mean) / (x - mean)).reshape(50, -1)
  np.testing.assert_allclose(np.percentile(factors, 5, 1), np.percentile(factors, 95, 1), atol=1e-3)
  turned = apply(dark, **STILL, hue=0.5)['image']
  np.testing.assert_allclose(turned.sum(-1)[turned.min(-1) > 0], x.sum(-1)[turned.min(-1) > 0], atol=1e-5)
  assert np.abs(turned - x).max() > 0.05
  some = np.abs(apply(batch, **STILL, brightness=0.5, jitter_probability=0.5)['image'] - batch['image'] / 255)
  assert 10 < (some.max((1, 2, 3)) < 1e-6).sum() < 40


def test_grey_images_ignore_colour_but_not_light():
  batch = images(channels=1)
  np.testing.assert_allclose(apply(batch, **STILL, saturation=0.5, hue=0.5, grey=1.0)['image'], batch['image'] / 255,
                             atol=1e-5)
  rgb = {**batch, 'image': np.repeat(batch['image'], 3, -1)}
  light = {'brightness': 0.3, 'contrast': 0.3}
  np.testing.assert_allclose(apply(batch, **light)['image'], apply(rgb, **light)['image'][..., :1], atol=1e-5)


def test_erasing():
  batch = make_batch(b=300, side=40)
  batch['image'][:] = 255
  out = apply(batch, image_size=40, **STILL, erasing=0.5, erasing_area=(0.1, 0.2), erasing_fill=(0.1, 0.2, 0.3))
  erased = out['image'][..., 0] < 0.5
  assert 110 < erased.any((1, 2)).sum() < 190
  np.testing.assert_allclose(out['image'][erased], np.tile([[0.1, 0.2, 0.3]], (erased.sum(), 1)), rtol=1e-6)
  share = erased[erased.any((1, 2))].mean((1, 2))
  assert 0.07 < share.min() < 0.13 and 0.17 < share.max() < 0.23
  first = erased[erased.any((1, 2))][0]
  assert first[np.ix_(first.any(1), first.any(0))].all()  # A rectangle.
  np.testing.assert_array_equal(out['landmark_heatmap'], batch['landmark_heatmap'] * np.float32(1 / 255))
  filled = apply({'image': batch['image']}, image_size=40, **STILL, erasing=1.0, erasing_fill=())['image']
  assert np.unique(filled).size > 1000


def test_noise():
  batch = images()
  batch['image'][:] = 128
  noise = apply(batch, **STILL, noise=0.1)['image'] - 128 / 255
  np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.1], atol=0.005)
  assert not apply(batch, **STILL, noise=0.1, noise_probability=0.0)['image'].std()


def test_an_example_does_not_depend_on_its_batch():
  batch = make_batch()
  whole = apply(batch, step=5, **EVERYTHING)
  part = apply({name: values[[4, 2]] for name, values in batch.items()}, step=5, rows=np.array([4, 2]), **EVERYTHING)
  for name in ('image', 'landmark_heatmap', 'landmarks'):
    np.testing.assert_allclose(part[name], whole[name][[4, 2]], atol=1e-6)
  alone = jitted_resize({'image': batch['image'][3:4]}, 31)['image'][0]
  np.testing.assert_array_equal(alone, jitted_resize({'image': batch['image']}, 31)['image'][3])


def test_steps_rows_and_seeds_differ_and_repeat():
  batch = images()
  batch['image'][:] = batch['image'][:1]
  base = apply(batch, **EVERYTHING)['image']
  np.testing.assert_array_equal(base, apply(batch, **EVERYTHING)['image'])
  assert len({image.tobytes() for image in base}) == len(base)
  assert not np.array_equal(base, apply(batch, step=1, **EVERYTHING)['image'])
  assert not np.array_equal(base, apply(batch, seed=1, **EVERYTHING)['image'])
  assert base.min() >= 0 and base.max() <= 1


def test_one_effect_does_not_disturb_another():
  batch = make_batch()
  plain, more = apply(batch, rotation=20.0), apply(batch, rotation=20.0, erasing=0.5, brightness=0.2)
  np.testing.assert_allclose(more['landmarks'], plain['landmarks'], atol=1e-6)


def test_step_may_be_traced():
  traced = jax.jit(lambda step: augment.example_keys(3, step, np.arange(4)))(7)
  keys = augment.example_keys(3, 7, np.arange(4))
  np.testing.assert_array_equal(jax.random.key_data(traced), jax.random.key_data(keys))


def test_normalise():
  images = np.random.default_rng(0).uniform(size=(2, 3, 3, 3)).astype(np.float32)
  expected = (images - np.array(augment.MEAN)) / np.array(augment.STD)
  np.testing.assert_allclose(augment.normalise(images), expected, rtol=1e-5, atol=1e-6)
  grey = augment.normalise(images[..., :1], mean=(0.5,) * 3, std=(0.25,) * 3)
  assert grey.shape == (2, 3, 3, 3)
  np.testing.assert_allclose(grey, np.repeat((images[..., :1] - 0.5) / 0.25, 3, -1), rtol=1e-5, atol=1e-6)


def test_draw_target():
  target = np.tile(np.float32([0.75, 0.0, 0.25]), (1000, 1))
  target[0] = 0
  drawn = np.asarray(augment.draw_target(target, augment.example_keys(0, 0, np.arange(1000))))
  assert not drawn[0].any()
  np.testing.assert_array_equal(drawn[1:].sum(1), 1)
  assert not drawn[:, 1].any() and 690 < drawn[:, 0].sum() < 810


def test_a_sharded_batch_stays_where_it_is():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  batch = {**make_batch(b=8), 'row': np.arange(8)}
  def step(batch):
    keys = augment.example_keys(0, 0, batch['row'])
    return augment.augment(batch, keys, image_size=SIDE, rotation=20.0, brightness=0.2, erasing=0.5)
  compiled = jax.jit(step, in_shardings=sharding, out_shardings=sharding).lower(batch).compile()
  collectives = ('all-gather', 'all-reduce', 'collective-permute', 'all-to-all')
  assert not any(word in compiled.as_text() for word in collectives)
  sharded = compiled(jax.device_put(batch, sharding))
  whole = apply(batch, rotation=20.0, brightness=0.2, erasing=0.5)
  np.testing.assert_allclose(sharded['image'], whole['image'], atol=1e-6)
