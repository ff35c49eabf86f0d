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
from collections.abc import Collection, Sequence
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

  def __init__(self, parts: Sequence[Part], seed: int, batch_size: int, fields: Collection[str] | None = None):
    """Lays out a batch.

    Args:
      parts: the training split first: its classes, image size and fields are those of the batch.
      batch_size: B, rows of the global batch.
      fields: those of the training split that are wanted; None: all.

    Raises:
      UserError: no part is left, or groups do not fill the batch.
    """
    self._like, self._classes = parts[0].source.example(0, fields), parts[0].source.classes
    self._parts = [part for part in parts if part.parts]
    # What is read of each part: the wanted fields that it has, and of a further source what tells its classes.
    self._fields = [[name for name in part.source.example(0)
                     if name in self._like or part.name and name in ('label', 'target')] for part in self._parts]
    # Of each row of a group: its part, its item among those of its part, and its place in the item.
    layout = [(k, item, member) for k, part in enumerate(self._parts) for item in range(part.parts)
              for member in range(part.rows)]
    if not layout:
      raise UserError('config.data.parts and the parts of all config.sources are 0: nothing to train on.')
    if batch_size % self.group:
      raise UserError(f'config.batch_size={batch_size} is no multiple of {self.group}, the rows of a group of '
                      f"{' + '.join(f'{part.parts} x {part.rows}' for part in self._parts)} (config.data.parts and "
                      f'config.sources). Try {batch_size // self.group * self.group or self.group}.')
    self._layout, self._groups = np.array(layout).T, batch_size // self.group
    self._items_at = [training_order(part.order, _seed(seed, part.name), part if part.triplets else part.source)
                      for part in self._parts]
    # Rows of all parts are numbered one after the other.
    self._starts = np.cumsum([0, *(len(part.source) for part in self._parts)])

  @property
  def group(self) -> int:
    """Rows of a group: a device of the mapped form must hold whole groups."""
    return _group(self._parts)

  def places(self, steps: int | np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which faces are in rows of the global batches of steps.

    Args:
      steps: int, or int (S,).
      rows: int (n,).

    Returns:
      The face of each, a row of the parts' splits one after the other, and the type of the triplet that starts there or
      -1: twice int32 (n,), or (S, n).
    """
    groups, place = np.divmod(rows, self.group)
    parts, items, members = (np.broadcast_to(value, (*np.shape(steps), len(rows))) for value in self._layout[:, place])
    groups = np.asarray(steps)[..., None] * self._groups + groups
    faces, kinds = np.empty(parts.shape, np.int32), np.full(parts.shape, -1, np.int32)
    for k, part in enumerate(self._parts):
      here = parts == k
      at = self._items_at[k](groups[here] * part.parts + items[here])
      if part.triplets:
        kinds[here] = np.where(members[here] == 0, part.triplets.types[at], -1)
        at = part.triplets.rows[at, members[here]]
      faces[here] = self._starts[k] + at
    return faces, kinds

  def read(self, faces: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of faces (n,), numbered as by ``places``."""
    if len(self._parts) == 1:
      return self._aligned(0, faces)
    of = np.searchsorted(self._starts, faces, side='right') - 1
    batch = {name: np.zeros((len(faces), *np.shape(value)), value.dtype) for name, value in self._like.items()}
    for k in np.unique(of):
      for name, values in self._aligned(k, faces[of == k] - self._starts[k]).items():
        batch[name][of == k] = values
    return batch

  def tabulate(self) -> int:
    """Decodes the faces of all parts once, see ``Split.tabulate``; returns the bytes of ``tables``."""
    for part, fields in zip(self._parts, self._fields, strict=True):
      part.source.tabulate(fields)
    return int(self._starts[-1]) * sum(np.asarray(value).nbytes for value in self._like.values())

  def tables(self) -> dict[str, np.ndarray]:
    """The fields of all faces (N, ...), numbered as by ``places``; those of one split as they lie on disk."""
    if len(self._parts) == 1 and not self._parts[0].name:
      decoded = self._parts[0].source.tabulate(self._fields[0])
      return {name: decoded[name] for name in self._like}
    return self.read(np.arange(self._starts[-1]))

  def _aligned(self, k: int, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Examples of part ``k`` as the training split has them: its fields and classes, the part's supervision."""
    part = self._parts[k]
    found = part.source.take(rows, self._fields[k])
    if not part.name:
      return {name: found[name] for name in self._like}
    batch = {name: found.get(name, np.zeros((len(rows), *np.shape(value)), value.dtype))
             for name, value in self._like.items()}
    ours = np.array([self._classes.index(name) if name in self._classes else -1 for name in part.source.classes])
    known = (part.supervision == 'labels') & (found['label'] >= 0) & (ours[found['label']] >= 0)
    for name in batch.keys() & {'action_unit_map', 'action_unit_random_map'}:  # Empty ones tell of labels.
      batch[name] = batch[name] * known.reshape(-1, *[1] * (batch[name].ndim - 1))
    if 'label' in batch:
      batch['label'] = np.where(known, ours[found['label']], -1).astype(np.int32)
    if 'target' in batch:
      target = np.zeros((len(rows), len(self._classes)), np.float32)
      target[:, ours[ours >= 0]] = found['target'][:, ours >= 0]
      total = target.sum(axis=1, keepdims=True)
      batch['target'] = np.where(known[:, None], target / np.where(total, total, 1), 0).astype(np.float32)
    return batch


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
