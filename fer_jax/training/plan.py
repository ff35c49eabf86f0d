"""A run before its first step: the data on this host, and the compiled parts that its config names."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from fer_jax.attribution import priors
from fer_jax.data.reading import mixture, streams
from fer_jax.data.reading.splits import Split
from fer_jax.runtime import cluster, storage
from fer_jax.training import protocol as protocol_of
from fer_jax.training import ranges, setup, step
from fer_jax.training.protocol import Protocol, Seen
from fer_jax.training.start import open_start
from fer_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a config and the data on this host determine: everything pure or read-only that training uses.

  Attributes:
    settings: the config as JSON has it, for the record.
    protocol: what the numbers of the run will rest on.
    batch_size: rows of a step over all devices.
    log_every: steps between lines of the log; so ``evaluate_every`` and ``checkpoint_every``.
    parts: what a batch holds, the training split first.
    holdout_split: the split evaluated during training, or ''.
    holdout: its faces, or None.
    test: the test split's.
    seen: what the network will have seen.
    start: the facts of the pretrained backbone that it starts from; {} without one.
    frozen: the teacher's variables, {} without one.
    system: model, losses and optimiser.
    train_step: the compiled step, see ``cluster.parallel``.
    evaluator: the compiled evaluation step.
    initial: draws the state of step 0.
  """

  settings: Mapping[str, Any]
  protocol: Protocol
  batch_size: int
  log_every: int
  evaluate_every: int
  checkpoint_every: int
  parts: Sequence[mixture.Part]
  holdout_split: str
  holdout: Split | None
  test: Split
  seen: Sequence[Seen]
  start: Mapping[str, Any]
  teacher: setup.Trained | None
  frozen: Mapping[str, Any]
  system: setup.System
  train_step: Callable[..., Any]
  evaluator: Callable[..., dict[str, Any]]
  initial: Callable[[], TrainState]

  @property
  def faces(self) -> Split:
    """The training split."""
    return self.parts[0].source

  @property
  def keeps_best(self) -> bool:
    """Whether the variables that did best on the holdout split are the ones to be tested."""
    return bool(self.protocol.chosen_by)

  def new_meter(self) -> dict[str, jax.Array]:
    """Zeros for what is logged."""
    return step.new_meter(self.system.recipe.terms)

  def batches(self, start_step: int = 0, **options: Any) -> Iterator[streams.Batch]:
    """``streams.training_batches`` of this run from a step on; every process reads its own rows."""
    options = {'threads': self.protocol.data.threads, **options}
    return streams.training_batches(
        self.parts, seed=self.system.recipe.data_seed, batch_size=self.batch_size, start_step=start_step,
        process_index=jax.process_index(), process_count=jax.process_count(), **options)


def make_plan(config: ConfigDict, mesh: jax.sharding.Mesh) -> Plan:
  """Opens the data, builds the pure parts and traces both steps once: what is wrong with a config shows here.

  Raises:
    UserError: bad config or data set.
  """
  ranges.check(storage.flat(config.to_dict()))
  cluster.check_batch(config.batch_size, mesh)
  cluster.check_batch(config.eval_batch_size, mesh, 'eval_batch_size')
  protocol = setup.make_protocol(config)
  data = protocol.data
  parts = data.open_parts()
  faces = parts[0].source
  if config.parallel == 'pmap':
    mixture.check_devices(parts, config.batch_size, mesh.size)
    if any(term.get('prior') == 'shuffled' for term in config.losses.values()):
      priors.check_devices(config.batch_size, mesh.size)
  holdout_split = protocol.chosen_by or data.holdout
  holdout, test = data.open(holdout_split) if holdout_split else None, data.open(data.test)
  every = lambda epochs: max(1, round(epochs * len(faces) / config.batch_size))
  teacher = setup.load(config.teacher.workdir, mesh) if config.teacher.workdir else None
  system = setup.make_system(config, faces.classes, every(config.epochs), teacher)
  start = open_start(config.init_from, jax.eval_shape(system.initial), mesh)
  ancestors = {'teacher': teacher and teacher.seen(), 'start': start.seen}
  plan = Plan(
      setup.settings(config), protocol, config.batch_size, config.log_every, every(config.evaluate_every),
      every(config.checkpoint_every), parts, holdout_split, holdout, test,
      protocol_of.see(protocol, parts, holdout, {name: seen for name, seen in ancestors.items() if seen is not None}),
      start.facts, teacher, teacher.variables if teacher else {}, system,
      cluster.parallel(functools.partial(step.train_step, system.recipe), mesh, config.parallel),
      setup.make_evaluator(system, mesh),
      lambda: start.state(system.initial()))
  _trace(plan, config.eval_batch_size, mesh)
  data.open_comparisons(faces.channels)
  started = start.measure(system.recipe, plan.batches(threads=0), mesh)
  return dataclasses.replace(plan, initial=lambda: started.state(system.initial()))


def _trace(plan: Plan, eval_batch_size: int, mesh: jax.sharding.Mesh) -> None:
  """Traces both steps with the forms of the arrays to come, so that neither is traced again."""
  state = jax.eval_shape(plan.initial)
  like = cluster.shapes((state, jax.eval_shape(plan.new_meter)), mesh)
  plan.train_step.eval_shape(*like, plan.frozen, cluster.shapes(next(plan.batches(threads=0)), mesh, rows=True))
  seen = {name: jax.ShapeDtypeStruct((eval_batch_size, *values.shape[1:]), values.dtype)
          for name, values in streams.rows(plan.test, [0]).items()}
  plan.evaluator.eval_shape(cluster.shapes(state.variables(), mesh), cluster.shapes(seen, mesh, rows=True))
