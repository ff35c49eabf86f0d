"""From a config to what a run consists of: the one place that reads a config. Nothing below takes one.

The training loop and every command that reads a workdir build the model and the recipe of a step here, the same way.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fer_jax import registry
from fer_jax.attribution import maps
from fer_jax.data import augment
from fer_jax.errors import UserError
from fer_jax.landmarks.regions import region_count
from fer_jax.models.classifier import make_classifier
from fer_jax.models.stages import stages
from fer_jax.runtime import cluster, storage
from fer_jax.training import checkpoint, config_files, finetune, optim, step
from fer_jax.training import protocol as protocol_of
from fer_jax.training.data import Data
from fer_jax.training.protocol import Protocol, Seen
from fer_jax.training.state import TrainState, initial_state, initialiser
from fer_jax.training.teacher import VIEWS, Teacher
from fer_jax.training.workdir import read_config, read_run

SELECTIONS = ('last', 'holdout', 'best_on_test')
VARIABLES = ('trained', 'ema')

# What no change to a config can make otherwise of a network that is there, and its numbers are marked by.
_MADE_BY = ('seed', 'data.train', 'data.holdout', 'data.parts', 'sources', 'teacher', 'init', 'finetune')


@dataclasses.dataclass(frozen=True)
class System:
  """Everything pure that a run consists of; ``initial()`` draws its state of step 0, ``initial(seed)`` another's."""

  recipe: step.Recipe
  explain: Mapping[str, Mapping[str, Any]]
  initial: Callable[..., TrainState]
  total_steps: int


@dataclasses.dataclass(frozen=True)
class Trained:
  """The network that a run arrived at: its variables, of step ``step``, on every device; ``record`` is its run.json,
  and ``seen()`` what it has seen."""

  workdir: epath.Path
  protocol: Protocol
  record: Mapping[str, Any]
  system: System
  variables: dict[str, Any]
  step: int
  seen: Callable[[], list[Seen]]


def make_system(config: ConfigDict, classes: Sequence[str], total_steps: int, teacher: Trained | None = None) -> System:
  """Builds model, losses and optimiser, checking every option by name before anything is computed.

  Args:
    classes: of its training split.
    teacher: what ``config.teacher.workdir`` names; only training needs it.

  Raises:
    UserError: an unknown component or option.
  """
  if config.select not in SELECTIONS:
    raise UserError(f"config.select='{config.select}': choose one of {', '.join(SELECTIONS)}.")
  if config.variables not in VARIABLES:
    raise UserError(f"config.variables='{config.variables}': choose one of {', '.join(VARIABLES)}.")
  if config.variables == 'ema' and not config.ema:
    raise UserError("config.variables='ema' needs config.ema, the decay of the average, for instance 0.999.")
  if config.select == 'holdout' and not config.data.holdout:
    raise UserError("config.select='holdout' needs config.data.holdout, a split that is neither trained on nor tested.")
  options = config.to_dict()
  registry.check_options('config.augment', augment.augment, options['augment'] | {'image_size': 0}, given=2)
  registry.check_options('config.normalise', augment.normalise, options['normalise'], given=1)
  registry.check_options('config.optimizer', optim.make_optimizer, options['optimizer'], given=2)
  for name, explanation in options['explain'].items():
    registry.check_options(f'config.explain.{name}', maps.tap_map, explanation, given=1)
  registry.check_options('config.regions', region_count, options['regions'])
  registry.check_options('config.finetune', finetune.finetuning_rules, options['finetune'], given=2)
  regions = region_count(**options['regions'])
  axis = cluster.AXIS if config.parallel == 'pmap' else None
  model = make_classifier(options['model'], len(classes), axis, regions, jax.device_count())
  rows = lambda source: source.get('parts', 1) * (3 if source.get('supervision') == 'triplets' else 1)
  initial_variables = initialiser(model, config.image_size, regions)
  stage_of = stages(lambda: initial_variables(config.seed))
  shapes = jax.eval_shape(lambda: initial_variables(config.seed))
  options['optimizer']['rules'] = [*options['optimizer']['rules'], *finetune.finetuning_rules(
      stage_of, flatten_dict(shapes['params'], sep='/'), **options['finetune'])]
  optimizer, learning_rate = optim.make_optimizer(shapes['params'], total_steps, **options['optimizer'])
  recipe = step.Recipe(
      model=model, optimizer=optimizer, learning_rate=learning_rate,
      terms=step.make_terms(options['losses'], total_steps), seed=config.seed,
      data_seed=config.seed if config.data.seed == -1 else config.data.seed,
      augment=options['augment'], image_size=config.image_size, normalise=options['normalise'],
      regions=options['regions'] if regions > 1 else None, remat=config.remat,
      drawn_target=config.data.target == 'drawn', ema_decay=config.ema, accumulate=config.optimizer.accumulate,
      frozen=optim.frozen_paths(shapes['params'], options['optimizer']['rules']),
      frozen_to='' if config.optimizer.rules else config.finetune.frozen,  # Rules may let something below it learn.
      teacher=teacher and _make_teacher(teacher, classes, config.teacher.view),
      group=config.data.parts + sum(map(rows, options['sources'].values())), axis=axis)
  initial = lambda seed=config.seed: initial_state(initial_variables(seed), optimizer, bool(config.ema))
  return System(recipe, options['explain'], initial, total_steps)


def make_evaluator(system: System, mesh: jax.sharding.Mesh, explain: bool = True) -> Callable[..., dict[str, Any]]:
  """``step.evaluation_step`` of a run, to be compiled once; every process has its results of all rows.

  Args:
    explain: with the maps of the config's ``explain``; without, it neither computes nor keeps one.
  """
  return jax.jit(functools.partial(step.evaluation_step, system.recipe, system.explain if explain else {}),
                 out_shardings=cluster.replicated(mesh))


def make_protocol(config: ConfigDict) -> Protocol:
  """What a config says of the data, of the choice of the network and of its evaluation.

  Raises:
    UserError: an unknown order or a bad subset list.
  """
  options = config.to_dict()
  data = Data(**options['data'], sources=options['sources'], comparisons=options['comparisons'])
  return Protocol(config.name, config.seed, data, config.select, config.variables,
                  config.model.head.get('global_mean') == 'batch', config.eval_batch_size, config.eval_order,
                  config.report.faces)


def settings(config: ConfigDict) -> dict[str, Any]:
  """A config as JSON has it."""
  return json.loads(config.to_json_best_effort())


def _make_teacher(teacher: Trained, classes: Sequence[str], view: str) -> Teacher:
  if view not in VIEWS:
    raise UserError(f"config.teacher.view='{view}': choose {' or '.join(map(repr, VIEWS))}.")
  theirs = list(teacher.record['classes'])
  if missing := [name for name in classes if name not in theirs]:
    raise UserError(f"the teacher in {teacher.workdir} does not know the class(es) {', '.join(missing)}; it was "
                    f"trained on {', '.join(theirs)}.")
  recipe = teacher.system.recipe
  return Teacher(recipe.model, recipe.image_size, recipe.normalise, recipe.regions,
                 tuple(theirs.index(name) for name in classes), view)


def load(workdir: str | os.PathLike[str], mesh: jax.sharding.Mesh, changes: Sequence[str] = (),
         data_dir: str | None = None) -> Trained:
  """The network of the run in ``workdir``, selected as its config says.

  Args:
    mesh: the devices it is copied to.
    changes: 'key=value', applied to the run's config; they cannot change the variables.
    data_dir: where prepared data sets lie, if not where the run's config says.

  Raises:
    UserError: there is no run or no checkpoint, or a bad change.
  """
  workdir = storage.as_path(workdir)
  config, record = read_config(workdir), read_run(workdir)
  if made := [change for change in changes if change.startswith(_MADE_BY)]:
    raise UserError(f'--set={made[0]}: the network in {workdir} is made by what its config says of this; a network of '
                    'another is a training of its own.')
  config_files.change_config(config, changes)
  config.data.dir = data_dir or config.data.dir
  config.data.channels = config.data.channels or record.get('channels', 0)  # Once for all: as it was trained.
  if not {'classes', 'steps'} <= record.keys():
    raise UserError(f'the run in {workdir} has not begun to train; let it get to its first checkpoint.')
  return selected(make_protocol(config), make_system(config, record['classes'], record['steps']), workdir, mesh)


def selected(protocol: Protocol, system: System, workdir: epath.Path, mesh: jax.sharding.Mesh) -> Trained:
  """The network that ``config.select`` names, from the workdir's checkpoints.

  Raises:
    UserError: there is no checkpoint.
  """
  folder = 'best' if protocol.chosen_by else 'checkpoints'
  checkpoints = checkpoint.Checkpoints(workdir / folder, best='accuracy' if folder == 'best' else None)
  try:
    if (at := checkpoints.chosen()) is None:
      raise UserError(f'{workdir / folder} holds no checkpoint yet; let the training run get to its first one.')
    state = checkpoints.restore(at, jax.eval_shape(system.initial), mesh)
  finally:
    checkpoints.close()
  return Trained(workdir, protocol, read_run(workdir), system, state.variables(protocol.variables == 'ema'), at,
                 functools.cache(lambda: seen(workdir, protocol.data.dir)))


def seen(workdir: str | os.PathLike[str], data_dir: str = '', of: Sequence[epath.Path] = ()) -> list[Seen]:
  """What the network of the run in ``workdir`` has seen.

  Of a run of an earlier version, which did not write it down, as far as its config can say it and its data are there.

  Args:
    data_dir: where prepared data sets lie; '': as its config says.
    of: runs whose ancestor this is.

  Raises:
    UserError: there is no run, or what it wrote down is damaged.
  """
  workdir = storage.as_path(workdir)
  config, record = read_config(workdir), read_run(workdir)
  if (known := protocol_of.recall(workdir, record)) is not None:
    return known
  config.data.dir, config.data.channels = data_dir or config.data.dir, record.get('channels', 0)
  protocol, ancestors, of = make_protocol(config), {}, (*of, storage.absolute(workdir))
  for name, theirs in (('teacher', config.teacher.workdir), ('start', config.init_from)):
    if theirs:
      try:
        # Where a run is its own ancestor, its name has been given to another meanwhile.
        ancestors[name] = [Seen('unknown')] if storage.absolute(theirs) in of else seen(theirs, of=of)
      except UserError:
        ancestors[name] = [Seen('unknown')]
  try:
    holdout = protocol.data.open(protocol.chosen_by) if protocol.chosen_by else None
    return protocol_of.see(protocol, protocol.data.open_parts(), holdout, ancestors)
  except UserError:
    return [Seen('unknown')]
