"""Intervals against published values, scipy, and their coverage in a simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fer_jax.metrics.intervals import over_seeds, wilson


def test_wilson_of_2761_of_3068():
  low, high = wilson(2761, 3068)
  assert (round(100 * low, 2), round(100 * high, 2)) == (88.88, 91.01)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
       st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(counts, confidence):
  expected = stats.binomtest(*counts).proportion_ci(confidence, method='wilson')
  low, high = wilson(*counts, confidence)
  assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
  assert 0 <= low <= counts[0] / counts[1] <= high <= 1


def test_wilson_edges():
  assert wilson(0, 0) == (0, 1)
  assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1
  with pytest.raises(ValueError):
    wilson(11, 10)


def test_wilson_covers_the_true_rate():
  covered = [low <= 0.9 <= high for low, high in (
      wilson(int(k), 74) for k in np.random.default_rng(0).binomial(74, 0.9, 4000))]
  assert 0.935 < np.mean(covered) < 0.97


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda v: np.std(v) > 1e-3))
def test_interval_over_seeds_agrees_with_scipy(values):
  expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
  assert over_seeds(values) == pytest.approx((expected.low, expected.high))


def test_one_seed_says_nothing_and_equal_seeds_agree():
  assert over_seeds([0.9]) == (-math.inf, math.inf)
  assert over_seeds([0.5, 0.5, 0.5]) == (0.5, 0.5)
