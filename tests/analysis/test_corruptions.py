"""Drawn corruptions against numpy and scipy: exact at severity 0, in range, and a function of the face's own row."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fer_jax.analysis import corruptions
from fer_jax.data import augment
from fer_jax.errors import UserError

SIDE = 20

corrupted = jax.jit(corruptions.corrupt_images, static_argnums=0)
corrupted_batch = jax.jit(corruptions.corrupt, static_argnums=1)


def pictures(count=6, channels=3, seed=0):
  return np.random.default_rng(seed).uniform(0, 1, (count, SIDE, SIDE, channels)).astype(np.float32)


def keys(count=6, seed=0):
  return augment.example_keys(seed, 0, np.arange(count))


def apply(kind, images, severity, seed=0):
  return np.asarray(corrupted(kind, images, keys(len(images), seed), severity))


def make_batch(count=6, channels=1, rows=None, seed=0):
  rng = np.random.default_rng(seed)
  landmarks = rng.uniform(0.2, 0.8, (count, 68, 2)).astype(np.float32)
  landmarks[0] = np.nan
  return {'image': rng.integers(0, 256, (count, SIDE, SIDE, channels), dtype=np.uint8), 'landmarks': landmarks,
          'landmark_heatmap': np.zeros((count, 56, 56), np.uint8), 'label': np.arange(count, dtype=np.int32),
          'row': np.arange(count, dtype=np.int32) if rows is None else rows}


@pytest.mark.parametrize('kind', corruptions.KINDS)
def test_severity_0_is_the_identity_bit_for_bit(kind):
  for channels in (1, 3):
    images = pictures(channels=channels)
    np.testing.assert_array_equal(apply(kind, images, 0.0), images)
  every_value = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  batch = {**make_batch(1), 'image': every_value}
  out = jax.device_get(corrupted_batch(batch, kind, 0.0))
  assert out['image'].dtype == np.uint8
  np.testing.assert_array_equal(out['image'], every_value)
  np.testing.assert_array_equal(out['landmarks'], batch['landmarks'])


@pytest.mark.parametrize('kind', corruptions.KINDS)
def test_severities_ascend_without_the_clean_one_and_do_more_the_further_they_are(kind):
  severities = corruptions.KINDS[kind].severities
  assert list(severities) == sorted(set(severities)) and 0 not in severities and len(severities) >= 5
  images = pictures()
  change = {severity: np.abs(apply(kind, images, severity) - images).mean() for severity in severities}
  for side in ([s for s in severities if s > 0], [s for s in reversed(severities) if s < 0]):
    assert all(change[a] < change[b] for a, b in zip(side, side[1:], strict=False))
  assert change[severities[0]] > 0 and change[severities[-1]] > 1e-2
  labels = [corruptions.KINDS[kind].label(severity) for severity in severities]
  assert len(set(labels)) == len(labels)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(list(corruptions.KINDS)), st.floats(0, 1, width=32), st.booleans(), st.integers(0, 2**31 - 1))
def test_values_stay_in_range_whatever_the_severity(kind, share, negative, seed):
  largest = max(map(abs, corruptions.KINDS[kind].severities))
  severity = np.float32(share * largest * (-1 if negative and kind in ('brightness', 'gamma', 'rotation') else 1))
  images = pictures(seed=seed % 1000)
  images[0], images[1] = 0, 1
  out = apply(kind, images, severity, seed=seed)
  assert out.shape == images.shape and out.dtype == np.float32 and out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize('side', [0.1, 0.33, 0.6, 1.0])
def test_occlusion_is_a_grey_square_inside_the_image(side):
  images = pictures(count=40, channels=1)
  hidden = apply('occlusion', images, side) != images
  for out, mask in zip(apply('occlusion', images, side), hidden, strict=True):
    rows, columns = (np.flatnonzero(mask[..., 0].any(axis=axis)) for axis in (1, 0))
    # As many pixels as have their centre in the square, whatever part of a pixel is cut.
    assert all(abs(len(lines) - side * SIDE) < 1 and np.ptp(lines) == len(lines) - 1 for lines in (rows, columns))
    assert mask[np.ix_(rows, columns)].all() and (out[mask] == 0.5).all()
  places = {tuple(np.argwhere(mask[..., 0])[0]) for mask in hidden}
  assert len(places) > 10 or side == 1.0
  if side < 1:  # Everywhere in the image, and in the middle on average.
    tops = np.array([np.argwhere(mask[..., 0])[0] for mask in hidden])
    assert tops.min() == 0 and abs(tops.mean() / SIDE - (1 - side) / 2) < 0.12


def test_a_larger_square_hides_what_a_smaller_one_hides():
  images = pictures(count=30, channels=1)
  small, large = (apply('occlusion', images, side) != images for side in (0.2, 0.35))
  assert (large | ~small).all() and large.sum() > small.sum()


@pytest.mark.parametrize('sd', corruptions.KINDS['blur'].severities)
def test_blur_is_scipys_gaussian_filter(sd):
  images = pictures(channels=3)
  reach = np.ceil(4 * corruptions.MAX_BLUR * SIDE)
  for image, out in zip(images, apply('blur', images, sd), strict=True):
    theirs = ndimage.gaussian_filter(image, sd * SIDE, mode='nearest', truncate=reach / (sd * SIDE), axes=(0, 1))
    np.testing.assert_allclose(out, theirs, atol=1e-5)


@pytest.mark.parametrize('sd', corruptions.KINDS['noise'].severities)
def test_noise_has_its_standard_deviation_and_is_the_same_but_for_the_loudness(sd):
  images = np.full((60, SIDE, SIDE, 1), 0.5, np.float32)
  noise = apply('noise', images, sd) - images
  inside = np.abs(noise) < 0.5
  assert inside.mean() > 0.95 and abs(noise.mean()) < sd / 50 and abs(noise[np.abs(noise) < 2 * sd].std() / sd
                                                                       - 0.8796) < 0.02  # Of a cut normal law.
  normals = apply('noise', images, 0.01) - images
  np.testing.assert_allclose(noise[inside], np.clip(normals * sd / 0.01, -0.5, 0.5)[inside], atol=1e-4)
  assert np.abs(np.corrcoef(normals.reshape(60, -1)) - np.eye(60)).max() < 0.25  # Faces have noise of their own.


@pytest.mark.parametrize('degrees', corruptions.KINDS['rotation'].severities)
def test_rotation_is_scipys_to_either_side(degrees):
  images = pictures(count=12, channels=1)
  sides = []
  for image, out in zip(images, apply('rotation', images, degrees), strict=True):
    theirs = {}
    for sign in (1, -1):
      cos, sin = np.cos(np.deg2rad(sign * degrees)), np.sin(np.deg2rad(sign * degrees))
      matrix = np.array([[cos, sin], [-sin, cos]])  # Of (row, column).
      centre = np.full(2, (SIDE - 1) / 2)
      theirs[sign] = ndimage.affine_transform(image[..., 0], matrix, centre - matrix @ centre, order=1, mode='nearest')
    sides.append(min(theirs, key=lambda sign: np.abs(theirs[sign] - out[..., 0]).max()))
    np.testing.assert_allclose(out[..., 0], theirs[sides[-1]], atol=1e-4)
  assert set(sides) == {1, -1}


def test_brightness_and_gamma_are_their_formulas():
  images = pictures()
  for stops in corruptions.KINDS['brightness'].severities:
    np.testing.assert_allclose(apply('brightness', images, stops), np.clip(images * 2.0**stops, 0, 1), rtol=1e-5)
  for stops in corruptions.KINDS['gamma'].severities:
    np.testing.assert_allclose(apply('gamma', images, stops), images ** (2.0**-stops), rtol=1e-5, atol=1e-7)
  for kind in ('brightness', 'gamma'):
    assert apply(kind, images, -1.0).mean() < images.mean() < apply(kind, images, 1.0).mean()


@pytest.mark.parametrize('kind', corruptions.KINDS)
def test_a_face_is_corrupted_alike_in_every_batch(kind):
  batch, severity = make_batch(), corruptions.KINDS[kind].severities[1]
  whole = jax.device_get(corrupted_batch(batch, kind, severity))
  assert (whole['image'] != batch['image']).any(axis=(1, 2, 3)).all()
  order = np.array([4, 2, 0, 5, 1, 3])
  shuffled = jax.device_get(corrupted_batch({name: values[order] for name, values in batch.items()}, kind, severity))
  np.testing.assert_array_equal(shuffled['image'], whole['image'][order])
  for row in (0, 3):
    alone = jax.device_get(corrupted_batch({name: values[row:row + 1] for name, values in batch.items()}, kind,
                                           severity))
    # Compiled anew, a value may round the other way.
    np.testing.assert_allclose(alone['image'][0].astype(int), whole['image'][row].astype(int), atol=1)
    assert (alone['image'][0] != whole['image'][row]).mean() < 0.01


@pytest.mark.parametrize('kind', ['occlusion', 'noise', 'rotation'])
def test_what_is_drawn_is_of_the_row_and_the_seed(kind):
  severity = corruptions.KINDS[kind].severities[-1]
  one_image = {**make_batch(), 'image': np.broadcast_to(make_batch()['image'][:1], (6, SIDE, SIDE, 1))}
  draw = lambda seed: np.asarray(corrupted_batch(one_image, kind, severity, seed=seed)['image'])
  first = draw(0)
  assert len({image.tobytes() for image in first}) >= 2
  assert (draw(0) == first).all() and (draw(1) != first).any()


def test_one_program_serves_all_severities():
  traced = []

  @functools.partial(jax.jit, static_argnums=1)
  def counted(batch, kind, severity):
    traced.append(kind)
    return corruptions.corrupt(batch, kind, severity)

  for kind, corruption in corruptions.KINDS.items():
    for severity in (0.0, *corruption.severities):
      counted(make_batch(), kind, np.float32(severity))
  assert traced == list(corruptions.KINDS)


def test_landmarks_turn_with_the_face_and_maps_are_left_out():
  batch = make_batch()
  spot = np.zeros((SIDE, SIDE, 1), np.uint8)
  spot[3:6, 9:12] = 255
  batch['image'][:] = spot
  batch['landmarks'][1:] = np.float32([10.5 / SIDE, 4.5 / SIDE])
  out = jax.device_get(corrupted_batch(batch, 'rotation', 30.0))
  assert 'landmark_heatmap' not in out and set(out) == set(batch) - {'landmark_heatmap'}
  for image, points in zip(out['image'][1:, ..., 0].astype(float), out['landmarks'][1:], strict=True):
    y, x = ndimage.center_of_mass(image)
    np.testing.assert_allclose(points, np.broadcast_to([(x + 0.5) / SIDE, (y + 0.5) / SIDE], (68, 2)), atol=0.01)
    assert np.abs(points - batch['landmarks'][1]).max() > 0.1
  assert np.isnan(out['landmarks'][0]).all()
  np.testing.assert_array_equal(corrupted_batch(batch, 'blur', 0.05)['landmarks'], batch['landmarks'])


@pytest.mark.parametrize('kinds, message', [
    (('oclusion',), "--kinds: there is no corruption 'oclusion'; did you mean 'occlusion'"),
    (('blur', 'noise', 'blur'), "--kinds names 'blur' 2 times")])
def test_mistakes_are_named(kinds, message):
  with pytest.raises(UserError, match=message):
    corruptions.check_kinds(kinds)
