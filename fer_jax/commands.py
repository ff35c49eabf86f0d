"""What every command shares: parse flags, run, and print a user's mistake as one line instead of a traceback."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging

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


def _parse(argv: list[str]) -> list[str]:
  for argument in argv:
    if argument.startswith('--config='):
      # Config files import their neighbours as ``configs.*``, wherever the command is started.
      sys.path.append(str(Path(argument.removeprefix('--config=').split(':')[0]).resolve().parents[1]))
  try:
    arguments = flags.FLAGS(argv)
    if flags.FLAGS['verbosity'].using_default_value:
      logging.set_verbosity(logging.WARNING)  # Libraries narrate every file they open.
    return arguments
  except flags.Error as error:
    message = str(error)
  except UserError as error:
    message = str(error)
  except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    # A config file runs inside flag parsing: a mistyped key, value or path surfaces here.
    message = f'--config: {error}'
  _fail(UserError(' '.join(message.split())))


def _fail(error: UserError) -> None:
  print(f'error: {error}', file=sys.stderr)
  sys.exit(2)
