"""Whether a network that is 80 % sure is right in 80 % of such cases, the temperature that makes it so, and abstaining.

Everywhere logits (N, K) and labels (N,) int belong to faces, a label -1 is unknown and its face is left out, and the
*confidence* of a face is the probability of the class put first.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

from fer_jax.errors import UserError
from fer_jax.metrics.intervals import wilson

BINS = 15  # As in most papers: numbers of different binnings cannot be compared.

TEMPERATURES = (0.01, 100.0)  # Between which ``fit_temperature`` looks.


class Temperature(NamedTuple):
  """What logits are divided by, its 95 % interval (None where nothing is known), and whether the search ended at an end
  of ``TEMPERATURES``: then the best is not there, or further out."""

  value: float
  low: float | None
  high: float | None
  at_bound: bool


class RiskCoverage(NamedTuple):
  """A curve (G,): from each ``threshold`` on, the largest first, the answers given are a share ``coverage`` of all, and
  ``risk`` of them are wrong, with the Wilson 95 % interval ``low`` to ``high``."""

  threshold: np.ndarray
  coverage: np.ndarray
  risk: np.ndarray
  low: np.ndarray
  high: np.ndarray


def top_probability(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
  """(N,) float64 softmax probability of the class that ``logits`` (N, K) put first; NaN where it has none."""
  logits = np.asarray(logits, np.float64)
  with np.errstate(invalid='ignore'):
    return special.softmax(logits / temperature, axis=1).max(axis=1)


def labelled(logits: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The logits (M, K) float64 and labels (M,) of the faces that have a label."""
  logits, label = np.asarray(logits, np.float64), np.asarray(label)
  return logits[label >= 0], label[label >= 0]


def nll(logits: np.ndarray, label: np.ndarray, temperature: float = 1.0) -> float:
  """Mean negative log-likelihood of the true class, in nats; NaN without a label."""
  logits, label = labelled(logits, label)
  if not len(label):
    return float('nan')
  return float(-special.log_softmax(logits / temperature, axis=1)[np.arange(len(label)), label].mean())


def brier(logits: np.ndarray, label: np.ndarray, temperature: float = 1.0) -> float:
  """Brier score of several classes (G. W. Brier, 1950): the mean over faces of sum_k (p_k - [k is true])^2.

  It lies in [0, 2], as in Brier's paper; where two classes are told apart by one probability, half of it is meant. A
  uniform answer gets 1 - 1 / K. NaN without a label.
  """
  logits, label = labelled(logits, label)
  if not len(label):
    return float('nan')
  truth = np.arange(logits.shape[1]) == label[:, None]
  return float(np.square(special.softmax(logits / temperature, axis=1) - truth).sum(axis=1).mean())


def scores(logits: np.ndarray, label: np.ndarray, temperature: float = 1.0) -> dict[str, float]:
  """``nll``, 'ece' (``expected_calibration_error``) and ``brier`` of logits that are divided by a temperature."""
  known, true = labelled(logits, label)
  return {'nll': nll(known, true, temperature), 'brier': brier(known, true, temperature),
          'ece': expected_calibration_error(top_probability(known, temperature), known.argmax(axis=1) == true)}


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> Temperature:
  """The temperature T at which softmax(logits / T) has the least mean ``nll`` (Guo et al., 2017, arXiv 1706.04599).

  The NLL is convex in 1 / T, so it has one valley over log T, which is searched between ``TEMPERATURES``. No order of
  classes changes, hence no prediction and no accuracy. The interval is that of an M-estimator (P. J. Huber, 1967): of
  beta = 1 / T, whose equation is mean psi = 0 with psi_i = E_p[z_i] - z_i,true, the standard error is sqrt(mean psi^2 /
  N) / mean Var_p[z_i], carried to log T. So it need not be true that a softmax at some temperature made the labels; it
  covers which faces were drawn. It is None at a bound. Where no logits differ every T is as good, and T is 1.

  Raises:
    ValueError: no face has a label, or a logit is not finite.
  """
  logits, label = labelled(logits, label)
  if not len(label) or not np.isfinite(logits).all():
    raise ValueError('a temperature needs faces with a label, and logits that are finite')
  if not np.ptp(logits, axis=1).any():
    return Temperature(1.0, None, None, False)
  ends = np.log(TEMPERATURES)
  found = optimize.minimize_scalar(lambda x: nll(logits, label, math.exp(x)), bounds=ends, method='bounded',
                                   options={'xatol': 1e-7})
  value = math.exp(found.x)
  if np.abs(ends - found.x).min() < 1e-3:
    return Temperature(value, None, None, True)
  probability = special.softmax(logits / value, axis=1)
  mean = (probability * logits).sum(axis=1)
  spread = ((probability * np.square(logits)).sum(axis=1) - np.square(mean)).mean()
  psi = mean - logits[np.arange(len(label)), label]
  half = 1.959964 * value * math.sqrt(np.square(psi).mean() / len(label)) / spread
  return Temperature(value, value * math.exp(-half), value * math.exp(half), False)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
  """Expected calibration error of the top class (Guo et al., 2017, arXiv 1706.04599, section 2), in [0, 1].

  The examples are sorted by ``confidence`` (N,), the probability in [0, 1] of the predicted class, into ``bins``
  intervals of equal width, bin m being ((m - 1) / bins, m / bins]; with ``correct`` (N,) bool, sum_m n_m / N
  |accuracy_m - mean confidence_m| is the error. It sees only the probability of the class put first. It is NaN where
  there are no examples or a confidence is NaN; a ValueError says that shapes differ, or that a confidence lies outside
  [0, 1].

  This plug-in estimate is biased. Upwards by chance: a perfectly calibrated network gets, in expectation, about sqrt(2
  / pi) / N sum_m sqrt(n_m v_m) with v_m the mean of confidence (1 - confidence) in the bin, so more on a small split
  than on a large one. Downwards by binning: what is over- and underconfident within one bin cancels (Kumar et al.,
  2019, arXiv 1909.10155). Compare networks on the same split only.
  """
  confidence, correct = _pairs(confidence, correct)
  if not len(confidence):
    return float('nan')
  # n_m |accuracy_m - confidence_m| is the size of the sum of differences.
  return float(np.abs(np.bincount(_bin_of(confidence, bins), correct - confidence)).sum() / len(confidence))


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
  """The bins of ``expected_calibration_error`` that are not empty, from the least confidence up.

  Returns, for each, 'confidence' and 'accuracy', the means in it, 'accuracy_interval' (Wilson, 95 %) and 'count'.
  """
  confidence, correct = _pairs(confidence, correct)
  bin_of, found = _bin_of(confidence, bins), []
  for one in np.unique(bin_of):
    inside = bin_of == one
    count, right = int(inside.sum()), int(correct[inside].sum())
    found.append({'confidence': float(confidence[inside].mean()), 'accuracy': right / count,
                  'accuracy_interval': list(wilson(right, count)), 'count': count})
  return found


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> RiskCoverage:
  """The share of wrong answers against the share of answers given (El-Yaniv and Wiener, 2010, JMLR 11).

  Of confidences (N,) in [0, 1] with ``correct`` (N,) bool, a threshold lets through those that are no smaller. Each
  value that occurs is one: faces of the same confidence come together, since nothing tells one before the other. Each
  interval is that of its own threshold; not all of them hold at once.
  """
  confidence, correct = _pairs(confidence, correct)
  order = np.argsort(-confidence, kind='stable')
  last = np.flatnonzero(np.diff(confidence[order], append=-1))  # The last face of each value.
  covered, errors = last + 1, np.cumsum(~correct[order])[last]
  ends = np.array([wilson(*pair) for pair in zip(errors.tolist(), covered.tolist(), strict=True)]).reshape(-1, 2)
  return RiskCoverage(confidence[order][last], covered / max(len(order), 1), errors / covered, *ends.T)


def area(curve: RiskCoverage) -> float:
  """The area under a risk-coverage curve (AURC; Geifman et al., 2019, arXiv 1805.08206), in [0, 1]: less is better.

  Each value of confidence counts with the share of faces that have it; where all differ it is the mean over n of the
  risk of the n most confident faces.
  """
  return float((np.diff(curve.coverage, prepend=0) * curve.risk).sum())


def thinned(curve: RiskCoverage, points: int = 101) -> dict[str, list[float]]:
  """At most so many points of a curve, evenly spaced in coverage up to the end, as JSON has them."""
  steps = np.linspace(1 / points, curve.coverage[-1], points)
  kept = np.unique(np.searchsorted(curve.coverage, steps).clip(max=len(curve.coverage) - 1))
  return {name: values[kept].tolist() for name, values in curve._asdict().items()}


def threshold_for(confidence: np.ndarray, correct: np.ndarray, *, accuracy: float | None = None,
                  coverage: float | None = None) -> float:
  """The threshold from which on the answers have a wanted accuracy, or a wanted share of faces gets one.

  Args:
    confidence: (N,) in [0, 1], with ``correct`` (N,) bool.
    accuracy: in (0, 1). The lowest threshold at which the lower end of the Wilson 95 % interval of the accuracy of the
      answers given is no less: the estimate itself would be missed by every second draw of faces. The lowest of many
      still is a choice made on these faces, so other faces may get somewhat less; measure it on them.
    coverage: in (0, 1], in its place. The highest threshold that leaves no less.

  Returns:
    One of the confidences; 0 where every face may get an answer.

  Raises:
    UserError: no threshold reaches the accuracy.
  """
  curve = risk_coverage(confidence, correct)
  if coverage is not None:
    at = int(np.argmax(curve.coverage >= coverage - 1e-12))
  else:
    reached = np.flatnonzero(1 - curve.high >= accuracy)
    if not len(reached):
      best = int(np.argmin(curve.high))
      raise UserError(
          f'no threshold reaches an accuracy of {accuracy:g} with its 95 % interval. The best is '
          f'{curve.threshold[best]:.4f}: {curve.coverage[best]:.1%} of {len(confidence):,} faces get an answer, and '
          f'{1 - curve.risk[best]:.2%} of these are right, {1 - curve.high[best]:.2%} at the lower end. Want less, or '
          'calibrate on more faces.')
    at = int(reached[-1])
  return 0.0 if at == len(curve.coverage) - 1 else float(curve.threshold[at])


def answered(confidence: np.ndarray, correct: np.ndarray, threshold: float) -> dict[str, Any]:
  """What a threshold does to faces: 'count' of those that get an answer, 'coverage', their share, and 'accuracy' of
  the answers (None where there are none) with 'accuracy_interval' (Wilson, 95 %)."""
  confidence, correct = _pairs(confidence, correct)
  given = confidence >= threshold
  count, right = int(given.sum()), int(correct[given].sum())
  return {'count': count, 'coverage': count / max(len(given), 1), 'accuracy': right / count if count else None,
          'accuracy_interval': list(wilson(right, count))}


def _pairs(confidence: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray
           ) -> tuple[np.ndarray, np.ndarray]:
  """Both as arrays (N,); raises a ValueError where shapes differ, or a confidence lies outside [0, 1]."""
  confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, bool)
  if confidence.shape != correct.shape or confidence.ndim != 1:
    raise ValueError(f'confidence {confidence.shape} and correct {correct.shape} must be vectors of one length')
  if (confidence < 0).any() or (confidence > 1).any():
    raise ValueError(f'confidences lie in [{confidence.min()}, {confidence.max()}], which are no probabilities')
  return confidence, correct


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
  return np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
