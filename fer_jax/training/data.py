"""The data of a run: the split to train on, what else a batch holds, and what is tested on."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_jax import registry
from fer_jax.data import triplets
from fer_jax.data.reading import order, splits, subsets, tables
from fer_jax.data.reading.mixture import Part
from fer_jax.errors import UserError, nearest
from fer_jax.metrics import action_units
from fer_jax.runtime import cluster

RESIDENT = ('auto', 'True', 'False', 'split')

# Rows of a training split, evenly spaced, among which ``training_mean`` finds its faces: reading all may take minutes.
_LOOKED_AT = 20_000


@dataclasses.dataclass(frozen=True)
class Data:
  """What ``config.data``, ``config.sources`` and ``config.comparisons`` say; configs/common.py explains every key.

  Orders and subset lists are needed later only, but what is wrong with them shows here, before anything is computed.

  Raises:
    UserError: an unknown order, a number of channels that no image has, a seed out of range or a bad subset list.
  """

  dataset: str
  variant: str
  dir: str
  train: str
  holdout: str
  test: str
  classes: tuple[str, ...]
  parts: int
  size: int
  channels: int
  target: str
  table: bool
  resident: str
  resident_steps: int
  order: str
  seed: int
  maps: Mapping[str, Any]
  subsets: tuple[str, ...]
  duplicates: bool
  threads: int
  sources: Mapping[str, Mapping[str, Any]]
  comparisons: Mapping[str, Mapping[str, Any]]

  def __post_init__(self):
    order.check('config.data.order', self.order, order.TRAINING)
    if self.channels not in (0, 1, 3):
      raise UserError(f'config.data.channels={self.channels}: give 1 (grey), 3 (colour), or 0 for as many as the '
                      'training images need.')
    if self.resident not in RESIDENT:
      raise UserError(f"config.data.resident='{self.resident}'{nearest(self.resident, RESIDENT)}")
    if self.seed < -1:
      raise UserError(f'config.data.seed={self.seed}: give a seed, 0 or more, or -1 for that of the run.')
    subsets.read_lists(self.subsets)

  def open(self, split: str) -> splits.Split:
    """Opens a split of the data set; the synthetic faces are drawn first where they are missing.

    Raises:
      UserError: see ``splits.open_split``.
    """
    target = 'target' if self.target == 'drawn' else self.target
    return self._open(self._where(), split, size=self.size, channels=self._channels, target=target)

  @functools.cached_property
  def _channels(self) -> int:
    """Of every image: as many as the data set's training images need, whichever split is opened."""
    return self.channels or self._open(self._where(), self.train).channels

  def open_parts(self) -> list[Part]:
    """Opens what a training batch holds: ``train`` first, then ``sources`` but those of 0 parts.

    Raises:
      UserError: an unknown key, a bad value, or a data set that is not there.
    """
    for name, options in self.sources.items():
      registry.check_options(f'config.sources.{name}', self._open_source, options, given=2)
    faces = self.open(self.train)
    return [Part(faces, self.parts, order=self.order),
            *(self._open_source(faces, name, **options) for name, options in self.sources.items()
              if options.get('parts', 1))]

  def open_comparisons(self, channels: int) -> dict[str, tuple[splits.Split, triplets.Triplets]]:
    """Opens ``comparisons``: {name: (the split that holds the faces, triplets of its rows)}.

    Args:
      channels: of the images that the run is trained on, 1 or 3; 0: as the faces have.

    Raises:
      UserError: see ``open_parts``.
    """
    for name, options in self.comparisons.items():
      registry.check_options(f'config.comparisons.{name}', self._open_comparison, options, given=1)
    return {name: self._open_comparison(channels, **options) for name, options in self.comparisons.items()}

  def training_mean(self) -> np.ndarray | None:
    """The mean action-unit map of the training split; None where it has none or cannot be opened.

    With ``table`` it is kept on disk, like the table.
    """
    try:
      faces = self.open(self.train)
      if not self.table or not faces.fingerprint:
        return self._mean_of(faces)
      about = {**faces.about, 'training_mean': [_LOOKED_AT, action_units.FACES_OF_A_CLASS, action_units.SIZE]}
      return tables.keep(about, lambda: self._mean_of(faces))
    except UserError as error:  # It may be gone since, or the config be changed to another data set.
      cluster.say(f"The picture 'training_mean' is left out: {error}")
      return None

  def _mean_of(self, faces: splits.Split) -> np.ndarray | None:
    rows = action_units.evenly(len(faces), _LOOKED_AT)
    labels = (faces.tabulate(('label',))['label'][rows] if self.table else  # The training has made the table.
              np.array([int(faces.records[int(row)]['label']) for row in rows]))
    draw = lambda row, label: faces.unit_maps(row, action_units.SIZE, [label])[0]
    return action_units.training_mean(draw, rows, labels)

  def _open_source(self, faces: splits.Split, name: str, *, split: str, dataset: str = '', variant: str = '',
                   dir: str = '', parts: int = 1, supervision: str = 'none', truth: str = 'votes', count: int = 60_000,
                   agreement: str = 'two_thirds') -> Part:
    """Opens a further source.

    Args:
      faces: the training split.
      name: of the source.
      split: as ``config.data.train``.
      dataset: as ``config.data.dataset``, its default, or 'folder'.
      variant: as ``config.data.variant``, which is the default for the same data set.
      dir: as ``config.data.dir``, its default; of a folder, its path.
      parts: items in each group of rows, see ``data/reading/mixture.py``.
      supervision: 'labels', 'triplets' or 'none'.
      truth: of triplets: 'annotators' (FEC's own), or 'votes' or 'labels', from which triplets are made.
      count: how many are made.
      agreement: which of the annotators' triplets are kept, a name in ``triplets.AGREEMENTS``.
    """
    where = self._where(dataset, variant, dir)
    if (*where, split) == (*self._where(), self.train):
      opened = faces  # With its table.
    else:
      opened = self._open(where, split, size=faces.size, channels=faces.channels)
    found = triplets.open_triplets(opened, split, truth, count, agreement) if supervision == 'triplets' else None
    return Part(opened, parts, supervision, found, name=name)

  def _open_comparison(self, channels: int, *, split: str, dataset: str = '', variant: str = '', dir: str = '',
                       truth: str = 'votes', count: int = 6_000, agreement: str = 'two_thirds'
                       ) -> tuple[splits.Split, triplets.Triplets]:
    """Opens triplets to be scored; the options are those of ``_open_source``."""
    faces = self._open(self._where(dataset, variant, dir), split, size=self.size, channels=channels)
    return faces, triplets.open_triplets(faces, split, truth, count, agreement)

  def _where(self, dataset: str = '', variant: str = '', dir: str = '') -> tuple[str, str, str]:
    """Data set, variant and folder, with the run's own where nothing is said."""
    same = dataset in ('', self.dataset)
    return dataset or self.dataset, variant or (self.variant if same else ''), dir or self.dir

  def _open(self, where: tuple[str, str, str], split: str, **options: Any) -> splits.Split:
    dataset, variant, folder = where
    classes = self.classes if where == self._where() else ()
    return splits.open_split(dataset, variant, split, folder, classes=classes, maps=self.maps,
                             prepare_if_missing=dataset == 'synthetic_faces', **options)
