"""How often an embedding finds the odd one of three faces (Google FEC, arXiv 1811.11283), and how sure that number is.

Triplets share faces, so they are not independent, and an interval that takes them for so is too narrow. Here the faces
are resampled, not the triplets.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.metrics.intervals import wilson

_CHUNK = 2**20  # Numbers of an embedding that are gathered at once.


def correct(embedding: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Which triplets are right: the first two faces are closer to each other than either is to the odd one.

  A triplet (a, b, o) is right where |a - b|^2 < |a - o|^2 and |a - b|^2 < |b - o|^2, in float64. A tie is wrong, so an
  embedding that has collapsed to a point scores 0. Chance is 1/3.

  Args:
    embedding: (N, D) real, a row for each face.
    rows: (M, 3) int, rows of ``embedding``; the last is the odd one.

  Returns:
    (M,) bool.

  Raises:
    ValueError: the shapes are not those, a row does not exist, or the embedding of a face in a triplet is not finite.
  """
  embedding, rows = np.asarray(embedding), np.asarray(rows)
  if embedding.ndim != 2 or rows.ndim != 2 or rows.shape[1] != 3:
    raise ValueError(f'embedding {embedding.shape} must be (N, D) and rows {rows.shape} (M, 3)')
  if rows.size and not (0 <= rows.min() and rows.max() < len(embedding)):
    raise ValueError(f'rows lie in [{rows.min()}, {rows.max()}] but there are {len(embedding)} faces')
  right = np.zeros(len(rows), bool)
  step = max(1, _CHUNK // max(1, embedding.shape[1]))
  for start in range(0, len(rows), step):
    a, b, odd = (embedding[faces].astype(np.float64) for faces in rows[start:start + step].T)
    if not all(np.isfinite(faces).all() for faces in (a, b, odd)):
      raise ValueError('the embedding of a face in a triplet is not finite')
    alike = _squared_distance(a, b)
    right[start:start + step] = (alike < _squared_distance(a, odd)) & (alike < _squared_distance(b, odd))
  return right


def summarise_triplets(embedding: np.ndarray, rows: np.ndarray, types: np.ndarray, type_names: Sequence[str],
                       listed: Sequence[int], resamples: int = 1000) -> dict[str, Any]:
  """Accuracy over all triplets and by type, each with a 95 % interval.

  The interval is a percentile bootstrap over faces: a resample draws as many faces as occur in the triplets, evenly and
  with replacement, and a triplet weighs the product of how often its three faces were drawn (A. B. Owen, 'The
  pigeonhole bootstrap', Annals of Applied Statistics 1, 2007). It allows for new faces as well as new triplets. As Owen
  shows, it errs on the wide side: a triplet's own chance counts up to seven times in the variance, so where hardly any
  faces are shared the interval is up to 2.6 times too wide, and it comes to its true width where each face is in many
  triplets. Resamples without any triplet are left out. The interval is never narrower than Wilson's, which is what
  would hold without shared faces: a few triplets that are all right tell a bootstrap nothing of how wrong it may be.

  Args:
    embedding: (N, D) real, a row for each face.
    rows: (M, 3) int, rows of ``embedding``; the last is the odd one.
    types: (M,) int, indices into ``type_names``.
    type_names: a name for each type.
    listed: by type, how many triplets there were before some were left out.
    resamples: how many resamples; drawn from a fixed seed, so the same triplets give the same interval.

  Returns:
    A dict that JSON can hold: count, listed, accuracy in [0, 1], accuracy_interval [low, high], and types {name: the
    same four}. Without triplets, accuracy and interval are None.

  Raises:
    ValueError: as ``correct``, or types and names do not fit.
  """
  rows, types, kinds = np.asarray(rows), np.asarray(types, np.int64), len(type_names)
  known = not types.size or 0 <= types.min() <= types.max() < kinds
  if types.shape != (len(rows),) or len(listed) != kinds or not known:
    raise ValueError(f'types {types.shape} of {len(rows)} triplets, {len(listed)} listed, and {kinds} names do not fit')
  right = correct(embedding, rows)
  scored = _sums(types, right, np.ones(len(rows)), kinds)
  resampled = _resample(rows, types, right, kinds, resamples)
  by_type = {name: _rates(scored[k], resampled[:, k], int(listed[k])) for k, name in enumerate(type_names)}
  return _rates(scored.sum(axis=0), resampled.sum(axis=1), int(sum(listed))) | {'types': by_type}


def _squared_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return np.square(a - b).sum(axis=1)


def _sums(types: np.ndarray, right: np.ndarray, weights: np.ndarray, kinds: int) -> np.ndarray:
  """(kinds, 2) float64: summed weights of the wrong and of the right triplets of each type."""
  return np.bincount(2 * types + right, weights, 2 * kinds).reshape(kinds, 2)


def _resample(rows: np.ndarray, types: np.ndarray, right: np.ndarray, kinds: int, resamples: int) -> np.ndarray:
  """(resamples, kinds, 2) float64: ``_sums`` of each resample of the faces."""
  faces, positions = np.unique(rows, return_inverse=True)
  first, second, odd = positions.reshape(rows.shape).T.copy()
  rng = np.random.RandomState(0)  # Its numbers never change with the version of numpy.
  sums = np.zeros((resamples, kinds, 2))
  if len(faces):
    for i in range(resamples):
      drawn = np.bincount(rng.randint(len(faces), size=len(faces)), minlength=len(faces))
      sums[i] = _sums(types, right, drawn[first] * drawn[second] * drawn[odd], kinds)
  return sums


def _rates(scored: np.ndarray, resampled: np.ndarray, listed: int) -> dict[str, Any]:
  """The numbers of one group from (2,) wrong and right triplets, and (resamples, 2) of the resamples."""
  hits, count = int(scored[1]), int(scored.sum())
  if not count:
    return {'count': 0, 'listed': listed, 'accuracy': None, 'accuracy_interval': None}
  weights = resampled.sum(axis=1)
  accuracies = resampled[weights > 0, 1] / weights[weights > 0]
  ends = [*wilson(hits, count), *(np.quantile(accuracies, (0.025, 0.975)) if accuracies.size else ())]
  return {'count': count, 'listed': listed, 'accuracy': hits / count,
          'accuracy_interval': [float(min(ends)), float(max(ends))]}
