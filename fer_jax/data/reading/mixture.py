"""One batch from several sources: labelled faces, triplets, and faces without a label.

A batch is groups of rows that all look the same: so many labelled faces, then so many triplets, then so many faces of
the next source. What a row holds follows from its place alone, so the step is compiled once, and row r of step s is the
same face whatever the number of processes and devices. Every source has an order of its own, which the others do not
change.

A row carries what its source supervises and no more: faces of triplets and unlabelled faces have label -1, target 0 and
no action units, even where their data set knows the label. The field ``triplet`` is the type of a triplet in its first
row, whose other two faces are the next two rows, the odd one last; -1 in all other rows.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.data.reading.order import training_order
from fer_jax.data.triplets import Triplets
from fer_jax.errors import UserError, nearest

SUPERVISIONS = ('labels', 'triplets', 'none')


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """A source and its share of a batch."""

  source: Any  # The split its faces come from, a ``splits.Split``.
  parts: int = 1  # Items in each group of rows; an item is a face or, three rows, a triplet. 0 leaves the source out.
  supervision: str = 'labels'  # What its rows carry, one of ``SUPERVISIONS``.
  triplets: Triplets | None = None  # Rows of the source, where ``supervision`` is 'triplets' and nowhere else.
  order: str = 'shuffle'  # Of the items, see ``order.training_order``; of triplets 'shuffle'.
  name: str = ''  # With the run's seed it decides the order; '': the training split itself, whose seed is the run's.

  def __post_init__(self):
    if self.supervision not in SUPERVISIONS:
      raise UserError(f"config.sources.{self.name}: unknown supervision '{self.supervision}'"
                      f'{nearest(str(self.supervision), SUPERVISIONS)}')
    if not isinstance(self.parts, int) or self.parts < 0:
      raise UserError(f"{f'config.sources.{self.name}' if self.name else 'config.data'}.parts={self.parts}: give a "
                      'whole number, 0 or more.')

  @property
  def rows(self) -> int:
    """Rows of an item."""
    return 1 if self.triplets is None else 3

  def __len__(self) -> int:
    return len(self.source if self.triplets is None else self.triplets)


class Mixture:
  """Several parts as one endless sequence of batches."""

  def __init__(self, parts: Sequence[Part], seed: int, batch_size: int):
    """Lays out a batch.

    Args:
      parts: the training split first: its classes, image size and fields are those of the batch.
      batch_size: B, rows of the global batch.

    Raises:
      UserError: no part is left, or groups do not fill the batch.
    """
    self._like, self._classes = parts[0].source.example(0), parts[0].source.classes
    self._parts = [part for part in parts if part.parts]
    self._layout = [(k, item, member) for k, part in enumerate(self._parts) for item in range(part.parts)
                    for member in range(part.rows)]
    self._batch_size = batch_size
    if not self._layout:
      raise UserError('config.data.parts and the parts of all config.sources are 0: nothing to train on.')
    if batch_size % self.group:
      raise UserError(f'config.batch_size={batch_size} is no multiple of {self.group}, the rows of a group of '
                      f"{' + '.join(f'{part.parts} x {part.rows}' for part in self._parts)} (config.data.parts and "
                      f'config.sources). Try {batch_size // self.group * self.group or self.group}.')
    self._item_at = [training_order(part.order, _seed(seed, part.name), part if part.triplets else part.source)
                     for part in self._parts]
    self._align = [self._aligner(part) for part in self._parts]

  @property
  def group(self) -> int:
    """Rows of a group: a device of the mapped form must hold whole groups."""
    return _group(self._parts)

  def example(self, step: int, row: int) -> dict[str, Any]:
    """The face in row ``row`` of the global batch of step ``step``."""
    group, place = divmod(row, self.group)
    k, item, member = self._layout[place]
    part = self._parts[k]
    at = self._item_at[k]((step * (self._batch_size // self.group) + group) * part.parts + item)
    if part.triplets is None:
      return self._align[k](part.source.example(at)) | {'triplet': np.int32(-1)}
    kind = part.triplets.types[at] if member == 0 else np.int32(-1)
    return self._align[k](part.source.example(int(part.triplets.rows[at, member]))) | {'triplet': kind}

  def _aligner(self, part: Part) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What makes an example of ``part`` one of the training split: its fields and classes, the part's supervision."""
    zeros = {name: np.zeros_like(value) for name, value in self._like.items()}
    unknown = {name: value for name, value in zeros.items() if name in ('target', 'action_unit_map')}
    unknown['label'] = np.int32(-1)
    index = [self._classes.index(name) if name in self._classes else -1 for name in part.source.classes]

    def align(example: Mapping[str, Any]) -> dict[str, Any]:
      aligned = {name: example.get(name, nothing) for name, nothing in zeros.items()}
      if part.supervision != 'labels' or index[example['label']] < 0 or example['label'] < 0:
        return aligned | unknown
      target = np.zeros_like(zeros['target'])
      for k, share in zip(index, example['target'], strict=True):
        if k >= 0:
          target[k] = share
      return aligned | {'label': np.int32(index[example['label']]), 'target': target / (target.sum() or 1)}

    return align if part.name else lambda example: dict(example)


def passes(parts: Sequence[Part], batch_size: int, steps: int) -> dict[str, float]:
  """How often ``steps`` batches go through each part: {name: passes}, the training split as 'train'."""
  groups = steps * batch_size / _group(parts)
  return {part.name or 'train': round(groups * part.parts / len(part), 3) for part in parts}


def check_devices(parts: Sequence[Part], batch_size: int, devices: int) -> None:
  """Raises UserError where a triplet would lie on two devices of the mapped form of data parallelism."""
  group = _group(parts)
  if any(part.triplets and part.parts for part in parts) and batch_size // devices % group:
    raise UserError(f"config.parallel='pmap' with triplets: each of {devices} devices gets {batch_size // devices} "
                    f'rows, no multiple of the {group} of a group. Choose a batch_size that is a multiple of '
                    f"{devices * group}, or parallel='jit'.")


def _group(parts: Sequence[Part]) -> int:
  """Rows of a group."""
  return sum(part.parts * part.rows for part in parts)


def _seed(seed: int, name: str) -> int:
  """Of a further source: from its name, so that leaving one out does not change another's."""
  return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0]) if name else seed
