"""All of Orbax: saves the training state in the background and restores it onto any number of devices."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from fer_jax import cluster
from fer_jax.errors import UserError
from fer_jax.state import TrainState


class Checkpoints:
  """The checkpoints of one run in one folder. A save that was cut off leaves no checkpoint: Orbax renames when done."""

  def __init__(self, directory: str | Path, keep: int = 2, best: str | None = None):
    """Opens ``directory``.

    Args:
      directory: created when the first checkpoint is saved.
      keep: how many checkpoints stay; the latest ones, or the best ones where ``best`` names a metric.
      best: the metric to maximise, given to ``save``.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, best_fn=(lambda metrics: metrics[best]) if best else None, best_mode='max',
        enable_async_checkpointing=True)
    self._manager = ocp.CheckpointManager(Path(directory).absolute(), options=options)

  def latest(self) -> int | None:
    """The step of the newest whole checkpoint, or None."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """The step of the checkpoint with the best metric, or None."""
    return self._manager.best_step()

  def save(self, step: int, state: TrainState, metrics: dict[str, float] | None = None) -> None:
    """Starts to save; returns once the state has been copied, so the caller may donate it.

    A step that is there already is left as it is: a resumed run comes to the same state again.
    """
    if step in self._manager.all_steps():
      return
    self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

  def restore(self, step: int, like: TrainState, mesh: Mesh) -> TrainState:
    """Restores the state of ``step``, a copy on every device of ``mesh``.

    Args:
      step: which checkpoint.
      like: a state (or its shapes) of the same model and optimiser.
      mesh: the devices, not necessarily those that saved it.

    Raises:
      UserError: the checkpoint is of another model or optimiser, or cannot be read.
    """
    sharding = cluster.replicated(mesh)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
    try:
      state = self._manager.restore(step, args=ocp.args.StandardRestore(shapes))
    except (ValueError, KeyError, TypeError, OSError) as error:
      reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
      raise UserError(f'cannot restore step {step} of {self._manager.directory} into this model: {reason}. '
                      'Use the config the workdir was trained with, or another workdir.') from error
    return cluster.replicate(state, mesh)

  def close(self) -> None:
    """Waits for saves in flight and closes the folder."""
    self._manager.wait_until_finished()
    self._manager.close()
