"""Confidence intervals: how far a printed number may lie from the one it estimates."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import scipy  # Its parts load when they are first used.

SEEDS = 3  # Fewer have no interval over seeds.


class Estimate(NamedTuple):
  """A number, the interval it may lie in (None where nothing is known), and of how many values it was made."""

  value: float
  low: float | None
  high: float | None
  n: int


def wilson(successes: float, count: float) -> tuple[float, float]:
  """Wilson score 95 % interval (low, high) in [0, 1] of a proportion (E. B. Wilson, 1927).

  It stays inside [0, 1] and keeps its coverage for few examples and for rates near 0 or 1, where mean +- 1.96 sd fails.
  No examples give (0, 1), for nothing is known. Of examples that depend on each other, count as many as would tell as
  much if they did not: neither number needs to be whole (SciPy's ``proportion_ci`` takes whole ones alone).
  """
  if not 0 <= successes <= count:
    raise ValueError(f'{successes} successes of {count}')
  if count == 0:
    return 0.0, 1.0
  z = NormalDist().inv_cdf(0.975)
  rate, shrink = successes / count, 1 + z * z / count
  centre = (rate + z * z / (2 * count)) / shrink
  half = z / shrink * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
  # Exact arithmetic ends at 0 and 1 there; rounding must not.
  low = 0.0 if successes == 0 else max(centre - half, 0.0)
  high = 1.0 if successes == count else min(centre + half, 1.0)
  return low, high


def mean_rate(hits: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
  """95 % interval (low, high) of the unweighted mean of independent proportions, such as the recalls of classes.

  The Wilson intervals of the proportions are put together as their distances from them would add up were they standard
  errors (MOVER; G. Y. Zou and A. Donner, 2008). It stays inside [0, 1] and has a width where all are 0 or 1, which a
  bootstrap has not; of one proportion it is Wilson's. Of ``hits`` and ``counts`` (K,) int those without examples are
  left out, and where none has any the interval is (0, 1).
  """
  if not counts.any():
    return 0.0, 1.0
  rates = (hits / np.maximum(counts, 1))[counts > 0]
  ends = np.array([wilson(*pair) for pair in zip(hits, counts, strict=True)])[counts > 0]
  below, above = np.sqrt(np.square(ends.T - rates).sum(axis=1)) / len(rates)
  return max(float(rates.mean() - below), 0.0), min(float(rates.mean() + above), 1.0)  # Rounding.


def t_interval(values: Sequence[float]) -> Estimate:
  """The mean over seeds of one number each, roughly normal, with Student's t 95 % interval.

  Fewer than ``SEEDS`` have none: one says nothing about the spread, and of two the interval is 18 standard deviations
  wide (9.0 to each side). Raises a ValueError without values.
  """
  mean, n = _mean(values)
  if n < SEEDS:
    return Estimate(mean, None, None, n)
  # Not scipy.stats.t.interval, which is NaN where all seeds agree.
  half = float(scipy.stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
  return Estimate(mean, mean - half, mean + half, n)


def share_interval(shares: Sequence[float], whole: float = 1.0) -> Estimate:
  """As ``t_interval``, of shares of a ``whole``, such as accuracies: the interval is inside and longer towards half.

  It is symmetric on the logit scale, log(p / (1 - p)), to which the standard error of the mean is carried by the slope
  there (delta method). So seeds of exactly 0 or 1 do no harm; where all are 0, or all are 1, so are its ends.
  """
  mean, low, high, n = t_interval(shares)
  share = mean / whole
  if low is None or low == high:
    return Estimate(mean, low, high, n)
  logit, half = math.log(share / (1 - share)), (high - mean) / whole / (share * (1 - share))
  return Estimate(mean, *(whole / (1 + math.exp(-end)) for end in (logit - half, logit + half)), n)


def bootstrap(values: np.ndarray, seed: int = 0, resamples: int = 9999, level: float = 0.95) -> Estimate:
  """The mean over independent examples (N,) with its percentile bootstrap interval at ``level`` (B. Efron, 1979).

  Its coverage is right for many examples only: of a handful of seeds it is too short, so take ``t_interval`` there. The
  same seed of the resampling gives the same interval; a single example has none. Raises a ValueError without values.
  """
  mean, n = _mean(values := np.asarray(values, np.float64))
  if n == 1:
    return Estimate(mean, None, None, n)
  ends = scipy.stats.bootstrap((values,), np.mean, batch=100, n_resamples=resamples, method='percentile',
                               confidence_level=level, rng=np.random.default_rng(seed)).confidence_interval
  return Estimate(mean, float(ends.low), float(ends.high), n)


def _mean(values: Sequence[float] | np.ndarray) -> tuple[float, int]:
  if not len(values):
    raise ValueError('no values')
  return float(np.mean(values)), len(values)
