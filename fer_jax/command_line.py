"""What every command shares: its flags, starting processes, and a user's mistake as one line instead of a traceback."""

import io
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from fer_jax.errors import UserError
from fer_jax.runtime import console, devices, paths

INTERRUPTED = 130  # Exit status after Ctrl-C, as in a shell.

flags.disclaim_key_flags()  # Flags defined here are those of the command that asks for them: --help shows them.


def run(define: Callable[[], None], main: Callable[[Any], Any]) -> None:
  """Runs a command: ``define()`` defines its flags, ``main(given)`` takes their values, ``given.workdir``.

  ``UserError`` is printed as ``error: ...`` and exits with status 2; Ctrl-C with ``INTERRUPTED``. Output that cannot be
  written does not end the work.
  """

  def guarded(argv: list[str]) -> Any:
    try:
      if len(argv) > 1:
        raise UserError(f"unexpected argument '{argv[1]}': options are written --name=value; see {_help()}")
      return main(flags.FLAGS)
    except UserError as error:
      _fail(error)
    except Exception:
      _abandon(1, traceback.format_exc())
      raise

  steady_streams()
  sys.unraisablehook = _unraisable
  try:
    define()
    app.run(guarded, flags_parser=_parse)
  except KeyboardInterrupt:
    _abandon(INTERRUPTED, 'Ctrl-C')
    print('Ctrl-C', file=sys.stderr)
    sys.exit(INTERRUPTED)


class _Steady(io.FileIO):
  """The end of a standard stream. What nobody reads any more, or has no room, is lost, and the work goes on."""

  def write(self, data: Any) -> int:
    """Writes bytes, or loses them."""
    size = memoryview(data).nbytes
    try:
      written = super().write(data)
    except OSError:
      return size
    return size if written is None else written


def steady_streams() -> None:
  """Lets no output fail: not for its encoding either, in which a character that it has not is written as \\u25b2."""
  while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
    os.set_inheritable(descriptor, True)  # It was closed: the next file would be in its place, and get what is printed.
  os.close(descriptor)
  for descriptor, name in enumerate(('stdout', 'stderr'), 1):
    stream = getattr(sys, name)
    raw = _Steady(descriptor, 'w', closefd=False)
    at_once = bool(stream) and stream.write_through
    setattr(sys, name, io.TextIOWrapper(
        raw if at_once else io.BufferedWriter(raw), stream.encoding if stream else 'utf-8', 'backslashreplace',
        line_buffering=bool(stream) and stream.line_buffering, write_through=at_once))


def define_config(what: str) -> None:
  """Defines ``--config``, a config file by path or name, and ``--config.key`` for each of its values."""
  from ml_collections import config_flags

  from fer_jax.training import config_files

  config_flags.DEFINE_config_file('config', help_string=what)
  flags.FLAGS['config'].parser.parse = lambda name: config_files.load_config(name).lock()  # It knows paths only.
  flags.mark_flag_as_required('config')


def define_split() -> None:
  """Defines ``--split`` and ``--data_dir``, for a command that asks something of a run."""
  flags.DEFINE_string('split', None, "Split of the run's data set; its test split by default.")
  flags.DEFINE_string('data_dir', None, "Where prepared data sets lie, if not where the run's config says.")


def define_faces(images: str) -> None:
  """Defines the flags that ``faces`` reads; ``images`` says which folders of images there may be."""
  flags.DEFINE_string('images', None, images)
  flags.DEFINE_string('dataset', None, 'Or a prepared data set.')
  flags.DEFINE_string('variant', '', 'Its variant.')
  flags.DEFINE_string('data_dir', '', 'Where prepared data sets lie.')


def faces(given: Any) -> tuple[str, str, str]:
  """Data set, variant and folder, as ``splits.open_split`` takes them."""
  if bool(given.images) == bool(given.dataset):
    raise UserError('give either --images=FOLDER or --dataset=NAME.')
  return ('folder', '', given.images) if given.images else (given.dataset, given.variant, given.data_dir)


def define_out() -> None:
  """Defines ``--out``, for ``formats.deliver``."""
  flags.DEFINE_string('out', None, 'A file for the tables, .md, .csv or .tex, instead of the console.')


def overrides(given: Any) -> list[str]:
  """What the command line changes in the config, as ``--config.key=value``."""
  return [f'--config.{key}={value}' for key, value in given['config'].override_values.items()]


def define_start() -> None:
  """Defines the flags about processes and compiling, for a command that computes."""
  flags.DEFINE_string('coordinator_address', None, 'HOST:PORT of process 0, where JAX does not find it out.')
  flags.DEFINE_integer('num_processes', None, 'How many processes there are, likewise.', lower_bound=1)
  flags.DEFINE_integer('process_id', None, 'The number of this one, from 0, likewise.', lower_bound=0)
  flags.DEFINE_float('start_timeout', 300.0, 'Seconds to wait for all processes.', lower_bound=1.0)
  flags.DEFINE_string('compile_cache', None, 'Folder of compiled programs, for a faster next start. Training on '
                      'accelerators has one in its workdir by default.')


def start(given: Any, default_cache: str | None = None) -> None:
  """Starts the process as the flags of ``define_start`` say; call it before the first use of a device.

  Args:
    given: the values of the flags.
    default_cache: where accelerators keep compiled programs unless told otherwise.
  """
  import jax  # Commands that only read and write need neither.

  from fer_jax.runtime import cluster
  cluster.start(given.coordinator_address, given.num_processes, given.process_id, given.start_timeout)
  devices.find()
  # What is compiled for one CPU need not run on the next machine's, so there no cache is the default.
  usual = None if os.environ.get('JAX_COMPILATION_CACHE_DIR') or jax.default_backend() == 'cpu' else default_cache
  if folder := given.compile_cache or usual:
    jax.config.update('jax_compilation_cache_dir', paths.expand(folder))  # Process 0 writes there.


def _unraisable(problem: Any) -> None:
  # Where saving fails, the rest of its writes find nobody to tell, dozens of times; the failure itself is told once.
  if 'Event loop is closed' not in str(problem.exc_value):
    sys.__unraisablehook__(problem)


def _parse(argv: list[str]) -> list[str]:
  if '--help' in argv or '-h' in argv:
    app.usage(shorthelp=True, writeto_stdout=True)  # As absl does, but help that was asked for is no failure.
    sys.exit(0)
  try:
    arguments = flags.FLAGS(argv)
  except UserError as error:
    _fail(error)
  except flags.Error as error:
    message = re.sub(r'flag --(\w+)=None: Flag .*? value other than None', r'--\1 is missing', str(error))
    message = ' '.join(message.split())
    _fail(UserError(f"{message}{'' if message[-1] in '.?' else '.'} See {_help()}"))
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    # A mistyped key or value of a config; ml_collections quotes its own message in another one.
    message = str(error).replace('\\n', ' ').replace("\\'", "'").removeprefix("'").removesuffix("'")
    if key := re.fullmatch(r'\W*(\w+)\W*', message):  # Of a key that is not there it says the key alone.
      where = next((one.partition('=')[0] for one in argv if f'.{key[1]}' in one.partition('=')[0]), '--config')
      message = f"{where}: the config has no '{key[1]}' there; what it lacks is added in a config file."
    _fail(UserError(('' if key else '--config: ') + ' '.join(message.split())))
  if flags.FLAGS['verbosity'].using_default_value:
    logging.set_verbosity(logging.FATAL)  # Libraries narrate what they do, and log what they then raise.
    devices.listen()
  return arguments


def _help() -> str:
  return f'python -m fer_jax.{Path(sys.argv[0]).stem} --help'


def _fail(error: UserError) -> None:
  _abandon(2, f'error: {error}')
  print(console.plain(f'error: {error}'), file=sys.stderr)
  sys.exit(2)


def _abandon(status: int, message: str) -> None:
  """Does not return where other processes wait for this one."""
  if cluster := sys.modules.get('fer_jax.runtime.cluster'):  # Else there are none, and JAX need not be imported.
    cluster.abandon(status, message)
