"""What every command shares: parse flags, run, and print a user's mistake as one line instead of a traceback."""

import ast
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict

from fer_jax.errors import UserError


def run(main: Callable[[list[str]], Any]) -> None:
  """Runs ``main(argv)`` under absl; ``UserError`` is printed as ``error: ...`` and exits with status 2."""

  def guarded(argv: list[str]) -> Any:
    try:
      if len(argv) > 1:
        raise UserError(f"unexpected argument '{argv[1]}': options are written --name=value; see --help.")
      return main(argv)
    except UserError as error:
      _fail(error)

  app.run(guarded, flags_parser=_parse)


def overrides() -> list[str]:
  """The ``--config.key=value`` arguments of this command line."""
  return [argument for argument in sys.argv[1:] if argument.startswith('--config.')]


def load_config(name: str, changes: Sequence[str] = ()) -> ConfigDict:
  """Loads ``'path/to/config.py:argument'`` and applies ``changes`` such as ``'batch_size=32'``.

  Raises:
    UserError: no such file, or an unknown key.
  """
  path, _, argument = name.partition(':')
  _import_neighbours(path)
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


def _import_neighbours(path: str) -> None:
  """Lets a config file import its neighbours as ``configs.*``, wherever the command is started."""
  sys.path.append(str(Path(path).resolve().parents[1]))


def _parse(argv: list[str]) -> list[str]:
  if '--help' in argv or '-h' in argv:
    app.usage(shorthelp=True, writeto_stdout=True)  # As absl does, but help that was asked for is no failure.
    sys.exit(0)
  for argument in argv:
    if argument.startswith('--config='):
      path = argument.removeprefix('--config=').split(':')[0]
      if not Path(path).is_file():
        _fail(UserError(f"there is no config file '{path}'; --config takes the path of one, such as configs/pal.py"))
      _import_neighbours(path)
  try:
    arguments = flags.FLAGS(argv)
    if flags.FLAGS['verbosity'].using_default_value:
      logging.set_verbosity(logging.ERROR)  # Libraries narrate every file they open.
    if 'config' in flags.FLAGS and flags.FLAGS.config is not None:
      _ = flags.FLAGS.config.is_locked  # A config file that cannot be loaded says so only when it is used.
    return arguments
  except flags.Error as error:
    message = str(error)
  except UserError as error:
    message = str(error)
  except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    # A config file runs inside flag parsing: a mistyped key, value or path surfaces here.
    # ml_collections quotes its own message in another one.
    message = '--config: ' + str(error).replace('\\n', ' ').replace("\\'", "'").removeprefix("'").removesuffix("'")
  _fail(UserError(' '.join(message.split())))


def _fail(error: UserError) -> None:
  print(f'error: {error}', file=sys.stderr)
  sys.exit(2)
