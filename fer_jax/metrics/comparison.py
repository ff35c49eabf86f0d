"""Whether one network, or one recipe, is better than another, beyond what chance explains.

``mcnemar``, and ``intervals.bootstrap`` of differences on the same faces, are about the choice of faces and take the
networks as they are: they speak of these trained parameters, not of the recipes, whose numbers vary with the seed as
well. Faces are taken as independent, which several pictures of one person are not. ``welch`` is about the seeds and
takes the faces as they are.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # Its parts load when they are first used.


class McNemar(NamedTuple):
  """Counts of faces that one of two networks alone got right, and the p-value of the exact test."""

  ours_only: int
  theirs_only: int
  p_value: float


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> McNemar:
  """Exact two-sided McNemar test that two classifiers are equally accurate (Q. McNemar, 1947).

  Only the faces that one of them alone got right say which is better: were they equally good, each would have got half
  of these, as coins fall. The test never rejects more often than it says, and with few such faces less often. ``ours``
  and ``theirs`` (N,) bool say whether each face, the same in both, was recognised; leave out faces without a label. The
  p-value is 1 where the two are right on the same faces. Raises a ValueError where these are not vectors of one length.
  """
  ours, theirs = np.asarray(ours, bool), np.asarray(theirs, bool)
  if ours.shape != theirs.shape or ours.ndim != 1:
    raise ValueError(f'ours {ours.shape} and theirs {theirs.shape} must be vectors of one length')
  counts = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
  return McNemar(*counts, float(scipy.stats.binomtest(counts[0], sum(counts)).pvalue) if any(counts) else 1.0)


class Welch(NamedTuple):
  """A mean difference, its interval and p-value; None where the values have no spread to compare it with."""

  difference: float
  low: float | None = None
  high: float | None = None
  p_value: float | None = None


def welch(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95) -> Welch:
  """Welch's t test that two recipes have the same mean over seeds, whose spreads may differ (B. L. Welch, 1947).

  Each has one number for each of its seeds, assumed roughly normal; nothing is paired. Returns ours - theirs of the
  means, with the interval at the ``level`` and p-value where both have two seeds or more and not all are equal. Raises
  a ValueError where one has no values.
  """
  if not len(ours) or not len(theirs):
    raise ValueError('no values')
  difference = float(np.mean(ours) - np.mean(theirs))
  if min(len(ours), len(theirs)) == 1 or not (np.ptp(ours) or np.ptp(theirs)):
    return Welch(difference)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', RuntimeWarning)  # Of lost precision, where one of the two has no spread at all.
    test = scipy.stats.ttest_ind(ours, theirs, equal_var=False)
  low, high = test.confidence_interval(level)
  return Welch(difference, float(low), float(high), float(test.pvalue))
