"""Config files: finding and loading one by its path or name, and changes to it as they stand on a command line."""

import ast
import operator
import runpy
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax.errors import UserError, nearest
from fer_jax.runtime import paths


def load_config(name: str, changes: Sequence[str] = ()) -> ConfigDict:
  """Loads a config, ``'path/to/config.py:argument'`` or ``'pal:argument'``, and applies ``changes``: ``'epochs=2'``.

  Raises:
    UserError: no such config, one that cannot be loaded, or an unknown key.
  """
  path, argument = find(name)
  try:
    config = run(path)['get_config'](*([argument] if argument else []))
  except (OSError, ImportError, AttributeError, KeyError, TypeError, ValueError, SyntaxError) as error:
    raise UserError(f'{name}: {error}') from error
  change_config(config, changes)
  return config


def find(name: str) -> tuple[str, str]:
  """The path and the argument of ``'PATH:ARGUMENT'``, or of ``'pal:ARGUMENT'`` for a config of this package.

  Raises:
    UserError: there is no such file and no config of that name; the message names the nearest.
  """
  path, _, argument = name.partition(':')
  path = paths.expand(path)
  if Path(path).is_file():
    return path, argument
  shipped = {str(file.relative_to(folder()).with_suffix('')): file for file in folder().rglob('[!_]*.py')
             if file.stem != 'common'}
  start, _, known = path.removesuffix('.py').rpartition('configs/')
  if start or known not in shipped:
    raise UserError(f"there is no config file '{path}'{nearest(known, shipped)} --config takes a path or one of these.")
  return str(shipped[known]), argument


def run(path: str) -> dict[str, Any]:
  """The names that a config file defines; its imports from ``configs`` are its neighbours, or else this package's."""
  own = [str(folder) for folder in Path(path).resolve().parents if folder.name == 'configs'][:1]
  folders = list(dict.fromkeys([*own, str(folder())]))
  if list(dict.fromkeys(getattr(sys.modules.get('configs'), '__path__', ()))) != folders:  # Of another file.
    for name in [name for name in sys.modules if name.partition('.')[0] == 'configs']:
      del sys.modules[name]
    sys.modules['configs'] = types.ModuleType('configs')
    sys.modules['configs'].__path__ = folders
  return runpy.run_path(path)


def folder() -> Path:
  """The configs of this package: a wheel has them inside, a clone beside it."""
  package = Path(__file__).parents[1]
  return next(folder for folder in (package / 'configs', package.parent / 'configs') if folder.is_dir())


def change_config(config: ConfigDict, changes: Sequence[str]) -> None:
  """Applies changes such as ``'batch_size=32'`` or ``'data.variant=tiny'``: Python literals, or else plain text.

  Raises:
    UserError: no such key, or a value of another type.
  """
  for change in changes:
    key, equals, value = change.partition('=')
    if not equals:
      raise UserError(f"--set={change}: write --set=KEY=VALUE, such as --set=batch_size=32")
    try:
      value = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      pass  # Text without quotes.
    try:
      config.update_from_flattened_dict({key: value})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise UserError(f'--set={change}: {error.args[0] if error.args else error}') from error


def arguments(config: ConfigDict, changes: Sequence[str]) -> list[str]:
  """Arguments of a training, ``--config.key=value``, that make ``changes``, which ``config`` has already."""
  keys = dict.fromkeys(change.partition('=')[0] for change in changes)
  return [f'--config.{key}={operator.attrgetter(key)(config)}' for key in keys]
