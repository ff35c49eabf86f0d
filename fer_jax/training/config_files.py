"""Config files: loading one by its path, and changes to it as they stand on a command line."""

import ast
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax.errors import UserError


def load_config(name: str, changes: Sequence[str] = ()) -> ConfigDict:
  """Loads ``'path/to/config.py:argument'`` and applies ``changes`` such as ``'batch_size=32'``.

  Raises:
    UserError: no such file, or an unknown key.
  """
  path, _, argument = name.partition(':')
  import_neighbours(path)
  try:
    config = runpy.run_path(path)['get_config'](*([argument] if argument else []))
  except (OSError, AttributeError, KeyError, TypeError, ValueError, SyntaxError) as error:
    raise UserError(f'{name}: {error}') from error
  change_config(config, changes)
  return config


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
  values = flat(config.to_dict())
  return [f'--config.{key}={values[key]}' for key in dict.fromkeys(change.partition('=')[0] for change in changes)]


def flat(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """The values of a nested mapping by dotted keys, in order."""
  values = {}
  for key, value in tree.items():
    values |= flat(value, f'{prefix}{key}.') if isinstance(value, Mapping) and value else {f'{prefix}{key}': value}
  return values


def import_neighbours(path: str) -> None:
  """Lets a config file import its neighbours as ``configs.*``, wherever the command is started."""
  sys.path.append(str(Path(path).resolve().parents[1]))
