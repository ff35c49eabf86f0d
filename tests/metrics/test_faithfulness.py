"""Areas of curves, gains over baselines and correlations, against scikit-learn, scipy and hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import auc

from fer_jax.metrics import faithfulness


@given(pixels=st.integers(2, 5000), steps=st.integers(2, 40))
@settings(deadline=None, max_examples=50)
def test_portions_go_from_nothing_to_all_and_are_even(pixels, steps):
  counts = faithfulness.portions(pixels, steps)
  assert len(counts) == steps + 1 and counts[0] == 0 and counts[-1] == pixels
  assert (abs(np.diff(counts) - pixels / steps) <= 1).all()


def test_one_portion_is_none():
  with pytest.raises(ValueError, match='1 portions'):
    faithfulness.portions(16, 1)


@given(seed=st.integers(0, 2**32 - 1), points=st.integers(2, 20))
@settings(deadline=None, max_examples=30)
def test_area_is_that_of_scikit_learn(seed, points):
  rng = np.random.default_rng(seed)
  shares = np.concatenate([[0], np.sort(rng.random(points - 2)), [1]])
  curves = rng.random((3, points))
  np.testing.assert_allclose(faithfulness.area(shares, curves), [auc(shares, curve) for curve in curves])


def test_areas_by_hand():
  np.testing.assert_allclose(faithfulness.area([0, 0.5, 1], [[1, 1, 1], [1, 0, 0], [0, 0, 1]]), [1, 0.25, 0.25])


def summary():
  """Two faces under a good map, a bad one and a baseline between them."""
  shares = np.array([0, 0.5, 1])
  flat = lambda *areas: np.array(areas, np.float32)[:, None].repeat(3, 1)
  curves = {'good': {'deletion': flat(0.1, 0.2), 'insertion': flat(0.9, 0.8)},
            'bad': {'deletion': flat(0.6, 0.6), 'insertion': flat(0.1, 0.5)}}
  bars = {'uniform': {'deletion': flat(0.3, 0.6), 'insertion': flat(0.4, 0.5)}}
  return shares, curves, bars


def test_a_gain_is_above_0_where_the_map_is_better_in_either_direction():
  shares, curves, bars = summary()
  table = faithfulness.summarise_curves(shares, curves, bars)
  good, bad = table['good'], table['bad']
  assert good['deletion']['area'] == pytest.approx(0.15) and good['insertion']['area'] == pytest.approx(0.85)
  assert good['deletion']['curve'] == pytest.approx([0.15] * 3)
  assert good['deletion']['gain']['uniform']['value'] == pytest.approx(0.3)  # Of 0.2 and 0.4.
  assert good['deletion']['gain']['uniform']['interval'] == pytest.approx([0.2, 0.4])
  assert good['insertion']['gain']['uniform']['value'] == pytest.approx(0.4)
  assert bad['deletion']['gain']['uniform']['value'] == pytest.approx(-0.15)
  assert bad['insertion']['gain']['uniform']['value'] == pytest.approx(-0.15)
  # Nothing is compared with itself.
  assert faithfulness.summarise_curves(shares, bars, bars)['uniform']['insertion']['gain'] == {}


def test_a_single_face_has_no_interval():
  shares, curves, bars = summary()
  one = {name: {kind: values[:1] for kind, values in curve.items()} for name, curve in curves.items()}
  measured = faithfulness.summarise_curves(shares, one, {'bad': one['bad']})['good']['deletion']
  assert measured['interval'] is None and measured['gain']['bad'] == {'value': pytest.approx(0.5), 'interval': None}


@given(seed=st.integers(0, 2**32 - 1), side=st.integers(2, 6), scale=st.sampled_from([1e-160, 1.0, 1e160]))
@settings(deadline=None, max_examples=30)
def test_correlations_are_those_of_scipy(seed, side, scale):
  rng = np.random.default_rng(seed)
  maps, others = rng.normal(size=(2, 4, side, side))
  others[0] = np.round(others[0])  # Ties.
  if np.ptp(others[0]) == 0:
    others[0, 0, 0] += 1
  found = faithfulness.correlations(scale * maps, others)
  for i in range(4):
    np.testing.assert_allclose(found['pearson'][i], stats.pearsonr(maps[i].ravel(), others[i].ravel())[0], atol=1e-9)
    np.testing.assert_allclose(found['spearman'][i], stats.spearmanr(maps[i].ravel(), others[i].ravel())[0], atol=1e-9)


def test_a_map_correlates_with_itself_and_not_where_there_is_nothing_to_correlate():
  rng = np.random.default_rng(0)
  maps = rng.normal(size=(5, 3, 3))
  maps[1] = 7.0
  maps[2] = 7.0 + 1e-9 * rng.normal(size=(3, 3))  # Rounding.
  maps[3, 0, 0] = np.inf
  maps[4] = 0.0
  for values in faithfulness.correlations(maps, maps).values():
    np.testing.assert_allclose(values[0], 1)
    assert np.isnan(values[1:]).all()
  for values in faithfulness.correlations(maps, -maps).values():
    np.testing.assert_allclose(values[0], -1)


def test_draws_are_averaged_and_their_range_is_told():
  nan = np.nan
  draws = [{'pearson': np.array([0.2, nan, 0.4]), 'spearman': np.array([0.1, nan, 0.1])},
           {'pearson': np.array([-0.5, nan, nan]), 'spearman': np.array([0.3, nan, nan])}]
  assert faithfulness.summarise_correlations(draws) == {
      'pearson': pytest.approx(-0.1), 'pearson_range': [pytest.approx(-0.5), pytest.approx(0.3)],
      'spearman': pytest.approx(0.2), 'spearman_range': [pytest.approx(0.1), pytest.approx(0.3)], 'faces': 1}
  nothing = {'pearson': np.array([nan]), 'spearman': np.array([nan])}
  assert faithfulness.summarise_correlations([nothing]) == {
      'pearson': None, 'pearson_range': None, 'spearman': None, 'spearman_range': None, 'faces': 0}
