"""The runs of an ablation: which there are, which are finished, and the queue that trains the others.

Both ``fer_jax.ablate`` and launch/sweep work through this queue. Nothing here needs JAX or a device.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from etils import epath

from fer_jax.errors import UserError, nearest

PREEMPTED = 75  # As in cluster.py, which would load JAX.

_LONGEST_PAUSE = 5.0  # Seconds between looks at what other workers hold.


@dataclasses.dataclass(frozen=True)
class Job:
  """A training that is to be finished in the end: a row of the table with a seed, its workdir and its command."""

  row: str
  seed: int
  workdir: str
  command: tuple[str, ...]

  @property
  def lock(self) -> str:
    """The file that a worker holds while it trains: beside the workdir, which must be empty at the start."""
    return f'{self.workdir}.lock'


def homes(workdir: str, row: str, seed: int) -> tuple[str, str]:
  """The folders where a row's run with ``seed`` may be: trained alone, or by config.seeds at once with others."""
  workdir = workdir.rstrip('/')
  return f'{workdir}/{row}-{seed}', f'{workdir}/{row}/seed-{seed}'


def choose_rows(config: str, rows: str) -> list[str]:
  """Names of the rows of an ablation config, 'PATH:DATASET', or of those in ``rows`` with commas between, '' for all.

  Raises:
    UserError: a config without rows or data set, or an unknown row.
  """
  path, _, dataset = config.partition(':')
  if not Path(path).is_file() or not dataset:
    raise UserError(f'--config={config}: give an ablation config and its data set, such as '
                    'configs/ablations/pal.py:ferplus')
  table = runpy.run_path(path).get('ROWS')
  if not table:
    raise UserError(f'--config={config}: {path} has no ROWS; the configs with rows are in configs/ablations.')
  chosen = list(dict.fromkeys(rows.split(','))) if rows else list(table)
  for row in chosen:
    if row not in table:
      raise UserError(f"--rows: {path} has no row '{row}'{nearest(row, table)}")
  return chosen


def list_jobs(config: str, rows: Sequence[str], seeds: int, workdir: str, more: Sequence[str] = ()) -> list[Job]:
  """All rows with the seeds 0 to ``seeds`` - 1, seed by seed, so that what is cut off has whole rounds.

  Args:
    config: 'PATH:DATASET'.
    rows: from ``choose_rows``.
    seeds: how many.
    workdir: of the ablation.
    more: further arguments of every training.

  Raises:
    UserError: no seeds.
  """
  if seeds < 1:
    raise UserError(f'--seeds={seeds}: give a whole number above 0.')
  jobs = []
  for seed in range(seeds):
    for row in rows:
      home = homes(workdir, row, seed)[0]
      jobs.append(Job(row, seed, home, (sys.executable, '-m', 'fer_jax.train', f'--config={config}:{row}',
                                        f'--config.seed={seed}', f'--workdir={home}', *more)))
  return jobs


def finished(workdir: str) -> str | None:
  """When the run in this folder, which may be on gs://, was finished; None if it is not."""
  record = epath.Path(workdir) / 'run.json'
  return json.loads(record.read_text()).get('finished') if record.exists() else None


def train_all(jobs: Sequence[Job], *, shared: bool = False, dry_run: bool = False) -> int:
  """Trains what is not finished, one job after the other; a failed one is reported and the others go on.

  SIGTERM and Ctrl-C reach the training, which saves its state.

  Args:
    jobs: in order.
    shared: whether other workers go through the same jobs, each of which is then for one of them: what another holds
      is passed over, and what it leaves when it dies is taken up. Who finds nothing else waits until all is finished.
      Needs a file system with locks. False where several processes are to meet in each run.
    dry_run: only print the commands.

  Returns:
    An exit status: 0, PREEMPTED as soon as a training was, or 1 if some failed, here or with another worker meanwhile.

  Raises:
    UserError: the file system has no locks.
  """
  left, failed, pause = list(jobs), [], 0.0
  notes = {job: _read_note(job) for job in jobs} if shared else {}
  with _Trainer() as trainer:
    while left:
      for job in left:
        if when := finished(job.workdir):
          print(f'# {job.workdir}: finished at {when}', flush=True)
          break
        if dry_run:
          print(shlex.join(job.command), flush=True)
          break
        if trainer.asked:
          return PREEMPTED
        ended = _take(job, trainer, notes[job]) if shared else _end(trainer.train(job.command))
        if ended == _INTERRUPTED:
          return PREEMPTED
        if ended is not None:
          failed += [f'{job.workdir} ({ended})'] * bool(ended)
          pause = 0.0
          break
      else:
        if not pause:
          print('# waiting for ' + ', '.join(f'{job.workdir} ({_read_note(job)})' for job in left), flush=True)
        pause = min(2 * pause or 0.25, _LONGEST_PAUSE)
        time.sleep(pause)
        continue
      left.remove(job)
  if failed:
    print('error: failed: ' + ', '.join(failed), file=sys.stderr)
  return 1 if failed else 0


_INTERRUPTED = 'interrupted'


def _end(status: int) -> str:
  """The end of a training in words; '' if it finished."""
  return '' if not status else _INTERRUPTED if status == PREEMPTED else f'status {status}'


def _take(job: Job, trainer: '_Trainer', before: str) -> str | None:
  """Trains a job unless another worker holds it, which gives None, or has ended it since its note was ``before``.

  Returns:
    As ``_end``.
  """
  with held(job.lock) as claim:
    if claim is None:
      return None
    note = _read_note(job)
    # What another worker saw fail would fail here as well; what was killed there may do better.
    if note != before and (ended := re.match(r'finished|failed: status [0-9]+', note)):
      return '' if ended[0] == 'finished' else note
    _write_note(claim, 'in training')
    ended = _end(trainer.train(job.command, claim))
    _write_note(claim, f'failed: {ended}' if ended else 'finished')
    return ended


class _Trainer:
  """Runs one training at a time and hands on what would end this process; ``asked`` says that something did."""

  def __init__(self):
    self.asked, self._child = False, None

  def __enter__(self) -> '_Trainer':
    self._before = {number: signal.signal(number, self._forward) for number in (signal.SIGTERM, signal.SIGINT)}
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def train(self, command: Sequence[str], kept: Sequence[int] = ()) -> int:
    """Returns the exit status of a training, which has the descriptors ``kept`` open while it lives."""
    print(shlex.join(command), flush=True)
    # A group of its own: the terminal's Ctrl-C is to come through here, as SIGTERM.
    self._child = subprocess.Popen(command, process_group=0, pass_fds=kept)
    if self.asked:  # Between the caller's look and now.
      self._child.terminate()
    status = self._child.wait()
    self._child = None
    return status

  def _forward(self, *_) -> None:
    self.asked = True
    if self._child:
      self._child.terminate()


@contextlib.contextmanager
def held(path: str, wait: bool = False) -> Iterator[tuple[int, ...] | None]:
  """Holds a lock file: yields its descriptor in a tuple, or, without ``wait``, None where another process holds it.

  The kernel lets go of the lock when the last process that has the descriptor open is gone, however it ends. A training
  that is given the descriptor therefore keeps the lock when only its worker is killed, and nobody starts it again
  beside it. (That is why this is no ``filelock.FileLock``, which keeps the descriptor to itself.)

  Raises:
    UserError: the file cannot be written, or the file system has no locks.
  """
  try:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror}; choose another --workdir.') from error
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    got = (descriptor,)
  except BlockingIOError:
    got = None
  except OSError as error:
    os.close(descriptor)
    raise UserError(f'{path} cannot be locked: {error.strerror}. Without locks two workers would train the same run: '
                    'choose a --workdir on another file system, or train with launch/sweep and then use --collect.'
                    ) from error
  try:
    yield got
  finally:
    os.close(descriptor)


def _read_note(job: Job) -> str:
  """What the last worker who held a job has said of it."""
  try:
    return Path(job.lock).read_text().strip()
  except OSError:  # None yet; and what keeps it from being written will say so.
    return ''


def _write_note(claim: Sequence[int], words: str) -> None:
  """Replaces the text of the lock file: what happened, where and when."""
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='microseconds')
  os.ftruncate(claim[0], 0)
  os.pwrite(claim[0], f'{words}, {socket.gethostname()} process {os.getpid()}, {now}\n'.encode(), 0)
