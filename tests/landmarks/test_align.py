"""Alignment: exact for what a similarity can do, nearest otherwise, and image and points stay together."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from fer_jax.landmarks import align

numbers = st.floats(-1, 1)


def turned(points, angle, scale, shift):
  """The points turned, scaled and shifted."""
  cos, sin = np.cos(angle), np.sin(angle)
  return scale * points @ np.array([[cos, sin], [-sin, cos]]) + shift


@hypothesis.given(st.floats(-np.pi, np.pi), st.floats(0.1, 10), st.tuples(numbers, numbers), st.integers(16, 256))
@hypothesis.settings(max_examples=60, deadline=None)
def test_whatever_turn_scale_and_shift_there_is_is_undone(angle, scale, shift, size):
  points = turned(align.TEMPLATE * 100, angle, scale, np.array(shift) * 50)
  matrix = align.similarity(points, size)
  np.testing.assert_allclose(align.move(points, matrix), align.TEMPLATE * size, atol=1e-6 * size)
  assert matrix[0, 0] == matrix[1, 1] and matrix[0, 1] == -matrix[1, 0]  # A rotation and a scale, no mirror.


def test_other_faces_are_brought_as_near_as_a_similarity_can():
  rng = np.random.default_rng(0)
  points = align.TEMPLATE * 100 + rng.normal(0, 5, (5, 2))
  matrix = align.similarity(points, 112)
  error = lambda m: np.square(align.move(points, m) - align.TEMPLATE * 112).sum()
  best = error(matrix)
  for _ in range(200):
    a, b, x, y = rng.normal(0, 0.02, 4)
    assert error(matrix + np.array([[a, -b, x], [b, a, y]])) >= best - 1e-9


def test_five_points_of_68():
  landmarks = np.stack([np.arange(68.), -np.arange(68.)], 1)
  np.testing.assert_array_equal(align.five_points(landmarks)[:, 0], [38.5, 44.5, 30, 48, 54])


@pytest.mark.parametrize('box, size, corners', [
    ((10, 20, 30, 60), 80, [(20, 0), (60, 80)]), ((0, 0, 50, 25), 100, [(0, 25), (100, 75)])])
def test_a_box_is_fitted_into_the_middle(box, size, corners):
  matrix = align.fitted(box, size)
  np.testing.assert_allclose(align.move(np.reshape(box, (2, 2)), matrix), corners)


@pytest.mark.parametrize('scale, tolerance', [(1, 0.02), (3, 0.1), (0.25, 0.3)])
def test_spots_of_an_image_go_where_their_points_go(scale, tolerance):
  spots = np.array([(30.5, 40.5), (70.5, 35.5), (50.5, 80.5)])
  image = np.zeros((120, 100), np.uint8)
  y, x = np.mgrid[:120, :100] + 0.5
  for sx, sy in spots:
    image = np.maximum(image, 255 * np.exp(-((x - sx) ** 2 + (y - sy) ** 2) / 18)).astype(np.uint8)
  size = round(120 * scale)
  matrix = np.array([[np.cos(.2), -np.sin(.2), 12], [np.sin(.2), np.cos(.2), -8]]) * scale
  out = align.warp(image, matrix, size).astype(float)
  assert out.shape == (size, size)
  rows, columns = np.mgrid[:size, :size] + 0.5
  for point in align.move(spots, matrix):
    near = out * ((columns - point[0]) ** 2 + (rows - point[1]) ** 2 < (9 * scale) ** 2)
    found = np.array([(near * columns).sum(), (near * rows).sum()]) / near.sum()
    np.testing.assert_allclose(found, point, atol=tolerance)


def test_the_border_continues_and_colours_stay():
  image = np.zeros((10, 10, 3), np.uint8)
  image[:] = (10, 20, 30)
  out = align.warp(image, np.array([[1., 0, 5], [0, 1, 5]]), 20)
  assert (out == (10, 20, 30)).all()


def test_another_template_is_another_place():
  template = align.TEMPLATE * 0.5 + 0.2
  points = turned(align.TEMPLATE * 100, 0.3, 2, np.array([5, -8]))
  matrix = align.similarity(points, 64, template.tolist())
  np.testing.assert_allclose(align.move(points, matrix), template * 64, atol=1e-6)
