"""Calibrates a run: one temperature for its logits, and the confidence below which it had better not answer."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError
from fer_jax.metrics import calibration as metrics
from fer_jax.runtime import cluster, storage
from fer_jax.training import calibration, evaluation, setup
from fer_jax.training.protocol import describe
from fer_jax.training.workdir import read_finished

_HELD_OUT = ('Train with a part held out (--config.data.train=train --config.data.holdout=valid), or give a part of '
             "the test split, such as --split='test[:20%]', and read test numbers on the rest (evaluate "
             "--split='test[20%:]').")


def calibrate(workdir: str | os.PathLike[str], split: str | None = None, *, accuracy: float | None = None,
              coverage: float | None = None, data_dir: str | None = None
              ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Fits a finished run's temperature on faces that it was not trained on, and writes ``WORKDIR/calibration.json``.

  The predictions that an evaluation of the split has left are used; where there are none it is evaluated, and that
  counts. Evaluations of this network that are there get the calibrated numbers from what they have left. No answer and
  no accuracy changes.

  Args:
    split: of its data set; None: ``config.data.holdout``.
    accuracy: wanted of the answers that are given, see ``metrics.threshold_for``.
    coverage: wanted share of faces that get one, in its place; neither: no threshold.

  Returns:
    The content of the file: what ``calibration.describe`` returns of these faces, but 'after' in place of 'nll', 'ece'
    and 'brier', with 'temperature_interval' (95 %, or None), 'at_bound', 'split', 'count', 'classes', 'fingerprint',
    'protocol' (the verdict) and the stamp; and the evaluations of this network that have calibrated numbers.

  Raises:
    UserError: no run, an unfinished one, no split, one that the network was trained on or of which nobody knows, no
      labels, a network that mixes the faces of a batch, a bad number, or an accuracy that no threshold reaches.
  """
  wanted = _wanted(accuracy, coverage)
  read_finished(workdir)
  mesh = cluster.make_mesh()
  trained = setup.load(workdir, mesh, data_dir=data_dir)
  faces, split, about = _held_out(trained, split)
  if not cluster.once(lambda: _logits(trained, faces, split) is not None):
    cluster.check_batch(trained.protocol.eval_batch_size, mesh, 'eval_batch_size')
    evaluation.evaluate_split(trained, setup.make_evaluator(trained.system, mesh), faces, split, mesh)
  else:
    cluster.say(f'From the predictions that are there: no further evaluation of {split}.')
  return tuple(cluster.once(lambda: _calibrate(trained, faces, split, about, wanted)))


def _wanted(accuracy: float | None, coverage: float | None) -> dict[str, float] | None:
  given = {name: value for name, value in (('accuracy', accuracy), ('coverage', coverage)) if value is not None}
  if len(given) > 1:
    raise UserError('give either --accuracy or --coverage: one threshold has both, and leads from one to the other.')
  for name, value in given.items():
    if not 0 < value <= 1 or value == 1 and name == 'accuracy':
      raise UserError(f'--{name}={value:g}: give a share above 0 and '
                      f"{'below 1' if name == 'accuracy' else 'up to 1'}, such as --{name}=0.9.")
  return given or None


def _held_out(trained: setup.Trained, split: str | None) -> tuple[Split, str, dict[str, Any]]:
  """The faces, the split and its verdict; raises a UserError where a temperature cannot be fitted on them."""
  protocol = trained.protocol
  if protocol.batch_mean:
    raise UserError("config.model.head.global_mean='batch': an answer depends on the other faces of its batch, so it "
                    "has no probability of its own; train with 'running', which learns the same parameters.")
  if not (split := split or protocol.data.holdout):
    raise UserError(f'the run in {trained.workdir} has no holdout (config.data.holdout), so there are no faces to '
                    f'calibrate on. {_HELD_OUT}')
  faces, seen = evaluation.open_split(trained, split), trained.seen()
  about = describe(protocol, trained.record, seen, faces, split)
  if about['seen_in_training'] or any(one.how == 'unknown' for one in seen):
    raise UserError(f"a temperature is fitted on faces that the network was not trained on, but "
                    f"{'; '.join(about['reasons'])}. {_HELD_OUT}")
  if not (faces.labels >= 0).any():
    raise UserError(f'{split} of {protocol.data.dataset} has no labelled faces, so there is nothing to fit to.')
  return faces, split, about


def _calibrate(trained: setup.Trained, faces: Split, split: str, about: Mapping[str, Any],
               wanted: Mapping[str, float] | None) -> list[Any]:
  """Fits to the predictions that are there, writes the file, and brings the evaluations up to date."""
  logits, label = metrics.labelled(_logits(trained, faces, split), faces.labels)
  if not np.isfinite(logits).all():
    raise UserError(f'the network in {trained.workdir} answers with numbers that are not finite; train it again.')
  temperature = metrics.fit_temperature(logits, label)
  confidence, correct = metrics.top_probability(logits, temperature.value), logits.argmax(axis=1) == label
  threshold = metrics.threshold_for(confidence, correct, **wanted) if wanted else None
  found = calibration.describe({'temperature': temperature.value, 'threshold': threshold, 'wanted': wanted}, logits,
                               label)
  found |= {
      'after': {key: found.pop(key) for key in found['before']},
      'temperature_interval': None if temperature.low is None else [temperature.low, temperature.high],
      'at_bound': temperature.at_bound, 'split': split, 'count': len(label), 'classes': list(faces.classes),
      'fingerprint': faces.fingerprint, 'protocol': about, **evaluation.stamp(trained)}
  path = trained.workdir / calibration.FILE
  if before := _before(path):
    cluster.say(f'{path} is replaced: {before}.')
  storage.write_json(path, found)
  return [found, _bring_up(trained)]


def _before(path: Any) -> str:
  """What a calibration was, in words; '' where there is none."""
  try:
    was = storage.read_json(path)
    threshold = '' if was['threshold'] is None else f", threshold {was['threshold']:.4f}"
    return (f"it was temperature {was['temperature']:.4f}{threshold}, fitted on {was['count']:,} faces of "
            f"{was['split']} at step {was['step']:,}, {was['evaluated']}")
  except FileNotFoundError:
    return ''
  except (ValueError, KeyError, TypeError):
    return 'it was damaged'


def _bring_up(trained: setup.Trained) -> list[dict[str, Any]]:
  """Gives the evaluations of this network the calibrated numbers, from the predictions beside them; those that nothing
  can be computed for are told, and lose the numbers of a former calibration."""
  results = []
  for path in sorted((trained.workdir / 'evaluation').glob('*.json')):
    try:
      result = storage.read_json(path)
      split, ours = result['protocol']['split'], result['step'] == trained.step and not result.get('overrides')
    except (ValueError, KeyError, TypeError):
      continue  # Damaged, or of an earlier version; the page says so.
    if not ours:
      continue
    try:
      faces = evaluation.open_split(trained, split)
      logits = _logits(trained, faces, split)
    except (UserError, KeyError):  # Of an earlier version, it does not say of which data it is.
      logits = None
    known = result.pop('calibration', None)
    if logits is not None:
      result |= {'brier': metrics.brier(logits, faces.labels), **calibration.measured(trained, faces, logits)}
      results.append(result)
    else:
      cluster.say(f'{path} has no calibrated numbers: its predictions, or the faces they are of, are not there any '
                  f'more; evaluate --split={split} again.')
    if logits is not None or known:
      storage.write_json(path, result)
  return results


def _logits(trained: setup.Trained, faces: Split, split: str) -> np.ndarray | None:
  """The logits (N, K) that the last evaluation of a split has left; None where none is of this network and data."""
  left = evaluation.saved(trained, faces, split)
  return left[1].get('logits') if left else None
