"""Splits that are decoded once: a memory-mapped array for each field, which all processes of a machine share.

A table lies beside its prepared data, in the folder ``tables``, or where that cannot be written in the folder for
temporary files. It may be removed at any time, and is made again when it is needed.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fer_jax import __version__
from fer_jax.errors import UserError
from fer_jax.runtime import cluster, lock, paths
from fer_jax.runtime.progress import progress

_PART = 1024  # Faces that a worker decodes at a time.
_ALONE = 8 * _PART  # Below so many, workers take longer to start than to decode.


def open_table(make: Callable[[], Any], split: Any, about: Mapping[str, Any], fields: Sequence[str]
               ) -> dict[str, np.ndarray]:
  """The decoded examples of a split: {field: (N, ...)}, read-only and memory-mapped; made first where they are missing.

  Args:
    make: opens the split again, in another process.
    split: of ``len(split)`` examples, ``split.example(row)``.
    about: all that decides what its examples hold, as JSON; and 'folder', where its prepared data lie, or ''.
    fields: of its examples.

  Raises:
    UserError: an example cannot be decoded, the table is damaged, or there is no room; the message says how to do
      without one.
  """
  if getattr(multiprocessing.current_process(), '_inheriting', False):  # It would wait for its parent, and that for it.
    raise UserError("this script is run again by the processes that decode faces: put what it does below the line "
                    "`if __name__ == '__main__':`.")
  folder = _writable(about['folder']) / _key(about)
  folder.mkdir(exist_ok=True)
  files = {name: folder / f'{name}.npy' for name in fields}
  missing = {name: path for name, path in files.items() if not path.exists()}
  if missing:
    with contextlib.ExitStack() as held:
      with contextlib.suppress(lock.NoLocks):  # Without locks, every process that finds none writes one of its own.
        held.enter_context(lock.hold(folder / 'lock', wait=True))
        for rest in folder.iterdir():  # Nobody else writes now.
          if rest.suffix[1:].isdigit():
            rest.unlink()
      _write(make, split, {name: path for name, path in missing.items() if not path.exists()})
  try:
    return {name: np.asarray(np.load(path, mmap_mode='r')) for name, path in files.items()}
  except (OSError, ValueError, EOFError) as error:
    raise UserError(f'{folder} is damaged ({error}): remove it, and the same command decodes the faces again.'
                    ) from error


def keep(about: Mapping[str, Any], make: Callable[[], np.ndarray | None]) -> np.ndarray | None:
  """An array that is made once and kept where tables are; None is not kept.

  Args:
    about: all that decides it, as in ``open_table``.
  """
  path = _writable(about['folder']) / f'{_key(about)}.npy'
  with contextlib.suppress(OSError, ValueError, EOFError):  # Missing or damaged.
    return np.load(path)
  if (array := make()) is not None:
    beside = path.with_suffix(f'.{os.getpid()}')
    with contextlib.suppress(OSError):  # Without room it is made at every use.
      with beside.open('wb') as file:
        np.save(file, array)
      beside.replace(path)
  return array


def _key(about: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps([__version__, cv2.__version__, about], sort_keys=True).encode()).hexdigest()[:32]


def _writable(folder: str) -> Path:
  """The folder of tables for prepared data in ``folder``."""
  if folder and not paths.is_remote(folder):
    beside = Path(folder, 'tables')
    try:
      beside.mkdir(exist_ok=True)
      tempfile.TemporaryFile(dir=beside).close()
      return beside
    except OSError:
      pass
  elsewhere = Path(tempfile.gettempdir(), f'fer_jax_tables_{os.getuid()}')
  elsewhere.mkdir(mode=0o700, exist_ok=True)
  if elsewhere.stat().st_uid != os.getuid():
    raise UserError(f'{elsewhere} is not yours; set TMPDIR to a folder of your own, or config.data.table=False.')
  return elsewhere


def _write(make: Callable[[], Any], split: Any, files: Mapping[str, Path]) -> None:
  """Writes the fields, each beside its name first."""
  if not files:
    return  # Another process made them meanwhile.
  count, example = len(split), split.example(0, files)
  folder = next(iter(files.values())).parent
  size, free = count * sum(value.nbytes for value in example.values()), shutil.disk_usage(folder).free
  if size > free:
    raise UserError(f'the {count:,} faces take {size / 1e6:,.0f} MB decoded, and {folder} has room for '
                    f'{free / 1e6:,.0f} MB: make room, or train with --config.data.table=False, which decodes them at '
                    'every use.')
  cluster.say(f'Decoding {count:,} faces once, {size / 1e6:,.0f} MB in {folder}.')
  beside = {name: path.with_suffix(f'.{os.getpid()}') for name, path in files.items()}
  parts = [range(first, min(first + _PART, count)) for first in range(0, count, _PART)]
  try:
    for name, value in example.items():
      np.lib.format.open_memmap(beside[name], 'w+', value.dtype, (count, *value.shape)).flush()
    if count < _ALONE:
      for part in parts:
        _fill(split, beside, part)
    else:
      _fill_by_workers(make, beside, parts)
    for name, path in files.items():
      beside[name].replace(path)
  finally:
    for path in beside.values():
      path.unlink(missing_ok=True)


def _fill(split: Any, files: Mapping[str, Path], part: range) -> None:
  arrays = {name: np.load(path, mmap_mode='r+') for name, path in files.items()}
  for row in part:
    for name, value in split.example(row, files).items():
      arrays[name][row] = value
  for array in arrays.values():
    array.flush()


def _fill_by_workers(make: Callable[[], Any], files: Mapping[str, Path], parts: Sequence[range]) -> None:
  workers = min(len(os.sched_getaffinity(0)), len(parts))
  spawn = multiprocessing.get_context('spawn')
  try:
    with concurrent.futures.ProcessPoolExecutor(workers, spawn, _open, (make, files)) as pool:
      for _ in progress(pool.map(_fill_part, parts), total=len(parts), desc='decoding', unit='part'):
        pass
  except BrokenProcessPool as error:
    raise UserError('a process that decodes faces has ended, perhaps for want of memory; what it said stands above. '
                    'config.data.table=False does without.') from error


_AT_WORK: list[Any] = []  # In a worker: the split and the files.


def _open(make: Callable[[], Any], files: Mapping[str, Path]) -> None:
  cv2.setNumThreads(1)
  _AT_WORK[:] = make(), files


def _fill_part(part: range) -> None:
  _fill(*_AT_WORK, part)
