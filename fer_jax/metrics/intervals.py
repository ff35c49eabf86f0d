"""Confidence intervals: how far a printed number may lie from the one it estimates."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy import stats


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


def over_seeds(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
  """Student's t interval of the mean over seeds.

  Args:
    values: one number per seed, assumed roughly normal.
    confidence: coverage in (0, 1).

  Returns:
    (low, high); infinite for a single seed, which says nothing about the spread.
  """
  values = np.asarray(values, np.float64)
  if values.size < 2:
    return -math.inf, math.inf
  half = stats.t.ppf((1 + confidence) / 2, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size)
  return float(values.mean() - half), float(values.mean() + half)
