"""Turns a table with one row per evaluated face into the numbers that are printed and written as JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.metrics import action_units, alignment, calibration, causal
from fer_jax.metrics import confusion as rates
from fer_jax.metrics.intervals import mean_rate, wilson


def summarise(table: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
  """Summarises an evaluation.

  Args:
    table: ``label`` (N,) int, -1 unknown; ``prediction`` (N,) int; optionally ``nll`` (N,) negative log-likelihoods;
      optionally ``logits`` (N, K); optionally ``maps`` {name: (N, h, w) float} with ``prior`` (N, H, W),
      ``landmarks_valid`` (N,) bool, and ``causal_mask`` (N, H, W) bool or uint8 where the data set knows it; with maps
      optionally ``unit_maps`` and ``attention`` as in ``action_units.measure``, and ``training_mean`` (S, S) or None.

  Returns:
    A dict that JSON can hold; undefined numbers are None, never NaN. Rates are in [0, 1].
      count: labelled examples; accuracy, accuracy_interval (Wilson, 95 %), mean_class_accuracy, mean_class_interval
      (95 %, ``intervals.mean_rate``), recall {class: rate}, absent_classes (without examples: left out of recall and of
      the mean), confusion (K x K, row = true), classes, macro_f1 (over the classes that occur or were predicted), nll
      (mean over labelled examples, nats), ece (expected calibration error of the labelled examples, 15 bins), brier
      (``calibration.brier``, in [0, 2]),
      alignment {map: {cosine, pearson, count}, with the landmark prior; where faces have action units, the rows of
      ``action_units.measure``; and, with causal masks, {mass_inside_causal_mask, causal_auc, causal_pointing,
      causal_count, causal_left_out}}. Rows too are pictures that owe nothing to the network: 'uniform' and
      'centred_gaussian' know nothing, 'training_mean' knows the training split, and all three are the same for every
      face; 'class_free' knows the landmarks of the face, not its class. ``count`` is the number of faces with
      landmarks; causal_left_out that of the faces whose mask is empty (neutral) or full.
  """
  label, prediction = np.asarray(table['label']), np.asarray(table['prediction'])
  known = label != -1
  confusion = rates.confusion_matrix(label, prediction, len(classes))
  recall = rates.recall(confusion)
  present = np.isfinite(recall)
  result = {
      **overall(confusion),
      'recall': {name: float(r) for name, r, there in zip(classes, recall, present, strict=True) if there},
      'absent_classes': [name for name, there in zip(classes, present, strict=True) if not there],
      'confusion': confusion.tolist(),
      'classes': list(classes),
      'macro_f1': _number(rates.macro_f1(confusion)),
  }
  if 'nll' in table:
    result['nll'] = _mean(np.asarray(table['nll'])[known])
  if 'logits' in table:
    confidence = calibration.top_probability(np.asarray(table['logits'])[known])
    result['ece'] = _number(calibration.expected_calibration_error(confidence, (label == prediction)[known]))
    result['brier'] = _number(calibration.brier(table['logits'], label))
  if table.get('maps'):
    result['alignment'] = _alignment(table, classes)
  return result


def summarise_subsets(label: np.ndarray, prediction: np.ndarray, num_classes: int, subsets: Mapping[str, Any],
                      without_duplicates: np.ndarray | None = None) -> dict[str, Any]:
  """Summarises parts of an evaluated split: what to add to the result of ``summarise``.

  Of ``label`` and ``prediction`` (N,) int, a label -1 unknown, it takes the ``subsets`` {name:
  ``data.subsets.Subset``}, and the rows of ``without_duplicates`` (N,) bool, False for images that the training split
  has too; None where nobody asked.

  Returns, in rates as ``overall`` returns them, subsets {name: rates, listed, duplicates, unmatched, disagreeing,
  without_duplicates: rates}, where there are any, and without_duplicates: rates of the whole split without them. Both
  without_duplicates only where known.
  """
  def of(rows: np.ndarray) -> dict[str, Any]:
    return overall(rates.confusion_matrix(label[rows], prediction[rows], num_classes))

  result: dict[str, Any] = {}
  for name, subset in subsets.items():
    row = of(subset.mask) | {key: getattr(subset, key) for key in ('listed', 'duplicates', 'unmatched', 'disagreeing')}
    if without_duplicates is not None:
      row['without_duplicates'] = of(subset.mask & without_duplicates)
    result.setdefault('subsets', {})[name] = row
  if without_duplicates is not None:
    result['without_duplicates'] = of(without_duplicates)
  return result


def overall(confusion: np.ndarray) -> dict[str, Any]:
  """Count, accuracy and mean_class_accuracy with their intervals, as in ``summarise``, of a (K, K) confusion matrix."""
  count = int(confusion.sum())
  return {
      'count': count,
      'accuracy': _number(rates.accuracy(confusion)),
      'accuracy_interval': list(wilson(int(np.trace(confusion)), count)),
      'mean_class_accuracy': _number(rates.mean_class_accuracy(confusion)),
      'mean_class_interval': list(mean_rate(np.diag(confusion), confusion.sum(axis=1))),
  }


def _alignment(table: Mapping[str, Any], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
  prior, masks, maps = np.asarray(table['prior']), table.get('causal_mask'), dict(table['maps'])
  valid = np.asarray(table['landmarks_valid'], bool)
  constants, units = _constants(table, prior.shape[1:]), {}
  if 'unit_maps' in table:
    units, class_free = action_units.measure(
        maps, table['unit_maps'], np.flatnonzero(valid), np.asarray(table['label']), np.asarray(table['prediction']),
        classes, _constants(table, (action_units.SIZE, action_units.SIZE)), table.get('attention', ()))
  maps |= {name: constant[None] for name, constant in constants.items()}  # One for all faces.
  if units:
    maps[action_units.CLASS_FREE] = class_free
  of = lambda which: {name: values if len(values) == 1 else values[which] for name, values in maps.items()}
  rows = {}
  for name, (cosine, pearson) in alignment.similarities(of(valid), prior[valid]).items():
    rows[name] = {'cosine': _mean(cosine), 'pearson': _mean(pearson), 'count': int(valid.sum()), **units.get(name, {})}
  if masks is not None:
    scored = causal.usable(masks)
    for name, values in of(scored).items():
      mean = lambda score, values=values: _mean(score(values, masks[scored]))
      rows[name] |= {'mass_inside_causal_mask': mean(causal.mass_inside), 'causal_auc': mean(causal.area_under_curve),
                     'causal_pointing': mean(causal.pointing), 'causal_count': int(scored.sum()),
                     'causal_left_out': int((~scored).sum())}
  return rows


def _constants(table: Mapping[str, Any], size: tuple[int, int]) -> dict[str, np.ndarray]:
  """The pictures of a size that are the same for every face."""
  constants = alignment.trivial_maps(size)
  if table.get('training_mean') is not None:
    constants['training_mean'] = alignment.resize(table['training_mean'], size)
  return constants


def _mean(values: np.ndarray) -> float | None:
  return _number(np.mean(values, dtype=np.float64)) if len(values) else None


def _number(value: float) -> float | None:
  return float(value) if math.isfinite(value) else None
