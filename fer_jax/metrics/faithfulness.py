"""Whether an explanation says what the network does: curves of its answer while pixels go, and maps of other nets.

Deletion takes the pixels of a face away, those first that the map ranks highest; insertion brings them back in the
same order (Petsiuk et al., "RISE", BMVC 2018, section 4.2). A faithful map makes the probability fall early or rise
early. The correlations are for the sanity check of Adebayo et al. (NeurIPS 2018): a map that stays the same when what
the network has learnt is thrown away does not explain what it has learnt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # Its parts load when they are first used.

from fer_jax.metrics.alignment import FLAT, pearson
from fer_jax.metrics.intervals import bootstrap

# Curves by name, and the sign that makes a larger area the better one.
SIGNS = {'deletion': -1, 'insertion': 1}


def portions(pixels: int, steps: int) -> np.ndarray:
  """How many pixels are gone after 0, 1, ..., ``steps`` portions, int (steps + 1,): from 0 to all, to one pixel even.

  Raises a ValueError for fewer than two portions, which leave nothing between the ends that all maps share.
  """
  if steps < 2:
    raise ValueError(f'{steps} portions')
  return np.rint(np.linspace(0, pixels, steps + 1)).astype(int)


def area(shares: np.ndarray, curves: np.ndarray) -> np.ndarray:
  """Area under curves of probabilities (..., S) by the trapezoidal rule, over shares (S,) of the pixels from 0 to 1.

  Returns (...,) float64: the mean probability over shares, in [0, 1].
  """
  return np.trapezoid(np.asarray(curves, np.float64), shares, axis=-1)


def summarise_curves(shares: np.ndarray, curves: Mapping[str, Mapping[str, np.ndarray]],
                     baselines: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
  """Areas of maps over faces, and how much better they are than baselines on the same faces.

  Of ``shares`` (S,), see ``area``, and ``curves`` {map: {'deletion', 'insertion': (N, S)}}, row i the same face
  everywhere; ``baselines`` are curves to compare these with, but not with themselves.

  Returns {map: {'deletion', 'insertion': {'area', 'interval', 'curve', 'gain': {baseline: {'value', 'interval'}}}}}.
  'area' is the mean over faces, 'interval' its bootstrap 95 % interval over faces (None of a single face), 'curve' the
  mean curve. A gain is the mean difference of a face's areas under the two maps, above 0 where the map is better; its
  interval knows that the faces are the same, so it tells two maps apart where those of their areas overlap.
  """
  def estimate(name: str, values: np.ndarray) -> dict[str, Any]:
    value, low, high, _ = bootstrap(values)
    return {name: value, 'interval': None if low is None else [low, high]}

  table = {}
  for name, curve in curves.items():
    table[name] = {}
    for kind, sign in SIGNS.items():
      own = area(shares, curve[kind])
      table[name][kind] = estimate('area', own) | {
          'curve': np.mean(curve[kind], axis=0, dtype=np.float64).tolist(),
          'gain': {bar: estimate('value', sign * (own - area(shares, other[kind])))
                   for bar, other in baselines.items() if other is not curve}}
  return table


def correlations(maps: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
  """Correlation over pixels of each map (N, h, w), real and of any scale, with another (N, h, w) of the same face.

  Returns 'pearson' and 'spearman', (N,) float64 in [-1, 1]; NaN where either map is constant up to rounding or not
  finite.
  """
  pair = [np.asarray(values, np.float64).reshape(len(maps), -1) for values in (maps, others)]
  defined = np.logical_and(*map(_varies, pair))
  pair = [np.where(defined[:, None], values, 0) for values in pair]
  found = {'pearson': pair, 'spearman': [scipy.stats.rankdata(values, axis=1) for values in pair]}
  return {kind: np.where(defined, pearson(*(values[:, None] for values in pair)), np.nan)
          for kind, pair in found.items()}


def summarise_correlations(draws: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
  """Means over faces of ``correlations``, and how they differ from one draw of random parameters to the next.

  'pearson' and 'spearman' are the mean over faces and draws, 'pearson_range' and 'spearman_range' the smallest and
  largest mean over faces of a draw, 'faces' the fewest that had a correlation in a draw. None where no face had.
  """
  summary: dict[str, Any] = {}
  for kind in ('pearson', 'spearman'):
    means = [float(np.nanmean(draw[kind])) for draw in draws if np.isfinite(draw[kind]).any()]
    summary |= {kind: float(np.mean(means)) if means else None,
                f'{kind}_range': [min(means), max(means)] if means else None}
  return summary | {'faces': min(int(np.isfinite(draw['pearson']).sum()) for draw in draws)}


def _varies(rows: np.ndarray) -> np.ndarray:
  """(N,) bool: which rows (N, P) are finite and not constant."""
  finite = np.isfinite(rows).all(axis=1)
  rows = np.where(finite[:, None], rows, 0)
  return finite & (np.ptp(rows, axis=1) > FLAT * abs(rows).max(axis=1))
