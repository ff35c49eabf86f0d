"""The queue of trainings that ``fer_jax.ablate``, ``fer_jax.cross`` and launch/sweep work through.

Several workers may go through one queue, here and on other hosts. Nothing in this file needs JAX or a device.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from etils import epath

from fer_jax.errors import UserError
from fer_jax.runtime import lock as locks
from fer_jax.runtime import paths
from fer_jax.runtime.console import plain

PREEMPTED = 75  # As in cluster.py, which would load JAX.

_say = functools.partial(print, flush=True)
_PAUSE = 0.1  # Seconds between looks at the trainings.
_LONGEST_PAUSE = 5.0  # Between looks at what other workers hold.
_UNSEEN = 60.0  # How long a network file system may hide the record of a run that another worker has finished.


@dataclasses.dataclass(frozen=True)
class Job:
  """A training that is to be finished in the end: a row of the table with a seed, its workdir and its command.

  ``after`` is the workdir of the run it learns from, its teacher's, which is to be finished before; '' without one.
  """

  row: str
  seed: int
  workdir: str
  command: tuple[str, ...]
  after: str = ''

  @property
  def lock(self) -> Path:
    """The file that a worker holds, and hands to the training."""
    return locks.of(self.workdir)


def make_job(workdir: str, row: str, seed: int, config: str, more: Sequence[str] = (), teacher: str = '') -> Job:
  """The training of ``config`` with ``seed`` in WORKDIR/ROW-SEED; ``more`` are further arguments of it.

  ``teacher`` is the row whose run with the same seed it learns from; '' without one.
  """
  home, after = (f"{paths.expand(workdir).rstrip('/')}/{name}-{seed}" if name else '' for name in (row, teacher))
  own = [f'--config.teacher.workdir={after}'] if after else []
  return Job(row, seed, home, (sys.executable, '-m', 'fer_jax.train', f'--config={config}', f'--config.seed={seed}',
                               f'--workdir={home}', *own, *more), after)


def finished(workdir: str) -> str | None:
  """When the run in this folder, which may be on gs://, was finished; None if it is not."""
  record = epath.Path(workdir) / 'run.json'
  try:
    return json.loads(record.read_text()).get('finished') if record.exists() else None
  except (ValueError, AttributeError) as error:  # Cut off, or no record.
    raise UserError(f'{record} is damaged: {error}. Put it back, or remove {workdir} to train it again.') from error


def train_all(jobs: Sequence[Job], *, shared: bool = False, workers: int = 1, dry_run: bool = False) -> int:
  """Trains what is not finished; a training that fails is reported and the others go on.

  What learns from another run is passed over until that is finished, and reported as failed if that fails. SIGTERM and
  Ctrl-C reach the trainings, which save their states.

  Args:
    shared: whether workers of other processes go through the same jobs, each of which is then for one of them: what
      another holds is passed over, and what it leaves when it dies is taken up. Who finds nothing else waits until all
      is finished. False where several processes are to meet in each run.
    workers: how many trainings run here at the same time, only with ``shared``. Of several each writes what it says to
      WORKDIR.log, and gets its part of an accelerator's memory, unless the environment says how much.
    dry_run: only print the commands.

  Returns:
    An exit status: 0, PREEMPTED as soon as a training was, or 1 if some failed, here or with another worker meanwhile.

  Raises:
    UserError: the file system has no locks, or the record of a run is damaged.
  """
  queue, failed, pause = list(jobs), [], 0.0
  before = {job: locks.read_note(job.lock) for job in jobs} if shared else {}
  lost = {job.after for job in jobs} - {job.workdir for job in jobs}  # What is not going to be finished.
  told = {}  # Runs that are said to be finished, and when that is believed though no record of it is seen.
  with _Trainings(workers) as trainings:
    while trainings.running or queue and not trainings.asked:
      went_on = False
      for job, end in trainings.ended():
        went_on = True
        if end:
          failed.append(f'{job.workdir} ({end})')
          lost.add(job.workdir)
        else:
          told[job.workdir] = 0.0
      for job in list(queue):
        if trainings.asked or len(trainings.running) == workers:
          break
        if when := finished(job.workdir):
          _say(f'# {job.workdir}: finished at {when}')
        elif dry_run:
          _say(shlex.join(job.command))
        elif job.after and not finished(job.after) and time.monotonic() < told.get(job.after, math.inf):
          if job.after not in lost:
            continue
          failed.append(f'{job.workdir} (its teacher failed)')
          lost.add(job.workdir)
        elif not shared:
          trainings.start(job)
        elif lock := locks.hold(job.lock):
          note = lock.read().strip()
          # What another worker saw fail would fail here as well; what was killed there may do better.
          if note != before[job] and (ended := re.match(r'finished|failed: status [0-9]+', note)):
            lock.close()
            if ended[0] == 'finished':
              told[job.workdir] = time.monotonic() + _UNSEEN
            else:
              failed.append(f'{job.workdir} ({note})')
              lost.add(job.workdir)
          else:
            trainings.start(job, lock)
        else:
          continue
        queue.remove(job)
        went_on = True
      if went_on:
        pause = 0.0
        continue
      if not pause and not trainings.running:
        why = lambda job: f'after {job.after}' if job.after and not finished(job.after) else locks.read_note(job.lock)
        _say('# waiting for ' + ', '.join(f'{job.workdir} ({why(job)})' for job in queue))
      pause = _PAUSE if len(trainings.running) == workers else min(2 * pause or _PAUSE, _LONGEST_PAUSE)
      time.sleep(pause)
  if failed and not trainings.asked:
    print(plain('error: failed: ' + ', '.join(failed)), file=sys.stderr)
  return PREEMPTED if trainings.asked else int(bool(failed))


class _Trainings:
  """Those that run now. Hands on to them what would end this process; ``asked`` says that something did."""

  def __init__(self, workers: int):
    self.asked, self.running = False, {}  # Process and lock of each job.
    self._apart, self._environment = workers > 1, dict(os.environ)
    # Each would take 75 % of an accelerator's memory.
    own = ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_PREALLOCATE')
    if self._apart and not any(name in os.environ for name in own):
      self._environment[own[0]] = f'{0.9 / workers:.3f}'

  def __enter__(self) -> '_Trainings':
    self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def start(self, job: Job, lock: TextIO | None = None) -> None:
    """Starts a training, which has ``lock`` open while it lives."""
    if lock:
      locks.write_note(lock, 'in training')
    if self._apart:
      _say(f'# {job.workdir}: in training, see {job.workdir}.log')
    with open(f'{job.workdir}.log', 'a') if self._apart else contextlib.nullcontext() as log:
      print(shlex.join(job.command), file=log, flush=True)
      # A group of its own: the terminal's Ctrl-C is to come through here, as SIGTERM.
      # With a lock it runs alone, also where SLURM or MPI has started several workers.
      alone, handed = ([], {}) if not lock else (['--num_processes=1'], {locks.HANDED: str(lock.fileno())})
      process = subprocess.Popen([*job.command, *alone], process_group=0, pass_fds=[lock.fileno()] if lock else [],
                                 env=self._environment | handed, stdout=log, stderr=log)
    self.running[job] = process, lock
    if self.asked:  # Between the caller's look and now.
      process.terminate()

  def ended(self) -> Iterator[tuple[Job, str]]:
    """Lets go of those that have ended; yields each with its end in words, '' if it finished."""
    for job, (process, lock) in list(self.running.items()):
      if (status := process.poll()) is None:
        continue
      end = '' if not status else 'interrupted' if status == PREEMPTED else f'status {status}'
      if self._apart:
        _say(f'# {job.workdir}: ' + (f'{end}, see {job.workdir}.log' if end else 'finished'))
      if lock:
        locks.write_note(lock, f'failed: {end}' if end else 'finished')
        lock.close()
      del self.running[job]
      if status == PREEMPTED:
        self._stop()  # The others too.
      yield job, end

  def _stop(self, *_) -> None:
    self.asked = True
    for process, _ in list(self.running.values()):
      process.terminate()
