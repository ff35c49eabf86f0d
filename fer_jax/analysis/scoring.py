"""Anybody's predictions on the faces of a split, scored as an evaluation of a run is, and beside a run.

What the network behind them has seen, nobody here knows: its protocol is what its author declares, never a verdict.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from fer_jax.data.preparing import preparation
from fer_jax.data.preparing.files import composed
from fer_jax.data.reading import predictions, splits, subsets
from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError
from fer_jax.metrics.comparison import mcnemar
from fer_jax.metrics.intervals import bootstrap
from fer_jax.metrics.summary import summarise, summarise_subsets
from fer_jax.runtime import storage
from fer_jax.training.evaluation import answers
from fer_jax.training.workdir import commit, now

_SHOWN = 3  # Names of faces in a sentence.

NONE = -1  # The prediction of a face without an answer, or with one that is none of the classes: wrong.


class Answers(NamedTuple):
  """What was predicted for the N faces of a split, in its order.

  Attributes:
    prediction: (N,) int, ``NONE`` where none of the classes was answered.
    logits: (N, C) of the classes and perhaps others, NaN where there is no answer; None where only classes are known.
    answered: (N,) bool.
    about: what else to know of them, as JSON has it.
  """

  prediction: np.ndarray
  logits: np.ndarray | None
  answered: np.ndarray
  about: dict[str, Any]


def score(path: str | os.PathLike[str], dataset: str, split: str, *, variant: str = '', data_dir: str = '',
          subset_lists: Sequence[str] = (), duplicates: str = '', against: str = '', protocol: str = '', name: str = ''
          ) -> dict[str, Any]:
  """Scores a file of predictions; see ``data/reading/predictions.py``, or evaluation/SPLIT.npz of a run.

  Faces without a row, or whose row has no answer, count as wrong in accuracy, recall and all that is made of these.
  NLL, ECE and Brier score are of the faces that were answered, and only where there are probabilities.

  Args:
    dataset, variant, split, data_dir: the faces, as ``splits.open_split`` takes them.
    subset_lists: files as ``subsets.read_list`` takes them.
    duplicates: a split of the data set; also without the faces whose images it has too.
    against: the workdir of a run that was evaluated on this split.
    protocol: how the network was trained and chosen, in its author's words.
    name: of the network; '': the file's.

  Returns:
    What ``summarise`` and ``summarise_subsets`` return, and
      name; protocol: dataset, variant, split, classes (where only faces of these are scored), K, fingerprint, n, and
      'declared', the words of its author or '';
      predictions: file, sha256, answered (faces with a label that were), missing (those without a row) with
      first_missing, empty (those whose row has no answer), others (answers that are none of the data set's classes)
      with other_classes, absent (its classes that never have a probability), unknown (names that the split does not
      have) with first_unknown, several (faces with several rows);
      against (where asked): workdir, name, seed, step, accuracy, accuracy_interval, protocol, difference (value, low,
      high: the paired bootstrap over faces of our accuracies' difference), ours_only and theirs_only (faces that these
      predictions, or the run, alone got right) and p_value (McNemar's exact test);
      commit, evaluated.

  Raises:
    UserError: a bad file, data that are not there, a split without labels, or a run that was not evaluated on it.
  """
  path, content = storage.as_path(path), None
  if path.suffix == '.npz':
    content = _read_saved(path)
  faces = _open(dataset, variant, split, data_dir, content)
  label = faces.labels
  if not (label >= 0).any():
    raise UserError(f'{split} of {dataset} has no labelled faces, so nothing can be scored.')
  found = _saved(path, content, faces) if content else _joined(path, faces)
  result = _summary(found, label, faces.classes)
  originals = None
  if duplicates:
    seen = splits.open_split(dataset, variant, duplicates, data_dir, classes=_restriction(faces))
    originals = ~np.isin(faces.images, seen.images)
  lists = {one: subsets.match(entries, faces.names, label) for one, entries in subsets.read_lists(subset_lists).items()}
  result |= summarise_subsets(label, found.prediction, len(faces.classes), lists, originals)
  if against:
    result['against'] = _against(storage.as_path(against), faces, split, found.prediction == label)
  if dataset != 'folder':
    variant = preparation.make_builder(dataset, variant).builder_config.name
  return result | {
      'name': name or (path.parents[1].name if content else path.stem),
      'protocol': {'dataset': dataset, 'variant': variant, 'split': split, 'declared': protocol.strip(),
                   'classes': list(_restriction(faces)), 'K': len(faces.classes), 'fingerprint': faces.fingerprint,
                   'n': result['count']},
      'predictions': {'file': os.fspath(path), 'sha256': hashlib.sha256(path.read_bytes()).hexdigest(), **found.about},
      'commit': commit(), 'evaluated': now()}


def _open(dataset: str, variant: str, split: str, data_dir: str, saved: Mapping[str, np.ndarray] | None) -> Split:
  """The split; of a run that knows only some of its classes, those faces."""
  faces = splits.open_split(dataset, variant, split, data_dir)
  theirs = list(faces.classes) if saved is None else saved['classes'].tolist()
  if theirs != list(faces.classes) and set(theirs) <= set(faces.classes):
    return splits.open_split(dataset, variant, split, data_dir, classes=theirs)
  return faces


def _restriction(faces: Split) -> tuple[str, ...]:
  """The classes that a split is restricted to; () where it has all faces."""
  return faces.classes if faces.restricted else ()


def _read_saved(path: epath.Path) -> dict[str, np.ndarray]:
  try:
    saved = storage.read_npz(path)
    return {name: saved[name] for name in ('label', 'prediction', 'logits', 'classes')}
  except FileNotFoundError as error:
    raise UserError(f'there is no file {path}; evaluate the run first:\n  python -m fer_jax.evaluate '
                    f'--workdir={path.parent.parent}') from error
  except (ValueError, KeyError) as error:
    raise UserError(f'{path} is damaged, or holds no predictions of a run ({error}).') from error


def _saved(path: epath.Path, saved: Mapping[str, np.ndarray], faces: Split) -> Answers:
  """The predictions that an evaluation of a run has saved, in the order of the split."""
  if saved['classes'].tolist() != list(faces.classes) or not np.array_equal(saved['label'], faces.labels):
    raise UserError(f'{path} is not of these faces: its labels are not those of the split. Give --dataset, --variant '
                    'and --split as its run had them.')
  known = faces.labels >= 0
  return Answers(saved['prediction'], saved['logits'], np.ones(len(known), bool), _about(known, known))


def _joined(path: epath.Path, faces: Split) -> Answers:
  """The rows of a file, joined with the faces by name."""
  read = predictions.read(path, faces.classes)
  entries = [subsets.Entry(composed(row.name), None, composed(row.name)) for row in read.rows]
  of_face: dict[int, list[predictions.Row]] = {}
  unknown = []
  for row, face in zip(read.rows, subsets.find(entries, faces.names), strict=True):
    if face is None:
      unknown.append(row.name)
    else:
      of_face.setdefault(face, []).append(row)
  if not of_face:
    raise UserError(f"{path}: none of its {len(read.rows):,} names is of the split's faces; its first is "
                    f"'{read.rows[0].name}', the split's '{faces.names[0]}'.")
  count, known = len(faces), faces.labels >= 0
  chosen = {face: predictions.repeated(rows, path) for face, rows in of_face.items()}
  given = {face: row for face, row in chosen.items() if row.answer is not None}
  there, answered, prediction = np.zeros(count, bool), np.zeros(count, bool), np.full(count, NONE)
  there[list(chosen)], answered[list(given)] = True, True
  logits = np.full((count, len(read.classes)), np.nan) if read.columns else None
  others = []
  for face, row in given.items():
    if row.answer < len(faces.classes):
      prediction[face] = row.answer
    elif known[face]:
      others.append(read.classes[row.answer])
    if logits is not None:
      with np.errstate(divide='ignore'):
        logits[face] = np.log(row.probabilities)
  absent = []
  if logits is not None:
    answerable = np.isfinite(logits[answered]).any(axis=0)
    absent = [one for one, there_is in zip(faces.classes, answerable, strict=False) if not there_is]
  missing = [faces.names[face] for face in np.flatnonzero(known & ~there)]
  empty = int((known & there & ~answered).sum())
  return Answers(prediction, logits, answered, _about(
      known, answered, missing=len(missing), first_missing=missing[:_SHOWN], empty=empty,
      others=len(others), other_classes=sorted(set(others)), absent=absent, unknown=len(unknown),
      first_unknown=unknown[:_SHOWN], several=sum(len(rows) > 1 for rows in of_face.values())))


def _about(known: np.ndarray, answered: np.ndarray, **more: Any) -> dict[str, Any]:
  return {'answered': int((known & answered).sum()), 'missing': 0, 'first_missing': [], 'empty': 0, 'others': 0,
          'other_classes': [], 'absent': [], 'unknown': 0, 'first_unknown': [], 'several': 0, **more}


def _summary(found: Answers, label: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
  """As ``evaluation`` has it: rates of all faces, and what needs probabilities of those that were answered."""
  result = summarise({'label': label, 'prediction': found.prediction}, classes)
  if found.logits is None:
    return result
  rows = found.answered
  table = {'label': label[rows], 'prediction': found.prediction[rows], 'logits': found.logits[rows]}
  with np.errstate(invalid='ignore'):
    table['nll'] = answers(table['logits'], table['label'])['nll']
  return result | {key: value for key, value in summarise(table, classes).items() if key not in result}


def _against(workdir: epath.Path, faces: Split, split: str, right: np.ndarray) -> dict[str, Any]:
  """The difference to the accuracy of a run, from the predictions that its evaluation has saved.

  Args:
    right: (N,) bool, whether ours are.
  """
  path = workdir / 'evaluation' / f'{split}.json'
  try:
    theirs, saved = storage.read_json(path), storage.read_npz(path.with_suffix('.npz'))
    label, prediction, about = saved['label'], saved['prediction'], theirs['protocol']
    told = {key: theirs[key] for key in ('name', 'seed', 'step', 'accuracy', 'accuracy_interval')}
  except FileNotFoundError as error:
    raise UserError(f'--against={workdir}: it has no evaluation of {split}. Make one:\n'
                    f'  python -m fer_jax.evaluate --workdir={workdir} --split={split}') from error
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f'--against={workdir}: {path}, or the .npz file beside it, is damaged ({error}).') from error
  if about['fingerprint'] != faces.fingerprint or not np.array_equal(label, faces.labels):
    raise UserError(f"--against={workdir}: it was evaluated on {split} of {about['dataset']} ({about['variant']}), and "
                    'not on these very faces. Give --dataset, --variant and --split as it had them.')
  known = label >= 0
  ours, run = right[known], (prediction == label)[known]
  difference, test = bootstrap(ours.astype(np.float64) - run), mcnemar(ours, run)
  return {'workdir': os.fspath(workdir), **told, 'protocol': about,
          'difference': {'value': difference.value, 'low': difference.low, 'high': difference.high}, **test._asdict()}
