"""What is seen of training while it goes on: metrics.jsonl, the check that nothing has diverged, JAX's profiler."""

import contextlib
import json
import math
import queue
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from fer_jax.errors import UserError
from fer_jax.runtime import cluster, scaling, storage

# What a line says of time, and is another in every run.
TIMING = ('data_wait', 'images_per_second', 'step_seconds', 'step_seconds_95', 'utilisation', 'device_hours',
          'eta_seconds')


def check_finite(values: Mapping[str, float], after: int, at: int) -> None:
  """Raises UserError naming the terms where a value logged for steps ``after`` + 1 to ``at`` is not finite."""
  bad = [name for name, value in values.items() if not math.isfinite(value)]
  if bad:
    terms = [name.removeprefix('loss/') for name in bad if name.startswith('loss/')] or bad
    raise UserError(f"{', '.join(terms)} became {values[bad[-1]]} between steps {after + 1} and {at}; the last "
                    "checkpoint is from before. Lower optimizer.learning_rate or the term's weight, or set "
                    'optimizer.clip_norm.')


class Window:
  """The steps between two lines of the log: how long they took, and waited for data. ``read`` begins the next one.

  Devices are behind the loop, which does not wait for them: a thread does, and notes when each dispatch was done.
  """

  def __init__(self, start: int, total: int | None = None, devices: int = 1, hours: float = 0.0,
               ideal: float | None = None):
    """Begins at step ``start`` of ``total``.

    Args:
      devices: how many there are.
      hours: device-hours of the steps before.
      ideal: seconds of a step at the devices' peak, see ``ideal_seconds``.
    """
    self._total, self._devices, self._hours, self._ideal = total, devices, hours, ideal
    self._compiled: tuple[int, float] | None = None
    self._dispatched: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self._seconds: list[float] = []
    self._waits: list[float] = []
    threading.Thread(target=_note, args=(self._dispatched, self._seconds, self._waits), daemon=True).start()
    weakref.finalize(self, self._dispatched.put, None)
    self._begin(start)

  def _begin(self, start: int) -> None:
    self._start, self._began, self._paused = start, time.perf_counter(), 0.0
    self._dispatched.put(self._began)
    self._seconds.clear()
    self._waits.clear()

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time inside as waiting for data, but for as long as the devices are busy with what they were given."""
    began = time.perf_counter()
    yield
    self._dispatched.put(_Wait(began, time.perf_counter()))

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time inside out: images a second are about training alone."""
    began = time.perf_counter()
    yield
    end = time.perf_counter()
    self._paused += end - began
    self._dispatched.put(end)

  def dispatched(self, meter: Mapping[str, jax.Array], steps: int = 1) -> None:
    """Says that the devices were given ``steps`` steps, which end in this meter; it may be donated afterwards."""
    self._dispatched.put((_copy(meter['steps'].addressable_data(0)), steps))

  def read(self, meter: Mapping[str, jax.Array], at: int, batch_size: int) -> dict[str, float]:
    """The means of a meter over the steps up to ``at``, and where time went, by the names in ``TIMING``.

    Those are the share of the time in which devices waited for data, images a second, the median and the 95th
    percentile of the seconds of a step, the share of the devices' peak where that is known, hours of devices since the
    run began, without evaluations and steps that were lost, and the seconds that the steps left will take, with
    evaluations.

    Raises:
      UserError: a value is not finite.
    """
    sums = {name: float(value) for name, value in jax.device_get(meter).items()}
    values = {name: value / sums['steps'] for name, value in sums.items() if name != 'steps'}
    check_finite(values, self._start, at)
    now = time.perf_counter()
    elapsed, steps = now - self._began - self._paused, at - self._start
    self._hours += self._devices * elapsed / 3600
    self._dispatched.put(noted := threading.Event())
    noted.wait()
    each = self._seconds or [elapsed / steps]
    values |= {'data_wait': sum(self._waits) / elapsed, 'images_per_second': steps * batch_size / elapsed,
               'step_seconds': float(np.median(each)), 'step_seconds_95': float(np.percentile(each, 95)),
               'device_hours': self._hours}
    if self._ideal:
      values['utilisation'] = self._ideal * steps / elapsed
    if self._total:
      before, then = self._compiled or (at, now)  # The first steps are compiled, and say nothing about the others.
      seconds = (now - then) / (at - before) if at > before else values['step_seconds']
      values['eta_seconds'] = seconds * (self._total - at)
    self._compiled = self._compiled or (at, now)
    self._begin(at)
    return values


_copy = jax.jit(lambda steps: steps + 0)


class _Wait(NamedTuple):
  began: float
  ended: float


def _note(dispatched: queue.SimpleQueue[Any], seconds: list[float], waits: list[float]) -> None:
  """Appends the seconds of a step in each dispatch (array, steps): from the end of the one before, or from a time that
  is put between them; and those of a wait after that end. An event is told when all before it is done."""
  last = 0.0
  for item in iter(dispatched.get, None):
    if isinstance(item, threading.Event):
      item.set()
    elif isinstance(item, _Wait):
      waits.append(max(0.0, item.ended - max(item.began, last)))
    elif isinstance(item, tuple):
      end = _when_done(item[0])
      seconds.append((end - last) / item[1])
      last = end
    else:
      last = item


def _when_done(array: jax.Array) -> float:
  array.block_until_ready()
  return time.perf_counter()


def ideal_seconds(step: Any, arguments: tuple[Any, ...], devices: int, dtype: str) -> float | None:
  """Seconds that a step would take if every device computed at its peak all the time; None where that is not known.

  FLOPs are the compiler's count of the program as it is written, with what is computed again to save memory.

  Args:
    step: compiled by ``jax.jit``, one step; it is lowered for ``arguments``, arrays or their shapes.
    devices: among which the step as it is written is divided; 1 where it is what one device does.
    dtype: of the computation.
  """
  peak = scaling.peak(jax.devices()[0].device_kind, dtype)
  flops = peak and (step.lower(*arguments).cost_analysis() or {}).get('flops')
  return flops / (devices * peak) if flops else None


def shown(values: Mapping[str, float]) -> dict[str, str]:
  """Of a line of the log, what stands beside the bar."""
  return {name: f'{values[name]:.3f}' for name in ('loss', 'accuracy')} | {'waiting': f"{values['data_wait']:.0%}"}


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

  def forget_after(self, at: int) -> dict[str, Any]:
    """Drops lines after step ``at``, and one that was cut off: the steps will be taken again.

    Returns:
      The newest line about training that stays, {} where there is none.
    """
    if not self._path.exists():
      return {}
    kept, newest = [], {}
    for line in storage.read_text(self._path).splitlines():
      with contextlib.suppress(ValueError, KeyError, TypeError):
        values = json.loads(line)
        if values['step'] <= at:
          kept.append(f'{line}\n')
          newest = values if values['kind'] == 'train' else newest
    storage.write_text(self._path, ''.join(kept))
    return newest


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
