"""The training loop, readable top to bottom."""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from fer_jax.data.reading import mixture, splits, streams
from fer_jax.data.reading.mixture import Part
from fer_jax.errors import UserError
from fer_jax.metrics import confusion
from fer_jax.reports.page import write_report
from fer_jax.reports.seeds import print_seeds
from fer_jax.reports.table import print_evaluation
from fer_jax.runtime import cluster, storage
from fer_jax.training import checkpoint, evaluation, metrics_log, seeds, setup, sources, step
from fer_jax.training.state import TrainState, with_backbone
from fer_jax.training.workdir import check_data, now, open_workdir, parameter_table


def train(config: ConfigDict, workdir: str | Path, overrides: Sequence[str] = (), profile: range = range(0)
          ) -> dict[str, Any]:
  """Trains, evaluates the test split once and writes the report; goes on where an interrupted run stopped.

  Every process of a run calls this with the same arguments.

  Args:
    config: the whole run.
    workdir: where everything about the run is written: config.json, run.json, parameters.txt, metrics.jsonl,
      checkpoints, evaluation/<split>.json, panel.npz, neighbours.npz and report.html. All processes must see it. Of
      several seeds each has all this in a folder seed-K of its own at the end.
    overrides: the command line's changes to the config, for the record.
    profile: steps whose JAX trace is written to profile/.

  Returns:
    The evaluation of the test split; of several seeds {seed: evaluation}.

  Raises:
    UserError: bad config, data set or workdir, or a loss that is not finite.
    SystemExit: status 75 after SIGTERM, with the state saved.
  """
  with cluster.Preemption() as preemption:
    return _train(config, storage.as_path(workdir), overrides, profile, preemption)


def _train(config: ConfigDict, workdir: epath.Path, overrides: Sequence[str], profile: range,
           preemption: cluster.Preemption) -> dict[str, Any]:
  mesh = cluster.make_mesh()
  cluster.say(cluster.banner(mesh, config.batch_size))
  with cluster.together():
    plan = make_plan(config, mesh)
  system, source, holdout, numbers = plan.system, plan.parts[0].source, plan.holdout, plan.seeds.numbers
  total = system.total_steps
  cluster.check_same('the config', config.to_json_best_effort())
  cluster.check_same('the training split', source.fingerprint)
  record = cluster.once(lambda: open_workdir(config, workdir, overrides))
  with cluster.together():
    if not (workdir / 'config.json').exists():
      raise UserError(f'{workdir} holds no config.json here, though process 0 has written it: all processes must see '
                      'one workdir, on a file system that their hosts share or under gs://.')
    check_data(record, source)
  if len(numbers) > 1 and mesh.size > 1 and config.parallel == 'jit':
    cluster.say("note: for the gradients of several seeds' convolutions the compiler collects all rows on every device "
                "and computes everything on each. config.parallel='pmap' does not.")
  if 'finished' in record:  # Evaluating again would be another look at the test split.
    result = read_result(config, workdir)
    cluster.say(f"{workdir} finished at {record['finished']}; nothing to do.")
    return result
  log = metrics_log.MetricsLog(workdir / 'metrics.jsonl')
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', write=True)
  best = checkpoint.Checkpoints(workdir / 'best', keep=1, best='accuracy', write=True)
  state, params = plan.seeds.stack(plan.initial), jax.eval_shape(system.initial).params
  record |= {'classes': list(source.classes), 'channels': source.channels, 'fingerprint': source.fingerprint,
             'digest': source.digest, 'steps': total, 'hardware': cluster.hardware(), 'devices': mesh.size,
             'processes': jax.process_count(), 'parameters': int(sum(p.size for p in jax.tree.leaves(params)))}
  if len(numbers) > 1:
    record['seeds'] = list(numbers)  # Trained at once.
  if len(plan.parts) > 1:
    record['passes'] = mixture.passes(plan.parts, config.batch_size, total)
  if plan.teacher:
    setup.check_teacher(record, plan.teacher)
  storage.write_json(workdir / 'run.json', record)
  storage.write_text(workdir / 'parameters.txt', parameter_table(params))
  start, state = checkpoints.restore_latest(state, mesh) or (0, cluster.replicate(state, mesh))
  log.forget_after(start)
  cluster.say(f'{config.name}: {record["parameters"]:,} parameters, {len(source):,} faces of {config.data.dataset} '
              f'({config.data.train}), {total:,} steps of {config.batch_size} on {cluster.hardware()}'
              + (f', seeds {numbers[0]} to {numbers[-1]} at once' if len(numbers) > 1 else '')
              + (f', from step {start:,}' if start else ''))

  fresh_meter = lambda: cluster.replicate(new_meter(plan.seeds, system), mesh)
  batches = plan.batches(start_step=start, process_index=jax.process_index(), process_count=jax.process_count(),
                         threads=config.data.threads)
  every = lambda epochs: max(1, round(epochs * len(source) / config.batch_size))
  meter, since, waited, meter_from = fresh_meter(), time.perf_counter(), 0.0, start
  progress = tqdm(total=total, initial=start, desc=config.name, unit='step', dynamic_ncols=True,
                  mininterval=0.5 if sys.stderr.isatty() else 30.0, disable=not cluster.is_main())
  trace = metrics_log.Trace(workdir / 'profile', profile)

  with progress, trace:
    for at in range(start, total + 1):
      # Log, evaluate, save, leave if asked to, and only then draw the next batch: state and step are everything.
      asked = preemption.reached(at)
      save = at > start and (at % every(config.checkpoint_every) == 0 or at == total or asked)
      if at > start and (at % config.log_every == 0 or save):
        # Numbers; or (N,), one for each of several seeds.
        values = {name: np.float64(value) for name, value in jax.device_get(meter).items()}
        values = {name: value / values['steps'] for name, value in values.items() if name != 'steps'}
        metrics_log.check_finite(values, meter_from, at, numbers)
        elapsed = time.perf_counter() - since
        values |= {'learning_rate': float(system.recipe.learning_rate(at - 1)), 'data_wait': waited / elapsed,
                   'images_per_second': (at - meter_from) * config.batch_size / elapsed}
        log.write(at, 'train', values)
        progress.set_postfix({name: f'{np.mean(values[name]):.3f}' for name in ('loss', 'accuracy')}, refresh=False)
        meter, since, waited, meter_from = fresh_meter(), time.perf_counter(), 0.0, at
      if holdout and at > start and (at % every(config.evaluate_every) == 0 or at == total):
        began = time.perf_counter()
        scores = metrics_log.by_seed([evaluate_holdout(config, plan, variables, mesh) for variables in
                                     plan.seeds.each(state.variables(config.select == 'ema'), mesh)])
        log.write(at, plan.holdout_split, scores)
        if config.select in ('holdout', 'best_on_test'):
          best.save(at, state, {'accuracy': scores['accuracy']})
        since += time.perf_counter() - began  # images_per_second is about training alone.
      if save:
        checkpoints.save(at, state)
      if asked and at < total:
        checkpoints.close()
        best.close()
        progress.close()
        cluster.say(f'SIGTERM: step {at:,} is saved; the same command goes on from here.' if at else
                    'SIGTERM before the first step; the same command starts again.')
        sys.exit(cluster.PREEMPTED)
      if at == total:
        break
      trace.before(at, state)
      asked_at = time.perf_counter()
      batch = next(batches)
      waited += time.perf_counter() - asked_at
      state, meter = plan.train_step(state, meter, plan.frozen, cluster.place(batch, mesh, plan.seeds.axis))
      progress.update()
  checkpoints.close()
  best.close()
  preemption.saved()

  if len(numbers) == 1:
    return finish(config, plan, workdir, mesh)
  for index, (seed, own_state) in enumerate(zip(numbers, plan.seeds.each(state, mesh), strict=True)):
    alone, folder = seeds.single(config, seed), seeds.folder(workdir, seed)
    own = cluster.once(functools.partial(open_workdir, alone, folder, overrides))
    if 'finished' not in own:
      seeds.write_single(workdir, index, seed, own_state, at, record, own)
      cluster.say(f'\nSeed {seed}, as if it had been trained alone: {folder}')
      finish(alone, plan, folder, mesh)
  storage.write_json(workdir / 'run.json', record | {'finished': now()})
  return read_result(config, workdir)


def evaluate_holdout(config: ConfigDict, plan: 'Plan', variables: dict[str, Any], mesh: Mesh) -> dict[str, float]:
  """Scores of the holdout split, for metrics.jsonl."""
  table = evaluation.collect(plan.evaluator, variables, plan.holdout, config.eval_batch_size, mesh, config.eval_order)
  counts = confusion.confusion_matrix(table['label'], table['prediction'], len(plan.holdout.classes))
  return {'accuracy': confusion.accuracy(counts), 'nll': float(np.nanmean(table['nll'])),
          'mean_class_accuracy': confusion.mean_class_accuracy(counts)}


def finish(config: ConfigDict, plan: 'Plan', workdir: epath.Path, mesh: Mesh) -> dict[str, Any]:
  """Evaluates the network that one seed has arrived at, once, and writes its report.

  Args:
    config: of this seed.
    plan: of the run, or of all its seeds.
    workdir: of this seed; its training has ended, and its last state is saved there.
    mesh: the devices.

  Returns:
    The evaluation of the test split.
  """
  untrained = cluster.replicate(plan.initial(config.seed).variables(), mesh)
  variables, chosen = setup.selected_variables(config, plan.system, workdir, mesh)
  evaluation.draw_panel(plan.evaluator, untrained, variables, plan.test, config.eval_batch_size, workdir, mesh)
  # The record of the look at the test split says 'finished' too: a run that is killed before has not looked.
  result = evaluation.evaluate_split(config, plan.evaluator, variables, chosen, plan.test, config.data.test, workdir,
                                     mesh, finishes=True)
  print_evaluation(result)
  cluster.say(f'Report: {write_report(workdir)}')
  return result


def read_result(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
  """Prints and returns what ``train`` returned when the run in ``workdir`` finished.

  Raises:
    UserError: it is not there any more.
  """
  def read(folder: epath.Path) -> dict[str, Any]:
    path = folder / 'evaluation' / f'{config.data.test}.json'
    try:
      return storage.read_json(path)
    except FileNotFoundError as error:
      raise UserError(f'the run in {workdir} has finished, but {path} is gone; put it back, or choose another '
                      '--workdir.') from error

  if config.seeds == 1:
    print_evaluation(result := cluster.once(lambda: read(workdir)))
    return result
  members = seeds.of(config)
  # Process 0 may still be writing the last one when the others get here.
  results = {seed: cluster.once(lambda seed=seed: read(seeds.folder(workdir, seed))) for seed in members.numbers}
  print_seeds(results, members.data_seed)
  return results


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a config and the data on this host determine: everything pure or read-only that training uses.

  Attributes:
    parts: what a batch holds, the training split first.
    holdout_split: the split evaluated during training, or ''.
    holdout: its examples, or None.
    test: the test split's.
    teacher: the run to distil from, or None.
    frozen: the teacher's variables, {} without one.
    setup: model, losses and optimiser.
    train_step: the compiled step, see ``cluster.parallel``.
    evaluator: the compiled evaluation step.
    batches: ``streams.training_batches`` of these parts and seeds.
    seeds: those that are trained at once.
    initial: the state of step 0 of a seed.
  """

  parts: Sequence[Part]
  holdout_split: str
  holdout: splits.Source | None
  test: splits.Source
  teacher: setup.Trained | None
  frozen: Mapping[str, Any]
  system: setup.System
  train_step: Callable[..., Any]
  evaluator: Callable[..., dict[str, Any]]
  batches: Callable[..., Iterator[streams.Batch]]
  seeds: seeds.Seeds
  initial: Callable[[int], TrainState]


def make_plan(config: ConfigDict, mesh: Mesh) -> Plan:
  """Opens the data, builds the pure parts and traces both steps once: what is wrong with a config shows here.

  Raises:
    UserError: bad config or data set.
  """
  members = seeds.of(config)
  cluster.check_batch(config.batch_size, mesh)
  cluster.check_batch(config.eval_batch_size, mesh, 'eval_batch_size')
  parts = sources.open_parts(config)
  source = parts[0].source
  if config.parallel == 'pmap':
    mixture.check_devices(parts, config.batch_size, mesh.size)
  holdout_split = config.data.test if config.select == 'best_on_test' else config.data.holdout
  holdout = sources.open_source(config, holdout_split) if holdout_split else None
  test = sources.open_source(config, config.data.test)
  teacher, frozen = setup.load_teacher(config, mesh)
  total = max(1, round(config.epochs * len(source) / config.batch_size))
  system = setup.make_system(config, source.classes, total, teacher)
  train_step = cluster.parallel(members.step(system.recipe), mesh, config.parallel, members.axis)
  evaluator = evaluation.make_evaluator(system, mesh)
  batches = functools.partial(members.batches, parts, batch_size=config.batch_size)
  pretrained = setup.load(config.init_from, mesh).variables if config.init_from else None

  def initial(seed: int) -> TrainState:
    state = system.initial(seed)
    return with_backbone(state, pretrained) if pretrained else state

  like, meter = cluster.shapes(jax.eval_shape(lambda: (members.stack(initial), new_meter(members, system))), mesh)
  train_step.eval_shape(like, meter, frozen, cluster.shapes(next(batches(threads=0)), mesh, members.axis))
  variables = cluster.shapes(jax.eval_shape(initial, config.seed).variables(), mesh)
  seen = {name: jax.ShapeDtypeStruct((config.eval_batch_size, *values.shape[1:]), values.dtype)
          for name, values in streams.rows(test, [0]).items()}
  evaluator.eval_shape(variables, cluster.shapes(seen, mesh, 0))
  sources.open_comparisons(config, source.channels)
  return Plan(parts, holdout_split, holdout, test, teacher, frozen, system, train_step, evaluator, batches, members,
              initial)


def new_meter(members: seeds.Seeds, system: setup.System) -> dict[str, Any]:
  """Zeros for what is logged, of all seeds."""
  return members.stack(lambda seed: step.new_meter(system.recipe.terms))
