"""The confusion matrix and its rates against scikit-learn and numbers worked out by hand."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from fer_jax.metrics import confusion

K = 4


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(
    hnp.arrays(np.int32, n, elements=st.integers(-1, K - 1)), hnp.arrays(np.int32, n, elements=st.integers(0, K - 1)))))
def test_agrees_with_scikit_learn(pair):
  labels, predictions = pair
  matrix = confusion.confusion_matrix(labels, predictions, K)
  known = labels != -1
  assert matrix.sum() == known.sum()
  if not known.any():
    rates = confusion.accuracy, confusion.mean_class_accuracy, confusion.macro_f1
    assert all(np.isnan(rate(matrix)) for rate in rates)
    return
  labels, predictions = labels[known], predictions[known]
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # scikit-learn warns of predicted classes that no label has.
    np.testing.assert_array_equal(matrix, sklearn_metrics.confusion_matrix(labels, predictions, labels=range(K)))
    np.testing.assert_allclose(confusion.accuracy(matrix), sklearn_metrics.accuracy_score(labels, predictions))
    np.testing.assert_allclose(
        confusion.mean_class_accuracy(matrix), sklearn_metrics.balanced_accuracy_score(labels, predictions))
    expected = sklearn_metrics.recall_score(labels, predictions, labels=range(K), average=None, zero_division=np.nan)
  np.testing.assert_allclose(confusion.recall(matrix), expected)
  np.testing.assert_allclose(confusion.macro_f1(matrix), sklearn_metrics.f1_score(labels, predictions, average='macro'))


def test_rows_are_true_classes_and_absent_classes_are_left_out_of_the_mean():
  matrix = confusion.confusion_matrix(np.array([0, 0, 0, 1, -1]), np.array([0, 0, 2, 1, 1]), 3)
  np.testing.assert_array_equal(matrix, [[2, 0, 1], [0, 1, 0], [0, 0, 0]])
  np.testing.assert_allclose(confusion.recall(matrix), [2 / 3, 1, np.nan])
  assert confusion.accuracy(matrix) == 0.75
  assert confusion.mean_class_accuracy(matrix) == pytest.approx(5 / 6)
  assert confusion.macro_f1(matrix) == pytest.approx((4 / 5 + 1 + 0) / 3)  # The last class was predicted.
  assert confusion.macro_f1(np.diag([2, 1, 0])) == 1


def test_no_answer_is_a_column_of_its_own_and_wrong_in_every_rate():
  labels, predictions = np.array([0, 0, 0, 1, 1, -1, 2]), np.array([0, 0, -1, 1, 0, -1, 2])
  matrix = confusion.confusion_matrix(labels, predictions, 3)
  np.testing.assert_array_equal(matrix, [[2, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0]])
  # The same as answering with one more class, which no face has.
  known = labels >= 0
  others = np.where(predictions < 0, 3, predictions)[known]
  assert confusion.accuracy(matrix) == sklearn_metrics.accuracy_score(labels[known], others) == 4 / 6
  np.testing.assert_allclose(confusion.recall(matrix), [2 / 3, 1 / 2, 1])
  assert confusion.mean_class_accuracy(matrix) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
  f1 = sklearn_metrics.f1_score(labels[known], others, labels=range(3), average='macro')  # No F1 of no answer.
  assert confusion.macro_f1(matrix) == pytest.approx(f1)


def test_majority_baseline_of_the_raf_db_test_set():
  counts = [329, 74, 160, 1185, 478, 162, 680]  # The published class counts.
  labels = np.repeat(np.arange(7), counts)
  matrix = confusion.confusion_matrix(labels, np.full_like(labels, 3), 7)
  assert round(100 * confusion.accuracy(matrix), 2) == 38.62
  assert confusion.mean_class_accuracy(matrix) == pytest.approx(1 / 7)


@pytest.mark.parametrize('labels, predictions', [([0, 3], [0, 0]), ([0, -2], [0, 0]), ([0, 1], [0, -2]), ([0], [0, 1])])
def test_classes_out_of_range_and_unequal_lengths_raise(labels, predictions):
  with pytest.raises(ValueError):
    confusion.confusion_matrix(np.array(labels), np.array(predictions), 3)
