"""Landmark heatmaps: where they peak, what they leave out, and how they mirror."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from fer_jax.landmarks import heatmap


def only(**points):
  """(68, 2) with the given points, the others NaN: only(p30=(0.5, 0.5))."""
  landmarks = np.full((68, 2), np.nan, np.float32)
  for name, xy in points.items():
    landmarks[int(name[1:])] = xy
  return landmarks


fractions = hnp.arrays(np.float64, (68, 2), elements=st.floats(-0.25, 1.25, width=32))


def test_groups_have_the_sizes_of_ibug_68():
  assert {name: len(points) for name, points in heatmap.POINTS.items()} == {
      'no_jaw': 51, 'all': 68, 'eyes_brows_mouth': 42}
  assert set(heatmap.POINTS['eyes_brows_mouth']) == {*range(17, 27), *range(36, 48), *range(48, 68)}


def test_nothing_to_draw_gives_zeros():
  for landmarks in (None, np.full((68, 2), np.nan), only(p3=(0.5, 0.5))):  # Point 3 is of the jaw.
    result = heatmap.landmark_heatmap(landmarks, 8)
    assert result.shape == (8, 8) and result.dtype == np.uint8 and not result.any()


def test_one_point_peaks_in_its_pixel_and_has_the_given_sigma():
  result = heatmap.landmark_heatmap(only(p30=(0.25 + 1 / 224, 0.5 + 1 / 224)), 112, sigma=8 / 224)
  assert np.unravel_index(result.argmax(), result.shape) == (56, 28)
  assert result.max() == 255
  # Four pixels of 112 are one sigma.
  assert result[56, 32] == pytest.approx(255 * np.exp(-0.5), abs=1.5)
  assert result[60, 28] == pytest.approx(255 * np.exp(-0.5), abs=1.5)


def test_sum_and_max_differ_where_gaussians_overlap():
  near = only(p30=(0.48, 0.5), p31=(0.52, 0.5), p36=(0.1, 0.1))
  summed = heatmap.landmark_heatmap(near, 56, sigma=8 / 224)
  largest = heatmap.landmark_heatmap(near, 56, sigma=8 / 224, combine='max')
  assert largest[5, 5] > 250  # Alone, a point is as high as any.
  assert summed[5, 5] < 160  # In the sum it is lower than two together.


def test_outside_points_are_moved_to_the_border():
  outside = heatmap.landmark_heatmap(only(p30=(1.3, -0.2)), 14)
  np.testing.assert_array_equal(outside, heatmap.landmark_heatmap(only(p30=(1, 0)), 14))
  assert outside.argmax() == 13


def test_small_maps_keep_every_landmark():
  # At 7 px sigma is a tenth of a pixel: sampled at pixel centres most points would vanish.
  corners = only(p36=(0.01, 0.01), p45=(0.99, 0.01), p48=(0.01, 0.99), p54=(0.99, 0.99))
  assert (heatmap.landmark_heatmap(corners, 7)[[0, 0, -1, -1], [0, -1, 0, -1]] > 250).all()


def test_flip_is_an_involution_that_keeps_groups():
  np.testing.assert_array_equal(heatmap.FLIP[heatmap.FLIP], np.arange(68))
  for points in (range(17), range(17, 27), range(27, 36), range(36, 48), range(48, 68)):  # Jaw, brows, nose ...
    assert {int(heatmap.FLIP[i]) for i in points} == set(points)
  pairs = {0: 16, 17: 26, 21: 22, 27: 27, 31: 35, 36: 45, 37: 44, 39: 42, 40: 47, 41: 46, 48: 54, 55: 59, 60: 64,
           65: 67, 66: 66}
  assert {i: int(heatmap.FLIP[i]) for i in pairs} == pairs


@hypothesis.given(fractions)
@hypothesis.settings(max_examples=30, deadline=None)
def test_mirrored_landmarks_give_the_mirrored_map(landmarks):
  mirrored = landmarks[heatmap.FLIP] * (-1, 1) + (1, 0)
  for points in heatmap.POINTS:
    plain = heatmap.landmark_heatmap(landmarks, 28, points=points).astype(int)
    flipped = heatmap.landmark_heatmap(mirrored, 28, points=points).astype(int)
    assert abs(plain[:, ::-1] - flipped).max() <= 1
    assert plain.max() == 255


def test_unknown_choices_are_named():
  with pytest.raises(ValueError, match="did you mean 'no_jaw'"):
    heatmap.landmark_heatmap(None, 8, points='nojaw')
  with pytest.raises(ValueError, match='mean'):
    heatmap.landmark_heatmap(None, 8, combine='mean')
