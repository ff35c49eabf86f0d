"""What is seen of training while it goes on: metrics.jsonl, the check that nothing has diverged, JAX's profiler."""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath

from fer_jax.errors import UserError
from fer_jax.runtime import cluster, storage


def check_finite(values: Mapping[str, float], after: int, at: int) -> None:
  """Raises UserError naming the terms where a value logged for steps ``after`` + 1 to ``at`` is not finite."""
  bad = [name for name, value in values.items() if not math.isfinite(value)]
  if bad:
    terms = [name.removeprefix('loss/') for name in bad if name.startswith('loss/')] or bad
    raise UserError(f"{', '.join(terms)} became {values[bad[-1]]} between steps {after + 1} and {at}; the last "
                    "checkpoint is from before. Lower optimizer.learning_rate or the term's weight, or set "
                    'optimizer.clip_norm.')


class Window:
  """The steps between two lines of the log, from step ``start`` on: how long they took, and waited for data."""

  def __init__(self, start: int):
    self.start, self._began, self._waited = start, time.perf_counter(), 0.0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time inside as waiting for data."""
    began = time.perf_counter()
    yield
    self._waited += time.perf_counter() - began

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time inside out: images a second are about training alone."""
    began = time.perf_counter()
    yield
    self._began += time.perf_counter() - began

  def read(self, meter: Mapping[str, jax.Array], at: int, batch_size: int) -> dict[str, float]:
    """The means of a meter over the steps up to ``at``, images a second and the share of waiting.

    Raises:
      UserError: a value is not finite.
    """
    sums = {name: float(value) for name, value in jax.device_get(meter).items()}
    values = {name: value / sums['steps'] for name, value in sums.items() if name != 'steps'}
    check_finite(values, self.start, at)
    elapsed = time.perf_counter() - self._began
    return values | {'data_wait': self._waited / elapsed,
                     'images_per_second': (at - self.start) * batch_size / elapsed}


class MetricsLog:
  """metrics.jsonl: one JSON object per line with 'step', 'kind' and scalars, null where one is not finite.

  TensorBoard has them too where it is installed. Process 0 writes.
  """

  def __init__(self, path: epath.Path):
    self._path, self._board = path, None
    if cluster.is_main():
      try:
        from tensorboardX import SummaryWriter  # The extra 'tensorboard'.
        self._board = SummaryWriter(str(path.parent / 'tensorboard'))
      except ImportError:
        pass

  def write(self, at: int, kind: str, values: Mapping[str, float]) -> None:
    """Appends a line about step ``at``."""
    storage.append(self._path, storage.to_json({'step': at, 'kind': kind, **values}) + '\n')
    if self._board:
      for name, value in values.items():
        self._board.add_scalar(f'{kind}/{name}', value, at)

  def forget_after(self, at: int) -> None:
    """Drops lines after step ``at``, and one that was cut off: the steps will be taken again."""
    if not self._path.exists():
      return
    kept = []
    for line in storage.read_text(self._path).splitlines():
      with contextlib.suppress(ValueError, KeyError, TypeError):
        kept += [f'{line}\n'] * (json.loads(line)['step'] <= at)
    storage.write_text(self._path, ''.join(kept))


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
