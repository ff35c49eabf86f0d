"""The confusion matrix and the rates read off it: accuracy, recall per class, mean class accuracy, macro F1."""

import numpy as np


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
  """Counts pairs of true class (row) and predicted class (column): (K, K) int64.

  Labels (N,) int that are -1 (unknown) are left out; predictions (N,) int lie in [0, K), or are -1 where none of the
  classes was answered. Such faces, if there are any, are counted in a further column, (K, K + 1): wrong in every rate
  below. Raises a ValueError where the shapes differ, or a class is outside its range.
  """
  labels, predictions = np.asarray(labels), np.asarray(predictions)
  if labels.shape != predictions.shape or labels.ndim != 1:
    raise ValueError(f'labels {labels.shape} and predictions {predictions.shape} must be vectors of one length')
  known = labels != -1
  labels, predictions = labels[known].astype(np.int64), predictions[known].astype(np.int64)
  for what, values, least in (('labels', labels, 0), ('predictions', predictions, -1)):
    if values.size and not (least <= values.min() and values.max() < num_classes):
      raise ValueError(f'{what} lie in [{values.min()}, {values.max()}] but there are {num_classes} classes')
  columns = num_classes + bool((predictions < 0).any())
  pairs = np.bincount(labels * columns + predictions % columns, minlength=num_classes * columns)
  return pairs.reshape(num_classes, columns)


def accuracy(confusion: np.ndarray) -> float:
  """Share of examples on the diagonal of a confusion matrix, in [0, 1]; NaN where there are no examples."""
  return float(np.trace(confusion) / total) if (total := confusion.sum()) else float('nan')


def recall(confusion: np.ndarray) -> np.ndarray:
  """(K,) float64 share of each class that was recognised; NaN for a class without examples."""
  counts = confusion.sum(axis=1)
  return np.divide(np.diag(confusion), counts, out=np.full(len(counts), np.nan), where=counts > 0)


def mean_class_accuracy(confusion: np.ndarray) -> float:
  """Mean recall over the classes that have examples (unweighted average recall); NaN where there are none."""
  rates = recall(confusion)
  return float(rates[np.isfinite(rates)].mean()) if np.isfinite(rates).any() else float('nan')


def macro_f1(confusion: np.ndarray) -> float:
  """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall, in [0, 1].

  A class with neither examples nor predictions has no F1 and is left out. One without examples that was predicted
  counts as 0, where ``mean_class_accuracy`` leaves it out. NaN where there are no examples.
  """
  marginals = confusion.sum(axis=0)[:len(confusion)] + confusion.sum(axis=1)
  there = marginals > 0
  return float(np.mean(2 * np.diag(confusion)[there] / marginals[there])) if there.any() else float('nan')
