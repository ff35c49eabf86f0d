"""A run's temperature and threshold, ``WORKDIR/calibration.json``, and what they do to the numbers of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError
from fer_jax.metrics import calibration as metrics
from fer_jax.runtime import cluster, storage
from fer_jax.training.protocol import Seen

if TYPE_CHECKING:
  from fer_jax.training.setup import Trained

FILE = 'calibration.json'


def read(workdir: str | os.PathLike[str], step: int) -> dict[str, Any] | None:
  """What ``calibrate`` has found for the network of a run, the content of its calibration.json.

  Args:
    step: of the network. A calibration of another step is told, and is not this network's.

  Returns:
    A dict with at least 'temperature' (float above 0), 'threshold' (float in [0, 1] on the top calibrated probability,
    or None), 'wanted' (what gave the threshold, or None), 'step', 'split', 'count', 'before' and 'after' {nll, ece,
    brier} and 'protocol'; None where there is none of this step.

  Raises:
    UserError: the file is damaged.
  """
  path = storage.as_path(workdir) / FILE
  try:
    found = storage.read_json(path)
    theirs, _ = found['step'], float(found['temperature'])
  except FileNotFoundError:
    return None
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f'{path} is damaged ({type(error).__name__}: {error}); delete it, or calibrate again:\n'
                    f'  python -m fer_jax.calibrate --workdir={workdir}') from error
  if theirs != step:
    cluster.say(f'{path} is of step {theirs:,}, the network of step {step:,}: it is left out; calibrate again.')
    return None
  return found


def measured(trained: Trained, faces: Split, logits: np.ndarray) -> dict[str, Any]:
  """What a run's calibration does to its answers on a split.

  Args:
    faces: N of them.
    logits: (N, K), of the network as it is.

  Returns:
    {} where the network has no calibration; else 'calibration', the content of ``describe`` with 'fitted_on' and
    'count', the split and the number of faces that the temperature was fitted on, and 'overlap', how many of these with
    a label are among them (None where the data are no longer those of then). Where there are any, the numbers are not
    those of faces that the calibration never met; predictions and accuracy know nothing of it.

  Where calibration.json is damaged that is told, and costs no evaluation: {}.
  """
  try:
    found = read(trained.workdir, trained.step)
  except UserError as error:
    cluster.say(f'No calibrated numbers: {error}')
    return {}
  if found is None:
    return {}
  try:
    fitted = trained.protocol.data.open(found['split'])
    same = fitted.fingerprint == found['fingerprint']
    inside = Seen.of(fitted, found['split']).inside(faces) & (faces.labels >= 0)
    overlap = int(inside.sum()) if same else None
  except UserError:  # The data set has no such split any more.
    overlap = None
  return {'calibration': describe(found, logits, faces.labels) | {
      'fitted_on': found['split'], 'count': found['count'], 'overlap': overlap}}


def describe(found: Mapping[str, Any], logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
  """How logits (N, K) do on faces with labels (N,), -1 unknown, at a temperature, and what its threshold leaves.

  Args:
    found: with 'temperature', 'threshold' (or None) and 'wanted'.

  Returns:
    A dict that JSON can hold, rates in [0, 1], of the faces with a label: these three; 'nll' (nats), 'ece' and 'brier'
    at the temperature, 'before' the same at 1; 'reliability' {before, after: bins}; 'risk_coverage', points of the
    curve, and 'aurc', the area below it; 'answered', what ``metrics.answered`` says of the threshold, where there is
    one. Without a label anywhere, the first three and numbers that are None.
  """
  logits, label = metrics.labelled(logits, label)
  kept = {key: found[key] for key in ('temperature', 'threshold', 'wanted')}
  temperature, correct = found['temperature'], logits.argmax(axis=1) == label
  scores = kept | metrics.scores(logits, label, temperature) | {'before': metrics.scores(logits, label)}
  if not len(label):
    return scores
  before, after = (metrics.top_probability(logits, each) for each in (1.0, temperature))
  curve = metrics.risk_coverage(after, correct)
  if found['threshold'] is not None:
    scores['answered'] = metrics.answered(after, correct, found['threshold'])
  return scores | {
      'reliability': {'before': metrics.reliability(before, correct), 'after': metrics.reliability(after, correct)},
      'risk_coverage': metrics.thinned(curve), 'aurc': metrics.area(curve)}
