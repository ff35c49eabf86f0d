"""Work on many items by a pool of processes, in parts that are kept on disk: what was finished is not done again.

A part is a file of results named by a digest of what it was made from: the function, the items and the stamps of their
files. It is written beside and renamed, so that it is whole or not there, in a folder that nobody else can write to.
"""

import concurrent.futures
import functools
import hashlib
import multiprocessing
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2

from fer_jax import __version__
from fer_jax.data.preparing import packed
from fer_jax.errors import UserError

PART = 32  # Items of a part: half a second of work, and some thirty thousand files for a million.


def work_on(items: Sequence[Any], function: Callable[[Any], Any], folder: Path, *, workers: int | None = None,
            stamp: Callable[[Any], Any] = lambda item: None) -> Iterator[tuple[Any, Any]]:
  """Yields (item, ``function(item)``) for every item, in order.

  The processes are started afresh and import neither JAX nor TensorFlow, whatever the caller has loaded.

  Args:
    items: as ``packed.pack`` takes them, as are the results.
    function: a pure function of an item: one of a module's, perhaps ``functools.partial`` with plain values.
    folder: where parts are kept; the caller removes it when all is done.
    workers: number of processes; None: one for each available core; 0: none, work in this process.
    stamp: what changes when the result might, although the item is the same.

  Raises:
    UserError: as ``function`` does, or a process was killed, or the folder is not this user's own.
    OSError: a part cannot be written.
  """
  _make_private(folder)
  parts = [items[first:first + PART] for first in range(0, len(items), PART)]
  paths = [folder / _name(function, part, stamp) for part in parts]
  missing = [i for i, path in enumerate(paths) if not path.exists()]
  workers = min(len(os.sched_getaffinity(0)) if workers is None else workers, len(missing))
  pool, futures = None, {}
  if workers > 1 or (workers and len(parts) > 1):
    pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), initializer=_start)
  try:
    if pool:
      futures = {i: pool.submit(_work, function, parts[i], paths[i]) for i in missing}
    for i, (part, path) in enumerate(zip(parts, paths, strict=True)):
      if i in futures:
        futures.pop(i).result()
      results = _results(path)
      if results is None:
        _work(function, part, path)
        results = _results(path)
      yield from zip(part, results, strict=True)
  except BrokenProcessPool as e:
    raise UserError('a worker process was killed, perhaps for want of memory: try fewer --workers. The same command '
                    'goes on from where this one ended.') from e
  finally:
    if pool:
      pool.shutdown(cancel_futures=True)


def _name(function: Callable[[Any], Any], part: Sequence[Any], stamp: Callable[[Any], Any]) -> str:
  plain = function.func if isinstance(function, functools.partial) else function
  given = repr((function.args, function.keywords)) if isinstance(function, functools.partial) else ''
  made_from = [__version__, cv2.__version__, plain.__module__, plain.__qualname__, given, list(part),
               [stamp(item) for item in part]]
  return f'{hashlib.sha256(packed.pack(made_from)).hexdigest()}.part'


def _make_private(folder: Path) -> None:
  """Makes a folder of this user's, or raises UserError where one is there that others can write to."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  try:
    folder.mkdir(mode=0o700)
  except FileExistsError as e:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
      raise UserError(f'{folder} is not a folder of yours that nobody else can write to, so what lies there is not '
                      'trusted. Remove it, or give another --data_dir.') from e


def _results(path: Path) -> list[Any] | None:
  """What a part holds; None where it is not there, or damaged."""
  try:
    return packed.unpack(path.read_bytes())
  except (FileNotFoundError, ValueError):
    return None


def _work(function: Callable[[Any], Any], part: Sequence[Any], path: Path) -> None:
  """Makes a part."""
  results = packed.pack([function(item) for item in part])
  beside = path.with_suffix(f'.{os.getpid()}')
  try:
    beside.write_bytes(results)
    beside.replace(path)
  finally:
    beside.unlink(missing_ok=True)


def _start() -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer.
  # A killed parent would leave its workers waiting for ever.
  threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()
  cv2.setNumThreads(1)
