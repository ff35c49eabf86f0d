"""Paired comparisons against scipy and sums worked out by hand, and how often they err where nothing differs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fer_jax.metrics.comparison import mcnemar, welch


def faces(both, ours_only, theirs_only, neither):
  counts = (both, ours_only, theirs_only, neither)
  return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@given(st.tuples(*[st.integers(0, 60)] * 4))
def test_mcnemar_counts_and_agrees_with_scipy(counts):
  order = np.random.default_rng(0).permutation(sum(counts))
  ours, theirs = (answers[order] for answers in faces(*counts))
  result = mcnemar(ours, theirs)
  assert result[:2] == counts[1:3]
  expected = stats.binomtest(counts[2], counts[1] + counts[2]).pvalue if counts[1] + counts[2] else 1
  assert result.p_value == pytest.approx(expected, rel=1e-12)
  assert mcnemar(theirs, ours).p_value == pytest.approx(result.p_value)


@pytest.mark.parametrize('ours_only, theirs_only, p_value', [
    (0, 0, 1), (1, 0, 1), (5, 0, 2 / 32), (6, 0, 2 / 64), (8, 2, 2 * (1 + 10 + 45) / 1024), (3, 3, 1)])
def test_mcnemar_worked_out_by_hand(ours_only, theirs_only, p_value):
  for rest in (0, 50):  # Faces on which the two agree say nothing.
    assert mcnemar(*faces(rest, ours_only, theirs_only, rest)).p_value == pytest.approx(p_value)


def test_equally_good_networks_are_told_apart_no_more_often_than_the_level_and_different_ones_are():
  rng = np.random.default_rng(0)
  hard = rng.random((2000, 300, 1))  # Faces differ in difficulty, so that answers of the two depend on each other.
  right = rng.random((2000, 300, 2)) < 1 - hard**2
  rejected = np.mean([mcnemar(*pair.T).p_value < 0.05 for pair in right])
  slack = 4 * math.sqrt(0.05 * 0.95 / 2000)
  assert 0.02 < rejected < 0.05 + slack  # Exact tests of some 60 coins stay a little below their level.
  better = right[..., 0] | (rng.random((2000, 300)) < 0.3)
  assert np.mean([mcnemar(*pair).p_value < 0.05 for pair in zip(better[:200], right[:200, :, 1], strict=True)]) > 0.8


def test_faces_that_are_not_the_same_raise():
  for ours, theirs in ((np.ones(3), np.ones(4)), (np.ones((2, 2)), np.ones((2, 2)))):
    with pytest.raises(ValueError, match='must be vectors of one length'):
      mcnemar(ours, theirs)


ACCURACIES = st.lists(st.integers(0, 3137).map(lambda right: 100 * right / 3137), min_size=2, max_size=8)


@given(ACCURACIES, ACCURACIES)
def test_welch_is_its_textbook_formula(ours, theirs):
  result = welch(ours, theirs)
  difference = np.mean(ours) - np.mean(theirs)
  assert result.difference == pytest.approx(difference, abs=1e-9)
  if max(np.ptp(ours), np.ptp(theirs)) == 0:
    assert result[1:] == (None, None, None)
    return
  # B. L. Welch (1947), with F. E. Satterthwaite's degrees of freedom.
  parts = [np.var(values, ddof=1) / len(values) for values in (ours, theirs)]
  squares = [part**2 / (len(values) - 1) for part, values in zip(parts, (ours, theirs), strict=True)]
  freedom, error = sum(parts)**2 / sum(squares), math.sqrt(sum(parts))
  half = stats.t.ppf(0.975, freedom) * error
  assert (result.low, result.high) == pytest.approx((difference - half, difference + half), abs=1e-6)
  assert result.p_value == pytest.approx(2 * stats.t.sf(abs(difference) / error, freedom), abs=1e-9)
  assert welch(theirs, ours).low == pytest.approx(-result.high)


@pytest.mark.parametrize('level', [0.95, 0.9875])
def test_welch_has_the_interval_of_the_level(level):
  ours, theirs = [84.1, 85.0, 84.4], [82.0, 83.5, 83.1, 82.2]
  result = welch(ours, theirs, level)
  test = stats.ttest_ind(ours, theirs, equal_var=False)
  assert (result.low, result.high) == pytest.approx(tuple(test.confidence_interval(level)))
  usual = welch(ours, theirs)
  assert result.p_value == usual.p_value == pytest.approx(test.pvalue)
  assert (result.low < usual.low and result.high > usual.high) == (level > 0.95)


def test_welch_of_a_single_seed_or_of_equal_ones_has_no_interval():
  assert welch([3], [1, 2]) == (1.5, None, None, None) and welch([3, 3], [1, 1]) == (2, None, None, None)
  with pytest.raises(ValueError, match='no values'):
    welch([], [1, 2])
