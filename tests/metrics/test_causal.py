"""Mass inside and ranking of the causal mask, against scikit-learn and cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from fer_jax.metrics import alignment, causal


@given(hnp.arrays(np.int8, (2, 3, 3), elements=st.integers(-2, 2)), hnp.arrays(bool, (2, 6, 6)))
def test_area_agrees_with_scikit_learn_with_ties_and_left_out_masks(maps, masks):
  areas = causal.area_under_curve(maps.astype(np.float32), masks)
  np.testing.assert_array_equal(np.isfinite(areas), causal.usable(masks))
  for image, mask, area in zip(maps, masks, areas, strict=True):
    if np.isfinite(area):
      resized = alignment.resize(image, mask.shape)
      assert area == pytest.approx(roc_auc_score(mask.ravel(), resized.ravel()), abs=1e-9)


def test_area_of_perfect_reversed_and_constant_maps():
  mask = np.zeros((1, 8, 8), np.uint8)
  mask[0, 2:4, 2:6] = 255
  perfect = mask.astype(np.float32) - 7
  for image, expected in ((perfect, 1), (-perfect, 0), (np.full((1, 3, 3), 0.1, np.float32), 0.5)):
    assert causal.area_under_curve(image, mask) == expected


def test_mass_inside():
  mask = np.zeros((3, 4, 4), bool)
  mask[:, :2] = True
  maps = np.stack([np.zeros((4, 4)), np.zeros((4, 4)), np.full((4, 4), -1.0)])
  maps[0, 0, 0], maps[0, 3, 3], maps[0, 3, 0] = 3, 1, -50  # Negative evidence is no mass.
  maps[1, 3] = 1e-40
  np.testing.assert_allclose(causal.mass_inside(maps, mask), [0.75, 0, 0])


@given(hnp.arrays(np.uint8, (2, 5, 5)))
def test_uniform_map_holds_the_share_that_the_mask_covers(masks):
  np.testing.assert_allclose(causal.mass_inside(np.ones((2, 3, 3)), masks), (masks >= 128).mean((1, 2)))


@settings(max_examples=400)
@given(hnp.arrays(np.float32, (2, 3, 3), elements=st.floats(width=32)), hnp.arrays(bool, (2, 5, 5)))
def test_shares_are_never_nan_and_complement_each_other(maps, masks):
  with np.errstate(all='ignore'):
    inside, outside = causal.mass_inside(maps, masks), causal.mass_inside(maps, ~masks)
  assert ((inside >= 0) & (inside <= 1)).all()
  for total in inside + outside:
    assert total == 0 or total == pytest.approx(1)


def test_pointing_at_the_mask():
  mask = np.zeros((1, 8, 8), np.uint8)
  mask[0, 2:4, 4:6] = 255
  image = np.zeros((1, 4, 4), np.float32)
  image[0, 1, 2] = 3
  assert causal.pointing(image, mask) == 1 and causal.pointing(-image, mask) == 0
  image[0, 2, 1] = 3
  assert causal.pointing(image, mask) == 0.5
  image[0, 0, 0] = np.nan
  assert causal.pointing(image, mask) == 4 / 64  # Points everywhere, like a constant.


@given(hnp.arrays(np.int8, (2, 4, 4)), hnp.arrays(bool, (2, 8, 8)), st.floats(0.01, 100), st.floats(-9, 9))
@settings(deadline=None)
def test_pointing_at_native_size_is_the_share_of_maxima_inside(maps, masks, scale, offset):
  scores = causal.pointing(maps, masks, size=4)
  inside = masks[:, ::2, ::2]  # The nearest pixels of the mask.
  for image, mask, score in zip(maps, inside, scores, strict=True):
    assert score == mask[image == image.max()].mean()
  np.testing.assert_allclose(causal.pointing(maps * scale + offset, masks, size=4), scores)


def test_grey_edges_of_a_mask_count_from_the_middle_up():
  masks = np.array([[[0, 127], [128, 255]], [[0, 0], [0, 127]], [[128, 255], [255, 200]]], np.uint8)
  np.testing.assert_array_equal(causal.usable(masks), [True, False, False])
  assert causal.mass_inside(np.ones((1, 2, 2)), masks[:1]) == 0.5


@pytest.mark.parametrize('score', [causal.mass_inside, causal.area_under_curve, causal.pointing])
def test_one_map_for_all_masks_scores_as_often_repeated(score):
  rng = np.random.default_rng(0)
  image, masks = rng.random((1, 3, 3)), rng.random((5, 8, 8)) < 0.4
  np.testing.assert_array_equal(score(image, masks), score(np.repeat(image, 5, axis=0), masks))
