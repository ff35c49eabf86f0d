"""The training loop, readable top to bottom: a plan, its steps, and what the end does."""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fer_jax.data.reading import mixture
from fer_jax.errors import UserError
from fer_jax.metrics import confusion
from fer_jax.reports.page import write_report
from fer_jax.reports.table import print_evaluation
from fer_jax.runtime import cluster, lock, storage
from fer_jax.runtime.preemption import Preemption
from fer_jax.runtime.progress import progress
from fer_jax.training import evaluation, framing, length, protocol, setup, step
from fer_jax.training.checkpoint import Checkpoints
from fer_jax.training.metrics_log import MetricsLog, Trace, Window, shown
from fer_jax.training.plan import Plan, make_plan
from fer_jax.training.start import settle
from fer_jax.training.workdir import check_data, check_start, check_teacher, is_claimed, open_workdir, parameter_table


def train(config: ConfigDict, workdir: str | Path, overrides: Sequence[str] = (), profile: range = range(0)
          ) -> dict[str, Any]:
  """Trains, evaluates the test split once and writes the report; goes on where an interrupted run stopped.

  Every process of a run calls this with the same arguments.

  Args:
    config: the whole run.
    workdir: where everything about the run is written: config.json, run.json, parameters.txt, metrics.jsonl,
      checkpoints, evaluation/<split>.json, panel.npz, neighbours.npz and report.html. All processes must see it. One
      training at a time holds it, by the file lock in it.
    overrides: the command line's changes to the config, for the record.
    profile: steps whose JAX trace is written to profile/.

  Returns:
    The evaluation of the test split.

  Raises:
    UserError: bad config, data set or workdir, or a loss that is not finite.
    SystemExit: status 75 after SIGTERM, 130 after Ctrl-C, with the state saved.
  """
  with Preemption() as preemption, contextlib.ExitStack() as held:
    workdir, mesh = storage.as_path(workdir), cluster.make_mesh()
    cluster.say(cluster.banner(mesh))
    with cluster.together():
      for told in settle(config, overrides):
        cluster.say(told)
      begun = length.in_minutes(config.length) and cluster.once(lambda: length.begun(workdir))
      plan = make_plan(config, mesh, begun or None)
    record = begin(plan, workdir, overrides, mesh, held)
    if 'finished' in record:  # Evaluating again would be another evaluation of the test split.
      result = cluster.once(lambda: _read_result(workdir, plan.protocol.data.test))
      lacks = cluster.once(lambda: _lacks_report(workdir, record))
      cluster.say(f"{workdir} finished at {record['finished']}; "
                  f"{'its report is made now, without another evaluation' if lacks else 'nothing to do'}.")
    else:
      take_steps(plan, workdir, mesh, profile, preemption)
      preemption.saved()
      result, lacks = finish(plan, workdir, mesh), True
    print_evaluation(result, report=write_report(workdir) if lacks else workdir / 'report.html')
  return result


def begin(plan: Plan, workdir: epath.Path, overrides: Sequence[str], mesh: Mesh, held: contextlib.ExitStack
          ) -> dict[str, Any]:
  """Claims the workdir and writes what is known before the first step; returns the record of the run.

  Args:
    held: where process 0 puts its hold on the workdir.

  Raises:
    UserError: the processes do not agree, or the workdir holds another run, or this one with other data, or another
      training is at it.
  """
  faces, data = plan.faces, plan.protocol.data
  cluster.check_same('the config', json.dumps(plan.settings))
  cluster.check_same('the training split', faces.fingerprint)
  cluster.check_same('the start of config.init_from', json.dumps(plan.start))
  cluster.once(lambda: is_claimed(workdir, plan.settings))  # Before a file is put there.
  if note := cluster.once(lambda: held.enter_context(lock.alone(workdir))):
    cluster.say(note)
  record = cluster.once(lambda: open_workdir(plan.settings, workdir, overrides))
  with cluster.together():
    if not (workdir / 'config.json').exists():
      raise UserError(f'{workdir} holds no config.json here, though process 0 has written it: all processes must see '
                      'one workdir, on a file system that their hosts share or under gs://.')
    check_data(record, faces)
  if 'finished' in record:
    return record
  params, total = jax.eval_shape(plan.initial).params, plan.system.total_steps
  record |= {'classes': list(faces.classes), 'channels': faces.channels, 'fingerprint': faces.fingerprint,
             'digest': faces.digest, 'shareable': faces.shareable, 'steps': total, 'hardware': cluster.hardware(),
             'devices': mesh.size, 'processes': jax.process_count(),
             'dtype': plan.system.recipe.model.backbone.dtype.name,
             'parameters': int(sum(p.size for p in jax.tree.leaves(params)))}
  if 'align_size' not in record:
    record |= cluster.once(lambda: framing.framing(faces, data.variant))
  if len(plan.parts) > 1:
    record['passes'] = mixture.passes(plan.parts, plan.batch_size, total)
  if plan.holdout_split:
    record['holdout_evaluations'] = {plan.holdout_split: -(-total // plan.evaluate_every)}  # By its end.
  if plan.teacher:
    check_teacher(record, plan.teacher)
  if plan.start:
    check_start(record, plan.start)
  protocol.remember(workdir, record, plan.seen)
  storage.write_json(workdir / 'run.json', record)
  storage.write_text(workdir / 'parameters.txt', parameter_table(params))
  cluster.say(f'{plan.protocol.name}: {record["parameters"]:,} parameters, {len(faces):,} faces of {data.dataset} '
              f'({data.train}), {total:,} steps of {plan.batch_size} rows, {plan.batch_size // mesh.size} a device')
  for reason in protocol.verdict(plan.protocol, plan.seen, plan.test, data.test)['reasons']:
    cluster.say(f'The result on {data.test} will be marked as leaky: {reason}.')
  return record


def take_steps(plan: Plan, workdir: epath.Path, mesh: Mesh, profile: range, preemption: Preemption) -> None:
  """Takes the steps that are left, from the newest checkpoint on; the last state is saved at the end.

  Raises:
    UserError: a loss that is not finite, or a full disk.
    SystemExit: status 75 after SIGTERM, 130 after Ctrl-C, with the state saved.
  """
  log = MetricsLog(workdir / 'metrics.jsonl')
  fresh_meter = lambda: cluster.replicate(plan.new_meter(), mesh)
  state, total = plan.initial(), plan.system.total_steps
  with contextlib.ExitStack() as held:
    checkpoints = held.enter_context(Checkpoints(
        workdir / 'checkpoints', minutes=plan.checkpoint_minutes, write=True))
    best = held.enter_context(Checkpoints(workdir / 'best', keep=1, best='accuracy', write=True))
    start, state = checkpoints.restore_latest(state, mesh) or (0, cluster.replicate(state, mesh))
    before = log.forget_after(start)
    if start:
      cluster.say(f'Going on from step {start:,} of {total:,}.')
    feed = held.enter_context(contextlib.closing(plan.feed(start, mesh, one_by_one=bool(profile))))
    at, meter = start, fresh_meter()
    window = Window(start, total, mesh.size, before.get('device_hours', 0.0), plan.ideal_seconds(mesh))
    bar = held.enter_context(progress(
        total=total, initial=start, desc=plan.protocol.name, unit='step', disable=not cluster.is_main()))
    trace = held.enter_context(Trace(workdir / 'profile', profile))
    while True:
      # Log, evaluate, save, leave if asked to, and only then take what is next: state and step are everything.
      ends = at == total or preemption.reached()
      due = at % plan.checkpoint_every == 0
      line = at > start and (at % plan.log_every == 0 or due or ends)
      if line:
        values = window.read(meter, at, plan.batch_size)
        log.write(at, 'train', values | {'learning_rate': float(plan.system.recipe.learning_rate(at - 1))})
        bar.set_postfix(shown(values), refresh=False)
        meter = fresh_meter()
      if plan.holdout and at > start and (at % plan.evaluate_every == 0 or at == total):
        with window.paused():
          scores = evaluate_holdout(plan, state.variables(plan.protocol.variables == 'ema'), mesh)
          log.write(at, plan.holdout_split, scores)
          if plan.keeps_best:
            best.save(at, state, {'accuracy': scores['accuracy']})
      if line and ends:
        checkpoints.save(at, state)
      elif line:
        checkpoints.offer(at, state, due)
      if ends:
        break
      trace.before(at, state)
      with window.waiting():
        steps, take = next(feed)
      state, meter = take(state, meter)
      window.dispatched(meter, len(steps))
      at = steps.stop
      bar.update(len(steps))
  if at < total:
    cluster.say(f'{preemption.word}: step {at:,} is saved; the same command goes on from here.' if at else
                f'{preemption.word} before the first step; the same command starts again.')
    sys.exit(preemption.status)


def evaluate_holdout(plan: Plan, variables: dict[str, Any], mesh: Mesh) -> dict[str, float]:
  """Scores of the holdout split, for metrics.jsonl."""
  table = evaluation.collect(plan.scorer, variables, plan.holdout, plan.protocol.eval_batch_size, mesh,
                             plan.protocol.eval_order, step.scored_fields(plan.system.recipe))
  counts = confusion.confusion_matrix(table['label'], table['prediction'], len(plan.holdout.classes))
  return {'accuracy': confusion.accuracy(counts), 'nll': float(np.nanmean(table['nll'])),
          'mean_class_accuracy': confusion.mean_class_accuracy(counts)}


def finish(plan: Plan, workdir: epath.Path, mesh: Mesh) -> dict[str, Any]:
  """Draws the maps before and after training, and evaluates the network on the test split, once.

  Args:
    workdir: of the run; its training has ended, and its last state is saved there.

  Returns:
    The evaluation of the test split.
  """
  untrained = cluster.replicate(plan.initial().variables(), mesh)
  trained = setup.selected(plan.protocol, plan.system, workdir, mesh)
  evaluation.draw_panel(trained, untrained, plan.evaluator, plan.test, mesh)
  return evaluation.evaluate_split(trained, plan.evaluator, plan.test, plan.protocol.data.test, mesh, finishes=True)


def _read_result(workdir: epath.Path, split: str) -> dict[str, Any]:
  path = workdir / 'evaluation' / f'{split}.json'
  try:
    result = storage.read_json(path)
  except (FileNotFoundError, ValueError) as error:
    what = 'gone' if isinstance(error, FileNotFoundError) else f'damaged ({error})'
    raise UserError(f'the run in {workdir} has finished, but {path} is {what}; put it back, or choose another '
                    '--workdir.') from error
  return result


def _lacks_report(workdir: epath.Path, record: Mapping[str, Any]) -> bool:
  """Whether the page is not there, or from before the run was finished: the end was cut off, or the disk full."""
  try:
    return record['finished'] not in storage.read_text(workdir / 'report.html')
  except (FileNotFoundError, ValueError):
    return True
