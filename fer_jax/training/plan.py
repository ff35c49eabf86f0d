"""A run before its first step: the data on this host, and the compiled parts that its config names."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax.attribution import priors
from fer_jax.data.reading import mixture as mixture_of
from fer_jax.data.reading import streams
from fer_jax.data.reading.splits import Split
from fer_jax.runtime import cluster, storage
from fer_jax.training import feeding, length, metrics_log, ranges, setup, step
from fer_jax.training import protocol as protocol_of
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
    checkpoint_minutes: after which a checkpoint is due as well; 0 for never.
    parts: what a batch holds, the training split first.
    holdout_split: the split evaluated during training, or ''.
    holdout: its faces, or None.
    test: the test split's.
    seen: what the network will have seen.
    start: the facts of the pretrained backbone that it starts from; {} without one.
    frozen: the teacher's variables, {} without one.
    system: model, losses and optimiser.
    train_step: the compiled step, see ``cluster.parallel``.
    like: the forms of its arguments: state, meter, the teacher's variables and a global batch.
    fields: those of a batch that it reads; no other travels.
    evaluator: the compiled evaluation step.
    scorer: the same without maps, for the holdout split, of which it reads ``step.scored_fields``.
    initial: draws the state of step 0.
  """

  settings: Mapping[str, Any]
  protocol: Protocol
  batch_size: int
  log_every: int
  evaluate_every: int
  checkpoint_every: int
  checkpoint_minutes: float
  parts: Sequence[mixture_of.Part]
  holdout_split: str
  holdout: Split | None
  test: Split
  seen: Sequence[Seen]
  start: Mapping[str, Any]
  teacher: setup.Trained | None
  frozen: Mapping[str, Any]
  system: setup.System
  train_step: Callable[..., Any]
  like: tuple[Any, ...]
  fields: frozenset[str]
  evaluator: Callable[..., dict[str, Any]]
  scorer: Callable[..., dict[str, Any]]
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

  def ideal_seconds(self, mesh: jax.sharding.Mesh) -> float | None:
    """``metrics_log.ideal_seconds`` of a step."""
    recipe = self.system.recipe
    devices = 1 if recipe.axis else mesh.size  # The program of the mapped form is that of one device.
    return metrics_log.ideal_seconds(self.train_step, self.like, devices, recipe.model.backbone.dtype.name)

  def batches(self, start_step: int = 0, **options: Any) -> Iterator[streams.Batch]:
    """``streams.training_batches`` of this run from a step on; every process reads its own rows."""
    options = {'threads': self.protocol.data.threads, **options}
    return streams.training_batches(
        self.parts, seed=self.system.recipe.data_seed, batch_size=self.batch_size, start_step=start_step,
        process_index=jax.process_index(), process_count=jax.process_count(), **options)

  def feed(self, start: int, mesh: jax.sharding.Mesh, one_by_one: bool = False) -> Iterator[tuple[range, feeding.Take]]:
    """What to take from a step on: ranges of steps, and how. Faces are decoded first, if they are to be kept.

    Args:
      one_by_one: one step in a dispatch.

    Raises:
      UserError: a face cannot be decoded, or there is no room.
    """
    data, fields = self.protocol.data, self.fields
    absent = feeding.unread(self.like[-1], fields, mesh)
    mixture, size = mixture_of.Mixture(self.parts, self.system.recipe.data_seed, self.batch_size, fields), 0
    with cluster.together():
      if data.table or data.resident in ('True', 'split'):
        size = mixture.tabulate()
      if data.table and self.holdout:
        self.holdout.tabulate(step.scored_fields(self.system.recipe))
    if not size or not cluster.once(lambda: feeding.fits(data.resident, size, mesh)):
      batches = self.batches(start, fields=fields, **({'threads': 1} if size else {}))
      return feeding.streamed(self.train_step, self.frozen, batches, start, absent, mesh)
    most = 1 if one_by_one else data.resident_steps or (1 if jax.default_backend() == 'cpu' else 32)
    every = [self.log_every, self.checkpoint_every, *([self.evaluate_every] if self.holdout else [])]
    own = cluster.own_rows({'row': np.arange(self.batch_size, dtype=np.int32)})['row']
    return feeding.resident(
        self.train_step, self.frozen, mixture, cluster.place_table(mixture.tables(), mesh, data.resident == 'split'),
        feeding.chunks(start, self.system.total_steps, most, every), most, own, absent, mesh)


def make_plan(config: ConfigDict, mesh: jax.sharding.Mesh, steps: int | None = None) -> Plan:
  """Opens the data, builds the pure parts and traces both steps once: what is wrong with a config shows here.

  Args:
    steps: of the run, where it has begun; None: as the config says. A length in minutes is a number of steps from then
      on: a few are taken and timed.

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
    mixture_of.check_devices(parts, config.batch_size, mesh.size)
    if any(term.get('prior') == 'shuffled' for term in config.losses.values()):
      priors.check_devices(config.batch_size, mesh.size)
  holdout_split = protocol.chosen_by or data.holdout
  holdout, test = data.open(holdout_split) if holdout_split else None, data.open(data.test)
  every = lambda epochs: length.steps('', epochs, len(faces), config.batch_size)
  if not steps:
    seconds = _seconds(make_plan(config, mesh, _TIMED), mesh) if length.in_minutes(config.length) else math.nan
    steps = length.steps(config.length, config.epochs, len(faces), config.batch_size, seconds)
  teacher = setup.load(config.teacher.workdir, mesh) if config.teacher.workdir else None
  system = setup.make_system(config, faces.classes, steps, teacher)
  start = open_start(config.init_from, jax.eval_shape(system.initial), mesh)
  ancestors = {'teacher': teacher and teacher.seen(), 'start': start.seen}
  plan = Plan(
      setup.settings(config), protocol, config.batch_size, config.log_every, every(config.evaluate_every),
      every(config.checkpoint_every), config.checkpoint_minutes, parts, holdout_split, holdout, test,
      protocol_of.see(protocol, parts, holdout, {name: seen for name, seen in ancestors.items() if seen is not None}),
      start.facts, teacher, teacher.variables if teacher else {}, system,
      cluster.parallel(functools.partial(step.train_step, system.recipe), mesh, config.parallel), (), frozenset(),
      setup.make_evaluator(system, mesh), setup.make_evaluator(system, mesh, explain=False),
      lambda: start.state(system.initial()))
  like, fields = _trace(plan, config.eval_batch_size, mesh)
  data.open_comparisons(faces.channels)
  started = start.measure(system.recipe, plan.batches(threads=0), mesh)
  return dataclasses.replace(plan, like=like, fields=fields, initial=lambda: started.state(system.initial()))


def _trace(plan: Plan, eval_batch_size: int, mesh: jax.sharding.Mesh
           ) -> tuple[tuple[Any, ...], frozenset[str]]:
  """Traces both steps with the forms of the arrays to come, so that neither is traced again.

  Returns:
    The forms of the training step's arguments, and the fields of a batch that it reads.
  """
  state = jax.eval_shape(plan.initial)
  own = next(plan.batches(threads=0))
  batch = cluster.shapes({name: jax.ShapeDtypeStruct((plan.batch_size, *values.shape[1:]), values.dtype)
                          for name, values in own.items()}, mesh, rows=True)
  like = *cluster.shapes((state, jax.eval_shape(plan.new_meter)), mesh), plan.frozen, batch
  fields = feeding.fields_read(plan.train_step.trace(*like), batch)
  seen = {name: jax.ShapeDtypeStruct((eval_batch_size, *values.shape[1:]), values.dtype)
          for name, values in streams.rows(plan.test, [0]).items()}
  plan.evaluator.eval_shape(cluster.shapes(state.variables(), mesh), cluster.shapes(seen, mesh, rows=True))
  return like, fields


_TIMED = 1000  # Steps of the run that is timed, which decide its schedule and nothing else.


def _seconds(plan: Plan, mesh: jax.sharding.Mesh, steps: int = 8) -> float:
  """Seconds of a step, the same in all processes, from the median of some that are taken for nothing."""
  state, meter = (cluster.replicate(tree, mesh) for tree in (plan.initial(), plan.new_meter()))
  seconds = []
  for _, (at, take) in zip(range(steps), plan.feed(0, mesh), strict=False):
    began = time.perf_counter()
    state, meter = jax.block_until_ready(take(state, meter))
    seconds.append((time.perf_counter() - began) / len(at))
  return cluster.once(lambda: float(np.median(seconds[1:])))  # The first is compiled.
