"""A lock file is held by one process at a time, and says what is being done under it. Needs no JAX.

A training holds the lock of its workdir, whether it was started by hand or by a worker of the queue in
``fer_jax.analysis.queue``, which takes the lock first and hands it on.
"""

import contextlib
import datetime
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from fer_jax.errors import UserError
from fer_jax.runtime import paths

HANDED = 'FER_JAX_LOCK'  # The environment of a process that is handed a lock: the number of the descriptor.


class NoLocks(UserError):
  """The file system has no locks."""


def of(workdir: str | os.PathLike[str]) -> Path:
  """The lock file of a workdir, inside: on its own file system, and one whatever names lead to the folder."""
  return Path(paths.expand(workdir), 'lock')


def hold(path: str | os.PathLike[str], wait: bool = False) -> TextIO | None:
  """Holds a lock file until it is closed: returns it, or, without ``wait``, None where somebody else holds it.

  The kernel lets go of the lock when the last process that has the file open is gone, however it ends. A process that
  is handed the descriptor (which ``filelock`` keeps to itself) therefore keeps the lock when only its parent is killed;
  here it gets it back, if it is of this file.

  Raises:
    NoLocks: the file system has none.
    UserError: the file cannot be written.
  """
  try:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = _handed(path) or open(path, 'a+', encoding='utf-8')
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror}; choose another --workdir.') from error
  try:
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    file.seek(0)
    return file
  except OSError as error:
    file.close()
    if isinstance(error, BlockingIOError):
      return None
    raise NoLocks(f'{path} cannot be locked: {error.strerror}. Without locks two workers would train the same run: '
                  'choose a --workdir on another file system, or train with launch/sweep and then use --collect.'
                  ) from error


def _handed(path: str | os.PathLike[str]) -> TextIO | None:
  """The file that was handed to this process, if it is the one at ``path``."""
  with contextlib.suppress(OSError, ValueError):
    descriptor = int(os.environ.get(HANDED, ''))
    if os.path.samestat(os.fstat(descriptor), os.stat(path)):
      return open(os.dup(descriptor), 'a+', encoding='utf-8')  # One lock: it lasts as long as either.
  return None


@contextlib.contextmanager
def alone(workdir: str | os.PathLike[str]) -> Iterator[str]:
  """Holds a workdir for one training. Yields a note for the user, '' if there is nothing to say.

  A bucket has no locks, and some file systems have none: there nothing is held, and of the latter the note tells.

  Raises:
    UserError: another training holds it; the message says which.
  """
  if paths.is_remote(workdir):
    yield ''
    return
  path = of(workdir)
  try:
    file = hold(path)
  except NoLocks as error:
    yield f'note: {path} cannot be locked ({error.__cause__.strerror}): start no second training in this workdir.'
    return
  if not file:
    if not read_note(path):
      time.sleep(0.5)  # It has just begun, and says so next.
    raise UserError(f'{workdir} is in use by another training ({read_note(path) or "unknown"}): wait for its end, stop '
                    'it, or choose another --workdir.')
  with file:
    write_note(file, 'in training')
    yield ''


def read_note(path: str | os.PathLike[str]) -> str:
  """What the last who held a lock file has said of it."""
  try:
    return Path(path).read_text(encoding='utf-8').strip()
  except OSError:  # None yet; and what keeps it from being written will say so.
    return ''


def write_note(lock: TextIO, words: str) -> None:
  """Replaces the text of a lock file: what happened, where and when. A full disk takes the note, not the lock."""
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='microseconds')
  with contextlib.suppress(OSError):
    os.ftruncate(lock.fileno(), 0)
    os.write(lock.fileno(), f'{words}, {socket.gethostname()} process {os.getpid()}, {now}\n'.encode())
