"""Intervals against published values and scipy, and their coverage in a simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fer_jax.metrics.intervals import bootstrap, mean_rate, share_interval, t_interval, wilson


def test_wilson_of_2761_of_3068():
  low, high = wilson(2761, 3068)
  assert (round(100 * low, 2), round(100 * high, 2)) == (88.88, 91.01)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(counts):
  expected = stats.binomtest(*counts).proportion_ci(method='wilson')
  low, high = wilson(*counts)
  assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
  assert 0 <= low <= counts[0] / counts[1] <= high <= 1


def test_wilson_edges():
  assert wilson(0, 0) == (0, 1)
  assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1
  with pytest.raises(ValueError):
    wilson(11, 10)


def slack(count):
  """Four standard deviations of the share of ``count`` simulated intervals that cover."""
  return 4 * math.sqrt(0.95 * 0.05 / count)


@pytest.mark.parametrize('n', [20, 74, 1185])
def test_wilson_covers_the_true_rate(n):
  rng = np.random.default_rng(n)
  rate = rng.uniform(0.05, 0.95, 8000)  # Coverage swings with the rate, as successes are whole; its mean should not.
  ends = np.array([wilson(k, n) for k in range(n + 1)])[rng.binomial(n, rate)]
  covered = (ends[:, 0] <= rate) & (rate <= ends[:, 1])
  assert covered.mean() == pytest.approx(0.95, abs=slack(8000) + 0.005)


@pytest.mark.parametrize('counts', [(25, 36, 420, 80, 660), (8, 9, 7, 10, 8, 9, 7), (300, 300, 300)])
def test_the_interval_of_a_mean_of_rates_covers_it(counts):
  rng = np.random.default_rng(len(counts))
  rates = rng.uniform(0.2, 0.99, (2000, len(counts)))
  hits, truth = rng.binomial(counts, rates), rates.mean(axis=1)
  ends = np.array([mean_rate(row, np.array(counts)) for row in hits])
  assert np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) == pytest.approx(0.95, abs=slack(2000) + 0.01)


def test_the_interval_of_a_mean_of_rates_at_its_edges():
  assert mean_rate(np.zeros(3, int), np.zeros(3, int)) == (0, 1)
  assert mean_rate(np.array([7, 0]), np.array([9, 0])) == pytest.approx(wilson(7, 9))  # An absent class.
  low, high = mean_rate(np.array([5, 9]), np.array([5, 9]))
  assert 0 < low < high == 1


@pytest.mark.parametrize('seeds', [3, 5])
def test_t_covers_the_true_mean_for_few_seeds(seeds):
  runs = np.random.default_rng(seeds).normal(0.86, 0.01, (4000, seeds))
  estimates = [t_interval(values) for values in runs]
  covered = np.mean([low <= 0.86 <= high for _, low, high, _ in estimates])
  assert covered == pytest.approx(0.95, abs=slack(4000))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=8).filter(lambda v: np.std(v) > 1e-3))
def test_t_interval_agrees_with_scipy(values):
  expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
  assert t_interval(values) == pytest.approx((np.mean(values), expected.low, expected.high, len(values)))


@pytest.mark.parametrize('of', [t_interval, share_interval])
def test_two_seeds_are_too_few_and_equal_seeds_agree(of):
  # Student's t would have the mean of these two reach from -0.25 to 0.51.
  assert of([0.9]) == (0.9, None, None, 1) and of([0.1, 0.16]) == (pytest.approx(0.13), None, None, 2)
  assert of([0.5, 0.5, 0.5]) == (0.5, pytest.approx(0.5), pytest.approx(0.5), 3)
  assert of([0, 0, 0]) == (0, 0, 0, 3) and of([1, 1, 1, 1]) == (1, 1, 1, 4)


@given(st.lists(st.integers(0, 500).map(lambda k: k / 500), min_size=3, max_size=8))
def test_the_interval_of_a_share_is_inside_and_around_its_mean(shares):
  mean, low, high, _ = share_interval(shares)
  assert 0 <= low <= mean + 1e-12 and mean - 1e-12 <= high <= 1 and (0 < low and high < 1 or mean in (0, 1))
  of_hundred = share_interval([100 * share for share in shares], 100)
  assert of_hundred[:3] == pytest.approx((100 * mean, 100 * low, 100 * high), abs=1e-9)
  mirrored = share_interval([1 - share for share in shares])
  assert (mirrored.low, mirrored.high) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_the_interval_of_a_share_is_students_where_it_is_short_and_covers_at_the_edge():
  shares = [0.731, 0.735, 0.728]
  assert share_interval(shares)[:3] == pytest.approx(t_interval(shares)[:3], abs=1e-4)
  runs = stats.beta(28, 1).rvs((1000, 3), random_state=0)  # Seeds between 0.85 and 1, often at 1.
  covered, beyond = (np.mean([test(of(values)) for values in runs]) for of, test in (
      (share_interval, lambda found: found.low <= 28 / 29 <= found.high), (t_interval, lambda found: found.high > 1)))
  assert covered > 0.93 and beyond > 0.5


def test_bootstrap_of_a_rate_gives_the_percentiles_of_a_binomial():
  hits = np.arange(400) < 300
  value, low, high, n = bootstrap(hits)
  expected = stats.binom.ppf([0.025, 0.975], 400, 0.75) / 400
  assert (value, n) == (0.75, 400) and (low, high) == pytest.approx(tuple(expected), abs=1.5 / 400)
  assert bootstrap(hits) == (value, low, high, n)


def test_bootstrap_has_the_interval_of_the_level():
  values = np.random.default_rng(0).normal(size=300)
  narrow, wide = bootstrap(values), bootstrap(values, level=0.9875)
  expected = stats.norm.ppf([0.00625, 0.99375], values.mean(), values.std() / math.sqrt(300))
  assert (wide.low, wide.high) == pytest.approx(tuple(expected), abs=0.02) and wide.value == narrow.value
  assert wide.low < narrow.low < narrow.high < wide.high


def test_bootstrap_is_about_differences_of_the_same_faces():
  rng = np.random.default_rng(0)
  theirs = rng.random(800)
  ours = theirs + rng.normal(0.02, 0.05, 800)  # Far smaller than the spread between faces.
  result = bootstrap(ours - theirs)
  half = 1.96 * (ours - theirs).std() / math.sqrt(800)
  assert result.value == pytest.approx((ours - theirs).mean()) and result.n == 800
  assert (result.low, result.high) == pytest.approx((result.value - half, result.value + half), abs=0.1 * half)
  assert bootstrap(theirs - theirs)[:3] == (0, 0, 0)


def test_one_row_has_no_bootstrap_and_none_raise():
  assert bootstrap(np.array([2.0])) == (2, None, None, 1)
  for call in (lambda: t_interval([]), lambda: bootstrap(np.zeros(0))):
    with pytest.raises(ValueError, match='no values'):
      call()
