"""How long a save blocks the training loop."""

import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from fer_jax import registry
from fer_jax.data import face
from fer_jax.runtime import cluster
from fer_jax.training import setup
from fer_jax.training.checkpoint import Checkpoints


def saves_table(config: ConfigDict, rounds: int) -> Table:
  """Milliseconds that checkpoints of a config's state take from the loop, which goes on while they are written.

  A round saves while nothing is being written, offers a checkpoint that is due while one is, which puts it off, and
  saves what cannot wait, as the last state of a run.

  Args:
    rounds: of them, the first of which is not counted.

  Raises:
    UserError: a bad config, or a full disk.
  """
  classes = tuple(config.data.classes) or registry.find('data.builders', config.data.dataset).CLASSES
  system, mesh = setup.make_system(config, classes or face.EXPRESSIONS, 1000), cluster.make_mesh()
  state = jax.block_until_ready(cluster.replicate(system.initial(), mesh))
  leaves = jax.tree.leaves(state)
  milliseconds = []

  def timed(work: Callable[[], None]) -> None:
    began = time.perf_counter()
    work()
    milliseconds.append(1e3 * (time.perf_counter() - began))

  with tempfile.TemporaryDirectory() as folder, Checkpoints(folder, write=True) as checkpoints:
    for step in range(0, 2 * rounds + 2, 2):
      timed(lambda step=step: checkpoints.offer(step, state, due=True))
      timed(lambda step=step: checkpoints.offer(step + 1, state, due=True))
      timed(lambda step=step: checkpoints.save(step + 1, state))
      checkpoints.wait()
  work = ('a save, nothing being written', 'one that is due while another is written: put off',
          'the last one of a run, which waits for that')
  table = Table('what the loop does', 'ms, median', 'slowest', title=f'{rounds} rounds; {len(leaves)} arrays, '
                f'{sum(leaf.nbytes for leaf in leaves) / 1e6:.1f} MB, on {cluster.hardware()}')
  for what, taken in zip(work, np.reshape(milliseconds, (rounds + 1, 3))[1:].T, strict=True):
    table.add_row(what, f'{np.median(taken):.1f}', f'{taken.max():.1f}')
  return table
