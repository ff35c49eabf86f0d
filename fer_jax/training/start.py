"""Where training starts: random parameters, the backbone of a run, or pretrained weights (``config.init_from``)."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fer_jax.data import augment
from fer_jax.errors import UserError, nearest
from fer_jax.models import measured, pretrained
from fer_jax.models.pretrained import Pretrained
from fer_jax.runtime import cluster
from fer_jax.training import setup
from fer_jax.training.protocol import Seen
from fer_jax.training.state import TrainState, with_backbone
from fer_jax.training.step import Recipe
from fer_jax.training.workdir import read_config

DECIDED = ('backbone', 'normalise', 'image_size')  # What weights may decide of a config.

_MEASURED_ON = 4  # Batches.


@dataclasses.dataclass(frozen=True)
class Start:
  """What a training starts from.

  Attributes:
    variables: {'params', 'batch_stats'} of the 'backbone'; {} where all parameters are random.
    facts: of it, for the record, as JSON has them; {} likewise.
    seen: what an ancestor has seen, where it is a run.
    measured: whether the statistics of the variables are to be measured, see ``measure``.
  """

  variables: Mapping[str, Any]
  facts: Mapping[str, Any]
  seen: Sequence[Seen] | None = None
  measured: bool = False

  def state(self, initial: TrainState) -> TrainState:
    """The state of step 0 from a random one."""
    return with_backbone(initial, self.variables) if self.variables else initial

  def measure(self, recipe: Recipe, batches: Iterable[Mapping[str, np.ndarray]], mesh: Mesh) -> Start:
    """The start with statistics of the images of the first of some host batches, each process having its own rows."""
    if not self.measured:
      return self

    def images(batch: dict[str, jax.Array]) -> jax.Array:
      resized = augment.resize(batch, recipe.image_size, recipe.regions)['image']
      return augment.normalise(resized.reshape(-1, *resized.shape[-3:]), **recipe.normalise)

    own = {kind: tree['backbone'] for kind, tree in self.variables.items()}
    placed = (cluster.place(batch, mesh) for batch in itertools.islice(batches, _MEASURED_ON))
    found = measured.with_statistics(
        recipe.model.backbone, own, map(jax.jit(images), placed),
        functools.partial(jax.jit, out_shardings=cluster.replicated(mesh)))
    found = {kind: {'backbone': tree} for kind, tree in jax.device_get(found).items()}
    return dataclasses.replace(self, variables=found)


def settle(config: ConfigDict, changes: Iterable[str] = ()) -> list[str]:
  """Puts into a config what its pretrained weights decide, see ``config.init_decides``.

  Args:
    config: locked; changed in place where ``init_from`` names weights. A run decides ``normalise`` alone.
    changes: of the command line, as '--config.key=value'; they are left as they are.

  Returns:
    Sentences on what was changed.

  Raises:
    UserError: the weights cannot be read, or the command line wants another backbone.
  """
  if unknown := [part for part in config.init_decides if part not in DECIDED]:
    raise UserError(f"config.init_decides has '{unknown[0]}'{nearest(str(unknown[0]), DECIDED)}")
  keys = {change.partition('=')[0].removeprefix('--config.') for change in changes}
  if not config.init_from:
    return []
  if not pretrained.is_weights(config.init_from):
    theirs = read_config(config.init_from).normalise
    return _decide(config, keys, {f'normalise.{name}': value for name, value in theirs.items()}, 'The run decides')
  weights = _read(config.init_from)
  family = weights.family
  decided = {'normalise.mean': family.mean, 'normalise.std': family.std, 'image_size': family.size}
  if 'backbone' in config.init_decides:
    decided['model.backbone'] = ConfigDict(_backbone(config.model.backbone.to_dict(), weights, keys))
  told = [f'Starts from {family.title} ({weights.path.name}).', *_decide(config, keys, decided, 'The weights decide')]
  if tuple(config.normalise.mean) != family.mean or tuple(config.normalise.std) != family.std:
    told.append(f'config.normalise is not that of the weights: mean {_brief(family.mean)}, std {_brief(family.std)}.')
  return told


def _decide(config: ConfigDict, keys: set[str], decided: Mapping[str, Any], who: str) -> list[str]:
  """Puts values into a config by dotted key, but for those of the command line; returns sentences on what changed."""
  told = []
  with config.unlocked():
    for key, value in decided.items():
      *path, last = key.split('.')
      if key in keys or (path or [last])[0] not in (*config.init_decides, 'model'):
        continue
      node = functools.reduce(lambda node, name: node[name], path, config)
      if node[last] != value:
        told.append(f'{who} config.{key}: {_brief(value)}.')
        node[last] = value
  return told


def _backbone(ours: dict[str, Any], weights: Pretrained, keys: set[str]) -> dict[str, Any]:
  """The options of the backbone: those of the config, if it is the same, with those that the weights decide."""
  changed = {key.removeprefix('model.backbone.') for key in keys if key.startswith('model.backbone.')}
  theirs, same = weights.backbone, ours.get('name') == weights.backbone['name']
  if wrong := [name for name in changed if name in theirs and ours[name] != theirs[name]]:
    raise UserError(f"--config.model.backbone.{wrong[0]}={ours[wrong[0]]}: the weights in {weights.path.name} are a "
                    f"{theirs['name']} with {wrong[0]} {theirs[wrong[0]]}; leave the option out.")
  return {**{name: value for name, value in ours.items() if same or name in changed}, **theirs}


def open_start(origin: str, shapes: TrainState, mesh: Mesh) -> Start:
  """Reads what ``config.init_from`` names.

  Args:
    shapes: those of the state of step 0.

  Raises:
    UserError: it cannot be read, or does not fit the backbone.
  """
  if not origin:
    return Start({}, {})
  if pretrained.is_weights(origin):
    weights = _read(origin)
    own = {'params': shapes.params['backbone'], 'batch_stats': shapes.batch_stats.get('backbone', {})}
    variables, dropped = weights.variables(own)
    return Start({kind: {'backbone': tree} for kind, tree in variables.items()},
                 {**weights.facts(), 'dropped': dropped, 'outside': weights.outside}, measured=weights.family.measured)
  run = setup.load(origin, mesh)
  facts = {'run': run.protocol.name, 'workdir': str(run.workdir), 'seed': run.protocol.seed, 'step': run.step,
           'commit': run.record['commit'], **({'from': run.record['start']} if 'start' in run.record else {})}
  return Start(run.variables, facts, run.seen())


@functools.lru_cache(1)
def _read(origin: str) -> Pretrained:
  return pretrained.read(origin)


def _brief(value: Any) -> str:
  if isinstance(value, ConfigDict):
    return ', '.join(f'{name} {_brief(one)}' for name, one in value.items())
  return f"({', '.join(f'{one:.3g}' for one in value)})" if isinstance(value, tuple) else str(value)
