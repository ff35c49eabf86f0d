"""Whether one network is better than another on the same faces, beyond what the choice of faces explains.

Both answers take the networks as they are: they speak of these trained parameters, not of the recipes, whose numbers
vary with the seed as well. Faces are taken as independent, which several pictures of one person are not.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from fer_jax.metrics.intervals import Estimate, bootstrap


class McNemar(NamedTuple):
  """Counts of faces that both, one or neither of two networks got right, and the p-value of the exact test."""

  both: int
  ours_only: int
  theirs_only: int
  neither: int
  p_value: float


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> McNemar:
  """Exact two-sided McNemar test that two classifiers are equally accurate (Q. McNemar, 1947).

  Only the faces that one of them alone got right say which is better: were they equally good, each would have got half
  of these, as coins fall. The test never rejects more often than it says, and with few such faces less often.

  Args:
    ours: (N,) bool, whether each face was recognised. Leave out faces without a label.
    theirs: (N,) bool, the same faces in the same order.

  Returns:
    The four counts, which add up to N, and the p-value; 1 where the two are right on the same faces.

  Raises:
    ValueError: the shapes differ, or are no vectors.
  """
  ours, theirs = _paired(np.asarray(ours, bool), np.asarray(theirs, bool))
  ours_only, theirs_only = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
  differ = ours_only + theirs_only
  p_value = float(stats.binomtest(ours_only, differ).pvalue) if differ else 1.0
  return McNemar(int((ours & theirs).sum()), ours_only, theirs_only, int((~ours & ~theirs).sum()), p_value)


def paired_bootstrap(ours: np.ndarray, theirs: np.ndarray, confidence: float = 0.95, seed: int = 0) -> Estimate:
  """Bootstrap interval over faces of the mean difference ours - theirs, see ``intervals.bootstrap``.

  Args:
    ours: (N,) real, one score for each face: right or wrong, or the share of several seeds that were right.
    theirs: (N,) real, the same faces in the same order.
    confidence: coverage in (0, 1).
    seed: of the resampling.

  Returns:
    The mean difference, its interval and N.

  Raises:
    ValueError: the shapes differ, are no vectors, or there are no faces.
  """
  ours, theirs = _paired(np.asarray(ours, np.float64), np.asarray(theirs, np.float64))
  return bootstrap(ours - theirs, np.mean, confidence, seed)


def _paired(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  if ours.shape != theirs.shape or ours.ndim != 1:
    raise ValueError(f'ours {ours.shape} and theirs {theirs.shape} must be vectors of one length')
  return ours, theirs
