"""Triplet accuracy against a loop, what it does not depend on, how often the interval over faces holds the truth."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.metrics import triplets
from fer_jax.metrics.intervals import wilson

NAMES = ('one_class', 'two_class', 'three_class')
worlds = st.tuples(st.integers(0, 2**32 - 1), st.integers(3, 12), st.integers(0, 40))


def world(seed, faces, count, dimension=3):
  """Random embedding (faces, 3), triplets (count, 3) of three different faces, types."""
  rng = np.random.RandomState(seed)
  rows = rng.random_sample((count, faces)).argsort(axis=1)[:, :3]
  return rng.normal(size=(faces, dimension)), rows, rng.randint(3, size=count)


def loop(embedding, rows):
  return [all(sum((embedding[a] - embedding[b])**2) < sum((embedding[other] - embedding[odd])**2) for other in (a, b))
          for a, b, odd in rows]


def population(rng, faces, triplet_count):
  """Faces with a true place in the plane and an embedding that misses it, some by more; triplets by the truth."""
  place = rng.normal(size=(faces, 2))
  embedding = place + 0.3 * rng.gamma(2, size=(faces, 1)) * rng.normal(size=(faces, 2))
  rows = rng.randint(faces, size=(triplet_count, 3))
  rows = rows[(rows[:, 0] != rows[:, 1]) & (rows[:, 0] != rows[:, 2]) & (rows[:, 1] != rows[:, 2])]
  sides = [np.square(place[rows[:, i]] - place[rows[:, j]]).sum(axis=1) for i, j in ((1, 2), (0, 2), (0, 1))]
  order = (np.argmin(sides, axis=0)[:, None] + (1, 2, 3)) % 3
  return embedding, np.take_along_axis(rows, order, axis=1)


@given(worlds, st.sampled_from([1, 7, 2**20]))
def test_agrees_with_a_loop_whatever_the_chunk(parameters, chunk):
  embedding, rows, _ = world(*parameters)
  embedding = embedding.round()  # Some ties.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(triplets, '_CHUNK', chunk)
    right = triplets.correct(embedding, rows)
  assert right.dtype == bool and right.tolist() == loop(embedding, rows)


@settings(max_examples=25)
@given(worlds)
def test_summary_agrees_with_loops(parameters):
  embedding, rows, types = world(*parameters)
  result = triplets.summarise_triplets(embedding, rows, types, NAMES, [50, 60, 70])
  right = loop(embedding, rows)

  def expected(kept, listed):
    if not kept:
      return {'count': 0, 'listed': listed, 'accuracy': None, 'accuracy_interval': None}
    accuracy = np.mean([right[i] for i in kept])
    spread = sum((right[i] - accuracy) * (right[j] - accuracy) for i in kept for j in kept
                 if set(rows[i]) & set(rows[j])) / len(kept)**2
    count = len(kept)
    if spread > 1e-12 and 0 < accuracy < 1:
      count = min(accuracy * (1 - accuracy) / spread, count)
    return {'count': len(kept), 'listed': listed, 'accuracy': pytest.approx(accuracy),
            'accuracy_interval': pytest.approx(wilson(accuracy * count, count))}

  by_type = {name: expected(np.flatnonzero(types == k).tolist(), 50 + 10 * k) for k, name in enumerate(NAMES)}
  assert result == {**expected(list(range(len(rows))), 180), 'types': by_type}
  assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_type_without_triplets_is_unknown_and_the_others_do_not_notice():
  embedding, rows, _ = world(0, 20, 50)
  types = np.arange(50) % 2
  result = triplets.summarise_triplets(embedding, rows, types, NAMES, (30, 30, 4))
  assert result['types']['three_class'] == {'count': 0, 'listed': 4, 'accuracy': None, 'accuracy_interval': None}
  assert result['count'] == 50 and result['listed'] == 64
  assert triplets.summarise_triplets(embedding, rows, types, NAMES[:2], (30, 30))['types'] == {
      name: result['types'][name] for name in NAMES[:2]}


def test_a_collapsed_embedding_scores_nothing_and_a_random_one_a_third():
  embedding, rows, _ = world(0, 400, 20_000, dimension=16)
  assert not triplets.correct(np.ones((400, 16), np.float32), rows).any()
  assert triplets.correct(embedding, rows).mean() == pytest.approx(1 / 3, abs=0.03)


@given(worlds, st.floats(1e-6, 1e6))
def test_order_of_the_pair_scale_rotation_and_shift_do_not_matter(parameters, scale):
  embedding, rows, _ = world(*parameters)
  right = triplets.correct(embedding, rows)
  rotation = np.linalg.qr(np.random.RandomState(0).normal(size=(3, 3)))[0]
  np.testing.assert_array_equal(triplets.correct(embedding, rows[:, [1, 0, 2]]), right)
  np.testing.assert_array_equal(triplets.correct(scale * embedding @ rotation + scale, rows), right)


def test_exactly_one_choice_of_the_odd_one_is_right_without_ties():
  embedding, rows, _ = world(0, 50, 500)
  choices = [triplets.correct(embedding, np.roll(rows, k, axis=1)) for k in range(3)]
  np.testing.assert_array_equal(np.sum(choices, axis=0), 1)


def test_distances_are_computed_in_float64():
  embedding = np.array([[0, 0], [0, -4096], [4096, 1]], np.float32)
  assert triplets.correct(embedding, [[0, 1, 2]]).all()  # 4096^2 + 1 is no float32.
  assert not triplets.correct(np.array([[0], [200], [100]], np.uint8), [[0, 1, 2]]).any()  # 200^2 does not fit.


@pytest.mark.parametrize('faces, count, worlds', [(300, 6000, 100), (1000, 1500, 100)])
def test_coverage_where_faces_are_shared(faces, count, worlds):
  rng = np.random.RandomState(0)
  truth = triplets.correct(*population(rng, 100_000, 1_000_000)).mean()
  covered, naive = [], []
  for _ in range(worlds):
    embedding, rows = population(rng, faces, count)
    result = triplets.summarise_triplets(embedding, rows, np.zeros(len(rows), int), ['all'], [count])
    low, high = wilson(round(result['accuracy'] * result['count']), result['count'])
    covered.append(result['accuracy_interval'][0] <= truth <= result['accuracy_interval'][1])
    naive.append(low <= truth <= high)
  assert 0.88 <= np.mean(covered) <= 0.99
  assert np.mean(naive) < np.mean(covered)  # What it is for.


def test_without_shared_faces_the_interval_is_wilsons():
  embedding = np.random.RandomState(0).normal(size=(6000, 3))
  rows = np.arange(6000).reshape(-1, 3)
  result = triplets.summarise_triplets(embedding, rows, np.zeros(2000, int), ['all'], [2000])
  np.testing.assert_allclose(result['accuracy_interval'], wilson(round(result['accuracy'] * 2000), 2000), rtol=1e-6)


@pytest.mark.parametrize('count', [1, 5])
def test_a_few_triplets_that_are_all_right_are_not_certain(count):
  embedding = np.repeat([[0.0], [1.0], [5.0]], 5, axis=0)
  rows = np.arange(count)[:, None] + (0, 5, 10)
  result = triplets.summarise_triplets(embedding, rows, np.zeros(count, int), ['all'], [count])
  assert result['accuracy'] == 1 and result['accuracy_interval'] == list(wilson(count, count))


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_raises_where_it_is_used(value):
  embedding, rows, types = world(0, 10, 30)
  embedding[-1] = value
  with pytest.raises(ValueError, match='finite'):
    triplets.summarise_triplets(embedding, rows, types, NAMES, (10, 10, 10))
  assert triplets.correct(embedding, rows[(rows < 9).all(axis=1)]).any()


@pytest.mark.parametrize('rows', [[[0, 1, 10]], [[-1, 1, 2]], [[0, 1]], [0, 1, 2]])
def test_rows_that_do_not_exist_and_wrong_shapes_raise(rows):
  with pytest.raises(ValueError):
    triplets.correct(np.ones((10, 2)), rows)


@pytest.mark.parametrize('types, listed', [
    ([0, 3], (1, 1, 1)), ([0, -1], (1, 1, 1)), ([0], (1, 1, 1)), ([0, 1], (1, 1))])
def test_types_that_do_not_fit_raise(types, listed):
  with pytest.raises(ValueError, match='do not fit'):
    triplets.summarise_triplets(np.eye(3), [[0, 1, 2]] * 2, types, NAMES, listed)
