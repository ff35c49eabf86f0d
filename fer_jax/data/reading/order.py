"""The order of examples: in training a function of (seed, position), in evaluation a permutation of the split."""

from collections.abc import Callable
from typing import Any

import grain
import numpy as np

from fer_jax.errors import UserError, nearest

TRAINING = ('shuffle', 'balanced', 'oversample')
EVALUATION = ('stored', 'shuffled', 'sorted')


def check(what: str, order: str, orders: tuple[str, ...]) -> None:
  """Raises UserError where ``order``, the value of ``what``, is none of ``orders``."""
  if order not in orders:
    raise UserError(f"{what}: unknown order '{order}'{nearest(str(order), orders)}")


def training_order(order: str, seed: int, split: Any) -> Callable[[int], int]:
  """Returns the function from a position in an endless sequence (0, 1, ...) to a row of the split.

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
    return grain.MapDataset.range(len(split)).seed(seed).shuffle().repeat().__getitem__
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


def _balanced(labels: np.ndarray, seed: int) -> Callable[[int], int]:
  rows_by_class = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
  seeds = np.random.SeedSequence(seed).generate_state(len(rows_by_class))
  return grain.MapDataset.mix([grain.MapDataset.source(rows).seed(int(own)).shuffle().repeat()
                               for rows, own in zip(rows_by_class, seeds, strict=True) if len(rows)]).__getitem__


def _oversample(labels: np.ndarray, seed: int) -> Callable[[int], int]:
  known = np.flatnonzero(labels >= 0)
  cumulative = np.cumsum(1 / np.bincount(labels[known])[labels[known]])
  cumulative /= cumulative[-1]

  def row_at(position: int) -> int:
    # A counter-based generator: the numbers of a position do not depend on those drawn before.
    uniform = np.random.Generator(np.random.Philox(key=seed, counter=[0, position, 0, 0])).random()
    return int(known[np.searchsorted(cumulative, uniform, side='right')])

  return row_at
