"""A run: what a config and a data set determine together, and the workdir that holds its record.

The training loop and every command that reads a workdir build the model and the recipe of a step here, the same way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from fer_jax import registry
from fer_jax.attribution import maps
from fer_jax.data import augment
from fer_jax.errors import UserError
from fer_jax.landmarks.regions import region_count
from fer_jax.models.classifier import make_classifier
from fer_jax.runtime import cluster, storage
from fer_jax.training import checkpoint, optim, step
from fer_jax.training.state import TrainState, initial_state, initialiser
from fer_jax.training.teacher import VIEWS, Teacher
from fer_jax.training.workdir import read_config, read_run

SELECTIONS = ('last', 'ema', 'holdout', 'best_on_test')


@dataclasses.dataclass(frozen=True)
class System:
  """Everything pure that a run consists of; ``initial()`` draws its state of step 0, ``initial(seed)`` another's."""

  recipe: step.Recipe
  explain: Mapping[str, Mapping[str, Any]]
  initial: Callable[..., TrainState]
  total_steps: int


@dataclasses.dataclass(frozen=True)
class Trained:
  """The network that a run arrived at: its variables, of step ``step``, on every device."""

  workdir: epath.Path
  config: ConfigDict
  record: Mapping[str, Any]
  system: System
  variables: dict[str, Any]
  step: int


def make_system(config: ConfigDict, classes: Sequence[str], total_steps: int, teacher: Trained | None = None) -> System:
  """Builds model, losses and optimiser, checking every option by name before anything is computed.

  Args:
    config: of the run.
    classes: of its training split.
    total_steps: length of training.
    teacher: what ``config.teacher.workdir`` names; only training needs it.

  Raises:
    UserError: an unknown component or option.
  """
  if config.select not in SELECTIONS:
    raise UserError(f"config.select='{config.select}': choose one of {', '.join(SELECTIONS)}.")
  if config.select == 'ema' and not config.ema:
    raise UserError("config.select='ema' needs config.ema, the decay of the average, for instance 0.999.")
  if config.select == 'holdout' and not config.data.holdout:
    raise UserError("config.select='holdout' needs config.data.holdout, a split that is neither trained on nor tested.")
  options = config.to_dict()
  registry.check_options('config.augment', augment.augment, options['augment'] | {'image_size': 0}, given=2)
  registry.check_options('config.normalise', augment.normalise, options['normalise'], given=1)
  registry.check_options('config.optimizer', optim.make_optimizer, options['optimizer'], given=2)
  for name, explanation in options['explain'].items():
    registry.check_options(f'config.explain.{name}', maps.attribution_map, explanation, given=1)
  registry.check_options('config.regions', region_count, options['regions'])
  regions = region_count(**options['regions'])
  axis = cluster.AXIS if config.parallel == 'pmap' else None
  model = make_classifier(options['model'], len(classes), axis, regions)
  terms = step.make_terms(options['losses'], total_steps)
  rows = lambda source: source.get('parts', 1) * (3 if source.get('supervision') == 'triplets' else 1)
  initial_variables = initialiser(model, config.image_size, regions)
  shapes = jax.eval_shape(lambda: initial_variables(config.seed))
  optimizer, learning_rate = optim.make_optimizer(shapes['params'], total_steps, **options['optimizer'])
  recipe = step.Recipe(
      model=model, optimizer=optimizer, learning_rate=learning_rate, terms=terms, seed=config.seed,
      data_seed=config.seed if config.data.seed == -1 else config.data.seed,
      augment=options['augment'], image_size=config.image_size, normalise=options['normalise'],
      regions=options['regions'] if regions > 1 else None, remat=config.remat,
      drawn_target=config.data.target == 'drawn', ema_decay=config.ema,
      teacher=teacher and _make_teacher(teacher, classes, config.teacher.view),
      group=config.data.parts + sum(map(rows, options['sources'].values())), axis=axis)

  def initial(seed: int = config.seed) -> TrainState:
    return initial_state(initial_variables(seed), optimizer, bool(config.ema))

  return System(recipe, options['explain'], initial, total_steps)


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


def load(workdir: str | os.PathLike[str], mesh: jax.sharding.Mesh, config: ConfigDict | None = None) -> Trained:
  """The network of the run in ``workdir``, selected as its config says.

  Args:
    workdir: of a training run.
    mesh: the devices it is copied to.
    config: another config than the run's own, which must describe the same variables.

  Raises:
    UserError: there is no run or no checkpoint, or there are several seeds.
  """
  workdir = storage.as_path(workdir)
  config, record = config or read_config(workdir), read_run(workdir)
  if config.seeds > 1:
    raise UserError(f'{workdir} holds {config.seeds} seeds that were trained at once: name the folder of one of them, '
                    f'such as {workdir}/seed-{config.seed}, which is there when they have finished.')
  if 'classes' not in record:
    raise UserError(f'the run in {workdir} has not begun to train; let it get to its first checkpoint.')
  system = make_system(config, record['classes'], record['steps'])
  variables, at = selected_variables(config, system, workdir, mesh)
  return Trained(workdir, config, record, system, variables, at)


def load_teacher(config: ConfigDict, mesh: jax.sharding.Mesh) -> tuple[Trained | None, dict[str, Any]]:
  """The run in ``config.teacher.workdir`` and its variables; None and {} without one."""
  teacher = load(config.teacher.workdir, mesh) if config.teacher.workdir else None
  return teacher, teacher.variables if teacher else {}


def check_teacher(record: dict[str, Any], teacher: Trained) -> None:
  """Writes the teacher into a run's record.

  Raises:
    UserError: the run began with other variables of the teacher.
  """
  facts = {'workdir': str(teacher.workdir), 'name': teacher.config.name, 'commit': teacher.record['commit'],
           'seed': teacher.config.seed, 'dataset': teacher.config.data.dataset, 'trained_on': teacher.config.data.train,
           'classes': list(teacher.record['classes']), 'step': teacher.step,
           'digest': _digest(teacher.variables)}
  if record.get('teacher', facts)['digest'] != facts['digest']:
    raise UserError(f"the teacher in {teacher.workdir} is no longer the one this run began with (step "
                    f"{record['teacher']['step']} then, {teacher.step} now); finish its training first, or choose "
                    'another --workdir.')
  record['teacher'] = facts


def _digest(variables: Any) -> str:
  """sha256 of variables."""
  hashed = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(variables)):
    hashed.update(f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n'.encode() + leaf.tobytes())
  return hashed.hexdigest()


def selected_variables(config: ConfigDict, system: System, workdir: epath.Path, mesh: jax.sharding.Mesh
                       ) -> tuple[dict[str, Any], int]:
  """The variables ``config.select`` names, from the workdir's checkpoints, and the step they are of.

  Raises:
    UserError: there is no checkpoint.
  """
  folder = 'best' if config.select in ('holdout', 'best_on_test') else 'checkpoints'
  checkpoints = checkpoint.Checkpoints(workdir / folder, best='accuracy' if folder == 'best' else None)
  try:
    at = checkpoints.best() if folder == 'best' else checkpoints.latest()
    if at is None:
      raise UserError(f'{workdir / folder} holds no checkpoint yet; let the training run get to its first one.')
    state = checkpoints.restore(at, jax.eval_shape(system.initial), mesh)
  finally:
    checkpoints.close()
  return state.variables(averaged=config.select == 'ema'), at


