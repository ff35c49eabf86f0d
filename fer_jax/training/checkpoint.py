"""All of Orbax: saves the training state in the background and restores it onto any number of devices."""

import concurrent.futures
import contextlib
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from fer_jax.errors import UserError, listed
from fer_jax.runtime import cluster, storage
from fer_jax.training.state import TrainState

# What Orbax and TensorStore raise when a file system refuses, or holds something else than a checkpoint.
_FAILURES = (OSError, ValueError, KeyError, TypeError, RuntimeError)


class _Manager(ocp.CheckpointManager):
  """Orbax's, which does not ask JAX's preemption service: a step out of turn would spoil what processes agree on."""

  def reached_preemption(self, step: int) -> bool:
    return False


class Checkpoints:
  """The checkpoints of one run in one folder, which may be remote; all processes of a run call every method.

  Every device has a copy of the state, so process 0 writes alone, in a thread, and nobody waits for another. What it
  is handed is a copy on one device. A save that was cut off leaves no checkpoint, because Orbax gives it its name when
  it is done.
  """

  def __init__(self, directory: str | os.PathLike[str], keep: int = 2, best: str | None = None, minutes: float = 0.0,
               write: bool = False):
    """Opens ``directory``.

    Args:
      directory: created when it is opened for writing.
      keep: how many checkpoints stay; the latest ones, or the best ones where ``best`` names a metric.
      best: the metric to maximise, given to ``save``.
      minutes: after which ``offer`` saves by itself; 0 for never.
      write: for the run that owns the folder. What earlier saves left that were cut off is removed, with a notice.

    Raises:
      UserError: the folder cannot be written.
    """
    self._directory, self._write, self._minutes = storage.absolute(directory), write, minutes
    self._owed, self._began = False, time.monotonic()
    self._saving: concurrent.futures.Future[None] | None = None
    me, writes = jax.process_index(), write and cluster.is_main()
    with self._explained('open'):
      if writes:
        self._directory.mkdir(parents=True, exist_ok=True)
      names = [path.name for path in self._directory.iterdir()] if self._directory.exists() else []
      there = {int(found[0]) for name in names if (found := re.match(r'\d+', name))}
      options = ocp.CheckpointManagerOptions(
          max_to_keep=keep, best_fn=(lambda metrics: metrics[best]) if best else None, best_mode='max', create=False,
          enable_async_checkpointing=False, cleanup_tmp_directories=writes, read_only=not writes,
          # Each process for itself: Orbax's barriers are programs for all devices, and would come between the steps.
          multiprocessing_options=ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}))
      self._manager = _Manager(self._directory, options=options, item_handlers=ocp.StandardCheckpointHandler())
      if writes and (cut_off := sorted(there - set(self._manager.all_steps()))):
        cluster.say(f'{self._directory}: saving step {listed(cut_off)} was cut off; what is left of it is ignored.')
    self._writer = concurrent.futures.ThreadPoolExecutor(1, 'checkpoints') if writes else None

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
    if kind is None:
      self.close()
    elif self._writer:  # The others may be elsewhere: this process only waits for what it has begun.
      self._writer.shutdown()

  def chosen(self) -> int | None:
    """The step of the checkpoint with the best metric, where one is named, or else of the newest; None without any."""
    return cluster.once(self._manager.best_step)

  def offer(self, step: int, state: TrainState, due: bool) -> None:
    """Saves where it is ``due``, or has been, or by the clock; while a save goes on, the next offer is taken.

    Raises:
      UserError: an earlier save failed; the checkpoints before are kept.
    """
    self._owed |= due or 0 < 60 * self._minutes <= time.monotonic() - self._began
    if self._saving and self._saving.done():
      self.wait()
    if self._owed and not self._saving:
      self.save(step, state)

  def save(self, step: int, state: TrainState, metrics: dict[str, float] | None = None) -> None:
    """Starts to save, once the save before is done; returns when a copy is on its way, so the caller may donate it.

    A step that is there already is left as it is: a resumed run comes to the same state again.

    Raises:
      UserError: an earlier save failed; the checkpoints before are kept.
    """
    self._owed, self._began = False, time.monotonic()
    self.wait()
    if self._writer and step not in self._manager.all_steps():
      # Not jit, which would be compiled at the first save.
      copy = jax.device_put(jax.tree.map(lambda leaf: leaf.addressable_data(0), state), may_alias=False)
      self._saving = self._writer.submit(lambda: self._manager.save(
          step, args=ocp.args.StandardSave(jax.device_get(copy)), metrics=metrics))

  def wait(self) -> None:
    """Waits until the save that goes on is done.

    Raises:
      UserError: it failed.
    """
    saving, self._saving = self._saving, None
    if saving:
      with self._explained('save'):
        saving.result()

  def restore(self, step: int, like: TrainState, mesh: Mesh) -> TrainState:
    """Restores the state of ``step``, a copy on every device of ``mesh``.

    Args:
      like: a state (or its shapes) of the same model and optimiser.
      mesh: the devices, not necessarily those that saved it.

    Raises:
      UserError: the checkpoint is of another model or optimiser, or cannot be read.
    """
    try:
      like = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), like)
      state = self._manager.restore(step, args=ocp.args.StandardRestore(like))
      jax.tree_util.tree_map_with_path(_check_shape, state, like)
    except _FAILURES as error:
      raise UserError(f'cannot restore step {step} of {self._directory} into this model: {_reason(error)}. '
                      'Use the config the workdir was trained with, or another workdir.') from error
    return cluster.replicate(state, mesh)

  def restore_latest(self, like: TrainState, mesh: Mesh) -> tuple[int, TrainState] | None:
    """Restores the newest checkpoint that can be, see ``restore``, and says which could not; None: there is none.

    Where the folder was opened for writing, damaged ones are deleted, to be saved anew.

    Raises:
      UserError: there are checkpoints, and none can be restored: they are of another model.
    """
    failures: dict[int, UserError] = {}
    for step in cluster.once(lambda: sorted(self._manager.all_steps(), reverse=True)):
      try:
        with cluster.together():
          state = self.restore(step, like, mesh)
      except UserError as error:
        failures[step] = error
        continue
      for damaged, error in failures.items():
        cluster.say(f'{error} It is damaged, for step {step} can be restored and is used instead.')
        if self._writer:
          self._manager.delete(damaged)
      return step, state
    if failures:
      raise failures[max(failures)]
    return None

  def close(self) -> None:
    """Waits until the last save is done, for all processes, and closes the folder.

    Raises:
      UserError: one of them failed.
    """
    with cluster.together() if self._write else contextlib.nullcontext():
      self.wait()
    if self._writer:
      self._writer.shutdown()
    self._manager.close()

  @contextlib.contextmanager
  def _explained(self, what: str) -> Iterator[None]:
    try:
      yield
    except _FAILURES as error:
      raise UserError(
          f'cannot {what} checkpoints in {self._directory}: {_reason(error)}. What was saved before is kept: mend '
          'that, and the same command goes on from the last good checkpoint.') from error


def _check_shape(path: Any, there: np.ndarray, here: np.ndarray) -> None:
  if there.shape != here.shape:
    raise ValueError(f'{jax.tree_util.keystr(path)} is of shape {there.shape} there, {here.shape} here')


def _reason(error: Exception) -> str:
  """What went wrong, without the stack of libraries that it went through."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  text = str(error).strip()
  if code := re.search(r"os_error_code='(\d+)'", text):
    return os.strerror(int(code[1]))
  return text.splitlines()[0][:300] if text else type(error).__name__
