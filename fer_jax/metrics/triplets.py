"""How often an embedding finds the odd one of three faces (Google FEC, arXiv 1811.11283), and how sure that number is.

Triplets share faces, so they are not independent, and an interval that takes them for so is too narrow.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.metrics.intervals import wilson

_CHUNK = 2**20  # Numbers of an embedding that are gathered at once.


def correct(embedding: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Which triplets are right, (M,) bool: the first two faces are closer to each other than either is to the odd one.

  Of ``embedding`` (N, D) real, a row for each face, and ``rows`` (M, 3) int, the last the odd one. A triplet (a, b, o)
  is right where |a - b|^2 < |a - o|^2 and |a - b|^2 < |b - o|^2, in float64. A tie is wrong, so an embedding that has
  collapsed to a point scores 0. Chance is 1/3. Raises a ValueError where the shapes are not those, a row does not
  exist, or the embedding of a face in a triplet is not finite.
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
    alike, first, second = (np.square(x - y).sum(axis=1) for x, y in ((a, b), (a, odd), (b, odd)))
    right[start:start + step] = (alike < first) & (alike < second)
  return right


def summarise_triplets(embedding: np.ndarray, rows: np.ndarray, types: np.ndarray, type_names: Sequence[str],
                       listed: Sequence[int]) -> dict[str, Any]:
  """Accuracy over all triplets and by type, each with a 95 % interval.

  Embedding (N, D) and rows (M, 3) are those of ``correct``; ``types`` (M,) int are indices into ``type_names``, and
  ``listed`` says by type how many triplets there were before some were left out.

  The interval is Wilson's for as many independent triplets as would have the variance of ``variance``, but never for
  more than there are. In simulations it holds the truth in 93 to 97 % of worlds of the sizes met here (3,500 faces in
  6,000 triplets: 95 %, where Wilson's for 6,000 has 88 %), and in 85 to 92 % where a few dozen faces make it up.

  Returns a dict that JSON can hold: count, listed, accuracy in [0, 1], accuracy_interval [low, high], and types {name:
  the same four}. Without triplets, accuracy and interval are None. Raises a ValueError as ``correct``, or where types
  and names do not fit.
  """
  rows, types, kinds = np.asarray(rows), np.asarray(types, np.int64), len(type_names)
  if types.shape != (len(rows),) or len(listed) != kinds or not np.isin(types, range(kinds)).all():
    raise ValueError(f'types {types.shape} of {len(rows)} triplets, {len(listed)} listed, and {kinds} names do not fit')
  right = correct(embedding, rows)
  by_type = {name: _rates(rows[types == k], right[types == k], int(listed[k])) for k, name in enumerate(type_names)}
  return _rates(rows, right, int(sum(listed))) | {'types': by_type}


def variance(rows: np.ndarray, right: np.ndarray) -> float:
  """Variance of the share of right triplets, where triplets with a face in common may depend on each other.

  The sum of e_t e_u over all pairs (t, u) of triplets that share a face, e = right - accuracy, over M^2: the estimator
  of Aronow, Samii and Assenova for pairs (Political Analysis 23, 2015), for triplets. By inclusion and exclusion it is
  a sum of squares over faces, less one over pairs of faces, plus one over sets of three. Of rows (M, 3) int and right
  (M,) bool, M >= 1; it can come out negative by chance where faces are few.
  """
  deviation = right - right.mean()
  faces = np.sort(rows, axis=1).astype(np.int64)
  size = int(faces.max()) + 1

  def squares(keys: np.ndarray) -> float:
    """Sum over distinct keys (M, k) of the squared sum of the deviations of the triplets that have one."""
    distinct, index = np.unique(keys, return_inverse=True)
    sums = np.bincount(index.ravel(), np.repeat(deviation, keys.shape[1]), len(distinct))
    return float(np.square(sums).sum())

  pairs = np.stack([faces[:, i] * size + faces[:, j] for i, j in ((0, 1), (0, 2), (1, 2))], axis=1)
  # Numbers of pairs instead of pairs, or the cube of the number of faces would leave 64 bits.
  numbered = np.unique(pairs[:, 0], return_inverse=True)[1].reshape(-1)
  return (squares(faces) - squares(pairs) + squares((numbered * size + faces[:, 2])[:, None])) / len(rows)**2


def _rates(rows: np.ndarray, right: np.ndarray, listed: int) -> dict[str, Any]:
  """The numbers of one group of triplets."""
  count = len(rows)
  if not count:
    return {'count': 0, 'listed': listed, 'accuracy': None, 'accuracy_interval': None}
  accuracy = float(right.mean())
  spread, alone = variance(rows, right), accuracy * (1 - accuracy)
  effective = min(alone / spread, count) if spread > 0 and alone > 0 else count
  return {'count': count, 'listed': listed, 'accuracy': accuracy,
          'accuracy_interval': list(wilson(accuracy * effective, effective))}
