"""The calibration error against its definition and scikit-learn's reliability curve, and the bias that it has."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.calibration import calibration_curve

from fer_jax.metrics.calibration import expected_calibration_error, top_probability


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(
    hnp.arrays(np.float64, n, elements=st.floats(0, 1) | st.integers(0, 15).map(lambda m: m / 15)),
    hnp.arrays(bool, n))), st.sampled_from([1, 4, 15]))
def test_agrees_with_the_reliability_curve_of_scikit_learn(pair, bins):
  confidence, correct = pair
  right, said = calibration_curve(correct, confidence, n_bins=bins)
  edges = np.linspace(0, 1, bins + 1)
  counts = [sum((low < confidence) & (confidence <= high) | ((low == 0) & (confidence == 0)))
            for low, high in zip(edges, edges[1:], strict=False)]
  expected = np.sum(np.array([c for c in counts if c]) / len(correct) * np.abs(right - said))
  assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expected, abs=1e-12)


def test_hand_checked_values():
  sure, unsure = np.full(4, 0.99), np.full(4, 0.5)
  assert expected_calibration_error(sure, np.array([1, 1, 1, 0])) == pytest.approx(0.24)
  both = np.concatenate([sure, unsure]), np.array([1, 1, 1, 0, 1, 1, 1, 1])
  assert expected_calibration_error(*both) == pytest.approx((0.24 + 0.5) / 2)
  # In one bin they cancel.
  assert expected_calibration_error(*both, bins=1) == pytest.approx(7 / 8 - (0.99 + 0.5) / 2)


def test_a_calibrated_network_gets_the_error_that_chance_gives():
  rng = np.random.default_rng(0)
  for n in (300, 3000):
    confidence = rng.uniform(size=(300, n))
    correct = rng.random((300, n)) < confidence
    errors = [expected_calibration_error(*pair) for pair in zip(confidence, correct, strict=True)]
    # The docstring's formula with n / 15 examples in each bin; v = mean of c (1 - c) over the bin.
    edges = np.linspace(0, 1, 16)
    antiderivative = edges**2 / 2 - edges**3 / 3
    expected = math.sqrt(2 / math.pi) / n * np.sqrt(n / 15 * np.diff(antiderivative) * 15).sum()
    assert np.mean(errors) == pytest.approx(expected, rel=0.05)


def test_top_probability_is_the_softmax_and_survives_large_logits():
  logits = np.array([[0, math.log(3)], [5e3, 0], [2, 2], [np.nan, 0]])
  np.testing.assert_allclose(top_probability(logits), [0.75, 1, 0.5, np.nan])


def test_what_is_unknown_is_nan_and_what_is_no_probability_raises():
  assert math.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))
  assert math.isnan(expected_calibration_error(np.array([0.5, np.nan]), np.array([True, False])))
  with pytest.raises(ValueError, match='no probabilities'):
    expected_calibration_error(np.array([1.5, 0.5]), np.array([True, False]))
  with pytest.raises(ValueError, match='one length'):
    expected_calibration_error(np.array([0.5]), np.array([True, False]))
