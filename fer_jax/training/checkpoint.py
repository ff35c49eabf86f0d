"""All of Orbax: saves the training state in the background and restores it onto any number of devices."""

import contextlib
import os
import re
from collections.abc import Iterator

import orbax.checkpoint as ocp
from jax.sharding import Mesh

from fer_jax.errors import UserError, listed
from fer_jax.runtime import cluster, storage
from fer_jax.training.state import TrainState

# What Orbax and TensorStore raise when a file system refuses, or holds something else than a checkpoint.
_FAILURES = (OSError, ValueError, KeyError, TypeError, RuntimeError)


class Checkpoints:
  """The checkpoints of one run in one folder, which may be remote; all processes of a run call every method.

  A save that was cut off leaves no checkpoint, because Orbax gives it its name when it is done.
  """

  def __init__(self, directory: str | os.PathLike[str], keep: int = 2, best: str | None = None, write: bool = False):
    """Opens ``directory``.

    Args:
      directory: created when it is opened for writing.
      keep: how many checkpoints stay; the latest ones, or the best ones where ``best`` names a metric.
      best: the metric to maximise, given to ``save``.
      write: for the run that owns the folder. What earlier saves left that were cut off is removed, with a notice.

    Raises:
      UserError: the folder cannot be written.
    """
    self._directory, self._write = storage.absolute(directory), write
    with self._explained('open'):
      names = [path.name for path in self._directory.iterdir()] if self._directory.exists() else []
      there = {int(found[0]) for name in names if (found := re.match(r'\d+', name))}
      options = ocp.CheckpointManagerOptions(
          max_to_keep=keep, best_fn=(lambda metrics: metrics[best]) if best else None, best_mode='max',
          enable_async_checkpointing=True, cleanup_tmp_directories=write, read_only=not write, create=write)
      self._manager = ocp.CheckpointManager(
          self._directory, options=options, item_handlers=ocp.StandardCheckpointHandler())
      if write and (cut_off := sorted(there - set(self._manager.all_steps()))):
        cluster.say(f'{self._directory}: saving step {listed(cut_off)} was cut off; what is left of it is ignored.')

  def chosen(self) -> int | None:
    """The step of the checkpoint with the best metric, where one is named, or else of the newest; None without any."""
    return self._manager.best_step()

  def save(self, step: int, state: TrainState, metrics: dict[str, float] | None = None) -> None:
    """Starts to save; returns once the state has been copied, so the caller may donate it.

    A step that is there already is left as it is: a resumed run comes to the same state again.

    Raises:
      UserError: this or the save before it failed; the checkpoints before are kept.
    """
    if step in self._manager.all_steps():
      return
    with self._explained('save'):
      self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

  def restore(self, step: int, like: TrainState, mesh: Mesh) -> TrainState:
    """Restores the state of ``step``, a copy on every device of ``mesh``.

    Args:
      like: a state (or its shapes) of the same model and optimiser.
      mesh: the devices, not necessarily those that saved it.

    Raises:
      UserError: the checkpoint is of another model or optimiser, or cannot be read.
    """
    try:
      state = self._manager.restore(step, args=ocp.args.StandardRestore(cluster.shapes(like, mesh)))
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
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        with cluster.together():
          state = self.restore(step, like, mesh)
      except UserError as error:
        failures[step] = error
        continue
      for damaged, error in failures.items():
        cluster.say(f'{error} It is damaged, for step {step} can be restored and is used instead.')
        if self._write:
          self._manager.delete(damaged)
      return step, state
    if failures:
      raise failures[max(failures)]
    return None

  def close(self) -> None:
    """Waits for saves in flight and closes the folder.

    Raises:
      UserError: one of them failed.
    """
    with self._explained('save'):
      self._manager.wait_until_finished()
      self._manager.close()

  @contextlib.contextmanager
  def _explained(self, what: str) -> Iterator[None]:
    try:
      yield
    except _FAILURES as error:
      raise UserError(
          f'cannot {what} checkpoints in {self._directory}: {_reason(error)}. What was saved before is kept: mend '
          'that, and the same command goes on from the last good checkpoint.') from error


def _reason(error: Exception) -> str:
  """What went wrong, without the stack of libraries that it went through."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  text = str(error).strip()
  if code := re.search(r"os_error_code='(\d+)'", text):
    return os.strerror(int(code[1]))
  return text.splitlines()[0][:300] if text else type(error).__name__
