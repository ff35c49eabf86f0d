"""A run: what a config and a data set determine together, and the workdir that holds its record.

The training loop and every command that reads a workdir build the model and the recipe of a step here, the same way.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from fer_jax import __version__, checkpoint, cluster, commands, optim, registry, step, storage
from fer_jax.attribution import maps
from fer_jax.data import augment
from fer_jax.errors import UserError
from fer_jax.landmarks.regions import region_count
from fer_jax.models.classifier import make_classifier
from fer_jax.state import TrainState, initial_state, initialiser
from fer_jax.teacher import VIEWS, Teacher

# What a run may find in its workdir at the start: compiled programs, and what is left where this was cut off before.
_BEFORE = {'compile_cache', 'run.json', 'run.json.part', 'config.json.part'}

SELECTIONS = ('last', 'ema', 'holdout', 'best_on_test')


@dataclasses.dataclass(frozen=True)
class Setup:
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
  setup: Setup
  variables: dict[str, Any]
  step: int


def make_setup(config: ConfigDict, classes: Sequence[str], total_steps: int, teacher: Trained | None = None) -> Setup:
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

  return Setup(recipe, options['explain'], initial, total_steps)


def _make_teacher(teacher: Trained, classes: Sequence[str], view: str) -> Teacher:
  if view not in VIEWS:
    raise UserError(f"config.teacher.view='{view}': choose {' or '.join(map(repr, VIEWS))}.")
  theirs = list(teacher.record['classes'])
  if missing := [name for name in classes if name not in theirs]:
    raise UserError(f"the teacher in {teacher.workdir} does not know the class(es) {', '.join(missing)}; it was "
                    f"trained on {', '.join(theirs)}.")
  recipe = teacher.setup.recipe
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
  setup = make_setup(config, record['classes'], record['steps'])
  variables, at = selected_variables(config, setup, workdir, mesh)
  return Trained(workdir, config, record, setup, variables, at)


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


def check_data(record: Mapping[str, Any], source: Any) -> None:
  """Raises UserError where a run that is to go on began with another training split than ``source``."""
  if record.get('fingerprint', source.fingerprint) != source.fingerprint or (
      record.get('classes', list(source.classes)) != list(source.classes)):
    raise UserError('the training split is no longer the one this run began with: other images, another order of '
                    'classes or other settings of its preparation. Point config.data.dir to the data of then (their '
                    f"digest is {record.get('digest') or 'unknown'}), or choose another --workdir.")


def _digest(variables: Any) -> str:
  """sha256 of variables."""
  hashed = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(variables)):
    hashed.update(f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n'.encode() + leaf.tobytes())
  return hashed.hexdigest()


def selected_variables(config: ConfigDict, setup: Setup, workdir: epath.Path, mesh: jax.sharding.Mesh
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
    state = checkpoints.restore(at, jax.eval_shape(setup.initial), mesh)
  finally:
    checkpoints.close()
  return state.variables(averaged=config.select == 'ema'), at


def open_workdir(config: ConfigDict, workdir: str | os.PathLike[str], overrides: Sequence[str]) -> dict[str, Any]:
  """Claims a workdir for a config: writes config.json, or checks that the run in it is of the same config.

  Returns:
    The record of the run so far, the content of run.json.

  Raises:
    UserError: the folder holds a run of another config (the differing keys are named), other files, or cannot be
      written.
  """
  workdir = storage.as_path(workdir)
  if is_claimed(workdir, config):
    return read_run(workdir)
  with storage.explained(workdir, 'read'):
    there = {path.name for path in workdir.iterdir()} if workdir.exists() else set()
  if there - _BEFORE:
    raise UserError(f'{workdir} is not empty and holds no run (no config.json); choose another --workdir.')
  record = {'name': config.name, 'command': ' '.join(sys.argv), 'overrides': list(overrides),
            'versions': versions(), 'commit': commit(), 'started': now(), 'seed': config.seed}
  storage.write_json(workdir / 'run.json', record)
  # Last: its presence says that this is a run.
  storage.write_json(workdir / 'config.json', json.loads(config.to_json_best_effort()))
  return record


def is_claimed(workdir: str | os.PathLike[str], config: ConfigDict) -> bool:
  """Whether a workdir holds a run of ``config``; False where it holds none.

  Raises:
    UserError: it holds a run of another config; the differing keys are named.
  """
  try:
    theirs = commands.flat(storage.read_json(storage.as_path(workdir) / 'config.json'))
  except FileNotFoundError:
    return False
  ours = commands.flat(json.loads(config.to_json_best_effort()))
  shown = lambda values, key: json.dumps(values[key]) if key in values else 'absent'
  differing = [f'{key} is {shown(theirs, key)} there, {shown(ours, key)} here'
               for key in sorted(theirs.keys() | ours.keys()) if shown(theirs, key) != shown(ours, key)]
  if differing:
    raise UserError(f"{workdir} holds a run of another config: {'; '.join(differing[:8])}. "
                    'Choose another --workdir, or give the same config to go on.')
  return True


def read_run(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """The content of run.json."""
  return storage.read_json(storage.as_path(workdir) / 'run.json')


def read_config(workdir: str | os.PathLike[str]) -> ConfigDict:
  """The config of the run in ``workdir``.

  Raises:
    UserError: there is no run.
  """
  try:
    return ConfigDict(storage.read_json(storage.as_path(workdir) / 'config.json')).lock()
  except FileNotFoundError as error:
    raise UserError(f'{workdir} holds no run (no config.json); give the --workdir of a training run.') from error


def parameter_table(params: Any) -> str:
  """One line per parameter (path, shape, count) and their sum."""
  rows = [('/'.join(k.key for k in path), value.shape, int(np.prod(value.shape)))
          for path, value in jax.tree_util.tree_leaves_with_path(params)]
  width = max(len(name) for name, _, _ in rows)
  lines = [f'{name:{width}}  {str(tuple(shape)):22} {count:>12,}' for name, shape, count in rows]
  return '\n'.join([*lines, f"{'total':{width}}  {'':22} {sum(count for _, _, count in rows):>12,}", ''])


def versions() -> dict[str, str]:
  """Versions of what decides the numbers."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorflow-datasets', 'numpy')
  return {'fer_jax': __version__, 'python': sys.version.split()[0], 'xla_flags': os.environ.get('XLA_FLAGS', ''),
          **{package: importlib.metadata.version(package) for package in packages}}


def commit() -> str:
  """The git commit of the code, with '-dirty' where files differ from it; of a git archive the one it was made of;
  'version x' elsewhere."""
  def git(*arguments: str) -> str:
    command = ['git', '-C', str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

  try:
    # An installed copy inside some other project's checkout is not that project's commit.
    git('ls-files', '--error-unmatch', __file__)
    return git('rev-parse', '--short=12', 'HEAD') + ('-dirty' if git('status', '--porcelain') else '')
  except (OSError, subprocess.CalledProcessError):
    archived = (Path(__file__).parent / 'COMMIT').read_text().strip()
    return f'version {__version__}' if archived.startswith('$') else archived[:12]


def now() -> str:
  """The time in UTC, to the second."""
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
