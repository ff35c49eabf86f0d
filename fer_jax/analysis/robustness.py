"""How well runs hold up against drawn corruptions: the same faces again, kind by kind and severity by severity."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fer_jax import __version__
from fer_jax.analysis import transfer
from fer_jax.analysis.corruptions import KINDS, check_kinds, corrupt
from fer_jax.errors import UserError
from fer_jax.metrics.confusion import confusion_matrix
from fer_jax.metrics.summary import overall
from fer_jax.runtime import cluster, storage
from fer_jax.training import evaluation, setup
from fer_jax.training.protocol import describe, evaluated
from fer_jax.training.workdir import read_finished

_draw = jax.jit(corrupt, static_argnames='kind')  # One program for all severities, seeds and runs.


def measure(workdir: Path, split: str | None = None, kinds: Sequence[str] = (), *, data_dir: str | None = None,
            seed: int = 0) -> dict[str, Any]:
  """Evaluates a run on corrupted faces and writes ``WORKDIR/robustness/<split>.json``.

  The network's step is compiled once, and the drawing once for each kind: severities are arguments. Kinds that the file
  has of this very network and data are kept; where all are there, nothing is computed. Else it is a look at the split.

  Args:
    split: as in ``evaluation.evaluate_run``, and so is ``data_dir``.
    kinds: names in ``corruptions.KINDS``; none for all.

  Returns:
    The content of the file. Rates are count, accuracy, accuracy_interval (Wilson, 95 %) and mean_class_accuracy.
      clean: rates of the faces as they are; majority: the largest class of the split and its share;
      kinds {kind: {what, levels [{severity, label, relative_drop, rates}]}}, where relative_drop is the part of the
      clean accuracy that is lost; differs: of how many faces the clean answer is not that of the run's evaluation, None
      where there is none of this step and data; protocol as in an evaluation; augment: what training showed.

  Raises:
    UserError: no run, or one that has not finished, an unknown kind, or a split without labels.
  """
  kinds = tuple(kinds) or tuple(KINDS)
  check_kinds(kinds)
  record, mesh = read_finished(workdir), cluster.make_mesh()
  trained = setup.load(workdir, mesh, data_dir=data_dir)
  protocol = trained.protocol
  split = split or protocol.data.test
  source = evaluation.open_split(trained, split)
  counts = np.bincount(source.labels[source.labels >= 0], minlength=len(source.classes))
  if not counts.any():
    raise UserError(f'{split} of {protocol.data.dataset} has no labelled faces, so nothing can be scored.')
  path = workdir / 'robustness' / f'{split}.json'
  about = {'protocol': describe(protocol, record, trained.seen(), source, split) | {'n': int(counts.sum())},
           'step': trained.step, 'drawn_with_seed': seed, 'fer_jax': __version__}
  left = _left(path, about)
  missing = [kind for kind in kinds if kind not in left.get('kinds', {})]
  if not missing:
    cluster.say(f'Measured at {left["evaluated"]}: no further evaluation of {split}.')
    return left
  network = transfer.evaluator(trained, mesh)

  def answers(kind: str, severity: float) -> np.ndarray:
    evaluator = lambda variables, batch: network(variables, _draw(batch, kind, np.float32(severity), seed))
    return evaluation.outputs_of(evaluator, trained.variables, source, protocol.eval_batch_size, mesh,
                                 protocol.eval_order)['logits'].argmax(axis=1)

  rates = lambda predictions: overall(confusion_matrix(source.labels, predictions, len(source.classes)))
  untouched = answers(missing[0], 0.0)
  clean = rates(untouched)

  def level(kind: str, severity: float) -> dict[str, Any]:
    found = rates(answers(kind, severity))
    lost = 1 - found['accuracy'] / clean['accuracy'] if clean['accuracy'] else None
    return {'severity': severity, 'label': KINDS[kind].label(severity), 'relative_drop': lost, **found}

  measured = left.get('kinds', {}) | {
      kind: {'what': KINDS[kind].what, 'levels': [level(kind, severity) for severity in KINDS[kind].severities]}
      for kind in missing}
  evaluated_before = evaluation.saved(trained, source, split)
  result = about | evaluation.stamp(trained) | {
      'clean': clean, 'majority': {'class': source.classes[int(counts.argmax())],
                                   'share': float(counts.max() / counts.sum())},
      'kinds': {kind: measured[kind] for kind in KINDS if kind in measured}, 'classes': list(source.classes),
      'differs': evaluated_before and int((evaluated_before[1]['prediction'] != untouched).sum()),
      'augment': trained.system.recipe.augment}
  storage.write_json(path, result)
  storage.write_json(workdir / 'run.json', record | {'evaluations': evaluated(record, source, split)[0]})
  return result


def _left(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
  """What was measured before of the same network and data with the same draws and severities; {} where nothing was."""
  try:
    result = storage.read_json(path)
    if any(json.loads(json.dumps(value)) != result[key] for key, value in about.items()):
      return {}
    severities = lambda kind: tuple(level['severity'] for level in result['kinds'][kind]['levels'])
    kept = {kind: result['kinds'][kind] for kind in result['kinds']
            if kind in KINDS and severities(kind) == KINDS[kind].severities}
    return result | {'kinds': kept}
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    return {}
