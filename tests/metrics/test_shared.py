"""Classes of two data sets joined by name: the cells of a matrix against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data.face import EXPRESSIONS
from fer_jax.errors import UserError
from fer_jax.metrics.shared import restrict, shared_classes


@settings(max_examples=60, deadline=None)
@given(st.permutations(EXPRESSIONS), st.permutations(EXPRESSIONS), st.integers(2, 8), st.integers(2, 8),
       st.integers(0, 1000))
def test_faces_and_answers_are_those_of_the_shared_names(ours, theirs, known, there, seed):
  ours, theirs = ours[:known], theirs[:there]
  both = [name for name in ours if name in theirs]
  if len(both) < 2:
    with pytest.raises(UserError, match='share'):
      shared_classes(ours, theirs)
    return
  rng = np.random.default_rng(seed)
  label, logits = rng.integers(-1, there, 40), rng.normal(size=(40, known))
  shared = shared_classes(ours, theirs)
  assert list(shared) == both
  labels, predictions = restrict(label, logits, ours, theirs, shared)
  for k, row, found, answer in zip(label, logits, labels, predictions, strict=True):
    name = theirs[k] if k >= 0 else None
    assert (None if found < 0 else shared[found]) == (name if name in both else None)
    assert shared[answer] == max(both, key=lambda name: row[ours.index(name)])


def test_the_order_of_either_list_changes_no_answer():
  rng = np.random.default_rng(0)
  ours, theirs = EXPRESSIONS[:7], EXPRESSIONS[2:]
  label, logits = rng.integers(0, 6, 50), rng.normal(size=(50, 7))

  def named(ours, theirs, label, logits):
    shared = shared_classes(ours, theirs)
    labels, predictions = restrict(label, logits, ours, theirs, shared)
    return [(shared[k] if k >= 0 else '', shared[p]) for k, p in zip(labels, predictions, strict=True)]

  columns, places = rng.permutation(7), rng.permutation(6)
  other = named([ours[c] for c in columns], [theirs[p] for p in places], np.argsort(places)[label], logits[:, columns])
  assert named(ours, theirs, label, logits) == other


def test_names_that_mean_the_same_are_joined():
  assert shared_classes(('Happy', 'SAD', 'puzzled', 'fear'), ('sadness', 'Puzzled ', 'joy')) == (
      'happiness', 'sadness', 'puzzled')
  labels, predictions = restrict(np.array([0, 1, 2]), np.array([[3., 1, 2, 9], [0, 5, 1, 9], [0, 1, 7, 9]]),
                                 ('Happy', 'SAD', 'puzzled', 'fear'), ('sadness', 'Puzzled ', 'joy'),
                                 ('happiness', 'sadness', 'puzzled'))
  assert list(labels) == [1, 2, 0] and list(predictions) == [0, 1, 2]


@pytest.mark.parametrize('ours, theirs, message', [
    (('anger', 'fear'), ('happiness', 'sadness'), 'share none; a test needs two at least'),
    (('anger', 'fear'), ('fear', 'sadness'), 'share fear; a test needs two at least'),
    (('happy', 'joy', 'fear'), ('fear', 'happiness'), "the classes happy, joy, fear name 'happiness' twice")])
def test_mistakes_are_named(ours, theirs, message):
  with pytest.raises(UserError, match=message):
    shared_classes(ours, theirs)
