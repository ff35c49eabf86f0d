"""Host batches: in training an order that is a function of (seed, step), in evaluation every example once.

A host batch is a dict of numpy arrays, b rows of the global batch's B: ``image`` uint8 (b, H, H, C) with C in {1, 3},
``label`` int32 (b,) with -1 for unknown, ``target`` float32 (b, K), ``landmarks`` float32 (b, 68, 2) as fractions of
width and height with NaN where there is none, ``landmark_source`` int32 (b,), ``landmark_heatmap``,
``action_unit_map`` and, where the data set has one, ``causal_mask`` uint8 (b, 56, 56), where asked for
``action_unit_generic_map`` and ``action_unit_random_map`` uint8 (b, 56, 56), ``mask`` bool (b,) that is False for
padding, and ``row`` int32 (b,): in training the row of the global batch, in evaluation the row of the split. Training
batches have ``triplet`` int32 (b,) as well, see ``mixture``.
"""

import sys
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from fer_jax.data.reading.ahead import in_order
from fer_jax.data.reading.mixture import Mixture, Part
from fer_jax.data.reading.order import evaluation_order
from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError

Batch = dict[str, np.ndarray]


def training_batches(parts: Sequence[Part], *, seed: int, batch_size: int, start_step: int = 0, process_index: int = 0,
                     process_count: int = 1, threads: int = 4, fields: Collection[str] | None = None
                     ) -> Iterator[Batch]:
  """Yields this process's rows of the global batches of steps ``start_step``, ``start_step + 1``, ... without end.

  Row i of the global batch of step s is element s * B + i of one infinite sequence, whatever the number of processes; a
  batch may span two epochs. Of several parts each has such a sequence, see ``mixture``.

  Args:
    parts: what a batch holds, the training split first.
    seed: decides the order, with the step and nothing else.
    batch_size: B, rows of the global batch.
    threads: threads that read and decode; 0 reads in the caller. The result is the same.
    fields: those of the splits that are read; None: all.

  Raises:
    UserError: ``batch_size`` is not divisible by ``process_count`` or by the rows of a group, or an unknown order.
  """
  rows_each = _rows_each(batch_size, process_count)
  mixture = Mixture(parts, seed, batch_size, fields)
  rows = np.arange(process_index * rows_each, (process_index + 1) * rows_each, dtype=np.int32)

  def batch(step: int) -> Batch:
    places, triplets = mixture.places(step, rows)
    return {**mixture.read(places), 'triplet': triplets, 'mask': np.ones(rows_each, bool), 'row': rows}

  return in_order(batch, range(start_step, sys.maxsize), threads, 2 * threads)


def evaluation_batches(split: Split, *, batch_size: int, process_index: int = 0, process_count: int = 1,
                       threads: int = 4, order: str = 'stored', fields: Collection[str] | None = None
                       ) -> Iterator[Batch]:
  """Yields this process's rows of the global batches that hold every example of the split once.

  They come in the order 'stored', 'shuffled' or 'sorted' of ``order.evaluation_order``; ``row`` says which example it
  is. All processes yield equally many batches of ``batch_size / process_count`` rows. Where the examples run out, rows
  are padding: ``mask`` False, ``label`` -1, everything else 0.

  Raises:
    UserError: ``batch_size`` is not divisible by ``process_count``, or an unknown order.
  """
  rows_each = _rows_each(batch_size, process_count)
  visited = evaluation_order(order, split)

  def batch(step: int) -> Batch:
    first = step * batch_size + process_index * rows_each
    return _padded(split, visited[first:min(first + rows_each, len(split))], rows_each, fields)

  return in_order(batch, range(-(-len(split) // batch_size)), threads, 2 * threads)


def rows(split: Split, indices: Sequence[int]) -> Batch:
  """Returns the examples of these rows of the split as one batch."""
  return _padded(split, indices, len(indices))


def _padded(split: Split, indices: Sequence[int], count: int, fields: Collection[str] | None = None) -> Batch:
  """The examples ``indices``, padded to ``count`` rows."""
  held = len(indices)
  examples = split.take(indices if held else [0], fields)  # A batch of padding alone needs shapes.
  batch = {}
  for name, values in {**examples, 'row': np.array(indices, np.int32)}.items():
    batch[name] = np.zeros((count, *values.shape[1:]), values.dtype)
    batch[name][:held] = values[:held]
  batch['label'][held:] = -1
  batch['mask'] = np.arange(count) < held
  return batch


def _rows_each(batch_size: int, process_count: int) -> int:
  if batch_size % process_count:
    raise UserError(f'a batch of {batch_size} cannot be shared by {process_count} processes: choose a batch size '
                    f'divisible by {process_count}.')
  return batch_size // process_count

