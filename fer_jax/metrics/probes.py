"""How well frozen features separate the classes of another data set: simple classifiers on top, by scikit-learn.

The hyper-parameters are chosen by cross-validation within the training split, so that no probe ever sees the split it
is scored on. Rows without a label (-1) must be left out by the caller: -1 would be a class like any other.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from fer_jax.errors import UserError, nearest

METHODS = ('linear probe', 'k-NN', 'linear SVM')
FOLDS = 5
SEARCH_ROWS = 4_000  # Cross-validation sees no more than about so many.

# From strong to weak regularisation: of equally good values the first is taken.
_GRIDS = {'C': (0.001, 0.01, 0.1, 1, 10), 'k': (45, 15, 5, 1)}
_MAX_ITERATIONS = 5000
_SVM_TOLERANCE = 0.01  # liblinear's own; scikit-learn's, 1e-4, takes up to three times as long for the same accuracy.


def probe(method: str, train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray,
          seed: int = 0) -> tuple[np.ndarray, dict[str, Any]]:
  """Fits a classifier, one of ``METHODS``, on the features of one split and predicts another.

  All methods standardise each feature by its mean and standard deviation in the training split. 'linear probe' is
  multinomial logistic regression and 'linear SVM' one-vs-rest with squared hinge loss, both with an L2 penalty of
  inverse strength C in (0.001, 0.01, 0.1, 1, 10); 'k-NN' is a vote of the k in (1, 5, 15, 45) nearest rows by Euclidean
  distance. C or k is the one with the highest mean accuracy in stratified cross-validation within the training split (5
  folds, or as many as the smallest class has rows), of equals the most regularised: the smallest C, the largest k. Of a
  training split of more than 4,000 rows, cross-validation sees a stratified sample of 4,000, and five rows of each
  class however small; ``seed`` decides folds and sample. The classifier is then fitted on all rows. If a class has a
  single row, there is no cross-validation: C and k are 1.

  The features (N, D) and (M, D) are real and finite, the labels (N,) int of two classes at least. Returns (M,) int64
  predictions, and what was chosen, which JSON can hold: 'C' or 'k', 'cross-validated' bool and, but for k-NN,
  'converged' bool.

  Raises a UserError for an unknown method, or a training split with fewer than two classes.
  """
  if method not in METHODS:
    raise UserError(f"unknown probe '{method}'{nearest(str(method), METHODS)}")
  classifier, chosen = _fit(method, np.asarray(train_x, np.float64), np.asarray(train_y, np.int64), seed)
  return classifier.predict(np.asarray(test_x, np.float64)), chosen


def few_shot(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, shots: Sequence[int],
             draws: int, seed: int = 0) -> list[dict[str, Any]]:
  """Accuracy of the linear probe, as in ``probe``, that learns from n of ``shots`` examples of each class.

  Draw i takes the first n of a permutation of each class that depends on ``seed`` >= 0 and i alone. So more shots of a
  draw contain its fewer shots, and the curves of different features, and the points of one curve, are paired. A class
  with fewer than n examples gives all it has.

  The features (N, D) and (M, D) are real and finite, the labels (N,) and (M,) int; in training there are two classes or
  more.

  Returns for each n a dict that JSON can hold: shots, draws, accuracy (mean over draws, of the whole test split), sd
  (over draws, ddof 1; None for one draw), accuracies (of the draws), short_classes (how many classes of the training
  split have fewer than n examples), skipped_classes (how many classes of the test split have none; their rows count as
  wrong).

  Raises a UserError for shots or draws below 1, or a training split with fewer than two classes.
  """
  if draws < 1 or any(n < 1 for n in shots):
    raise UserError(f'few_shot: shots={list(shots)}, draws={draws}: give numbers from 1 up.')
  train_x, test_x = np.asarray(train_x, np.float64), np.asarray(test_x, np.float64)
  train_y, test_y = np.asarray(train_y, np.int64), np.asarray(test_y, np.int64)
  classes, counts = np.unique(train_y, return_counts=True)
  results = []
  for n in shots:
    accuracies = []
    for draw in range(draws):
      rows = _draw(train_y, n, draw, seed)
      classifier, _ = _fit('linear probe', train_x[rows], train_y[rows], seed)
      accuracies.append(float(np.mean(classifier.predict(test_x) == test_y)))
    results.append({
        'shots': int(n), 'draws': draws,
        'accuracy': float(np.mean(accuracies)), 'sd': float(np.std(accuracies, ddof=1)) if draws > 1 else None,
        'accuracies': accuracies,
        'short_classes': int((counts < n).sum()), 'skipped_classes': int((~np.isin(np.unique(test_y), classes)).sum()),
    })
  return results


def _draw(labels: np.ndarray, shots: int, draw: int, seed: int) -> np.ndarray:
  """Rows of the ``shots`` examples of each class in draw number ``draw``."""
  rng = np.random.RandomState([seed, draw])  # Its numbers never change with the version of numpy.
  return np.concatenate([rng.permutation(np.flatnonzero(labels == k))[:shots] for k in np.unique(labels)])


def _fit(method: str, x: np.ndarray, y: np.ndarray, seed: int) -> tuple[Pipeline, dict[str, Any]]:
  """Chooses the hyper-parameter, fits on all of (x, y), and says what was chosen."""
  counts = np.unique(y, return_counts=True)[1]
  if len(counts) < 2:
    raise UserError(f'a probe of {len(counts)} class(es) has nothing to tell apart: the training split needs two.')
  name, model = {
      'linear probe': ('C', LogisticRegression(max_iter=_MAX_ITERATIONS)),
      'k-NN': ('k', KNeighborsClassifier()),
      'linear SVM': ('C', LinearSVC(dual='auto', tol=_SVM_TOLERANCE, max_iter=_MAX_ITERATIONS, random_state=seed)),
  }[method]
  classifier = make_pipeline(StandardScaler(), model)
  parameter = {'C': 'C', 'k': 'n_neighbors'}[name]
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', ConvergenceWarning)
    chosen = {name: 1, 'cross-validated': bool(counts.min() > 1)}
    if chosen['cross-validated']:
      chosen[name] = _search(classifier, f'{type(model).__name__.lower()}__{parameter}', _GRIDS[name], x, y, seed)
    model.set_params(**{parameter: chosen[name]})
    classifier.fit(x, y)
  if method != 'k-NN':
    chosen['converged'] = bool(np.max(model.n_iter_) < _MAX_ITERATIONS)
  return classifier, chosen


def _search(classifier: Pipeline, parameter: str, grid: Sequence[float], x: np.ndarray, y: np.ndarray,
            seed: int) -> float:
  """The first of the values in ``grid`` with the highest cross-validated accuracy; every class has two rows or more."""
  rows = _sample(y, seed)
  folds = StratifiedKFold(min(FOLDS, np.unique(y[rows], return_counts=True)[1].min()), shuffle=True, random_state=seed)
  folds = list(folds.split(x[rows], y[rows]))
  if parameter.endswith('n_neighbors'):
    grid = [k for k in grid if k <= min(len(train) for train, _ in folds)]
  search = GridSearchCV(classifier, {parameter: list(grid)}, scoring='accuracy', cv=folds, refit=False)
  scores = search.fit(x[rows], y[rows]).cv_results_['mean_test_score']
  return grid[np.flatnonzero(scores >= scores.max() - 1e-9)[0]]  # Means of equal scores may differ by rounding.


def _sample(labels: np.ndarray, seed: int) -> np.ndarray:
  """Ascending rows of a stratified sample of ``SEARCH_ROWS``, and ``FOLDS`` rows of each class however small."""
  share, rng = min(1.0, SEARCH_ROWS / len(labels)), np.random.RandomState(seed)
  quota = lambda rows: max(FOLDS, int(share * len(rows)))
  members = [np.flatnonzero(labels == k) for k in np.unique(labels)]
  return np.sort(np.concatenate([rng.permutation(rows)[:quota(rows)] for rows in members]))
