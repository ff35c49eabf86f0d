"""What is seen of training while it goes on: metrics.jsonl, the check that nothing has diverged, JAX's profiler."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from fer_jax.errors import UserError, listed
from fer_jax.runtime import cluster, storage

Values = Mapping[str, float | np.ndarray]  # By name: a number, or (N,), one for each of N seeds trained at once.


def by_seed(rows: Sequence[Mapping[str, float]]) -> Values:
  """Puts one mapping for each seed together; of a single seed it is that mapping."""
  return rows[0] if len(rows) == 1 else {name: np.array([row[name] for row in rows]) for name in rows[0]}


def check_finite(values: Values, after: int, at: int, seeds: Sequence[int] = ()) -> None:
  """Raises UserError naming the terms where a value logged for steps ``after`` + 1 to ``at`` is not finite, and, where
  there is one for each of ``seeds``, the seeds."""
  bad = [name for name, value in values.items() if not np.isfinite(value).all()]
  if not bad:
    return
  terms = [name.removeprefix('loss/') for name in bad if name.startswith('loss/')] or bad
  last = np.atleast_1d(values[bad[-1]])
  each = np.isfinite([values[name] for name in bad]).all(axis=0)  # One per seed, or one.
  diverged = [seed for seed, fine in zip(seeds, each, strict=True) if not fine] if each.ndim else []
  of = f" of seed{'s' * (len(diverged) > 1)} {listed(diverged)}" if diverged else ''
  raise UserError(f"{', '.join(terms)}{of} became {last[~np.isfinite(last)][0]} between steps {after + 1} and {at}; "
                  "the last checkpoint is from before. Lower optimizer.learning_rate or the term's weight, or set "
                  'optimizer.clip_norm.')


class MetricsLog:
  """metrics.jsonl: one JSON object per line with 'step', 'kind' and scalars; TensorBoard too where it is installed.

  Where several seeds are trained at once the scalars are means over them, and 'by_seed' has what they are means of.
  Process 0 writes.
  """

  def __init__(self, path: epath.Path):
    self._path, self._board = path, None
    if cluster.is_main():
      try:
        from tensorboardX import SummaryWriter  # The extra 'tensorboard'.
        self._board = SummaryWriter(str(path.parent / 'tensorboard'))
      except ImportError:
        pass

  def write(self, at: int, kind: str, values: Values) -> None:
    """Appends a line about step ``at``."""
    means = {name: float(np.mean(value)) for name, value in values.items()}
    by_seed = {name: value.tolist() for name, value in values.items() if np.ndim(value)}
    line = {'step': at, 'kind': kind, **means, **({'by_seed': by_seed} if by_seed else {})}
    storage.append(self._path, json.dumps(line) + '\n')
    if self._board:
      for name, value in means.items():
        self._board.add_scalar(f'{kind}/{name}', value, at)

  def forget_after(self, at: int) -> None:
    """Drops lines after step ``at``, and one that was cut off: the steps will be taken again."""
    if self._path.exists():
      storage.write_text(self._path, _text(line for line in _lines(self._path) if line['step'] <= at))


def copy_of_seed(log: epath.Path, index: int, to: epath.Path) -> None:
  """Writes the metrics.jsonl that seed number ``index`` of those in ``log`` would have had alone."""
  lines = []
  for line in _lines(log):
    by_seed = line.pop('by_seed', {})
    lines.append(line | {name: values[index] for name, values in by_seed.items()})
  storage.write_text(to, _text(lines))


def _lines(path: epath.Path) -> Iterator[dict[str, Any]]:
  """The lines of a log, without one that was cut off."""
  for line in storage.read_text(path).splitlines():
    try:
      yield json.loads(line)
    except json.JSONDecodeError:
      pass


def _text(lines: Iterable[Mapping[str, Any]]) -> str:
  return ''.join(json.dumps(line) + '\n' for line in lines)


class Trace:
  """JAX's profiler around some steps of training: every process writes what its devices did, for XProf."""

  def __init__(self, folder: epath.Path, steps: range):
    self._folder, self._steps, self._running = str(folder), steps, False

  def __enter__(self) -> 'Trace':
    return self

  def __exit__(self, *_) -> None:
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
      cluster.say(f'Trace: {self._folder}')

  def before(self, at: int, state: Any) -> None:
    """Starts or stops at step ``at``, which is about to be taken from ``state``."""
    if at in self._steps and not self._running:
      jax.block_until_ready(state)  # The devices are behind; what they still do is of steps before.
      jax.profiler.start_trace(self._folder)
      self._running = True
    elif self._running and at not in self._steps:
      jax.block_until_ready(state)
      self.__exit__()
