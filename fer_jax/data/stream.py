"""From prepared records to host batches: a training order that is a function of (seed, step), and exact evaluation.

A host batch is a dict of numpy arrays, b rows of the global batch's B: ``image`` uint8 (b, H, H, C) with C in {1, 3},
``label`` int32 (b,) with -1 for unknown, ``target`` float32 (b, K), ``landmarks`` float32 (b, 68, 2) as fractions of
width and height with NaN where there is none, ``landmark_source`` int32 (b,), ``landmark_heatmap``,
``action_unit_map`` and, where the data set has one, ``causal_mask`` uint8 (b, 56, 56), where asked for
``action_unit_generic_map`` uint8 (b, 56, 56), ``mask`` bool (b,) that is False for padding, and ``row`` int32 (b,): in
training the row of the global batch, in evaluation the row of the split. Training batches have ``triplet`` int32 (b,)
as well (``data/mixture.py``). Heatmap and action-unit map are the stored ones, or drawn from the landmarks here where a
run wants them otherwise (``data/redraw.py``).
"""

import dataclasses
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data import preparation
from fer_jax.data.face import LANDMARK_SOURCES, canonical
from fer_jax.data.folder import Folder
from fer_jax.data.mixture import Mixture, Part
from fer_jax.data.order import evaluation_order
from fer_jax.data.pixels import decode, name_of, to_channels, to_size, to_square
from fer_jax.data.redraw import redrawn, unit_maps
from fer_jax.data.restricted import Restricted
from fer_jax.errors import UserError, nearest

Batch = dict[str, np.ndarray]

TARGETS = ('label', 'target', 'votes')

_MAPS = ('landmark_heatmap', 'action_unit_map', 'causal_mask')


@dataclasses.dataclass(eq=False)
class Source:
  """A split, decoded on demand.

  Attributes:
    records: the split's records (``data/face.py``), images and maps encoded.
    classes: names of the classes, in the order of the labels.
    size: side in pixels of the images of a batch; stored images of another side are resized. 0: the first record's
      side, and all must have it.
    channels: 1 or 3, for every image of a batch; 0: as the first record has.
    target: what becomes of ``target``. 'label': one-hot, zeros where unknown. 'target': the builder's own distribution.
      'votes': the votes for the K classes, single votes removed, divided by their sum (zeros where none is left).
    cache: keep decoded examples in memory, so that only the first epoch reads and decodes. Grey faces of 48 px take
      about 11 kB each, RGB of 224 px 160 kB.
    fingerprint: sha256 of what the split consists of; '' where nobody knows.
    digest: sha256 of the prepared data set with all its splits and settings; '' where there is none.
    folder: where the data set lies, with what its builder wrote beside the records; '' where nobody knows.
    maps: how maps are drawn, see ``redraw.redrawn``; empty: as the builders drew them.
  """
  records: Sequence[Mapping[str, Any]]
  classes: tuple[str, ...]
  size: int = 0
  channels: int = 0
  target: str = 'label'
  cache: bool = False
  fingerprint: str = ''
  digest: str = ''
  folder: str = ''
  maps: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.target not in TARGETS:
      raise UserError(f"unknown target '{self.target}'{nearest(str(self.target), TARGETS)}")
    if not len(self.records):
      raise UserError('the split is empty.')
    first = self.records[0]
    if self.target != 'label' and self.target not in first:
      raise UserError(f"target='{self.target}': the data set has no field of this name; use target='label'.")
    image = decode(first)
    self.channels = self.channels or (1 if image.ndim == 2 else 3)
    self._stored_size = 0 if self.size else max(image.shape[:2])
    self.size = self.size or self._stored_size
    self._redrawn = redrawn(self.maps, self.size)
    self._cached: dict[int, dict[str, Any]] = {}

  def __len__(self) -> int:
    return len(self.records)

  @functools.cached_property
  def _names_and_labels(self) -> list[tuple[str, int]]:
    return [(name_of(record), int(record['label'])) for record in self.records]

  @property
  def names(self) -> list[str]:
    """The data set's own file names, in order. The first use of it or ``labels`` reads every record."""
    return [name for name, _ in self._names_and_labels]

  @property
  def labels(self) -> np.ndarray:
    """Labels in order, int32 (N,), -1 for unknown."""
    return np.array([label for _, label in self._names_and_labels], np.int32)

  def example(self, row: int) -> dict[str, Any]:
    """Reads and decodes example ``row``: the fields of a batch without ``mask`` and ``row``.

    Raises:
      UserError: the image cannot be decoded, or has a side of its own and no ``size`` was given.
    """
    if row in self._cached:
      return self._cached[row]
    example = self._decoded(self.records[row])
    if self.cache:
      self._cached[row] = example
    return example

  def unit_maps(self, row: int, size: int, labels: Sequence[int] | None = None) -> np.ndarray:
    """Draws the action-unit maps of classes from the landmarks of example ``row``, as ``maps`` says.

    Args:
      row: of the split.
      size: side of the maps in pixels.
      labels: K of them; None: all classes.

    Returns:
      uint8 (K, size, size), moved as the example's own map is; zeros where a class has no action units, or the
      landmarks are none or not to be trusted (``face.LANDMARK_SOURCES``).
    """
    record = self.records[row]
    labels = range(len(self.classes)) if labels is None else labels
    if record['landmark_source'] < LANDMARK_SOURCES.index('detector'):
      return np.zeros((len(labels), size, size), np.uint8)
    image = decode(record)
    height, width = image.shape[:2]
    landmarks = np.asarray(record['landmarks'], np.float32) / np.float32([width, height])
    drawn = unit_maps(landmarks, [canonical(self.classes[k]) for k in labels], size, self.maps, self.size)
    if height != width:
      drawn = np.stack(list(to_square(image, dict(enumerate(drawn)), landmarks)[1].values()))
    return drawn

  def _decoded(self, record: Mapping[str, Any]) -> dict[str, Any]:
    image = decode(record)
    height, width = image.shape[:2]
    if self._stored_size and max(height, width) != self._stored_size:
      raise UserError(f"'{name_of(record)}' is {width} x {height} pixels, but the split's first image has a side of "
                      f'{self._stored_size}: choose the side of all images with data.size.')
    label = int(record['label'])
    landmarks = np.asarray(record['landmarks'], np.float32) / np.float32([width, height])
    maps = {name: decode(record, name) for name in _MAPS if name in record and name not in self._redrawn}
    expression = canonical(self.classes[label]) if label >= 0 else None
    maps |= {name: draw(landmarks, expression) for name, draw in self._redrawn.items()}
    if height != width:
      image, maps, landmarks = to_square(image, maps, landmarks)
    return {
        'image': to_channels(to_size(image, self.size), self.channels),
        'label': np.int32(label),
        'target': self._target(record),
        'landmarks': landmarks,
        'landmark_source': np.int32(record['landmark_source']),
        **maps,
    }

  def _target(self, record: Mapping[str, Any]) -> np.ndarray:
    """The class distribution of a record, float32 (K,)."""
    if self.target == 'target':
      return np.asarray(record['target'], np.float32)
    if self.target == 'votes':
      votes = np.asarray(record['votes'], np.float32)[:len(self.classes)]
      votes = np.where(votes > 1, votes, 0)
      return votes / max(votes.sum(), 1)
    return (np.arange(len(self.classes)) == int(record['label'])).astype(np.float32)


def open_split(name: str, variant: str | None, split: str, data_dir: str | None, *, size: int = 0, channels: int = 0,
               target: str = 'label', cache: bool = False, maps: Mapping[str, Any] | None = None,
               classes: Sequence[str] = (), prepare_if_missing: bool = False) -> Source:
  """Opens a split of a prepared data set, or a folder of images.

  Args:
    name: a builder of ``fer_jax/data/builders``; or 'folder', any folder of images.
    variant: the builder's configuration; None or '': its first. Of a folder, 'classes': the folders in it are classes.
    split: a TFDS split expression, such as ``'train+valid'`` or ``'train[:90%]'``; of a folder, a folder in it, or ''.
    data_dir: where prepared data sets lie; None or '': TFDS's default. Of a folder, its path.
    size: see ``Source``; so are ``channels``, ``target``, ``cache`` and ``maps``.
    classes: only the faces of these classes, which become the classes of the split; empty: all faces.
    prepare_if_missing: prepare the data set first where it is not there; for data sets that need no files.

  Raises:
    UserError: an unknown name, variant, split, target, map or class, or the data set is not prepared.
  """
  options = {'size': size, 'channels': channels, 'target': target, 'cache': cache, 'maps': maps or {}}
  if name == 'folder':
    if variant not in ('', None, 'classes'):
      raise UserError(f"a folder has no variant '{variant}'; choose '' or, if its folders are classes, 'classes'.")
    folder = os.path.expanduser(data_dir or '.')
    images = Folder(os.path.join(folder, split), labelled=variant == 'classes')
    return _restricted(images, images.classes, classes, images.fingerprint, folder, options)
  builder = preparation.make_builder(name, variant, data_dir)
  if not builder.is_prepared():
    if not prepare_if_missing:
      flags = {'variant': variant, 'data_dir': data_dir, 'source': builder.HOW_TO and 'THE_FILES_AS_DISTRIBUTED'}
      given = ''.join(f' --{flag}={value}' for flag, value in flags.items() if value)
      raise UserError(f'{name} is not prepared: nothing at {builder.data_dir}. Prepare it once with:\n'
                      f'  python -m fer_jax.prepare --dataset={name}{given}')
    print(f'{name} is not there yet; it is made once, in {builder.data_dir}.')
    preparation.prepare(builder, wait=True)  # All processes of a run come here at once.
    builder = preparation.make_builder(name, variant, data_dir)
  contents = builder.contents()
  skip = {key: tfds.decode.SkipDecoding() for key, feature in builder.info.features.items()
          if isinstance(feature, tfds.features.Image)}
  try:
    records = builder.as_data_source(split, decoders=skip)
  except ValueError as e:
    raise UserError(f"{name}: bad split '{split}': {str(e).splitlines()[0]} It has: "
                    f"{', '.join(builder.info.splits)}.") from e
  fingerprint = hashlib.sha256(f'{contents["digest"]} {split}'.encode()).hexdigest()
  return _restricted(records, tuple(contents['classes']), classes, fingerprint, str(builder.data_path),
                     options | {'digest': contents['digest']})


def _restricted(records: Sequence[Any], classes: tuple[str, ...], wanted: Sequence[str], fingerprint: str, folder: str,
                options: Mapping[str, Any]) -> Source:
  if wanted:
    records, classes = Restricted(records, classes, wanted), tuple(wanted)
    fingerprint = hashlib.sha256(f"{fingerprint} {','.join(wanted)}".encode()).hexdigest()
  return Source(records, classes, fingerprint=fingerprint, folder=folder, **options)


def training_batches(parts: Sequence[Part], *, seed: int, batch_size: int, start_step: int = 0, process_index: int = 0,
                     process_count: int = 1, threads: int = 4) -> Iterator[Batch]:
  """Yields this process's rows of the global batches of steps ``start_step``, ``start_step + 1``, ... without end.

  Row i of the global batch of step s is element s * B + i of one infinite sequence, whatever the number of processes; a
  batch may span two epochs. Of several parts each has such a sequence, see ``data/mixture.py``.

  Args:
    parts: what a batch holds, the training split first.
    seed: decides the order, with the step and nothing else.
    batch_size: B, rows of the global batch.
    start_step: the first step.
    process_index: this process.
    process_count: how many there are.
    threads: threads that read and decode; 0 reads in the caller. The result is the same.

  Raises:
    UserError: ``batch_size`` is not divisible by ``process_count`` or by the rows of a group, or an unknown order.
  """
  rows_each = _rows_each(batch_size, process_count)
  mixture = Mixture(parts, seed, batch_size)

  def batch(step: int) -> Batch:
    rows = np.arange(process_index * rows_each, (process_index + 1) * rows_each, dtype=np.int32)
    examples = [mixture.example(step, int(row)) for row in rows]
    return {**_stack(examples), 'mask': np.ones(rows_each, bool), 'row': rows}

  return _read(batch, range(start_step, sys.maxsize), threads)


def evaluation_batches(source: Source, *, batch_size: int, process_index: int = 0, process_count: int = 1,
                       threads: int = 4, order: str = 'stored') -> Iterator[Batch]:
  """Yields this process's rows of the global batches that hold every example of the split once.

  They come in the order 'stored', 'shuffled' or 'sorted' of ``order.evaluation_order``; ``row`` says which example it
  is. All processes yield equally many batches of ``batch_size / process_count`` rows. Where the examples run out, rows
  are padding: ``mask`` False, ``label`` -1, everything else 0.

  Raises:
    UserError: ``batch_size`` is not divisible by ``process_count``, or an unknown order.
  """
  rows_each = _rows_each(batch_size, process_count)
  visited = evaluation_order(order, source)

  def batch(step: int) -> Batch:
    first = step * batch_size + process_index * rows_each
    return _padded(source, visited[first:min(first + rows_each, len(source))], rows_each)

  return _read(batch, range(-(-len(source) // batch_size)), threads)


def rows(source: Source, indices: Sequence[int]) -> Batch:
  """Returns the examples of these rows of the split as one batch."""
  return _padded(source, indices, len(indices))


def _padded(source: Source, indices: Sequence[int], count: int) -> Batch:
  """The examples ``indices``, padded to ``count`` rows."""
  # A batch of padding alone takes its shapes from the first example.
  examples = _stack([source.example(int(row)) for row in indices] or [source.example(0)])
  held = len(indices)
  batch = {}
  for name, values in {**examples, 'row': np.array(indices, np.int32)}.items():
    batch[name] = np.zeros((count, *values.shape[1:]), values.dtype)
    batch[name][:held] = values[:held]
  batch['label'][held:] = -1
  batch['mask'] = np.arange(count) < held
  return batch


def _read(batch: Callable[[int], Batch], steps: range, threads: int) -> Iterator[Batch]:
  """Iterates over ``batch(step)`` in order, with ``threads`` batches in the making and a few ready."""
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
  return iter(grain.MapDataset.range(steps.start, steps.stop).map(batch).to_iter_dataset(options))


def _rows_each(batch_size: int, process_count: int) -> int:
  if batch_size % process_count:
    raise UserError(f'a batch of {batch_size} cannot be shared by {process_count} processes: choose a batch size '
                    f'divisible by {process_count}.')
  return batch_size // process_count


def _stack(examples: Sequence[Mapping[str, Any]]) -> Batch:
  return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
