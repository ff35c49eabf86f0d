"""Regions of a face against RAN's published boxes, and geometry written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.errors import UserError
from fer_jax.landmarks.regions import TEMPLATE, region_boxes, region_count

# (left, top, right, bottom), from the released code of RAN.
PUBLISHED = {
    'none': [(0, 0, 1, 1)],
    'fixed5': [(0, 0, 1, 1), (0, 0, .75, .75), (.25, 0, 1, .75), (.125, .25, .875, 1), (.05, .05, .95, .95),
               (.075, .075, .925, .925)],
    'affectnet7': [(0, 0, 1, 1), (0, 0, .75, .75), (.25, 0, 1, .75), (.125, .25, .875, 1), (.05, .05, .95, .95),
                   (.1, .1, .9, .9), (.125, .125, .875, .875), (.125, 0, .875, .75)],
}
NO_NUMBERS = np.zeros((5, 3), np.float32)


def face(seed=0):
  return np.random.default_rng(seed).uniform(0.2, 0.8, (68, 2)).astype(np.float32)


def squares_at_landmarks(landmarks, side):
  """The five squares written out: both eyes' means, tip of the nose, corners of the mouth."""
  boxes = []
  for place, group in enumerate([range(36, 42), range(42, 48), [30], [48], [54]]):
    point = np.mean([landmarks[k] for k in group], axis=0)
    box = [0.0] * 4
    for axis in (0, 1):
      value = point[axis] if np.isfinite(point[axis]) else TEMPLATE[place][axis]
      low = min(max(value - side / 2, 0.0), 1.0 - side)
      box[axis], box[axis + 2] = low, low + side
    boxes.append(box)
  return np.array(boxes)


@pytest.mark.parametrize('scheme', PUBLISHED)
def test_fixed_schemes_are_the_published_boxes(scheme):
  boxes = region_boxes(face(), NO_NUMBERS, scheme)
  assert boxes.dtype == np.float32
  np.testing.assert_allclose(boxes, PUBLISHED[scheme], atol=1e-7)


@pytest.mark.parametrize('scheme, options, count', [
    ('none', {}, 1), ('fixed5', {}, 6), ('affectnet7', {}, 8), ('landmark', {}, 6), ('random', {}, 6),
    ('random', {'count': 2}, 3), ('fixed5', {'count': 2}, 6)])
def test_the_count_is_the_number_of_boxes_and_the_full_face_comes_first(scheme, options, count):
  assert region_count(scheme, **options) == count
  numbers = np.full((options.get('count', 5), 3), 0.5, np.float32)
  boxes = region_boxes(face(), numbers, scheme, **options)
  assert boxes.shape == (count, 4)
  np.testing.assert_array_equal(boxes[0], [0, 0, 1, 1])


unit = st.floats(0, 1, width=32, exclude_max=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(unit, unit, unit), min_size=1, max_size=6), unit, unit)
def test_random_boxes_are_squares_of_the_asked_side_inside_the_image(numbers, a, b):
  low, high = sorted((0.05 + 0.95 * a, 0.05 + 0.95 * b))
  boxes = region_boxes(face(), np.float32(numbers), 'random', len(numbers), (low, high))
  assert len(boxes) == len(numbers) + 1
  for (left, top, right, bottom), (side, x, y) in zip(boxes[1:], numbers, strict=True):
    assert -1e-6 <= min(left, top) and max(right, bottom) <= 1 + 1e-6
    np.testing.assert_allclose([right - left, bottom - top], low + (high - low) * side, atol=1e-5)
    np.testing.assert_allclose([left, top], [x * (1 - (right - left)), y * (1 - (bottom - top))], atol=1e-5)


def test_random_boxes_reach_every_border():
  extremes = np.float32([[0, 0, 0], [0, 1, 1], [1, 0, 1]])
  boxes = region_boxes(face(), extremes, 'random', 3, (0.5, 0.8))
  np.testing.assert_allclose(boxes[1:], [[0, 0, .5, .5], [.5, .5, 1, 1], [0, .2, .8, 1]], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.1, 1.0))
def test_landmark_squares_are_centred_on_five_points_and_shifted_into_the_image(seed, side):
  landmarks = np.random.default_rng(seed).uniform(-0.2, 1.2, (68, 2)).astype(np.float32)
  boxes = region_boxes(landmarks, NO_NUMBERS, 'landmark', landmark_side=side)[1:]
  np.testing.assert_allclose(boxes, squares_at_landmarks(landmarks, side), atol=1e-5)
  assert boxes.min() >= -1e-6 and boxes.max() <= 1 + 1e-6
  np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], side, atol=1e-5)


def test_a_square_in_the_middle_is_centred_exactly():
  landmarks = np.full((68, 2), 0.5, np.float32)
  landmarks[30] = (0.4, 0.7)
  boxes = region_boxes(landmarks, NO_NUMBERS, 'landmark', landmark_side=0.25)
  np.testing.assert_allclose(boxes[3], [.275, .575, .525, .825], atol=1e-6)


@pytest.mark.parametrize('missing', [slice(None), slice(40, 41), slice(48, 55)])
def test_landmarks_that_are_nan_fall_back_to_the_template(missing):
  landmarks = face()
  landmarks[missing] = np.nan
  boxes = region_boxes(landmarks, NO_NUMBERS, 'landmark', landmark_side=0.3)
  assert np.isfinite(boxes).all()
  np.testing.assert_allclose(boxes[1:], squares_at_landmarks(landmarks, 0.3), atol=1e-6)


def test_the_template_is_an_upright_face():
  (left_eye, right_eye, nose, left_corner, right_corner) = TEMPLATE
  assert left_eye[0] < nose[0] < right_eye[0] and left_corner[0] < nose[0] < right_corner[0]
  assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_corner[1], right_corner[1])


@pytest.mark.parametrize('scheme', ['none', 'fixed5', 'affectnet7', 'random', 'landmark'])
def test_numpy_and_jax_inputs_agree(scheme):
  landmarks = face()
  landmarks[50:] = np.nan
  numbers = np.random.default_rng(1).uniform(size=(5, 3)).astype(np.float32)
  ours = region_boxes(landmarks, numbers, scheme)
  assert isinstance(ours, np.ndarray)
  theirs = region_boxes(jnp.asarray(landmarks), jnp.asarray(numbers), scheme)
  assert isinstance(theirs, jax.Array) and theirs.dtype == jnp.float32
  np.testing.assert_allclose(theirs, ours, atol=1e-6)


@pytest.mark.parametrize('options, message', [
    ({'scheme': 'fixed6'}, "scheme='fixed6' is unknown; did you mean 'fixed5'"),
    ({'scheme': 'random', 'count': 0}, 'count=0: at least one crop'),
    ({'scheme': 'random', 'side': (0.0, 0.9)}, 'shares of the image side'),
    ({'scheme': 'random', 'side': (0.5, 1.1)}, 'shares of the image side'),
    ({'scheme': 'landmark', 'landmark_side': 0.0}, 'landmark_side=0.0'),
    ({'scheme': 'landmark', 'landmark_side': 1.5}, 'landmark_side=1.5'),
])
def test_bad_options_are_named(options, message):
  with pytest.raises(UserError, match=message):
    region_count(**options)
