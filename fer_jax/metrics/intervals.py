"""Confidence intervals: how far a printed number may lie from the one it estimates."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import scipy  # Its parts load when they are first used.


class Estimate(NamedTuple):
  """A number, the interval it may lie in (None where nothing is known), and of how many values it was made."""

  value: float
  low: float | None
  high: float | None
  n: int


def wilson(successes: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
  """Wilson score interval of a proportion (E. B. Wilson, 1927).

  It stays inside [0, 1] and keeps its coverage for few examples and for rates near 0 or 1, where mean +- 1.96 sd fails.

  Args:
    successes: number of correct examples, 0 <= successes <= count.
    count: number of examples; 0 gives (0, 1), for nothing is known. Of examples that depend on each other, as many as
      would tell as much if they did not: neither needs to be whole.
    confidence: coverage in (0, 1).

  Returns:
    (low, high), both in [0, 1].
  """
  if not 0 <= successes <= count:
    raise ValueError(f'{successes} successes of {count}')
  if count == 0:
    return 0.0, 1.0
  z = NormalDist().inv_cdf((1 + confidence) / 2)
  rate, shrink = successes / count, 1 + z * z / count
  centre = (rate + z * z / (2 * count)) / shrink
  half = z / shrink * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
  # Exact arithmetic ends at 0 and 1 there; rounding must not.
  low = 0.0 if successes == 0 else max(centre - half, 0.0)
  high = 1.0 if successes == count else min(centre + half, 1.0)
  return low, high


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
  """Student's t interval of a mean over seeds.

  Args:
    values: one number per seed, assumed roughly normal.
    confidence: coverage in (0, 1).

  Returns:
    The mean with its interval; a single seed, which says nothing about the spread, has none.

  Raises:
    ValueError: there are no values.
  """
  values = _some(values)
  mean, n = float(values.mean()), len(values)
  if n == 1:
    return Estimate(mean, None, None, n)
  half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
  return Estimate(mean, mean - half, mean + half, n)


def bootstrap(values: np.ndarray, statistic: Callable[[np.ndarray], float], confidence: float = 0.95, seed: int = 0,
              resamples: int = 9999) -> Estimate:
  """Percentile bootstrap interval of a statistic over examples (B. Efron, 1979).

  Its coverage is right for many examples only: of a handful of seeds it is too short, so take ``t_interval`` there.

  Args:
    values: (N, ...), one row per independent example; rows are drawn whole, so that what belongs together stays so.
    statistic: a number for rows (N, ...); it must be defined for any draw of them.
    confidence: coverage in (0, 1).
    seed: of the resampling: the same seed gives the same interval.
    resamples: how many draws.

  Returns:
    The statistic of ``values`` with its interval; a single row has none.

  Raises:
    ValueError: there are no values.
  """
  values = _some(values)
  value, n = float(statistic(values)), len(values)
  if n == 1:
    return Estimate(value, None, None, n)
  ends = scipy.stats.bootstrap((np.arange(n),), lambda rows: statistic(values[rows]), vectorized=False, batch=100,
                               n_resamples=resamples, confidence_level=confidence, method='percentile',
                               rng=np.random.default_rng(seed)).confidence_interval
  return Estimate(value, float(ends.low), float(ends.high), n)


def _some(values: Sequence[float] | np.ndarray) -> np.ndarray:
  values = np.asarray(values, np.float64)
  if not len(values):
    raise ValueError('no values')
  return values
