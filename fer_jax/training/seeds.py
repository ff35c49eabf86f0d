"""Several seeds in one program: ``config.seeds`` states as one stack, which the training step is mapped over.

A stack is a tree with a leading axis of N seeds. What it holds is what N single runs would hold: the states of step 0
are equal bit for bit, and the same step is taken of each by ``jax.vmap``, where the seed is a traced number. After
training every seed gets a workdir of its own, WORKDIR/seed-K, as if it had been trained alone.

What differs between the seeds is initial parameters, dropout and drawn targets, and with ``data.seed = -1`` order and
augmentation as well: each seed then has its own rows. With another ``data.seed`` all of them look at the same rows,
which are sent, and augmented, once.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from fer_jax.data.reading import streams
from fer_jax.data.reading.mixture import Part
from fer_jax.errors import UserError
from fer_jax.runtime import cluster, storage
from fer_jax.training import checkpoint, metrics_log, step
from fer_jax.training.workdir import parameter_table


@dataclasses.dataclass(frozen=True)
class Seeds:
  """The seeds of a run. A single one is not stacked: its trees, its step and its batches are just themselves.

  Attributes:
    numbers: the seeds.
    data_seed: of order and augmentation for all of them, or None where each has its own.
  """

  numbers: range
  data_seed: int | None = None

  def __len__(self) -> int:
    return len(self.numbers)

  @property
  def axis(self) -> int:
    """Of the arrays of a batch, along which its rows lie: 1 where every seed has rows of its own."""
    return int(len(self) > 1 and self.data_seed is None)

  def stack(self, tree_of: Callable[[int], Any]) -> Any:
    """The stack of ``tree_of(seed)``."""
    trees = [tree_of(seed) for seed in self.numbers]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) if len(self) > 1 else trees[0]

  def each(self, stack: Any, mesh: jax.sharding.Mesh) -> Iterator[Any]:
    """Yields the trees in a stack, one after the other, on every device."""
    if len(self) == 1:
      yield stack
      return
    for i in range(len(self)):
      yield _taker(mesh)(stack, i)

  def step(self, recipe: step.Recipe) -> Callable[..., tuple[Any, Any]]:
    """``step.train_step`` of stacks: ``(state, meter, frozen, batch) -> (state, meter)``.

    Args:
      recipe: of any of the seeds.
    """
    def train_step(state, meter, frozen, batch):
      # All seeds are at the same step. A number of its own for each would make random numbers of what they share.
      at = state.step[0]

      def of_one(seed, state, meter, batch):
        own = dataclasses.replace(recipe, seed=seed, data_seed=seed if self.data_seed is None else self.data_seed)
        return step.train_step(own, state.replace(step=at), meter, frozen, batch)

      seeds = jnp.arange(self.numbers.start, self.numbers.stop, dtype=jnp.int32)
      return jax.vmap(of_one, in_axes=(0, 0, 0, 0 if self.axis else None))(seeds, state, meter, batch)

    return train_step if len(self) > 1 else functools.partial(step.train_step, recipe)

  def batches(self, parts: Sequence[Part], *, threads: int, **options: Any) -> Iterator[streams.Batch]:
    """``streams.training_batches`` of all seeds: arrays (N, b, ...) where each has its own rows, else (b, ...)."""
    if not self.axis:
      seed = self.numbers[0] if self.data_seed is None else self.data_seed
      return streams.training_batches(parts, seed=seed, threads=threads, **options)
    share = -(-threads // len(self))  # They read at the same time.
    each = [streams.training_batches(parts, seed=seed, threads=share, **options) for seed in self.numbers]
    return ({name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
            for batches in zip(*each, strict=True))


@functools.cache
def _taker(mesh: jax.sharding.Mesh) -> Callable[[Any, int], Any]:
  """Takes one tree from a stack."""
  return jax.jit(lambda stack, i: jax.tree.map(lambda leaf: leaf[i], stack), out_shardings=cluster.replicated(mesh))


def of(config: ConfigDict) -> Seeds:
  """The seeds that a config trains.

  Raises:
    UserError: a number out of range, or a choice that several seeds do not go with.
  """
  if config.seeds < 1:
    raise UserError(f'config.seeds={config.seeds}: give how many seeds are trained, 1 or more.')
  if config.data.seed < -1:
    raise UserError(f'config.data.seed={config.data.seed}: give a seed, 0 or more, or -1 for that of the run.')
  if config.seeds > 1 and config.select in ('holdout', 'best_on_test'):
    raise UserError(f"config.select='{config.select}' with config.seeds={config.seeds}: the best step is another one "
                    "for each seed, but seeds that are trained at once save together. Choose 'last' or 'ema', or train "
                    'the seeds one by one.')
  return Seeds(range(config.seed, config.seed + config.seeds), None if config.data.seed == -1 else config.data.seed)


def single(config: ConfigDict, seed: int) -> ConfigDict:
  """The config by which ``seed`` alone is trained to the same parameters."""
  own = config.copy_and_resolve_references()
  own.seed, own.seeds = seed, 1
  return own


def folder(workdir: epath.Path, seed: int) -> epath.Path:
  """The workdir of one of several seeds."""
  return workdir / f'seed-{seed}'


def write_single(workdir: epath.Path, index: int, seed: int, state: Any, at: int, record: Mapping[str, Any],
                 own: Mapping[str, Any]) -> None:
  """Writes what the training of a seed alone would have left; what is there already is left or written again.

  Args:
    workdir: of all seeds.
    index: which of them it is, from 0.
    seed: its number.
    state: its own, of step ``at``.
    at: the last step.
    record: of the run of all seeds.
    own: the record in its workdir so far, from ``open_workdir``.
  """
  to = folder(workdir, seed)
  storage.write_json(to / 'run.json', {**own, **record, 'seed': seed})
  storage.write_text(to / 'parameters.txt', parameter_table(state.params))
  metrics_log.copy_of_seed(workdir / 'metrics.jsonl', index, to / 'metrics.jsonl')
  checkpoints = checkpoint.Checkpoints(to / 'checkpoints', write=True)
  checkpoints.save(at, state)
  checkpoints.close()
