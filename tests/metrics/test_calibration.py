"""Calibration against its definitions and scikit-learn: errors, temperatures of made-up logits, risk and coverage."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special
from sklearn.calibration import calibration_curve

from fer_jax.errors import UserError
from fer_jax.metrics import calibration
from fer_jax.metrics.calibration import expected_calibration_error, top_probability
from fer_jax.metrics.intervals import wilson


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


def made_up(count, temperature, classes=7, seed=0):
  """Logits of a network whose probabilities are right once they are divided by a temperature, and labels."""
  rng = np.random.default_rng(seed)
  right = 2 * rng.normal(size=(count, classes))
  label = (right + rng.gumbel(size=right.shape)).argmax(axis=1)  # Drawn from softmax(right).
  return right * temperature, label


@pytest.mark.parametrize('temperature', [0.3, 1.0, 4.0])
def test_a_known_temperature_is_found(temperature):
  logits, label = made_up(200_000, temperature)
  found = calibration.fit_temperature(logits, label)
  assert found.value == pytest.approx(temperature, rel=0.01) and not found.at_bound
  assert found.low < temperature < found.high and found.high / found.low < 1.02
  after, at_it = (calibration.scores(logits, label, t) for t in (found.value, temperature))
  assert after['nll'] <= at_it['nll'] and after['ece'] < 0.005


def test_a_fit_is_the_least_of_a_grid_and_leaves_out_faces_without_a_label():
  logits, label = made_up(300, 2.5, seed=1)
  label[::5] = -1
  found = calibration.fit_temperature(logits, label)
  grid = np.exp(np.linspace(-2, 3, 4001))
  nlls = [calibration.nll(logits, label, t) for t in grid]
  assert found.value == pytest.approx(grid[np.argmin(nlls)], rel=2e-3)
  assert found == calibration.fit_temperature(logits[label >= 0], label[label >= 0])
  p = special.softmax(logits / found.value, axis=1)[np.arange(300), label]
  assert calibration.nll(logits, label, found.value) == pytest.approx(-np.log(p[label >= 0]).mean())


def test_the_interval_of_the_temperature_is_that_of_drawing_faces_again():
  logits, label = made_up(2000, 1.5, seed=2)
  label[::4] = (label[::4] + 1) % 7  # Then no temperature makes the model true, and the interval still holds.
  found = calibration.fit_temperature(logits, label)
  rng = np.random.default_rng(0)
  again = [calibration.fit_temperature(logits[rows], label[rows]).value for rows in rng.integers(0, 2000, (200, 2000))]
  low, high = np.quantile(again, [0.025, 0.975])
  assert found.low == pytest.approx(low, rel=0.03) and found.high == pytest.approx(high, rel=0.03)
  assert 0.6 < (found.high - found.low) / (high - low) < 1.5


def test_ends_of_the_search_are_told():
  logits, label = made_up(50, 1.0)
  sure = calibration.fit_temperature(logits, logits.argmax(axis=1))  # The surer, the better.
  assert sure.at_bound and sure.value == pytest.approx(calibration.TEMPERATURES[0], rel=0.01) and sure.low is None
  wrong = calibration.fit_temperature(logits, logits.argmin(axis=1))
  assert wrong.at_bound and wrong.value == pytest.approx(calibration.TEMPERATURES[1], rel=0.01)
  assert calibration.fit_temperature(np.ones((5, 3)), np.zeros(5, int)) == (1.0, None, None, False)


def test_what_has_no_temperature_raises():
  with pytest.raises(ValueError, match='faces with a label'):
    calibration.fit_temperature(np.zeros((2, 3)), np.array([-1, -1]))
  with pytest.raises(ValueError, match='finite'):
    calibration.fit_temperature(np.array([[np.inf, 0]]), np.array([1]))


def test_brier_score_by_hand():
  logits = np.log([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [1e-30, 1e-30, 1]])
  label = np.array([0, 0, -1])
  one, two = 0.25 + 0.09 + 0.04, 0.81 + 0.64 + 0.01
  assert calibration.brier(logits, label) == pytest.approx((one + two) / 2)
  assert calibration.brier(logits[2:], np.array([0])) == pytest.approx(2)
  assert math.isnan(calibration.brier(logits, label - 9))
  assert calibration.brier(np.zeros((4, 4)), np.arange(4)) == pytest.approx(1 - 1 / 4)
  assert calibration.brier(logits, label, 1e6) == pytest.approx(2 / 3)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(
    hnp.arrays(np.float64, n, elements=st.floats(0, 1) | st.sampled_from([0.25, 0.5, 1])), hnp.arrays(bool, n))))
def test_bins_add_up_to_the_calibration_error(pair):
  bins = calibration.reliability(*pair)
  assert sum(one['count'] for one in bins) == len(pair[0])
  error = sum(one['count'] * abs(one['accuracy'] - one['confidence']) for one in bins) / len(pair[0])
  assert error == pytest.approx(expected_calibration_error(*pair), abs=1e-12)
  for one in bins:
    assert one['accuracy_interval'] == list(wilson(one['accuracy'] * one['count'], one['count']))


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(
    hnp.arrays(np.float64, n, elements=st.floats(0, 1) | st.sampled_from([0.25, 0.5, 1])), hnp.arrays(bool, n))))
def test_the_risk_coverage_curve_is_that_of_a_plain_loop(pair):
  confidence, correct = pair
  curve = calibration.risk_coverage(confidence, correct)
  expected, total, covered = [], 0.0, 0.0
  for threshold in sorted(set(confidence.tolist()), reverse=True):
    given_ = [right for said, right in zip(confidence, correct, strict=True) if said >= threshold]
    wrong = len(given_) - sum(given_)
    expected.append((threshold, len(given_) / len(correct), wrong / len(given_), *wilson(wrong, len(given_))))
    total += (expected[-1][1] - covered) * expected[-1][2]
    covered = expected[-1][1]
  np.testing.assert_allclose(np.array(curve).T, expected)
  assert calibration.area(curve) == pytest.approx(total)
  order = np.random.default_rng(0).permutation(len(correct))
  for one, other in zip(curve, calibration.risk_coverage(confidence[order], correct[order]), strict=True):
    np.testing.assert_array_equal(one, other)


def test_without_ties_the_area_is_the_mean_of_the_risks():
  rng = np.random.default_rng(0)
  confidence, correct = rng.permutation(50) / 50, rng.random(50) < 0.7
  ranked = ~correct[np.argsort(-confidence)]
  curve = calibration.risk_coverage(confidence, correct)
  assert calibration.area(curve) == pytest.approx(np.mean([ranked[:n].mean() for n in range(1, 51)]))


def test_a_thinned_curve_has_its_end_and_points_of_the_curve():
  rng = np.random.default_rng(0)
  curve = calibration.risk_coverage(rng.random(5000), rng.random(5000) < 0.8)
  thin = calibration.thinned(curve)
  assert len(thin['coverage']) == 101 and thin['coverage'][-1] == 1 and set(thin['risk']) <= set(curve.risk)
  assert np.diff(thin['coverage']).max() < 0.011
  one = calibration.thinned(calibration.risk_coverage(np.full(9, 0.5), np.ones(9, bool)))
  assert one['coverage'] == [1.0] and one['threshold'] == [0.5]
  assert json.loads(json.dumps(thin)) == thin


def test_thresholds_leave_what_is_wanted_and_no_more():
  confidence = np.array([0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2])
  correct = np.ones(10, bool)
  at = lambda share: calibration.threshold_for(confidence, correct, coverage=share)
  assert [at(share) for share in (0.1, 0.2, 0.21, 0.3, 0.5, 0.6, 0.9, 0.91, 1.0)] == [
      0.9, 0.9, 0.8, 0.8, 0.6, 0.6, 0.3, 0, 0]
  assert calibration.answered(confidence, correct, at(0.5))['coverage'] == 0.6  # Those of 0.6 come together.


def test_the_threshold_of_an_accuracy_is_the_lowest_whose_interval_begins_there():
  rng = np.random.default_rng(0)
  confidence = np.round(rng.random(3000), 3)
  correct = rng.random(3000) < 0.4 + 0.6 * confidence
  found = calibration.threshold_for(confidence, correct, accuracy=0.8)
  lower = {}
  for value in np.unique(confidence):
    answers = correct[confidence >= value]
    lower[value] = wilson(int(answers.sum()), len(answers))[0]
  assert found == min(value for value, low in lower.items() if low >= 0.8)
  answers = calibration.answered(confidence, correct, found)
  assert answers['accuracy_interval'][0] >= 0.8 and answers['count'] == (confidence >= found).sum()
  assert answers['accuracy'] == pytest.approx(correct[confidence >= found].mean())
  assert calibration.threshold_for(confidence, correct, accuracy=0.5) == 0  # All of them are as good.
  assert calibration.answered(confidence, correct, 1.5) == {
      'count': 0, 'coverage': 0.0, 'accuracy': None, 'accuracy_interval': [0.0, 1.0]}


def test_an_accuracy_out_of_reach_names_the_best():
  confidence, correct = np.array([0.9] * 40 + [0.5] * 60), np.array([True] * 39 + [False] * 61)
  with pytest.raises(UserError) as error:
    calibration.threshold_for(confidence, correct, accuracy=0.95)
  low = wilson(39, 40)[0]
  assert str(error.value) == (
      'no threshold reaches an accuracy of 0.95 with its 95 % interval. The best is 0.9000: 40.0% of 100 faces get an '
      f'answer, and 97.50% of these are right, {low:.2%} at the lower end. Want less, or calibrate on more faces.')
