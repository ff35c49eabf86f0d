"""Similarity of maps with priors: values worked out by hand, invariances, and maps that say nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fer_jax.metrics import alignment

M, P = np.array([[[0.5, 0], [0, 1]]]), np.array([[[1, 0], [0, 0]]])
finite = st.floats(-1e3, 1e3, width=32)


def half_pixel(image, size):
  """Bilinear resize written as the definition: output centre (i + .5) s - .5, clamped to the image."""
  out = np.empty(size)
  for i, j in np.ndindex(*size):
    y, x = (np.clip((k + 0.5) * n / m - 0.5, 0, n - 1) for k, n, m in zip((i, j), image.shape, size, strict=True))
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, image.shape[0] - 1), min(x0 + 1, image.shape[1] - 1)
    top = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
    out[i, j] = top * (1 - (y - y0)) + (image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)) * (y - y0)
  return out


def test_hand_checked_values():
  assert alignment.cosine(M, P) == pytest.approx(0.4472, abs=5e-5)
  assert alignment.pearson(M, P) == pytest.approx(0.1741, abs=5e-5)


@pytest.mark.parametrize('cam, expected', [
    ([[1, 0.5], [0.5, 0]], 0.8165), ([[1, 0], [0, 0]], 1), ([[0.5, 0], [0, 1]], 0.4472), ([[0, 0], [0, 0]], 0)])
def test_cosine_of_class_activation_maps(cam, expected):
  assert alignment.cosine(np.array([cam]), P) == pytest.approx(expected, abs=5e-5)


@given(hnp.arrays(np.float32, (3, 4), elements=finite), st.integers(1, 9), st.integers(1, 9))
def test_resize_is_half_pixel_bilinear(image, height, width):
  np.testing.assert_allclose(
      alignment.resize(image, (height, width)), half_pixel(image.astype(np.float64), (height, width)), atol=2e-4)


@given(hnp.arrays(np.float32, (3, 4, 5), elements=finite), hnp.arrays(np.uint8, (3, 8, 7)))
def test_agrees_with_numpy(maps, priors):
  both = zip(alignment.cosine(maps, priors), alignment.pearson(maps, priors), strict=True)
  for image, prior, (cosine, pearson) in zip(maps, priors, both, strict=True):
    a, b = alignment.resize(image, prior.shape).ravel(), prior.ravel().astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    assert cosine == pytest.approx(a @ b / norms if norms else 0, abs=1e-9)
    flat = np.ptp(a) <= 1e-5 * np.abs(a).max() or np.ptp(b) == 0
    if not flat:
      assert pearson == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)


def test_one_map_for_all_priors_and_blocks_of_faces_change_no_score():
  rng = np.random.default_rng(0)
  image, priors = rng.normal(size=(1, 3, 4)), rng.integers(0, 256, (150, 8, 7), np.uint8)
  for similarity in (alignment.cosine, alignment.pearson):
    each = [float(similarity(image, prior[None])[0]) for prior in priors]
    np.testing.assert_allclose(similarity(image, priors), each, rtol=1e-12)
    np.testing.assert_allclose(similarity(np.repeat(image, 150, axis=0), priors), each, rtol=1e-12)


@given(st.floats(2.0**-100, 2.0**100, width=32), st.floats(-5, 5, width=32))
def test_scale_does_not_matter_and_pearson_ignores_the_offset(scale, offset):
  rng = np.random.default_rng(0)
  maps, priors = rng.normal(size=(2, 5, 5)), rng.integers(0, 256, (2, 9, 9), np.uint8)
  np.testing.assert_allclose(alignment.cosine(maps * scale, priors), alignment.cosine(maps, priors), atol=1e-9)
  np.testing.assert_allclose(alignment.pearson(maps * scale, priors), alignment.pearson(maps, priors), atol=1e-9)
  np.testing.assert_allclose(alignment.pearson(maps + offset, priors), alignment.pearson(maps, priors), atol=1e-9)


@pytest.mark.parametrize('value', [0.0, 1.0, -3.1e-12, 0.1, 1e30])
def test_constant_maps_and_priors_have_no_correlation(value):
  constant = np.full((1, 7, 7), value, np.float32)
  prior = np.random.default_rng(0).integers(0, 256, (1, 56, 56), np.uint8)
  assert alignment.pearson(constant, prior) == 0
  assert alignment.pearson(prior, np.full_like(prior, 7)) == 0
  assert alignment.cosine(prior, np.zeros_like(prior)) == 0


def test_rounding_noise_on_a_constant_is_not_a_correlation():
  noise = np.random.default_rng(1).normal(scale=1e-8, size=(1, 7, 7))
  assert alignment.pearson(5 * (1 + noise), np.random.default_rng(0).integers(0, 256, (1, 56, 56), np.uint8)) == 0


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_maps_that_are_not_finite_agree_with_nothing(value):
  maps = np.ones((2, 3, 3)) * np.arange(3)
  maps[0, 1, 1] = value
  for similarity in (alignment.cosine, alignment.pearson):
    result = similarity(maps, np.tile(np.arange(6, dtype=np.uint8), (2, 6, 1)))
    assert result[0] == 0 and result[1] > 0.9


def test_uniform_map_scores_the_root_of_the_coverage():
  prior = np.zeros((1, 10, 10), np.uint8)
  prior[0, :3, :3] = 255
  uniform = alignment.trivial_maps((10, 10))['uniform'][None]
  assert alignment.cosine(uniform, prior) == pytest.approx(np.sqrt(0.09))
  general = np.random.default_rng(0).integers(0, 256, (1, 10, 10), np.uint8).astype(float)
  assert alignment.cosine(uniform, general) == pytest.approx(general.mean() / np.sqrt((general**2).mean()))


def test_centred_gaussian_matches_its_definition_at_224():
  image = alignment.trivial_maps((224, 224))['centred_gaussian']
  y, x = np.unravel_index(image.argmax(), image.shape)
  assert abs(x + 0.5 - 112) <= 1 and abs(y + 0.5 - 130) <= 1
  # One standard deviation, 60 px, to the right.
  assert image[y, x + 60] / image[y, x] == pytest.approx(np.exp(-0.5), abs=0.02)


@given(hnp.arrays(np.float32, (3, 4), elements=finite))
def test_min_max_spans_the_range_and_keeps_the_order(image):
  scaled = alignment.min_max(image)
  assert scaled.shape == (3, 4) and scaled.dtype == np.float64
  if np.ptp(image) > 1e-4 * np.abs(image).max():
    assert scaled.min() == 0 and scaled.max() == 1
    image = image.astype(np.float64)
    np.testing.assert_allclose(scaled * np.ptp(image) + image.min(), image, rtol=1e-9, atol=1e-9 * np.ptp(image))


def test_maps_are_scaled_each_by_itself():
  images = np.array([[[0, 2], [4, 1]], [[3, 3], [3, 3]], [[0, np.inf], [1, 2]], [[-1, -2], [-3, -5]]])
  np.testing.assert_array_equal(alignment.min_max(images), [alignment.min_max(image) for image in images])


@pytest.mark.parametrize('image', [np.full((2, 2), 3.0), np.zeros((2, 2)), 5 + 1e-8 * np.arange(4).reshape(2, 2),
                                   np.array([[0, np.nan], [1, 2]]), np.array([[0, np.inf], [1, 2]])])
def test_min_max_of_maps_that_say_nothing_is_zero(image):
  assert not alignment.min_max(image).any()


def test_pointing_is_a_hit_or_a_miss_and_fair_to_ties():
  inside = np.zeros((4, 4), bool)
  inside[0, :2] = True
  image = np.zeros((4, 4))
  assert alignment.pointing(image, inside) == 2 / 16  # A constant points everywhere.
  image[0, 1] = -1e-3
  assert alignment.pointing(image, inside) == 1 / 15
  image[0, 1] = 2
  assert alignment.pointing(image, inside) == 1 and alignment.pointing(image, ~inside) == 0
  image[3, 3] = 2 - 1e-9  # The same, but for rounding.
  assert alignment.pointing(image, inside) == 0.5
  image[3, 3] = 2 - 1e-3
  assert alignment.pointing(image, inside) == 1


@given(hnp.arrays(np.int8, (4, 4)), hnp.arrays(bool, (4, 4)), st.floats(0.01, 100), st.floats(-9, 9))
def test_pointing_ignores_scale_and_offset_and_counts_every_maximum(image, inside, scale, offset):
  score = alignment.pointing(image.astype(float), inside)
  assert score == inside[image == image.max()].mean()
  assert alignment.pointing(image * scale + offset, inside) == score
  assert score + alignment.pointing(image.astype(float), ~inside) == pytest.approx(1)


def test_an_empty_selection_gives_an_empty_answer():
  assert alignment.cosine(np.zeros((0, 3, 3)), np.zeros((0, 6, 6), np.uint8)).shape == (0,)
