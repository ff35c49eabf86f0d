"""The training loop, readable top to bottom."""

import functools
import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from fer_jax import checkpoint, cluster, evaluation, run, sources, step
from fer_jax.data import mixture, stream
from fer_jax.errors import UserError
from fer_jax.metrics import confusion
from fer_jax.reports.page import write_report
from fer_jax.reports.table import print_evaluation
from fer_jax.state import with_backbone

PREEMPTED = 75  # Exit status after SIGTERM: try again later.


def train(config: ConfigDict, workdir: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
  """Trains, evaluates the test split once and writes the report; goes on where an interrupted run stopped.

  Args:
    config: the whole run.
    workdir: where everything about the run is written: config.json, run.json, parameters.txt, metrics.jsonl,
      checkpoints, evaluation/<split>.json, panel.npz, neighbours.npz and report.html.
    overrides: the command line's changes to the config, for the record.

  Returns:
    The evaluation of the test split.

  Raises:
    UserError: bad config, data set or workdir, or a loss that is not finite.
    SystemExit: status 75 after SIGTERM, with the state saved.
  """
  workdir = Path(workdir)
  mesh = cluster.make_mesh()
  cluster.check_batch(config.batch_size, mesh)
  cluster.check_batch(config.eval_batch_size, mesh, 'eval_batch_size')
  parts = sources.open_parts(config)
  source = parts[0].source
  if config.parallel == 'pmap':
    mixture.check_devices(parts, config.batch_size, mesh.size)
  holdout_split = config.data.test if config.select == 'best_on_test' else config.data.holdout
  holdout = sources.open_source(config, holdout_split) if holdout_split else None
  test = sources.open_source(config, config.data.test)
  steps_per_epoch = len(source) / config.batch_size
  total = max(1, round(config.epochs * steps_per_epoch))
  every = lambda epochs: max(1, round(epochs * steps_per_epoch))
  teacher, frozen = run.load_teacher(config, mesh)
  setup = run.make_setup(config, source.classes, total, teacher)
  train_step = cluster.parallel(functools.partial(step.train_step, setup.recipe), mesh, config.parallel)
  evaluator = evaluation.make_evaluator(setup, mesh)
  batches_from = functools.partial(stream.training_batches, parts, seed=config.seed, batch_size=config.batch_size)
  # Trace once before anything is written: whatever is wrong with the config has shown itself by then.
  like = jax.eval_shape(setup.initial)
  shapes = lambda batch, n: {name: jax.ShapeDtypeStruct((n, *rows.shape[1:]), rows.dtype)
                             for name, rows in batch.items()}
  train_step.eval_shape(like, step.new_meter(setup.recipe.terms), frozen,
                        shapes(next(batches_from(threads=0)), config.batch_size))
  evaluator.eval_shape(like.variables(), shapes(stream.rows(test, [0]), config.eval_batch_size))
  sources.open_comparisons(config, source.channels)
  pretrained = run.load(Path(config.init_from), mesh).variables if config.init_from else None
  if pretrained:
    jax.eval_shape(with_backbone, like, pretrained)

  record = run.open_workdir(config, workdir, overrides)
  if 'finished' in record:  # Evaluating again would be another look at the test split.
    result = json.loads((workdir / 'evaluation' / f'{config.data.test}.json').read_text())
    print_evaluation(result)
    print(f"{workdir} finished at {record['finished']}; nothing to do.")
    return result
  log = MetricsLog(workdir / 'metrics.jsonl')
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints')
  best = checkpoint.Checkpoints(workdir / 'best', keep=1, best='accuracy')
  state = setup.initial()
  if pretrained:
    state = with_backbone(state, pretrained)
  untrained = jax.device_get(state.variables())
  run.check_data(record, source)
  record |= {'classes': list(source.classes), 'channels': source.channels, 'fingerprint': source.fingerprint,
             'digest': source.digest, 'steps': total, 'hardware': cluster.hardware(), 'devices': mesh.size,
             'processes': jax.process_count(), 'parameters': int(sum(p.size for p in jax.tree.leaves(state.params)))}
  if len(parts) > 1:
    record['passes'] = mixture.passes(parts, config.batch_size, total)
  if teacher:
    run.check_teacher(record, teacher)
  run.write_json(workdir / 'run.json', record)
  (workdir / 'parameters.txt').write_text(run.parameter_table(state.params))
  first = checkpoints.latest()
  state = cluster.replicate(state, mesh) if first is None else checkpoints.restore(first, state, mesh)
  start = first or 0
  log.forget_after(start)
  print(f'{config.name}: {record["parameters"]:,} parameters, {len(source):,} faces of {config.data.dataset} '
        f'({config.data.train}), {total:,} steps of {config.batch_size} on {cluster.hardware()}'
        + (f', from step {start:,}' if start else ''))

  fresh_meter = lambda: cluster.replicate(step.new_meter(setup.recipe.terms), mesh)
  batches = batches_from(start_step=start, process_index=jax.process_index(), process_count=jax.process_count(),
                         threads=config.data.threads)
  meter, since, waited, meter_from = fresh_meter(), time.perf_counter(), 0.0, start
  progress = tqdm(total=total, initial=start, desc=config.name, unit='step', dynamic_ncols=True,
                  mininterval=0.5 if sys.stderr.isatty() else 30.0)

  with progress, Preemption() as preemption:
    for at in range(start, total + 1):
      # Log, evaluate, save, leave if asked to, and only then draw the next batch: state and step are everything.
      asked = preemption.asked  # Read once: a signal in the middle of this step is the next step's.
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
        table = evaluation.collect(evaluator, state.variables(config.select == 'ema'), holdout,
                                   config.eval_batch_size, mesh, config.eval_order)
        counts = confusion.confusion_matrix(table['label'], table['prediction'], len(holdout.classes))
        scores = {'accuracy': confusion.accuracy(counts), 'nll': float(np.nanmean(table['nll'])),
                  'mean_class_accuracy': confusion.mean_class_accuracy(counts)}
        log.write(at, holdout_split, scores)
        if config.select in ('holdout', 'best_on_test'):
          best.save(at, state, {'accuracy': scores['accuracy']})
        since += time.perf_counter() - began  # images_per_second is about training alone.
      if save:
        checkpoints.save(at, state)
      if asked and at < total:
        checkpoints.close()
        best.close()
        progress.close()
        print(f'SIGTERM: saved step {at:,}; the same command goes on from here.')
        sys.exit(PREEMPTED)
      if at == total:
        break
      asked_at = time.perf_counter()
      batch = next(batches)
      waited += time.perf_counter() - asked_at
      state, meter = train_step(state, meter, frozen, cluster.place(batch, mesh))
      progress.update()
  checkpoints.close()
  best.close()

  variables, chosen = run.selected_variables(config, setup, workdir, mesh)
  result, table = evaluation.evaluate_split(config, evaluator, variables, chosen, test, config.data.test, workdir, mesh)
  evaluation.draw_neighbours(table, test, workdir)
  evaluation.draw_panel(evaluator, cluster.replicate(untrained, mesh), variables, test, config.eval_batch_size, workdir,
                        mesh)
  run.write_json(workdir / 'run.json', run.read_run(workdir) | {'finished': run.now()})
  print_evaluation(result)
  print(f'Report: {write_report(workdir)}')
  return result


def check_finite(values: dict[str, float], after: int, at: int) -> None:
  """Raises UserError naming the terms where a value logged for steps ``after`` + 1 to ``at`` is not finite."""
  bad = [name for name, value in values.items() if not np.isfinite(value)]
  terms = [name.removeprefix('loss/') for name in bad if name.startswith('loss/')] or bad
  if bad:
    raise UserError(f"{', '.join(terms)} became {values[bad[-1]]} between steps {after + 1} and {at}; the last "
                    "checkpoint is from before. Lower optimizer.learning_rate or the term's weight, or set "
                    'optimizer.clip_norm.')


class MetricsLog:
  """metrics.jsonl: one JSON object per line with 'step', 'kind' and scalars; TensorBoard too where it is installed."""

  def __init__(self, path: Path):
    self._path = path
    try:
      from tensorboardX import SummaryWriter  # The extra 'tensorboard'.
      self._board = SummaryWriter(str(path.parent / 'tensorboard'))
    except ImportError:
      self._board = None

  def write(self, at: int, kind: str, values: dict[str, float]) -> None:
    """Appends a line of scalars about step ``at``."""
    with self._path.open('a') as file:
      file.write(json.dumps({'step': at, 'kind': kind, **values}) + '\n')
    if self._board:
      for name, value in values.items():
        self._board.add_scalar(f'{kind}/{name}', value, at)

  def forget_after(self, at: int) -> None:
    """Drops lines after step ``at``, and one that was cut off: the steps will be taken again."""
    if not self._path.exists():
      return
    kept = []
    for line in self._path.read_text().splitlines():
      try:
        if json.loads(line)['step'] <= at:
          kept.append(line + '\n')
      except json.JSONDecodeError:
        pass
    beside = self._path.with_suffix('.part')
    beside.write_text(''.join(kept))
    beside.replace(self._path)


class Preemption:
  """Remembers a SIGTERM until the loop asks; the handler before it is put back at the end."""

  def __init__(self):
    self.asked = False

  def __enter__(self):
    # Signals reach the main thread only; elsewhere (a test, a notebook's worker) there is nothing to listen to.
    self._listening = threading.current_thread() is threading.main_thread()
    if self._listening:
      self._before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, 'asked', True))
    return self

  def __exit__(self, *_):
    if self._listening:
      signal.signal(signal.SIGTERM, self._before)
