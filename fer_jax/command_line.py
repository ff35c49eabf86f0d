"""What every command shares: parse flags, run, and print a user's mistake as one line instead of a traceback."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from fer_jax.errors import UserError
from fer_jax.training import config_files


def run(main: Callable[[list[str]], Any]) -> None:
  """Runs ``main(argv)`` under absl; ``UserError`` is printed as ``error: ...`` and exits with status 2."""

  def guarded(argv: list[str]) -> Any:
    try:
      if len(argv) > 1:
        raise UserError(f"unexpected argument '{argv[1]}': options are written --name=value; see --help.")
      return main(argv)
    except UserError as error:
      _fail(error)
    except Exception:
      _abandon(1, traceback.format_exc())
      raise

  sys.unraisablehook = _unraisable
  app.run(guarded, flags_parser=_parse)


def start_flags() -> Callable[..., None]:
  """Defines the flags about processes and compiling, for a command that computes.

  Returns:
    A function that starts the process as the flags say; call it before the first use of a device. It takes the folder
    where accelerators keep compiled programs unless told otherwise, if there is one.
  """
  address = flags.DEFINE_string('coordinator_address', None, 'HOST:PORT of process 0, where JAX does not find it out.')
  count = flags.DEFINE_integer('num_processes', None, 'How many processes there are, likewise.', lower_bound=1)
  process = flags.DEFINE_integer('process_id', None, 'The number of this one, from 0, likewise.', lower_bound=0)
  timeout = flags.DEFINE_float('start_timeout', 300.0, 'Seconds to wait for all processes.', lower_bound=1.0)
  cache = flags.DEFINE_string('compile_cache', None, 'Folder of compiled programs, for a faster next start. Training '
                              'on accelerators has one in its workdir by default.')
  for flag in (address, count, process, timeout, cache):
    flags.declare_key_flag(flag.name)  # So that --help shows it.

  def start(default_cache: str | None = None) -> None:
    import jax  # Commands that only read and write need neither.

    from fer_jax.runtime import cluster
    cluster.start(address.value, count.value, process.value, timeout.value)
    # What is compiled for one CPU need not run on the next machine's, so there no cache is the default.
    usual = None if os.environ.get('JAX_COMPILATION_CACHE_DIR') or jax.default_backend() == 'cpu' else default_cache
    if folder := cache.value or usual:
      cluster.cache_compilations(folder)

  return start


def _unraisable(problem: Any) -> None:
  # Where saving fails, the rest of its writes find nobody to tell, dozens of times; the failure itself is told once.
  if 'Event loop is closed' not in str(problem.exc_value):
    sys.__unraisablehook__(problem)


def overrides() -> list[str]:
  """The ``--config.key=value`` arguments of this command line."""
  return [argument for argument in sys.argv[1:] if argument.startswith('--config.')]


def _parse(argv: list[str]) -> list[str]:
  if '--help' in argv or '-h' in argv:
    app.usage(shorthelp=True, writeto_stdout=True)  # As absl does, but help that was asked for is no failure.
    sys.exit(0)
  for argument in argv:
    if argument.startswith('--config='):
      path = argument.removeprefix('--config=').split(':')[0]
      if not Path(path).is_file():
        _fail(UserError(f"there is no config file '{path}'; --config takes the path of one, such as configs/pal.py"))
      config_files.import_neighbours(path)
  try:
    arguments = flags.FLAGS(argv)
    if flags.FLAGS['verbosity'].using_default_value:
      logging.set_verbosity(logging.FATAL)  # Libraries narrate what they do, and log what they then raise.
    if 'config' in flags.FLAGS and not isinstance(flags.FLAGS.config, str | None):
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
  _abandon(2, f'error: {error}')
  print(f'error: {error}', file=sys.stderr)
  sys.exit(2)


def _abandon(status: int, message: str) -> None:
  """Does not return where other processes wait for this one."""
  if cluster := sys.modules.get('fer_jax.cluster'):  # Else there are none, and JAX need not be imported to say so.
    cluster.abandon(status, message)
