"""Probes against plain scikit-learn, what they may and may not see, and draws that contain each other."""

import json
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from fer_jax.errors import UserError
from fer_jax.metrics import probes

GRIDS = {
    'linear probe': {c: LogisticRegression(C=c, max_iter=5000) for c in (0.001, 0.01, 0.1, 1, 10)},
    'k-NN': {k: KNeighborsClassifier(k) for k in (45, 15, 5, 1)},
    'linear SVM': {c: LinearSVC(C=c, tol=0.01, random_state=0) for c in (0.001, 0.01, 0.1, 1, 10)},
}


def clusters(n, distance, seed=0, classes=4, dimension=6):
  """Features (n, 6) and labels (n,) of clusters of standard deviation 1, their centres ``distance`` from the origin."""
  rng = np.random.RandomState(seed)
  labels = np.arange(n) % classes
  return (distance * np.eye(classes, dimension)[labels] + rng.normal(size=(n, dimension))).astype(np.float32), labels


@pytest.fixture
def small_grids(monkeypatch):
  monkeypatch.setattr(probes, '_GRIDS', {'C': (0.01, 1), 'k': (5, 1)})


@pytest.mark.parametrize('method', probes.METHODS)
def test_separable_clusters_are_told_apart_and_shuffled_labels_are_not(method, small_grids):
  x, y = clusters(800, 10)
  x *= np.float32([1, 1, 1, 1, 1e3, 1e-3])  # Without standardising, one useless feature would hide the others.
  found, chosen = probes.probe(method, x[:400], y[:400], x[400:])
  assert found.dtype == np.int64 and (found == y[400:]).mean() > 0.99
  assert chosen['cross-validated'] and json.loads(json.dumps(chosen)) == chosen
  shuffled, _ = probes.probe(method, x[:400], np.random.RandomState(0).permutation(y[:400]), x[400:])
  assert (shuffled == y[400:]).mean() == pytest.approx(0.25, abs=0.12)


@pytest.mark.parametrize('method', probes.METHODS)
def test_agrees_with_plain_scikit_learn(method):
  x, y = clusters(360, 1.5)
  y = np.where(np.arange(360) % 5 == 0, 0, y) * 3 + 1  # Unbalanced, and classes need not count from 0.
  train_x, train_y, test_x = x[:200].astype(float), y[:200], x[200:].astype(float)
  folds = StratifiedKFold(5, shuffle=True, random_state=7)
  scores = {value: cross_val_score(make_pipeline(StandardScaler(), model), train_x, train_y, cv=folds).mean()
            for value, model in GRIDS[method].items()}
  best = next(value for value, score in scores.items() if score >= max(scores.values()) - 1e-9)
  expected = make_pipeline(StandardScaler(), GRIDS[method][best]).fit(train_x, train_y).predict(test_x)
  found, chosen = probes.probe(method, train_x, train_y, test_x, seed=7)
  np.testing.assert_array_equal(found, expected)
  extra = {'k': best} if method == 'k-NN' else {'C': best, 'converged': True}
  assert chosen == {'cross-validated': True, **extra}


@pytest.mark.parametrize('method', probes.METHODS)
def test_a_prediction_depends_on_its_own_row_alone(method, small_grids):
  x, y = clusters(200, 2)
  together, chosen = probes.probe(method, x[:120], y[:120], x[120:])
  half, same = probes.probe(method, x[:120], y[:120], x[120:][::-2])
  np.testing.assert_array_equal(half, together[::-2])
  assert same == chosen
  beside_outliers, same = probes.probe(method, x[:120], y[:120], np.concatenate([x[120:], 1e3 * x[120:]]))
  np.testing.assert_array_equal(beside_outliers[:80], together)
  assert same == chosen


@pytest.mark.parametrize('method, value', [('linear probe', 0.001), ('k-NN', 15), ('linear SVM', 0.001)])
def test_of_equal_scores_the_most_regularised_is_taken(method, value):
  x, y = clusters(80, 100)  # All are perfect; 45 neighbours need more than the 16 rows a class has in a fold.
  assert probes.probe(method, x, y, x)[1][{'k-NN': 'k'}.get(method, 'C')] == value


@pytest.mark.parametrize('method', probes.METHODS)
def test_a_class_with_one_example_is_kept_without_cross_validation(method):
  x, y = clusters(40, 20)
  rows = np.flatnonzero((y != 3) | (np.arange(40) == 3))
  found, chosen = probes.probe(method, x[rows], y[rows], x)
  assert (found == y).all() and not chosen['cross-validated']
  assert chosen[{'k-NN': 'k'}.get(method, 'C')] == 1


def test_neighbours_never_outnumber_the_rows_of_a_fold():
  x, y = clusters(12, 20, classes=2)
  assert probes.probe('k-NN', x, y, x)[1]['k'] == 5  # A fold trains on 9 rows or 10.
  assert probes.probe('k-NN', x[:4], y[:4], x)[1]['k'] == 1  # On 2.


def test_cross_validation_sees_a_sample_and_the_fit_sees_all(monkeypatch):
  monkeypatch.setattr(probes, 'SEARCH_ROWS', 100)
  x, y = clusters(1000, 10, classes=2)
  y[[5, 500, 900]], y[7] = 2, 3
  rows = probes._sample(y, 0)
  np.testing.assert_array_equal(np.bincount(y[rows]), [49, 49, 3, 1])
  assert len(set(rows)) == len(rows) and set(probes._sample(y, 1)) != set(rows)
  y[7] = 2
  x[y == 2] += 100 * np.arange(1, 5)[:, None]  # Each is its own nearest neighbour and nobody else's.
  monkeypatch.setattr(probes, '_GRIDS', {'k': (1,)})
  assert (probes.probe('k-NN', x, y, x)[0] == y).all()


def test_a_fit_that_does_not_converge_says_so_in_the_result_only(monkeypatch):
  monkeypatch.setattr(probes, '_MAX_ITERATIONS', 1)
  x, y = clusters(100, 1)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    for method in ('linear probe', 'linear SVM'):
      assert probes.probe(method, x, y, x)[1]['converged'] is False


@pytest.mark.parametrize('method, hint', [('linear prob', "did you mean 'linear probe'"), ('knn', 'k-NN'), (None, '.')])
def test_unknown_methods(method, hint):
  with pytest.raises(UserError, match='unknown probe') as error:
    probes.probe(method, *clusters(8, 1), np.zeros((1, 6)))
  assert hint in str(error.value)


def test_one_class_cannot_be_told_apart():
  x = clusters(8, 1)[0]
  with pytest.raises(UserError, match='two'):
    probes.probe('k-NN', x, np.zeros(8), x)
  with pytest.raises(UserError, match='two'):
    probes.few_shot(x, np.zeros(8), x, np.zeros(8), [1], 1)


def test_few_shot_learns_more_from_more_and_is_decided_by_the_seed(small_grids):
  x, y = clusters(1200, 3)
  arguments = x[:800], y[:800], x[800:], y[800:]
  rows = probes.few_shot(*arguments, [1, 3, 30], 3, seed=3)
  assert [row['shots'] for row in rows] == [1, 3, 30]
  assert rows[0]['accuracy'] < rows[1]['accuracy'] < rows[2]['accuracy'] > 0.85
  for row in rows:
    assert row['draws'] == 3 == len(row['accuracies'])
    assert row['accuracy'] == pytest.approx(np.mean(row['accuracies']))
    assert row['sd'] == pytest.approx(np.std(row['accuracies'], ddof=1))
    assert row['short_classes'] == row['skipped_classes'] == 0
  assert json.loads(json.dumps(rows, allow_nan=False)) == rows
  # Neither the other numbers of shots nor the other draws matter.
  again, = probes.few_shot(*arguments, [3], 2, seed=3)
  assert again['accuracies'] == rows[1]['accuracies'][:2]
  single, = probes.few_shot(*arguments, [3], 1, seed=4)
  assert single['sd'] is None and single['accuracies'] != again['accuracies'][:1]


def test_few_shot_agrees_with_plain_scikit_learn_on_the_same_rows():
  x, y = clusters(300, 2)
  for shots, classifier in ((1, LogisticRegression()), (2, None)):
    rows = probes._draw(y[:200], shots, 0, 5)
    train_x, train_y = x[rows].astype(float), y[rows]
    if classifier is None:
      folds = StratifiedKFold(2, shuffle=True, random_state=5)
      scores = [cross_val_score(make_pipeline(StandardScaler(), model), train_x, train_y, cv=folds).mean()
                for model in GRIDS['linear probe'].values()]
      classifier = list(GRIDS['linear probe'].values())[int(np.argmax(np.round(scores, 9)))]
    expected = make_pipeline(StandardScaler(), classifier).fit(train_x, train_y).score(x[200:], y[200:])
    result, = probes.few_shot(x[:200], y[:200], x[200:], y[200:], [shots], 1, seed=5)
    assert result['accuracies'] == [pytest.approx(expected)]


def test_draws_are_nested_even_and_differ():
  y = np.repeat([0, 1, 4], [30, 8, 20])
  previous = set()
  for shots in (1, 2, 8, 10, 100):
    rows = probes._draw(y, shots, 2, 0)
    assert len(set(rows)) == len(rows) and previous <= set(rows)
    np.testing.assert_array_equal(np.bincount(y[rows], minlength=5), np.minimum(shots, [30, 8, 0, 0, 20]))
    previous = set(rows)
  assert previous == set(range(58))
  assert len({tuple(probes._draw(y, 5, draw, seed)) for draw in range(5) for seed in range(5)}) == 25


def test_classes_that_are_short_or_missing_are_counted(small_grids):
  x, y = clusters(80, 20)
  known = np.flatnonzero((y != 3) & ((y != 2) | (np.arange(80) < 20)))  # No row of class 3, five of class 2.
  few, many = probes.few_shot(x[known], y[known], x, y, [5, 6], 1)
  assert (few['short_classes'], many['short_classes']) == (0, 1)
  assert few['skipped_classes'] == many['skipped_classes'] == 1
  assert few['accuracy'] == many['accuracy'] == 0.75


@pytest.mark.parametrize('shots, draws', [([0], 1), ([5, -1], 1), ([5], 0), ([5], -2)])
def test_shots_and_draws_below_one(shots, draws):
  x, y = clusters(40, 1)
  with pytest.raises(UserError, match='from 1 up'):
    probes.few_shot(x, y, x, y, shots, draws)
