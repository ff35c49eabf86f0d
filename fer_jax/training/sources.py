"""The data that a config names: the split to train on, what else a batch holds, and what is tested on."""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fer_jax import registry
from fer_jax.data import triplets
from fer_jax.data.reading import mixture, order, splits, subsets
from fer_jax.errors import UserError
from fer_jax.metrics import action_units
from fer_jax.runtime import cluster

# Rows of a training split, evenly spaced, among which ``unit_maps`` finds its faces: reading all may take minutes.
_LOOKED_AT = 20_000


def open_source(config: ConfigDict, split: str) -> Any:
  """Opens a split of the config's data set; the synthetic faces are drawn first where they are missing.

  Orders and subset lists are needed later only, but what is wrong with them shows here, before anything is computed.

  Raises:
    UserError: see ``splits.open_split``, an unknown order or a bad subset list.
  """
  data = config.data
  order.check('config.data.order', data.order, order.TRAINING)
  order.check('config.eval_order', config.eval_order, order.EVALUATION)
  subsets.read_lists(data.subsets)
  target = 'target' if data.target == 'drawn' else data.target
  return _open(config, _where(config), split, size=data.size, channels=data.channels, target=target,
               cache=data.cache)


def open_parts(config: ConfigDict) -> list[mixture.Part]:
  """Opens what a training batch holds: ``config.data.train`` first, then ``config.sources`` but those of 0 parts.

  Raises:
    UserError: an unknown key, a bad value, or a data set that is not there.
  """
  for name, options in config.sources.items():
    registry.check_options(f'config.sources.{name}', _open_other, options, given=3)
  source = open_source(config, config.data.train)
  others = [_open_other(config, source, name, **options) for name, options in config.sources.items()
            if options.get('parts', 1)]
  return [mixture.Part(source, config.data.parts, order=config.data.order), *others]


def unit_maps(config: ConfigDict, source: Any) -> dict[str, Any]:
  """What an evaluation's table needs besides to compare its maps with action units, see ``metrics.summary``.

  Args:
    config: of the run.
    source: the split that is evaluated.

  Returns:
    'unit_maps', which draws when it is called; 'attention', the names of such maps in ``config.explain``; and
    'training_mean' of the training split, or None where that has no action units or cannot be opened.
  """
  attention = [name for name, options in config.explain.items() if options.attribution == 'activation']
  draw = functools.partial(source.unit_maps, size=action_units.SIZE)
  return {'unit_maps': draw, 'attention': attention, 'training_mean': _training_mean(config)}


def _training_mean(config: ConfigDict) -> np.ndarray | None:
  try:
    source = open_source(config, config.data.train)
  except UserError as error:  # It may be gone since, or the config be changed to another data set.
    cluster.say(f"The picture 'training_mean' is left out: {error}")
    return None
  rows = action_units.evenly(len(source), _LOOKED_AT)
  labels = np.array([int(source.records[int(row)]['label']) for row in rows])
  draw = lambda row, label: source.unit_maps(row, action_units.SIZE, [label])[0]
  return action_units.training_mean(draw, rows, labels)


def open_comparisons(config: ConfigDict, channels: int) -> dict[str, tuple[Any, triplets.Triplets]]:
  """Opens ``config.comparisons``: {name: (the split that holds the faces, triplets of its rows)}.

  Args:
    config: of the run.
    channels: of the images that the run is trained on, 1 or 3; 0: as the faces have.

  Raises:
    UserError: see ``open_parts``.
  """
  for name, options in config.comparisons.items():
    registry.check_options(f'config.comparisons.{name}', _open_comparison, options, given=2)
  return {name: _open_comparison(config, channels, **options) for name, options in config.comparisons.items()}


def _open_other(config: ConfigDict, source: Any, name: str, *, split: str, dataset: str = '', variant: str = '',
                dir: str = '', parts: int = 1, supervision: str = 'none', truth: str = 'votes', count: int = 60_000,
                agreement: str = 'two_thirds') -> mixture.Part:
  """Opens a further source.

  Args:
    config: of the run.
    source: the training split.
    name: of the source.
    split: as ``config.data.train``.
    dataset: as ``config.data.dataset``, its default, or 'folder'.
    variant: as ``config.data.variant``, which is the default for the same data set.
    dir: as ``config.data.dir``, its default; of a folder, its path.
    parts: items in each group of rows, see ``data/mixture.py``.
    supervision: 'labels', 'triplets' or 'none'.
    truth: of triplets: 'annotators' (FEC's own), or 'votes' or 'labels', from which triplets are made.
    count: how many are made.
    agreement: which of the annotators' triplets are kept, a name in ``triplets.AGREEMENTS``.
  """
  where = _where(config, dataset, variant, dir)
  if (*where, split) == (*_where(config), config.data.train):
    opened = source  # With its cache of decoded faces.
  else:
    opened = _open(config, where, split, size=source.size, channels=source.channels, cache=config.data.cache)
  found = triplets.open_triplets(opened, split, truth, count, agreement) if supervision == 'triplets' else None
  return mixture.Part(opened, parts, supervision, found, name=name)


def _open_comparison(config: ConfigDict, channels: int, *, split: str, dataset: str = '', variant: str = '',
                     dir: str = '', truth: str = 'votes', count: int = 6_000, agreement: str = 'two_thirds'
                     ) -> tuple[Any, triplets.Triplets]:
  """Opens triplets to be scored; the options are those of ``_open_other``."""
  source = _open(config, _where(config, dataset, variant, dir), split, size=config.data.size, channels=channels)
  return source, triplets.open_triplets(source, split, truth, count, agreement)


def _where(config: ConfigDict, dataset: str = '', variant: str = '', dir: str = '') -> tuple[str, str, str]:
  """Data set, variant and folder, with what the config says where nothing is said."""
  data = config.data
  same = dataset in ('', data.dataset)
  return dataset or data.dataset, variant or (data.variant if same else ''), dir or data.dir


def _open(config: ConfigDict, where: tuple[str, str, str], split: str, **options: Any) -> Any:
  dataset, variant, folder = where
  classes = config.data.classes if where == _where(config) else ()
  return splits.open_split(dataset, variant, split, folder, classes=classes, maps=config.data.maps.to_dict(),
                           prepare_if_missing=dataset == 'synthetic_faces', **options)
