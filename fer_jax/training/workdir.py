"""The record of a run on disk: who may write to a workdir, and what is read from one."""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from fer_jax import __version__
from fer_jax.errors import UserError, listed
from fer_jax.runtime import storage
from fer_jax.runtime.console import plain
from fer_jax.training import versions

if TYPE_CHECKING:
  from fer_jax.data.reading.splits import Split
  from fer_jax.training.setup import Trained

# What a run may find in its workdir at the start: compiled programs, and what is left where this was cut off before.
_BEFORE = {'compile_cache', 'lock', 'run.json', 'run.json.part', 'config.json.part'}


# What commands take from a record.
_KINDS = {'commit': str, 'seed': int, 'classes': list, 'channels': int, 'steps': int, 'evaluations': dict,
          'finished': str, 'fingerprint': str, 'digest': str, 'teacher': dict, 'start': dict}


def open_workdir(settings: Mapping[str, Any], workdir: str | os.PathLike[str], overrides: Sequence[str]
                 ) -> dict[str, Any]:
  """Claims a workdir for a config as JSON has it: writes config.json, or checks that the run in it is of this config.

  Returns:
    The record of the run so far, the content of run.json.

  Raises:
    UserError: the folder holds a run of another config (the differing keys are named), other files, or cannot be
      written.
  """
  workdir = storage.as_path(workdir)
  if is_claimed(workdir, settings):
    return read_run(workdir)
  command = shlex.join(['python', '-m', f'fer_jax.{Path(sys.argv[0]).stem}', *sys.argv[1:]])
  record = {'name': settings['name'], 'command': command, 'overrides': list(overrides),
            'versions': used(), 'commit': commit(), 'started': now(), 'seed': settings['seed']}
  storage.write_json(workdir / 'run.json', record)
  # Last: its presence says that this is a run.
  storage.write_json(workdir / 'config.json', settings)
  return record


def is_claimed(workdir: str | os.PathLike[str], settings: Mapping[str, Any]) -> bool:
  """Whether a workdir holds a run of this config; False where it is empty or not there.

  Raises:
    UserError: it holds a run of another config (the differing keys are named), or other files.
  """
  workdir = storage.as_path(workdir)
  try:
    theirs = storage.flat(_read_settings(workdir))
  except FileNotFoundError:
    with storage.explained(workdir, 'read'):
      there = {path.name for path in workdir.iterdir()} if workdir.exists() else set()
    if there - _BEFORE:
      raise UserError(f'{workdir} is not empty and holds no run (no config.json); choose another --workdir.') from None
    return False
  ours = storage.flat(settings)
  shown = lambda values, key: json.dumps(values[key]) if key in values else 'absent'
  differing = [f'{key} is {shown(theirs, key)} there, {shown(ours, key)} here'
               for key in sorted(theirs.keys() | ours.keys()) if shown(theirs, key) != shown(ours, key)]
  if differing:
    raise UserError(f"{workdir} holds a run of another config: {'; '.join(differing[:8])}. "
                    'Choose another --workdir, or give the same config to go on.')
  return True


def check_teacher(record: dict[str, Any], teacher: Trained) -> None:
  """Writes the teacher into a run's record.

  Raises:
    UserError: the run began with other variables of the teacher.
  """
  facts = {'workdir': str(teacher.workdir), 'name': teacher.protocol.name, 'commit': teacher.record['commit'],
           'seed': teacher.protocol.seed, 'dataset': teacher.protocol.data.dataset,
           'trained_on': teacher.protocol.data.train, 'classes': list(teacher.record['classes']), 'step': teacher.step,
           'digest': digest(teacher.variables)}
  if record.get('teacher', facts)['digest'] != facts['digest']:
    raise UserError(f"the teacher in {teacher.workdir} is no longer the one this run began with (step "
                    f"{record['teacher']['step']} then, {teacher.step} now); finish its training first, or choose "
                    'another --workdir.')
  record['teacher'] = facts


def check_start(record: dict[str, Any], facts: Mapping[str, Any]) -> None:
  """Writes the facts of what a run starts from into its record.

  Raises:
    UserError: the run began with other weights.
  """
  key = 'sha256' if 'sha256' in facts else 'step'
  if (then := record.get('start', facts).get(key)) != facts[key]:
    raise UserError(f"config.init_from: what it names is no longer what this run began with ({key} {then} then, "
                    f'{facts[key]} now); put that back, or choose another --workdir.')
  record['start'] = dict(facts)


def check_data(record: Mapping[str, Any], faces: Split) -> None:
  """Raises UserError where a run that is to go on began with another training split than ``faces``."""
  if record.get('fingerprint', faces.fingerprint) != faces.fingerprint or (
      record.get('classes', list(faces.classes)) != list(faces.classes)):
    raise UserError('the training split is no longer the one this run began with: other images, another order of '
                    'classes or other settings of its preparation. Point config.data.dir to the data of then (their '
                    f"digest is {record.get('digest') or 'unknown'}), or choose another --workdir.")
  if (then := record.get('channels', faces.channels)) != faces.channels:
    raise UserError(f'this run began with images of {then} channel(s), and its training split now needs '
                    f'{faces.channels}: an earlier version took those of the first image. Choose another --workdir.')


def digest(variables: Any) -> str:
  """sha256 of variables."""
  hashed = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(variables)):
    hashed.update(f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n'.encode() + leaf.tobytes())
  return hashed.hexdigest()


def read_run(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """The content of run.json.

  Raises:
    UserError: it is not there, or damaged.
  """
  path = storage.as_path(workdir) / 'run.json'
  try:
    record = _read(path)
  except FileNotFoundError as error:
    raise UserError(f'{path} is gone: put it back, or train again in another --workdir.') from error
  record = {'evaluations' if key == 'looks' else key: value for key, value in record.items()}
  if wrong := [key for key, kind in _KINDS.items() if key in record and not isinstance(record[key], kind)]:
    raise _damaged(path, f'its {wrong[0]} is {json.dumps(record[wrong[0]])}')
  return record


def read_finished(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """The content of run.json of a finished run.

  Raises:
    UserError: there is no run, or it has not finished.
  """
  read_config(workdir)  # Says what is wrong where there is no run at all.
  record = read_run(workdir)
  if 'finished' not in record:
    raise UserError(f'the run in {workdir} has not finished; give its command again and it goes on:\n'
                    f"  {record.get('command', 'unknown')}")
  return record


def read_config(workdir: str | os.PathLike[str]) -> ConfigDict:
  """The config of the run in ``workdir``, with today's keys; what only another version knows is told and left out.

  Raises:
    UserError: there is no run, or its config.json is damaged.
  """
  try:
    settings = _read_settings(workdir)
  except FileNotFoundError as error:
    raise UserError(f'{workdir} holds no run (no config.json); give the --workdir of a training run, or make one:\n'
                    f'  python -m fer_jax.train --config=pal:synthetic_faces --workdir={workdir}') from error
  if strange := versions.unknown(settings):
    _tell(f'note: config.json of {workdir} has {listed(strange)}, which this version ({__version__}) does not know and '
          'leaves out: what is computed here may differ from what the version that trained it would give.')
  return ConfigDict(versions.known(settings)).lock()


@functools.cache
def _tell(note: str) -> None:
  """Says it once."""
  print(plain(note), file=sys.stderr, flush=True)


def _read_settings(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """The content of config.json, with today's keys."""
  path = storage.as_path(workdir) / 'config.json'
  settings = _read(path)
  try:
    return versions.bring_up(settings)
  except UserError as error:
    raise _damaged(path, str(error)) from error


def _read(path: epath.Path) -> dict[str, Any]:
  """A dictionary in a JSON file; FileNotFoundError where there is none."""
  try:
    value = storage.read_json(path)
  except ValueError as error:  # Cut off, empty, no JSON, or no text.
    raise _damaged(path, str(error)) from error
  if not isinstance(value, dict):
    raise _damaged(path, f'it holds a {type(value).__name__}')
  return value


def _damaged(path: epath.Path, why: str) -> UserError:
  return UserError(f'{path} is damaged ({why}): put a copy of it back, or train again in another --workdir.')


def parameter_table(params: Any) -> str:
  """One line per parameter (path, shape, count) and their sum."""
  leaves = traverse_util.flatten_dict(params, sep='/')
  width = max(map(len, leaves))
  lines = [f'{name:{width}}  {str(leaf.shape):22} {leaf.size:>12,}' for name, leaf in leaves.items()]
  return '\n'.join([*lines, f"{'total':{width}}  {'':22} {sum(leaf.size for leaf in leaves.values()):>12,}", ''])


def used() -> dict[str, str]:
  """Versions of what decides the numbers."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'tensorflow-datasets', 'numpy')
  return {'fer_jax': __version__, 'python': sys.version.split()[0], 'xla_flags': os.environ.get('XLA_FLAGS', ''),
          **{package: importlib.metadata.version(package) for package in packages}}


def commit() -> str:
  """The git commit of the code, with '-dirty' where files differ from it that are no records of runs; of a git archive
  the one it was made of; 'version x' elsewhere, with the reason where there is a clone that git cannot read."""
  root = Path(__file__).parents[2]

  def git(*arguments: str) -> str:
    # In a container the clone may belong to another user, which git calls dubious. This code runs anyway; what the
    # clone's settings would run does not.
    trusted = ['-c', f'safe.directory={root.resolve()}', '-c', 'core.fsmonitor=false']
    command = ['git', *trusted, '-C', str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

  try:
    # An installed copy inside some other project's checkout is not that project's commit.
    git('ls-files', '--error-unmatch', __file__)
    changed = git('status', '--porcelain', '--', '.', ':!configs/records')
    return git('rev-parse', '--short=12', 'HEAD') + ('-dirty' if changed else '')
  except (OSError, subprocess.CalledProcessError) as error:
    archived = (Path(__file__).parents[1] / 'COMMIT').read_text(encoding='utf-8').strip()
    if not archived.startswith('$'):
      return archived[:12]
    said = (getattr(error, 'stderr', None) or str(error)).strip().partition('\n')[0]
    known = (root / '.git').exists() or 'dubious' in said
    return f'version {__version__}' + (f', commit unknown ({said})' if known else '')


def now() -> str:
  """The time in UTC, to the second."""
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
