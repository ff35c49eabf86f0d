"""The training loop, readable top to bottom."""

import dataclasses
import functools
import json
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

from fer_jax import checkpoint, cluster, evaluation, run, sources, step, storage
from fer_jax.data import mixture, stream
from fer_jax.data.mixture import Part
from fer_jax.errors import UserError
from fer_jax.metrics import confusion
from fer_jax.reports.page import write_report
from fer_jax.reports.table import print_evaluation
from fer_jax.state import with_backbone


def train(config: ConfigDict, workdir: str | Path, overrides: Sequence[str] = (), profile: range = range(0)
          ) -> dict[str, Any]:
  """Trains, evaluates the test split once and writes the report; goes on where an interrupted run stopped.

  Every process of a run calls this with the same arguments.

  Args:
    config: the whole run.
    workdir: where everything about the run is written: config.json, run.json, parameters.txt, metrics.jsonl,
      checkpoints, evaluation/<split>.json, panel.npz, neighbours.npz and report.html. All processes must see it.
    overrides: the command line's changes to the config, for the record.
    profile: steps whose JAX trace is written to profile/.

  Returns:
    The evaluation of the test split.

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
  setup, source, holdout, test = plan.setup, plan.parts[0].source, plan.holdout, plan.test
  total = setup.total_steps
  cluster.check_same('the config', config.to_json_best_effort())
  cluster.check_same('the training split', source.fingerprint)
  record = cluster.once(lambda: run.open_workdir(config, workdir, overrides))
  with cluster.together():
    if not (workdir / 'config.json').exists():
      raise UserError(f'{workdir} holds no config.json here, though process 0 has written it: all processes must see '
                      'one workdir, on a file system that their hosts share or under gs://.')
    run.check_data(record, source)
  if 'finished' in record:  # Evaluating again would be another look at the test split.
    result = storage.read_json(workdir / 'evaluation' / f'{config.data.test}.json')
    print_evaluation(result)
    cluster.say(f"{workdir} finished at {record['finished']}; nothing to do.")
    return result
  log = MetricsLog(workdir / 'metrics.jsonl')
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', write=True)
  best = checkpoint.Checkpoints(workdir / 'best', keep=1, best='accuracy', write=True)
  state = setup.initial()
  if plan.pretrained:
    state = with_backbone(state, plan.pretrained)
  untrained = jax.device_get(state.variables())
  record |= {'classes': list(source.classes), 'channels': source.channels, 'fingerprint': source.fingerprint,
             'digest': source.digest, 'steps': total, 'hardware': cluster.hardware(), 'devices': mesh.size,
             'processes': jax.process_count(), 'parameters': int(sum(p.size for p in jax.tree.leaves(state.params)))}
  if len(plan.parts) > 1:
    record['passes'] = mixture.passes(plan.parts, config.batch_size, total)
  if plan.teacher:
    run.check_teacher(record, plan.teacher)
  storage.write_json(workdir / 'run.json', record)
  storage.write_text(workdir / 'parameters.txt', run.parameter_table(state.params))
  start, state = checkpoints.restore_latest(state, mesh) or (0, cluster.replicate(state, mesh))
  log.forget_after(start)
  cluster.say(f'{config.name}: {record["parameters"]:,} parameters, {len(source):,} faces of {config.data.dataset} '
              f'({config.data.train}), {total:,} steps of {config.batch_size} on {cluster.hardware()}'
              + (f', from step {start:,}' if start else ''))

  fresh_meter = lambda: cluster.replicate(step.new_meter(setup.recipe.terms), mesh)
  batches = plan.batches(start_step=start, process_index=jax.process_index(), process_count=jax.process_count(),
                         threads=config.data.threads)
  every = lambda epochs: max(1, round(epochs * len(source) / config.batch_size))
  meter, since, waited, meter_from = fresh_meter(), time.perf_counter(), 0.0, start
  progress = tqdm(total=total, initial=start, desc=config.name, unit='step', dynamic_ncols=True,
                  mininterval=0.5 if sys.stderr.isatty() else 30.0, disable=not cluster.is_main())
  trace = Trace(workdir / 'profile', profile)

  with progress, trace:
    for at in range(start, total + 1):
      # Log, evaluate, save, leave if asked to, and only then draw the next batch: state and step are everything.
      asked = preemption.reached(at)
      save = at > start and (at % every(config.checkpoint_every) == 0 or at == total or asked)
      if at > start and (at % config.log_every == 0 or save):
        values = {name: float(value) for name, value in jax.device_get(meter).items()}
        values = {name: value / values['steps'] for name, value in values.items() if name != 'steps'}
        check_finite(values, meter_from, at)
        elapsed = time.perf_counter() - since
        values |= {'learning_rate': float(setup.recipe.learning_rate(at - 1)), 'data_wait': waited / elapsed,
                   'images_per_second': (at - meter_from) * config.batch_size / elapsed}
        log.write(at, 'train', values)
        progress.set_postfix({'loss': f"{values['loss']:.3f}", 'accuracy': f"{values['accuracy']:.3f}"}, refresh=False)
        meter, since, waited, meter_from = fresh_meter(), time.perf_counter(), 0.0, at
      if holdout and at > start and (at % every(config.evaluate_every) == 0 or at == total):
        began = time.perf_counter()
        table = evaluation.collect(plan.evaluator, state.variables(config.select == 'ema'), holdout,
                                   config.eval_batch_size, mesh, config.eval_order)
        counts = confusion.confusion_matrix(table['label'], table['prediction'], len(holdout.classes))
        scores = {'accuracy': confusion.accuracy(counts), 'nll': float(np.nanmean(table['nll'])),
                  'mean_class_accuracy': confusion.mean_class_accuracy(counts)}
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
      state, meter = plan.train_step(state, meter, plan.frozen, cluster.place(batch, mesh))
      progress.update()
  checkpoints.close()
  best.close()
  preemption.saved()

  variables, chosen = run.selected_variables(config, setup, workdir, mesh)
  evaluation.draw_panel(plan.evaluator, cluster.replicate(untrained, mesh), variables, test, config.eval_batch_size,
                        workdir, mesh)
  # The record of the look at the test split says 'finished' too: a run that is killed before has not looked.
  result = evaluation.evaluate_split(config, plan.evaluator, variables, chosen, test, config.data.test, workdir, mesh,
                                     finishes=True)
  print_evaluation(result)
  cluster.say(f'Report: {write_report(workdir)}')
  return result


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
    pretrained: variables whose backbone training starts from, or None.
    setup: model, losses and optimiser.
    train_step: the compiled step, see ``cluster.parallel``.
    evaluator: the compiled evaluation step.
    batches: ``stream.training_batches`` of these parts.
  """

  parts: Sequence[Part]
  holdout_split: str
  holdout: stream.Source | None
  test: stream.Source
  teacher: run.Trained | None
  frozen: Mapping[str, Any]
  pretrained: Mapping[str, Any] | None
  setup: run.Setup
  train_step: Callable[..., Any]
  evaluator: Callable[..., dict[str, Any]]
  batches: Callable[..., Iterator[stream.Batch]]


def make_plan(config: ConfigDict, mesh: Mesh) -> Plan:
  """Opens the data, builds the pure parts and traces both steps once: what is wrong with a config shows here.

  Raises:
    UserError: bad config or data set.
  """
  cluster.check_batch(config.batch_size, mesh)
  cluster.check_batch(config.eval_batch_size, mesh, 'eval_batch_size')
  parts = sources.open_parts(config)
  source = parts[0].source
  if config.parallel == 'pmap':
    mixture.check_devices(parts, config.batch_size, mesh.size)
  holdout_split = config.data.test if config.select == 'best_on_test' else config.data.holdout
  holdout = sources.open_source(config, holdout_split) if holdout_split else None
  test = sources.open_source(config, config.data.test)
  teacher, frozen = run.load_teacher(config, mesh)
  total = max(1, round(config.epochs * len(source) / config.batch_size))
  setup = run.make_setup(config, source.classes, total, teacher)
  train_step = cluster.parallel(functools.partial(step.train_step, setup.recipe), mesh, config.parallel)
  evaluator = evaluation.make_evaluator(setup, mesh)
  batches = functools.partial(stream.training_batches, parts, seed=config.seed, batch_size=config.batch_size)
  like = jax.eval_shape(setup.initial)
  shapes = lambda batch, n: {name: jax.ShapeDtypeStruct((n, *rows.shape[1:]), rows.dtype)
                             for name, rows in batch.items()}
  train_step.eval_shape(like, step.new_meter(setup.recipe.terms), frozen,
                        shapes(next(batches(threads=0)), config.batch_size))
  evaluator.eval_shape(like.variables(), shapes(stream.rows(test, [0]), config.eval_batch_size))
  sources.open_comparisons(config, source.channels)
  pretrained = run.load(config.init_from, mesh).variables if config.init_from else None
  if pretrained:
    jax.eval_shape(with_backbone, like, pretrained)
  return Plan(parts, holdout_split, holdout, test, teacher, frozen, pretrained, setup, train_step, evaluator, batches)


def check_finite(values: dict[str, float], after: int, at: int) -> None:
  """Raises UserError naming the terms where a value logged for steps ``after`` + 1 to ``at`` is not finite."""
  bad = [name for name, value in values.items() if not np.isfinite(value)]
  terms = [name.removeprefix('loss/') for name in bad if name.startswith('loss/')] or bad
  if bad:
    raise UserError(f"{', '.join(terms)} became {values[bad[-1]]} between steps {after + 1} and {at}; the last "
                    "checkpoint is from before. Lower optimizer.learning_rate or the term's weight, or set "
                    'optimizer.clip_norm.')


class MetricsLog:
  """metrics.jsonl: one JSON object per line with 'step', 'kind' and scalars; TensorBoard too where it is installed.

  Process 0 writes.
  """

  def __init__(self, path: epath.Path):
    self._path, self._board = path, None
    if cluster.is_main():
      try:
        from tensorboardX import SummaryWriter  # The extra 'tensorboard'.
        self._board = SummaryWriter(str(path.parent / 'tensorboard'))
      except ImportError:
        pass

  def write(self, at: int, kind: str, values: dict[str, float]) -> None:
    """Appends a line of scalars about step ``at``."""
    storage.append(self._path, json.dumps({'step': at, 'kind': kind, **values}) + '\n')
    if self._board:
      for name, value in values.items():
        self._board.add_scalar(f'{kind}/{name}', value, at)

  def forget_after(self, at: int) -> None:
    """Drops lines after step ``at``, and one that was cut off: the steps will be taken again."""
    if not self._path.exists():
      return
    kept = []
    for line in storage.read_text(self._path).splitlines():
      try:
        if json.loads(line)['step'] <= at:
          kept.append(line + '\n')
      except json.JSONDecodeError:
        pass
    storage.write_text(self._path, ''.join(kept))


class Trace:
  """JAX's profiler around some steps of training: every process writes what its devices did, for XProf."""

  def __init__(self, folder: epath.Path, steps: range):
    self._folder, self._steps, self._running = str(folder), steps, False

  def __enter__(self) -> 'Trace':
    return self

  def __exit__(self, *_) -> None:
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
      cluster.say(f'Trace: {self._folder}')

  def before(self, at: int, state: Any) -> None:
    """Starts or stops at step ``at``, which is about to be taken from ``state``."""
    if at in self._steps and not self._running:
      jax.block_until_ready(state)  # The devices are behind; what they still do is of steps before.
      jax.profiler.start_trace(self._folder)
      self._running = True
    elif self._running and at not in self._steps:
      jax.block_until_ready(state)
      self.__exit__()
