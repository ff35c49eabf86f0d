"""Which rows of a prepared data set a split expression means, and which images lie in them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax.data.preparing import contents
from fer_jax.errors import UserError


class Interval(NamedTuple):
  """Rows ``start`` to ``stop`` - 1 of a split as its data set names it."""

  split: str
  start: int
  stop: int


@dataclasses.dataclass(frozen=True)
class Whole:
  """A prepared data set, which splits are read from; of no splits where there is none."""

  splits: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # TFDS's ``SplitInfo`` by name.
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # 'splits' of its contents.json.
  folder: epath.Path | None = None

  def __str__(self) -> str:
    return ', '.join(f'{name} ({info.num_examples:,} faces)' for name, info in self.splits.items())

  @property
  def identity(self) -> str:
    """What two data sets share whose splits hold the same images in the same order (of older data: the same records);
    '' of none."""
    facts = {name: fact.get('images', fact['digest']) for name, fact in self.facts.items()}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest() if facts else ''

  def images(self) -> Mapping[str, np.ndarray] | None:
    """The digests of all images, {split: uint64 (N,)}; None where an earlier version has prepared the data."""
    known = self.folder is not None and all('images' in fact for fact in self.facts.values())
    return contents.read_images(self.folder, self.facts) if known else None


def intervals(expression: str, splits: Mapping[str, Any]) -> tuple[Interval, ...]:
  """The rows that a TFDS split expression reads, in its order; empty intervals are left out.

  Args:
    expression: such as 'train+valid', 'train[:90%]' or 'test[10:-5]'.
    splits: {name: TFDS's ``SplitInfo``, or anything with ``num_examples`` and ``shard_lengths``}.

  Raises:
    UserError: it is no such expression, names a split that is not there, or reaches beyond one.
  """
  try:
    read = tfds.core.splits.AbstractSplit.from_spec(expression).to_absolute(splits)
  except (ValueError, NotImplementedError) as e:
    raise UserError(f"bad split '{expression}': {str(e).splitlines()[0]} There are: {', '.join(splits)}.") from e
  found = (Interval(one.splitname, one.from_ or 0, splits[one.splitname].num_examples if one.to is None else one.to)
           for one in read)
  return tuple(one for one in found if one.stop > one.start)


def places(read: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
  """Where each of N rows that are read lies: the name of its split (N,) str, and its row there, int64 (N,)."""
  names = np.repeat([one.split for one in read] or [''], [one.stop - one.start for one in read] or [0])
  return names, np.concatenate([np.arange(one.start, one.stop) for one in read] or [np.zeros(0, np.int64)])


def inside(names: np.ndarray, at: np.ndarray, read: Sequence[Interval]) -> np.ndarray:
  """Which of N ``places`` an expression reads: bool (N,)."""
  mask = np.zeros(len(at), bool)
  for one in read:
    mask |= (names == one.split) & (at >= one.start) & (at < one.stop)
  return mask
