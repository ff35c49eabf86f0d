"""A split that is read: prepared records, or a folder of images, decoded on demand to what a batch has a row of.

The fields and their forms are those of a host batch, see ``streams``. Heatmap and action-unit map are the stored ones,
or drawn from the landmarks where a run wants them otherwise, see ``redraw``.
"""

import collections
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data import image_file
from fer_jax.data.face import LANDMARK_SOURCES, canonical
from fer_jax.data.pixels import decode, digest, name_of, to_channels, to_size, to_square
from fer_jax.data.preparing import preparation
from fer_jax.data.preparing.contents import readable
from fer_jax.data.preparing.files import composed
from fer_jax.data.reading import rows, tables
from fer_jax.data.reading.folder import Folder
from fer_jax.data.reading.redraw import redrawn, unit_maps
from fer_jax.data.reading.restricted import Restricted
from fer_jax.errors import UserError, nearest
from fer_jax.landmarks.action_units import DRAWING
from fer_jax.runtime import cluster
from fer_jax.runtime.paths import expand
from fer_jax.runtime.progress import progress

TARGETS = ('label', 'target', 'votes')

_MAPS = ('landmark_heatmap', 'action_unit_map', 'causal_mask')


@dataclasses.dataclass(eq=False)
class Split:
  """A split, decoded on demand."""

  records: Sequence[Mapping[str, Any]]  # As ``data/face.py`` makes them, images and maps encoded.
  classes: tuple[str, ...]  # Names, in the order of the labels.
  # Side in pixels of a batch's images; stored ones of another side are resized. 0: the first record's, which all have.
  size: int = 0
  channels: int = 0  # 1 or 3, for every image of a batch; 0: as the first record has, see ``open_split``.
  # What becomes of ``target``. 'label': one-hot, zeros where unknown. 'target': the builder's own distribution.
  # 'votes': the votes for the K classes, single votes removed, divided by their sum (zeros where none is left).
  target: str = 'label'
  fingerprint: str = ''  # sha256 of what the split consists of; '' where nobody knows.
  digest: str = ''  # sha256 of the prepared data set with all its splits and settings; '' where there is none.
  # Which rows of the data set it reads, in order; none where nobody knows. ``whole`` is the data set.
  intervals: tuple[rows.Interval, ...] = ()
  whole: rows.Whole = dataclasses.field(default_factory=rows.Whole)
  folder: str = ''  # Where the data set lies, with what its builder wrote beside the records; '' where nobody knows.
  maps: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # As ``redraw.redrawn`` takes them.
  shareable: bool = True  # Whether its faces may be passed on; those of a user's own folder are for the user to judge.
  drawing: int = DRAWING  # The rules that the maps of the records were drawn by; others are drawn again.
  reopen: Callable[[], Any] | None = None  # Opens it again, in another process.

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
    self._redrawn = redrawn(self.maps, self.size, self.drawing)
    self._table: Mapping[str, np.ndarray] = {}

  def __len__(self) -> int:
    return len(self.records)

  @functools.cached_property
  def _names_and_labels(self) -> list[tuple[str, int]]:
    if isinstance(self.records, Folder):
      return self.records.names_and_labels
    return [(name_of(record), int(record['label'])) for record in self.records]

  @property
  def names(self) -> list[str]:
    """The data set's own file names, in order. The first use of it or ``labels`` reads every record."""
    return [name for name, _ in self._names_and_labels]

  @property
  def labels(self) -> np.ndarray:
    """Labels in order, int32 (N,), -1 for unknown."""
    return np.array([label for _, label in self._names_and_labels], np.int32)

  @functools.cached_property
  def images(self) -> np.ndarray:
    """The digest of every image, uint64 (N,), see ``pixels.digest``; decodes them where the data set has none."""
    stored = self.whole.images()
    if stored is None:
      numbers = progress(range(len(self)), desc=f'digests of {self.folder}', unit='face')
      return np.array([digest(decode(self.records[row])) for row in numbers], np.uint64)
    read = np.concatenate([stored[one.split][one.start:one.stop] for one in self.intervals])
    return read[self.records.rows] if self.restricted else read

  @functools.cached_property
  def places(self) -> tuple[np.ndarray, np.ndarray]:
    """Where every example lies in its data set, see ``rows.places``; of a folder, its rows."""
    if not self.intervals:
      return rows.places([rows.Interval('', 0, len(self))])
    names, at = rows.places(self.intervals)
    return (names[self.records.rows], at[self.records.rows]) if self.restricted else (names, at)

  @property
  def restricted(self) -> bool:
    """Whether faces of other classes are left out."""
    return isinstance(self.records, Restricted)

  def example(self, row: int, fields: Collection[str] | None = None) -> dict[str, Any]:
    """Reads and decodes example ``row``: the fields of a batch without ``mask`` and ``row``, or some of them.

    Raises:
      UserError: the image cannot be decoded, or has a side of its own and no ``size`` was given.
    """
    return self._decoded(self.records[row], fields)

  def take(self, rows: Sequence[int], fields: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The examples ``rows``, one or more, as arrays with a row for each; see ``example``."""
    if fields is not None and self._table.keys() >= set(fields):
      return {name: self._table[name][rows] for name in fields}
    examples = [self.example(int(row), fields) for row in rows]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

  def tabulate(self, fields: Collection[str]) -> Mapping[str, np.ndarray]:
    """Decodes these fields of all examples once: {field: (N, ...)}, from which ``take`` reads from now on.

    They are kept on disk, see ``tables``; of a split that nobody can tell from another, in memory.

    Raises:
      UserError: an example cannot be decoded, or there is no room.
    """
    if not self._table.keys() >= set(fields):
      wanted = sorted({*self._table, *fields})
      self._table = (tables.open_table(self.reopen, self, self.about, wanted) if self.fingerprint else
                     self.take(np.arange(len(self)), wanted))
    return self._table

  @property
  def about(self) -> dict[str, Any]:
    """All that decides what its examples hold, as JSON; and 'folder', where its prepared data lie, or ''."""
    return {'fingerprint': self.fingerprint, 'size': self.size, 'channels': self.channels, 'target': self.target,
            'maps': self.maps, 'drawing': DRAWING, 'folder': self.folder if self.digest else ''}

  def unit_maps(self, row: int, size: int, labels: Sequence[int] | None = None) -> np.ndarray:
    """Draws the action-unit maps of classes from the landmarks of example ``row``, as ``maps`` says.

    Args:
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

  def _decoded(self, record: Mapping[str, Any], fields: Collection[str] | None) -> dict[str, Any]:
    wanted = lambda name: fields is None or name in fields
    image = decode(record)
    height, width = image.shape[:2]
    if self._stored_size and max(height, width) != self._stored_size:
      raise UserError(f"'{name_of(record)}' is {width} x {height} pixels, but the split's first image has a side of "
                      f'{self._stored_size}: choose the side of all images with data.size.')
    label = int(record['label'])
    landmarks = np.asarray(record['landmarks'], np.float32) / np.float32([width, height])
    maps = {name: decode(record, name) for name in _MAPS
            if name in record and name not in self._redrawn and wanted(name)}
    expression = canonical(self.classes[label]) if label >= 0 else None
    maps |= {name: draw(landmarks, expression, name_of(record)) for name, draw in self._redrawn.items() if wanted(name)}
    if height != width:
      image, maps, landmarks = to_square(image, maps, landmarks)
    example = {
        'image': to_channels(to_size(image, self.size), self.channels),
        'label': np.int32(label),
        'target': self._target(record),
        'landmarks': landmarks,
        'landmark_source': np.int32(record['landmark_source']),
        **maps,
    }
    return {name: value for name, value in example.items() if wanted(name)}

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
               target: str = 'label', maps: Mapping[str, Any] | None = None, classes: Sequence[str] = (),
               prepare_if_missing: bool = False) -> Split:
  """Opens a split of a prepared data set, or a folder of images.

  Args:
    name: a builder of ``fer_jax/data/builders``; or 'folder', any folder of images.
    variant: the builder's configuration; None or '': its first. Of a folder, 'classes': the folders in it are classes.
    split: a TFDS split expression, such as ``'train+valid'`` or ``'train[:90%]'``; of a folder, a folder in it, or ''.
    data_dir: where prepared data sets lie; None or '': TFDS's default. Of a folder, its path.
    size: see ``Split``; so are ``target`` and ``maps``.
    channels: 1 or 3, for every image of a batch; 0: 3 if the data set's splits that are named have an image in colour,
      since grey becomes RGB without a loss and colour does not become grey so; whichever rows of them are read.
    classes: only the faces of these classes, which become the classes of the split; empty: all faces.
    prepare_if_missing: prepare the data set first where it is not there; for data sets that need no files.

  Raises:
    UserError: an unknown name, variant, split, target, map or class, or the data set is not prepared.
  """
  reopen = functools.partial(open_split, name, variant, split, data_dir, size=size, channels=channels, target=target,
                             maps=maps, classes=classes)
  options = {'size': size, 'channels': channels, 'target': target, 'maps': maps or {}, 'reopen': reopen}
  if name == 'folder':
    if variant not in ('', None, 'classes'):
      raise UserError(f"a folder has no variant '{variant}'; choose '' or, if its folders are classes, 'classes'.")
    folder = expand(data_dir or '.')
    images = Folder(os.path.join(folder, split), labelled=variant == 'classes')
    for note in images.notes:
      cluster.say(f'{note}.')
    options['channels'] = channels or _decided(images.channels(), images.path)
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
  whole = rows.Whole(builder.info.splits, contents['splits'], builder.data_path)
  intervals = rows.intervals(split, whole.splits)
  if not intervals:
    raise UserError(f"the split '{split}' of {name} is empty; it has: {whole}.")
  # By intervals: of '[5:2]' TFDS reads what nobody meant.
  spec = '+'.join(f'{one.split}[{one.start}:{one.stop}]' for one in intervals)
  records = Stored(builder.as_data_source(spec, decoders=skip), builder.data_path)
  named = ' + '.join(dict.fromkeys(one.split for one in intervals))
  options['channels'] = channels or _decided(records.channels(whole, intervals), f'{name} {named}')
  fingerprint = hashlib.sha256(f'{contents["digest"]} {split}'.encode()).hexdigest()
  return _restricted(records, tuple(contents['classes']), classes, fingerprint, str(builder.data_path),
                     options | {'digest': contents['digest'], 'drawing': contents.get('drawing', 1),
                                'shareable': builder.SHAREABLE, 'intervals': intervals, 'whole': whole})


class Stored:
  """Records of a prepared data set; reading one raises UserError where its file is damaged."""

  def __init__(self, source: Sequence[Mapping[str, Any]], folder: Any):
    self._source, self._folder = source, folder

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, row: int) -> Mapping[str, Any]:
    if row >= len(self):
      raise IndexError(row)
    with readable(self._folder, f'record {row:,} of {len(self):,}'):
      return self._source[row]

  def channels(self, whole: rows.Whole, intervals: Sequence[rows.Interval]) -> Mapping[int, int]:
    """How many images of the splits they are read from have 1 channel, and how many 3."""
    known = [whole.facts[name].get('channels') for name in {one.split for one in intervals}]
    if None in known:  # An earlier version has prepared them and counted nothing: those that are read.
      return collections.Counter(image_file.channels(self[row]['image']) for row in range(len(self)))
    return {count: sum(facts.get(str(count), 0) for facts in known) for count in (1, 3)}


def _decided(counts: Mapping[int, int], what: object) -> int:
  """The number of channels of a batch of such images."""
  if counts.get(1) and counts.get(3):
    cluster.say(f'{what}: {counts[3]:,} image(s) in colour, {counts[1]:,} grey; all are read in colour, so that none '
                'loses it (config.data.channels=1 makes all grey).')
  return 3 if counts.get(3) else 1


def _restricted(records: Sequence[Any], classes: tuple[str, ...], wanted: Sequence[str], fingerprint: str, folder: str,
                options: Mapping[str, Any]) -> Split:
  if wanted:
    wanted = [composed(name) for name in wanted]
    records, classes = Restricted(records, classes, wanted), tuple(wanted)
    fingerprint = hashlib.sha256(f"{fingerprint} {','.join(wanted)}".encode()).hexdigest()
  return Split(records, classes, fingerprint=fingerprint, folder=folder, **options)


