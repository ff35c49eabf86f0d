"""Triplets made of votes and labels against loops over faces, and the reading of a file of triplets."""

import itertools
import types
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data import triplets
from fer_jax.errors import UserError

CLASSES = 3

# Votes for three classes and, last, for none of them. Small numbers, so that ties are common.
MANY = 1500  # So many are drawn then that no triplet of ten faces is missed.
counts = st.sampled_from([1, 2, 3, 10, MANY])
votes = st.lists(st.tuples(*[st.integers(0, 3)] * CLASSES, st.integers(0, 2)), min_size=1, max_size=9)


def records(rows):
  return [{'votes': np.array(row, np.int32)} for row in rows]


def shares(row):
  total = sum(row[:CLASSES])
  return [Fraction(vote, total) for vote in row[:CLASSES]] if total else None


def odd_of(three, distributions):
  """The face with the largest sum of total variation distances to the other two; None where two come out equal."""
  distance = lambda a, b: sum(abs(x - y) for x, y in zip(distributions[a], distributions[b], strict=True)) / 2
  sums = [sum(distance(face, other) for other in three if other != face) for face in three]
  return three[sums.index(max(sums))] if sums.count(max(sums)) == 1 else None


def all_triplets(distributions, kinds=(0, 1, 2)):
  """Every triplet there is, exactly, by a loop over all threes: {(first, second, odd): type}."""
  faces = [face for face, distribution in enumerate(distributions) if distribution]
  found = {}
  for three in itertools.combinations(faces, 3):
    odd = odd_of(three, distributions)
    kind = len({distributions[face].index(max(distributions[face])) for face in three}) - 1
    if odd is not None and kind in kinds:
      found[(*(face for face in three if face != odd), odd)] = kind
  return found


def as_dict(made):
  keys = [tuple(row) for row in made.rows.tolist()]
  assert len(set(keys)) == len(keys)  # No triplet comes twice.
  assert made.rows.dtype == made.types.dtype == np.int32
  assert made.rows.shape == (len(made), 3) and made.types.shape == (len(made),)
  return dict(zip(keys, made.types.tolist(), strict=True))


def assert_agrees(made, expected, count, kinds):
  ours = as_dict(made)
  assert ours.items() <= expected.items()  # The odd one and the type are right; no ties, three different faces.
  assert count < MANY or ours == expected
  counts = Counter(ours.values())
  assert [counts[kind] for kind in range(3)] == list(made.listed)
  for i, kind in enumerate(kinds):  # An equal share of each type at most.
    assert counts[kind] <= count * (i + 1) // len(kinds) - count * i // len(kinds)


@settings(deadline=None, max_examples=50)
@given(votes, counts, st.integers(0, 3))
def test_triplets_of_votes_agree_with_a_loop(rows, count, seed):
  expected = all_triplets([shares(row) for row in rows])
  try:
    made = triplets.triplets_from_votes(records(rows), CLASSES, count, seed)
  except UserError as error:
    assert 'no triplets' in str(error) and (count < MANY or not expected)
    return
  assert_agrees(made, expected, count, (0, 1, 2))
  assert 'votes' in made.truth and 'not FEC' in made.truth


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-1, 2), min_size=1, max_size=10), counts, st.integers(0, 3))
def test_triplets_of_labels_agree_with_a_loop(labels, count, seed):
  one_hot = [[Fraction(k == label) for k in range(CLASSES)] if label >= 0 else None for label in labels]
  expected = all_triplets(one_hot, (1,))
  # Two faces of one class, the odd one of another.
  assert all(labels[a] == labels[b] != labels[odd] for a, b, odd in expected)
  try:
    made = triplets.triplets_from_labels(np.array(labels), CLASSES, count, seed)
  except UserError as error:
    assert 'no triplets' in str(error) and (count < MANY or not expected)
    return
  assert_agrees(made, expected, count, (1,))
  assert 'labels' in made.truth and 'not FEC' in made.truth


def test_all_there_are_are_found_when_many_are_asked_for():
  rng = np.random.RandomState(0)
  rows = rng.randint(0, 6, (12, CLASSES)).tolist()
  expected = all_triplets([shares(row) for row in rows])
  assert set(Counter(expected.values())) == {0, 1, 2}
  assert as_dict(triplets.triplets_from_votes(records(rows), CLASSES, 6_000)) == expected


@pytest.mark.parametrize('count', [300, 301, 302])
def test_counts_by_type(count):
  rows = np.random.RandomState(0).randint(0, 9, (60, CLASSES))
  made = triplets.triplets_from_votes(records(rows), CLASSES, count)
  by_type = np.bincount(made.types, minlength=3)
  assert len(made) == count and np.ptp(by_type) <= 1 and made.listed == tuple(by_type)
  of_labels = triplets.triplets_from_labels(np.arange(60) % CLASSES, CLASSES, count)
  assert of_labels.listed == (0, count, 0) and (of_labels.types == 1).all()


def test_types_are_not_sorted_and_classes_come_evenly():
  # 80 faces of class 0, 10 of class 1, 10 of class 2: faces of each class are in as many triplets.
  labels = np.repeat([0, 1, 2], [80, 10, 10])
  made = triplets.triplets_from_labels(labels, CLASSES, 1200)
  np.testing.assert_allclose(np.bincount(labels[made.rows[:, 2]]) / 1200, 1 / 3, atol=0.06)
  mixed = triplets.triplets_from_votes(records(np.random.RandomState(0).randint(0, 9, (60, CLASSES))), CLASSES, 300)
  assert set(mixed.types[:30].tolist()) == {0, 1, 2}


def test_triplets_are_a_function_of_the_seed_alone():
  rows = np.random.RandomState(1).randint(0, 9, (40, CLASSES))
  make = lambda seed: triplets.triplets_from_votes(records(rows), CLASSES, 60, seed)
  first = make(0)
  np.random.seed(5)  # Neither what was drawn before nor numpy's global state matters.
  others = [make(1), make(2)]
  again = make(0)
  np.testing.assert_array_equal(first.rows, again.rows)
  np.testing.assert_array_equal(first.types, again.types)
  assert len({tuple(made.rows.ravel().tolist()) for made in (first, *others)}) == 3


def test_votes_for_no_expression_do_not_count():
  rows = [(4, 0, 0, 0), (3, 1, 0, 6), (0, 4, 0, 0), (0, 0, 0, 9), (0, 0, 0, 0)]
  made = triplets.triplets_from_votes(records(rows), CLASSES, 30)
  assert as_dict(made) == {(0, 1, 2): 1}


def test_quotients_that_differ_in_rounding_alone_are_ties():
  rows = [(0, 1, 6), (6, 0, 1), (1, 6, 0)]
  quotients = np.array(rows) / 7
  distance = lambda i, j: np.abs(quotients[i] - quotients[j]).sum() / 2
  assert distance(0, 1) != distance(1, 2)
  with pytest.raises(UserError, match='no triplets'):
    triplets.triplets_from_votes(records(rows), CLASSES, 30)


def test_records_without_votes():
  with pytest.raises(UserError, match="needs a data set with votes on its faces, such as ferplus; 'labels' does not"):
    triplets.triplets_from_votes([{'label': 0}] * 3, CLASSES, 3)


HEADER = 'first,second,odd,type,votes,raters\n'
LINES = """\
a,b,c,one_class,6,6
b,c,d,two_class,4,6
c,d,a,two_class,3,6
d,c,b,three_class,5,6
a,x,b,three_class,6,6
y,b,c,one_class,6,6
a,c,d,three_class,4,7
"""


@pytest.fixture
def table(tmp_path):
  def write(text):
    path = tmp_path / 'triplets_train.csv'
    path.write_text(text)
    return path

  return write


@pytest.mark.parametrize('agreement, kept', [
    ('two_thirds', [[2, 1, 0], [1, 0, 3], [3, 0, 1]]),
    ('majority', [[2, 1, 0], [1, 0, 3], [0, 3, 2], [3, 0, 1], [2, 0, 3]]),
    ('unanimous', [[2, 1, 0]])])
def test_read(table, agreement, kept):
  made = triplets.read(table(HEADER + LINES), ['c', 'b', 'a', 'd', 'unused'], agreement)
  assert made.rows.tolist() == kept and made.rows.dtype == np.int32
  types_of = {(2, 1, 0): 0, (1, 0, 3): 1, (0, 3, 2): 1, (3, 0, 1): 2, (2, 0, 3): 2}
  assert made.types.tolist() == [types_of[tuple(row)] for row in kept] and made.types.dtype == np.int32
  assert made.listed == (2, 2, 3)  # Those with faces that are not there and those without agreement too.
  assert made.truth == f'FEC annotators, {agreement}' and len(made) == len(kept)


def test_two_thirds_is_the_default_and_columns_go_by_name(table):
  made = triplets.read(table('raters,votes,type,odd,second,first\n3,2,two_class,c,b,a\n'), ['a', 'b', 'c'])
  assert made.rows.tolist() == [[0, 1, 2]] and made.truth == 'FEC annotators, two_thirds'


def test_a_missing_file(tmp_path):
  with pytest.raises(UserError, match=r'cannot read the triplets .*triplets_x.csv: No such file.*Prepare the data set'):
    triplets.read(tmp_path / 'triplets_x.csv', ['a'])


@pytest.mark.parametrize('text, line', [
    (HEADER + 'a,b,c,one_class,6,6\na,b,c,one_clas,6,6\n', 3),
    (HEADER + 'a,b,c,one_class,six,6\n', 2),
    (HEADER + 'a,b,c,one_class,6,6\n\na,b,c,one_class,6\n', 4),
    (HEADER + 'a,b\n', 2),
    ('first,second,odd,kind,votes,raters\na,b,c,one_class,6,6\n', 2),
    (HEADER + 'a,b,c,one_class,6,6\n"a,b,c,one_class,6,6\n', 3)])
def test_a_damaged_line_is_named(table, text, line):
  with pytest.raises(UserError, match=f'triplets_train.csv, line {line}: bad triplet .*Prepare the data set again'):
    triplets.read(table(text), ['a', 'b', 'c'])


@pytest.mark.parametrize('line', ['a,a,b,two_class,5,6\n', 'a,b,c,two_class,7,6\n', 'a,b,c,two_class,0,6\n',
                                  '"' + 'a,b,c,two_class,5,6\n' * 7000])
def test_an_impossible_line_or_a_lost_quote_is_damage(table, line):
  with pytest.raises(UserError, match=r'triplets_train.csv, line \d+: bad triplet'):
    triplets.read(table(HEADER + LINES + line), ['a', 'b', 'c', 'd'])


def test_what_is_no_text(tmp_path):
  (tmp_path / 'triplets_train.csv').write_bytes(b'\xff\xfe')
  with pytest.raises(UserError, match='cannot read the triplets .*it is no text. Prepare the data set again'):
    triplets.read(tmp_path / 'triplets_train.csv', ['a'])


def test_an_unknown_rule(table):
  with pytest.raises(UserError, match="unknown agreement 'two_third'; did you mean 'two_thirds'"):
    triplets.read(table(HEADER + LINES), ['a'], 'two_third')


@pytest.mark.parametrize('text, names, count', [(HEADER + LINES, 'ab', 7), (HEADER, 'abcd', 0), ('', 'abcd', 0)])
def test_nothing_left(table, text, names, count):
  with pytest.raises(UserError, match=f"none of {count} triplets is left under agreement='unanimous'"):
    triplets.read(table(text), names, 'unanimous')


def make_source(tmp_path='', with_votes=True):
  rows = np.random.RandomState(0).randint(0, 9, (30, CLASSES + 2))
  labels = np.arange(30) % CLASSES
  made = [{'label': int(label), **({'votes': row} if with_votes else {})}
          for label, row in zip(labels, rows, strict=True)]
  return types.SimpleNamespace(records=made, classes=('x', 'y', 'z'), labels=labels, folder=str(tmp_path),
                               names=list('abcd'))


def assert_same(a, b):
  np.testing.assert_array_equal(a.rows, b.rows)
  np.testing.assert_array_equal(a.types, b.types)
  assert (a.listed, a.truth) == (b.listed, b.truth)


def test_open_triplets(table, tmp_path):
  path, source = table(HEADER + LINES), make_source(tmp_path)
  open_as = lambda truth: triplets.open_triplets(source, 'train', truth, 20, 'unanimous')
  assert_same(open_as('annotators'), triplets.read(path, source.names, 'unanimous'))
  assert_same(open_as('votes'), triplets.triplets_from_votes(source.records, CLASSES, 20))
  assert_same(open_as('labels'), triplets.triplets_from_labels(source.labels, CLASSES, 20))


@pytest.mark.parametrize('truth, message', [
    ('vote', "unknown truth 'vote' of triplets; did you mean 'votes'"), ('votes', 'needs a data set with votes'),
    ('annotators', 'cannot read the triplets .*triplets_test.csv')])
def test_what_cannot_be_opened(truth, message, tmp_path):
  with pytest.raises(UserError, match=message):
    triplets.open_triplets(make_source(tmp_path, with_votes=False), 'test', truth, 20, 'two_thirds')
