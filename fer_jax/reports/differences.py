"""What may be said of the difference in accuracy between two groups of runs that were tested on the same faces."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fer_jax.errors import UserError
from fer_jax.metrics.comparison import McNemar, Welch, mcnemar, welch
from fer_jax.metrics.intervals import Estimate, bootstrap
from fer_jax.reports.runs import Run
from fer_jax.reports.runs import settings as settings_of
from fer_jax.runtime import storage


class Difference(NamedTuple):
  """A difference in accuracy, in percentage points, and how far chance explains it.

  ``over_seeds`` is of the mean accuracies, ``over_faces`` the interval of the paired bootstrap over faces, of the share
  of seeds that were right on each face, ``mcnemar`` where both are a single run; ``problem`` is a whole sentence on why
  something is None, or ''.
  """

  over_seeds: Welch | None = None
  over_faces: Estimate | None = None
  mcnemar: McNemar | None = None
  problem: str = ''


def compare(ours: Sequence[Run], theirs: Sequence[Run], level: float = 0.95) -> Difference:
  """Compares two groups of runs, each one run or more, that differ in their seed; ``level`` is that of the intervals.

  Faces are compared one by one from the predictions in the workdirs; never those of other faces or other labels.
  """
  tested = {run.result['protocol']['fingerprint'] for run in (*ours, *theirs)}
  if len(tested) > 1:
    return Difference(problem='The runs were not tested on the same faces (fingerprints '
                              f"{', '.join(sorted(one[:12] for one in tested))}), so they are not compared.")
  accuracies = [[100 * run.result['accuracy'] for run in runs] for runs in (ours, theirs)]
  over_seeds = welch(*accuracies, level)
  try:
    answers = [[_right(run) for run in runs] for runs in (ours, theirs)]
  except UserError as error:
    return Difference(over_seeds, problem=f"Not compared face by face: {str(error).rstrip('.')}.")
  labels = [label for runs in answers for label, _ in runs]
  if any(not np.array_equal(label, labels[0]) for label in labels):
    return Difference(problem='The labels of the faces are not the same in all runs, so they are not compared.')
  known = labels[0] >= 0
  right = [np.array([right[known] for _, right in runs]) for runs in answers]
  # Shares of seeds, in percentage points.
  over_faces = bootstrap(np.subtract(*(100.0 * group.mean(axis=0) for group in right)), level=level)
  single = all(len(group) == 1 for group in right)
  return Difference(over_seeds, over_faces, mcnemar(right[0][0], right[1][0]) if single else None)


def disagreements(runs: Sequence[Run], settings: bool = False) -> list[str]:
  """In what runs differ that should be the same, as marks; ``settings``: also in the config, but for the seed."""
  differ = lambda value: len({str(value(run)) for run in runs}) > 1
  marks = ['differing commits'] * differ(lambda run: run.record.get('commit') or run.result['commit'])
  marks += ['differing hardware'] * differ(lambda run: run.record.get('hardware') or run.result['hardware'])
  marks += ['differing data'] * differ(lambda run: [run.record.get('digest'), run.result['protocol']['fingerprint'],
                                                    run.result['protocol']['trained_on']])
  if settings:
    ours = [settings_of(run) for run in runs]
    keys = sorted({key for flat in ours for key in flat if key != 'test data'
                   and any(other.get(key) != flat[key] for other in ours)})
    marks += [f"differing settings ({', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''})"] * bool(keys)
  return marks


def _right(run: Run) -> tuple[np.ndarray, np.ndarray]:
  """Labels (N,) of the test split, and whether a run was right on each of its faces (N,) bool."""
  path = storage.as_path(run.workdir) / 'evaluation' / f"{run.result['protocol']['split']}.npz"
  try:
    saved = storage.read_npz(path)
    label, right = saved['label'], saved['prediction'] == saved['label']
  except FileNotFoundError as error:
    raise UserError(f'there is no {path}') from error
  except (ValueError, KeyError) as error:
    raise UserError(f'{path} is damaged') from error
  known = label >= 0
  if known.sum() != run.result['count'] or abs(right[known].mean() - run.result['accuracy']) > 1e-9:
    raise UserError(f'{path} is not of the evaluation beside it')
  return label, right
