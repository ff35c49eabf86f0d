"""The order of examples: in training a function of (seed, position), in evaluation a permutation of the split."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fer_jax.data.reading.permutation import permutation
from fer_jax.errors import UserError, nearest

TRAINING = ('shuffle', 'balanced', 'oversample')
EVALUATION = ('stored', 'shuffled', 'sorted')

Order = Callable[[np.ndarray], np.ndarray]


def check(what: str, order: str, orders: tuple[str, ...]) -> None:
  """Raises UserError where ``order``, the value of ``what``, is none of ``orders``."""
  if order not in orders:
    raise UserError(f"{what}: unknown order '{order}'{nearest(str(order), orders)}")


def training_order(order: str, seed: int, split: Any) -> Order:
  """Returns the function from positions in an endless sequence (0, 1, ...), int (n,), to rows of the split, int (n,).

  Args:
    order: 'shuffle', every example once an epoch, each epoch a new permutation.
      'balanced', minimal random resampling (ARM, arXiv 2103.10189): the classes take turns, each through permutations
      of its own. An epoch of K * (size of the smallest class) examples holds each of the K classes equally often, and
      no example twice.
      'oversample', with replacement, an example's probability inversely proportional to its class's frequency (RAN,
      arXiv 1905.04075): the classes come equally often on average, and an epoch leaves examples out.
      The last two leave out unlabelled examples and read every record's label first.

  Raises:
    UserError: an unknown order, or no example has a label where labels decide.
  """
  check('the training order', order, TRAINING)
  if order == 'shuffle':
    return _shuffle(len(split), seed)
  labels = np.asarray(split.labels)
  if (labels < 0).all():
    raise UserError(f"the training order '{order}' needs labels, and the split has none.")
  return _balanced(labels, seed) if order == 'balanced' else _oversample(labels, seed)


def evaluation_order(order: str, split: Any) -> np.ndarray:
  """Returns the rows of a split in the order in which they are visited, int (N,).

  Args:
    order: 'stored'; 'shuffled', one fixed permutation; or 'sorted' by label, stored order within a label.

  Raises:
    UserError: an unknown order.
  """
  check('the evaluation order', order, EVALUATION)
  if order == 'sorted':
    return np.argsort(split.labels, kind='stable')
  # RandomState's numbers, unlike those of newer generators, never change with the version of numpy.
  return np.random.RandomState(0).permutation(len(split)) if order == 'shuffled' else np.arange(len(split))


def _shuffle(count: int, seed: int) -> Order:
  """``count`` rows, every epoch in another order: grain's ``MapDataset.range(count).seed(seed).shuffle().repeat()``."""
  own = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
  # Of the epoch that is read, and of the next one, which a batch may reach into.
  in_epoch = functools.lru_cache(2)(lambda epoch: permutation(count, (own + epoch) % 2**32))

  def rows(positions: np.ndarray) -> np.ndarray:
    epochs, places = np.divmod(positions, count)
    found = np.empty(len(positions), np.int64)
    for epoch in np.unique(epochs).tolist():
      found[epochs == epoch] = in_epoch(epoch)[places[epochs == epoch]]
    return found

  return rows


def _balanced(labels: np.ndarray, seed: int) -> Order:
  rows_by_class = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
  seeds = np.random.SeedSequence(seed).generate_state(len(rows_by_class))
  known = [(rows, _shuffle(len(rows), int(own))) for rows, own in zip(rows_by_class, seeds, strict=True)
           if len(rows)]

  def rows_at(positions: np.ndarray) -> np.ndarray:
    turns, classes = np.divmod(positions, len(known))
    found = np.empty(len(positions), np.int64)
    for k, (rows, order) in enumerate(known):
      found[classes == k] = rows[order(turns[classes == k])]
    return found

  return rows_at


def _oversample(labels: np.ndarray, seed: int) -> Order:
  known = np.flatnonzero(labels >= 0)
  cumulative = np.cumsum(1 / np.bincount(labels[known])[labels[known]])
  cumulative /= cumulative[-1]
  # A counter-based generator: the numbers of a position do not depend on those drawn before.
  draw = lambda position: np.random.Generator(np.random.Philox(key=seed, counter=[0, int(position), 0, 0])).random()
  return lambda positions: known[np.searchsorted(cumulative, [draw(position) for position in positions], side='right')]
