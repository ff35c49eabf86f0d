"""Whether a network that is 80 % sure is right in 80 % of such cases."""

import numpy as np
from scipy import special

BINS = 15  # As in most papers: numbers of different binnings cannot be compared.


def top_probability(logits: np.ndarray) -> np.ndarray:
  """(N,) float64 softmax probability of the class that ``logits`` (N, K) put first; NaN where it has none."""
  logits = np.asarray(logits, np.float64)
  with np.errstate(invalid='ignore'):
    return special.softmax(logits, axis=1).max(axis=1)


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
  confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, bool)
  if confidence.shape != correct.shape or confidence.ndim != 1:
    raise ValueError(f'confidence {confidence.shape} and correct {correct.shape} must be vectors of one length')
  if (confidence < 0).any() or (confidence > 1).any():
    raise ValueError(f'confidences lie in [{confidence.min()}, {confidence.max()}], which are no probabilities')
  if not len(confidence):
    return float('nan')
  bin_of = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
  # n_m |accuracy_m - confidence_m| is the size of the sum of differences.
  return float(np.abs(np.bincount(bin_of, correct - confidence)).sum() / len(confidence))
