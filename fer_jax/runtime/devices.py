"""Which devices JAX finds, and what it says of those that it cannot use."""

import glob
import importlib.metadata
import importlib.util
import logging
import os
import pkgutil
import sys
from typing import Any

from fer_jax.errors import UserError

_JAX = 'jax._src.xla_bridge'  # The logger that speaks of devices.


class _Notes(logging.Handler):
  """Keeps what JAX says until its devices are there; then it is told at once."""

  def __init__(self):
    super().__init__(logging.WARNING)
    self.said: list[str] = []
    self.told = 0

  def emit(self, record: logging.LogRecord) -> None:
    error = record.exc_info[1] if record.exc_info else None  # Its last line, not the stack.
    self.said.append(' '.join(f"{record.getMessage()}{f': {error}' if error else ''}".split()))


_NOTES = _Notes()


def listen() -> None:
  """From here on what JAX says of devices reaches the user, however quiet other logs are."""
  logger = logging.getLogger(_JAX)
  logger.setLevel(logging.WARNING)
  logger.propagate = False
  if _NOTES not in logger.handlers:
    logger.addHandler(_NOTES)


def find() -> list[Any]:
  """``jax.devices()``, and what JAX had to say when it looked for them on the standard error.

  Raises:
    UserError: it finds none, or not those that JAX_PLATFORMS asks for.
  """
  import jax
  try:
    found = jax.devices()
  except (RuntimeError, AssertionError, ValueError) as error:
    reason = ' '.join(str(error).split('\n')[0].split()).partition(' (set JAX_PLATFORMS')[0].rstrip('.')
    wanted = jax.config.jax_platforms
    raise UserError(
        f"JAX finds no device{f' for JAX_PLATFORMS={wanted}' if wanted else ''}{f': {reason}' if reason else ''}. Give "
        'JAX_PLATFORMS=cpu to run on the CPU; for an accelerator see that nvidia-smi or the TPU runtime lists it, that '
        'no other process has it, and that JAX is installed for it (jax[cuda13] or jax[tpu]).') from error
  if new := _NOTES.said[_NOTES.told:]:
    _NOTES.told = len(_NOTES.said)
    print(f"note: {f'{fallen}. ' if (fallen := fallback()) else ''}JAX: {' '.join(new)}", file=sys.stderr, flush=True)
  return found


def fallback() -> str:
  """That all runs on the CPU though there is an accelerator, and why, in words; '' where that is not so or is meant.

  JAX has found its devices by now.
  """
  import jax
  if jax.default_backend() != 'cpu' or jax.config.jax_platforms == 'cpu':
    return ''
  if visible := [path for name in ('/dev/nvidia[0-9]*', '/dev/nvidiactl', '/dev/dxg', '/dev/accel*')
                 for path in glob.glob(name)][:1]:
    why = f'this machine has {visible[0]}, but JAX cannot use it'
  elif _NOTES.said:
    why = 'JAX could not start the support for an accelerator that is installed'
  else:
    return ''
  return f'falls back to the CPU: {why} (JAX_PLATFORMS=cpu if that is meant)'


def plugins() -> list[str]:
  """The packages here that give JAX other devices than the CPU."""
  folder = importlib.util.find_spec('jax_plugins')
  return [*['libtpu'] * bool(importlib.util.find_spec('libtpu')),
          *(str(point) for point in importlib.metadata.entry_points(group='jax_plugins')),
          *(found.name for found in pkgutil.iter_modules(folder.submodule_search_locations if folder else []))]


def may_be_others() -> bool:
  """Whether there may be other devices than the CPU, before they can be asked for."""
  return os.environ.get('JAX_PLATFORMS') != 'cpu' and bool(plugins())
