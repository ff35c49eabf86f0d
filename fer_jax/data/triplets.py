"""Triplets of faces: two that are alike and the odd one out, as the Google FEC data set (arXiv 1811.11283) has them.

A triplet is three rows of a split, the odd one last, and a type: how many expression classes its faces come from. The
truth comes from annotators who compared the three faces (FEC, read from what its builder wrote), or is made here from
what annotators said about single faces: from votes, or from labels. The last two are not FEC, and ``Triplets.truth``
says so wherever a number is printed.
"""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError, nearest

TYPES = ('one_class', 'two_class', 'three_class')
TRUTHS = ('annotators', 'votes', 'labels')

# Whether a triplet whose odd one got ``votes`` of ``raters`` counts. FEC's paper keeps the first [recalled].
AGREEMENTS = {
    'two_thirds': lambda votes, raters: 3 * votes >= 2 * raters,
    'majority': lambda votes, raters: True,  # Ties have no majority and are left out when the data set is prepared.
    'unanimous': lambda votes, raters: votes == raters,
}

COLUMNS = ('first', 'second', 'odd', 'type', 'votes', 'raters')


@dataclasses.dataclass(frozen=True, eq=False)
class Triplets:
  """Triplets of one split."""

  rows: np.ndarray  # int32 (M, 3), rows of the split; the last is the odd one.
  types: np.ndarray  # int32 (M,), indices into ``TYPES``.
  listed: tuple[int, int, int]  # By type, how many there were before an agreement rule or missing faces took some away.
  truth: str  # In words, what decided which face is the odd one.

  def __len__(self) -> int:
    return len(self.rows)


def read(path: str | Path, names: Sequence[str], agreement: str = 'two_thirds') -> Triplets:
  """Reads a file of triplets, a csv with the header ``COLUMNS``, whose faces are given by name.

  Args:
    path: the file, as the builder of FEC writes it.
    names: the split's file names; triplets with a face that is not among them are left out.
    agreement: which triplets to keep, a name in ``AGREEMENTS``.

  Raises:
    UserError: an unknown rule, no such file, a damaged line, or nothing left.
  """
  if agreement not in AGREEMENTS:
    raise UserError(f"unknown agreement '{agreement}'{nearest(str(agreement), AGREEMENTS)}")
  row_of = {name: row for row, name in enumerate(names)}
  rows, types, listed = [], [], [0] * len(TYPES)
  try:
    reader = csv.DictReader(io.StringIO(Path(path).read_text(encoding='utf-8')))
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, 'strerror', None) or 'it is no text'
    raise UserError(f'cannot read the triplets {path}: {reason}. Prepare the data set again.') from error
  try:
    for line in reader:
      kind, votes, raters = TYPES.index(line['type']), int(line['votes']), int(line['raters'])
      named = [line[column] for column in COLUMNS[:3]]
      if len(set(named)) < 3 or not 0 < votes <= raters:
        raise ValueError(f'{named}, {votes} votes of {raters}')
      listed[kind] += 1
      faces = [row_of.get(name) for name in named]
      if None not in faces and AGREEMENTS[agreement](votes, raters):
        rows.append(faces)
        types.append(kind)
  except (csv.Error, KeyError, ValueError, TypeError) as error:
    raise UserError(f'{path}, line {reader.line_num}: bad triplet ({error}). Prepare the data set again.') from error
  if not rows:
    raise UserError(f"{path}: none of {sum(listed):,} triplets is left under agreement='{agreement}' with these faces.")
  return Triplets(np.array(rows, np.int32), np.array(types, np.int32), tuple(listed), f'FEC annotators, {agreement}')


def open_triplets(faces: Any, split: str, truth: str, count: int, agreement: str) -> Triplets:
  """Finds or makes the triplets of a split.

  Args:
    faces: the split, a ``splits.Split``.
    truth: 'annotators', what the builder of FEC wrote; or 'votes' or 'labels' on single faces.
    count: how many to make of votes or labels, always the same ones.
    agreement: which of the annotators' to keep, see ``read``.

  Raises:
    UserError: an unknown name, or no triplets.
  """
  if truth == 'annotators':
    return read(Path(faces.folder) / f'triplets_{split}.csv', faces.names, agreement)
  if truth == 'votes':
    return triplets_from_votes(faces.records, len(faces.classes), count)
  if truth == 'labels':
    return triplets_from_labels(faces.labels, len(faces.classes), count)
  raise UserError(f"unknown truth '{truth}' of triplets{nearest(str(truth), TRUTHS)}")


def triplets_from_votes(records: Sequence[Mapping[str, Any]], classes: int, count: int, seed: int = 0) -> Triplets:
  """Makes triplets from votes on single faces; they are not FEC.

  A face's class is the one with most of its votes. A third of the triplets have faces of one class, a third of two, a
  third of three; classes are drawn evenly, faces evenly within them. The odd one is the face whose distribution of
  votes lies furthest from the other two (largest sum of total variation distances); where two come out equal there is
  no truth and the triplet is dropped.

  Args:
    records: a split's records with ``votes``, of which the first ``classes`` are for expressions.
    count: how many to make, 1 or more; there are fewer where that many are not found.

  Raises:
    UserError: the records have no votes, or no three faces can be compared.
  """
  if 'votes' not in records[0]:
    raise UserError("triplets='votes' needs a data set with votes on its faces, such as ferplus; 'labels' does not.")
  votes = np.array([np.asarray(record['votes'])[:classes] for record in records], np.float64)
  return _make(votes, (0, 1, 2), count, seed, 'votes on single faces, not FEC')


def triplets_from_labels(labels: np.ndarray, classes: int, count: int, seed: int = 0) -> Triplets:
  """Makes triplets of two faces of one class and an odd one of another; they are not FEC.

  Args:
    labels: int (N,), -1 for faces to leave out.
    count: how many to make, 1 or more; there are fewer where that many are not found.

  Raises:
    UserError: no three faces can be compared.
  """
  one_hot = (np.asarray(labels)[:, None] == np.arange(classes)).astype(np.float64)
  return _make(one_hot, (1,), count, seed, 'labels of single faces, not FEC')


def _make(weights: np.ndarray, types: Sequence[int], count: int, seed: int, truth: str) -> Triplets:
  """Makes ``count`` triplets, as many of each of ``types``, of the faces whose weights (N, K) are not all 0."""
  if count < 1:
    raise UserError(f'count={count} triplets: ask for 1 or more.')
  known = weights.sum(axis=1) > 0
  leading = np.where(known, weights.argmax(axis=1), -1)
  members = [rows for k in range(weights.shape[1]) if len(rows := np.flatnonzero(leading == k))]
  shares = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)
  rng = np.random.RandomState(seed)  # Its numbers never change with the version of numpy.
  rows, kinds = [], []
  for i, kind in enumerate(types):
    wanted = count * (i + 1) // len(types) - count * i // len(types)
    found = np.zeros((0, 3), np.int64)
    for _ in range(20):  # Ties and repetitions thin out what is drawn.
      if len(found) < wanted:
        drawn = _odd_last(_draw(rng, members, kind, 2 * wanted), shares)
        found = np.unique(np.concatenate([found, drawn]), axis=0)
    rows.append(found[rng.permutation(len(found))[:wanted]])
    kinds.append(np.full(len(rows[-1]), kind))
  rows, kinds = np.concatenate(rows).astype(np.int32), np.concatenate(kinds).astype(np.int32)
  if not len(rows):
    raise UserError('no triplets: the split has no three faces of which one can be told to be the odd one.')
  order = rng.permutation(len(rows))
  return Triplets(rows[order], kinds[order], tuple(np.bincount(kinds, minlength=len(TYPES)).tolist()), truth)


def _draw(rng: np.random.RandomState, members: Sequence[np.ndarray], kind: int, count: int) -> np.ndarray:
  """Draws up to ``count`` triplets (n, 3) of different faces from ``kind`` + 1 different classes."""
  if len(members) <= kind:
    return np.zeros((0, 3), np.int64)
  classes = rng.rand(count, len(members)).argsort(axis=1)[:, ((0, 0, 0), (0, 0, 1), (0, 1, 2))[kind]]
  sizes = np.array([len(rows) for rows in members])
  starts = np.cumsum(sizes) - sizes
  rows = np.concatenate(members)[starts[classes] + (rng.rand(count, 3) * sizes[classes]).astype(np.int64)]
  different = (rows[:, 0] != rows[:, 1]) & (rows[:, 0] != rows[:, 2]) & (rows[:, 1] != rows[:, 2])
  return rows[different]


def _odd_last(rows: np.ndarray, shares: np.ndarray) -> np.ndarray:
  """Puts the odd one of each triplet (n, 3) last, the others in ascending order; drops those without a unique one."""
  distance = lambda i, j: np.abs(shares[rows[:, i]] - shares[rows[:, j]]).sum(axis=1) / 2
  # The face opposite the shortest side has the largest sum of distances. Rounded: equal quotients differ in their ends.
  sides = np.stack([distance(1, 2), distance(0, 2), distance(0, 1)], axis=1).round(9)
  odd = sides.argmin(axis=1)
  unique = (sides == sides.min(axis=1, keepdims=True)).sum(axis=1) == 1
  first, second = (np.take_along_axis(rows, ((odd + step) % 3)[:, None], axis=1) for step in (1, 2))
  pair = np.sort(np.concatenate([first, second], axis=1), axis=1)
  return np.concatenate([pair, np.take_along_axis(rows, odd[:, None], axis=1)], axis=1)[unique]
