"""The queue of an ablation: its jobs, and workers that share them, are killed, fail and wait for each other."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fer_jax.analysis import ablation
from fer_jax.analysis.ablation import Job
from fer_jax.errors import UserError
from fer_jax.runtime import cluster
from tests.processes import ROOT

# In place of a training: notes its start and its end, fails where it is not alone, and does what 'todo' says.
TRAIN = """
import os, pathlib, signal, sys, time
workdir = pathlib.Path(sys.argv[1])
workdir.mkdir(parents=True, exist_ok=True)
alone = workdir / 'alone'
def leave(status):
  alone.unlink()
  sys.exit(status)
signal.signal(signal.SIGTERM, lambda *_: leave(75))
try:
  os.close(os.open(alone, os.O_CREAT | os.O_EXCL))
except FileExistsError:
  (workdir / 'twice').touch()
with (workdir / 'starts').open('a') as file:
  file.write(f'{os.getpid()}\\n')
def todo():
  try:
    return (workdir.parent / f'{workdir.name}.todo').read_text()
  except FileNotFoundError:
    return ''
while (what := todo()) == 'wait':
  time.sleep(0.01)
if what:
  leave(int(what))
time.sleep(0.1)
(workdir / 'run.json').write_text('{"finished": "2026-01-01"}')
leave(0)
"""

WORK = """
import sys
from fer_jax.ablation import Job, train_all
sys.exit(train_all([Job(name, 0, name, (sys.executable, 'train.py', name)) for name in sys.argv[1:]], shared=True))
"""


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'train.py').write_text(TRAIN)
  return tmp_path


def order(folder, name, what):
  """Tells the training of a run to 'wait', to end with a status, or, with '', to finish."""
  (folder / 'todo.part').write_text(what)
  (folder / 'todo.part').replace(folder / f'{name}.todo')


def work(folder, *names):
  return subprocess.Popen([sys.executable, '-c', WORK, *names], cwd=folder, env=os.environ | {'PYTHONPATH': str(ROOT)},
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ends(*workers):
  printed = [worker.communicate(timeout=60) for worker in workers]
  return [worker.returncode for worker in workers], printed


def starts(folder, name):
  path = folder / name / 'starts'
  return [int(number) for number in path.read_text().split()] if path.exists() else []


def wait_for(condition):
  end = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)


def says(worker, words):
  """Reads what a worker prints up to the line that has ``words``."""
  while words not in (line := worker.stdout.readline()):
    assert line, worker.communicate()
  return line


def test_workers_divide_the_runs_and_none_is_done_twice(folder):
  names = [f'run-{i}' for i in range(8)]
  statuses, printed = ends(*(work(folder, *names) for _ in range(3)))
  assert statuses == [0, 0, 0], printed
  for name in names:
    assert len(starts(folder, name)) == 1 and not (folder / name / 'twice').exists()
    assert {path.name for path in (folder / name).iterdir()} == {'starts', 'run.json'}  # No lock among its files.
  statuses, [(out, _)] = ends(work(folder, *names))
  assert statuses == [0] and out.count(': finished at 2026-01-01') == 8


def test_a_training_whose_worker_was_killed_is_left_alone_and_then_taken_up(folder):
  order(folder, 'a', 'wait')
  killed = work(folder, 'a', 'b')
  wait_for(lambda: starts(folder, 'a'))
  killed.kill()
  killed.wait()  # Not for its output: the training holds on to that.
  other = work(folder, 'a', 'b')
  line = says(other, '# waiting for a (in training, ')
  assert f'process {killed.pid}, ' in line  # Whose it is.
  assert len(starts(folder, 'b')) == 1 and len(starts(folder, 'a')) == 1
  os.kill(starts(folder, 'a')[0], signal.SIGKILL)
  (folder / 'a' / 'alone').unlink()
  wait_for(lambda: len(starts(folder, 'a')) == 2)
  order(folder, 'a', '')
  statuses, printed = ends(other)
  assert statuses == [0], printed
  assert not list(folder.glob('*/twice')) and printed[0][0].count('waiting') == 0  # It was said once.


def test_a_training_that_is_killed_is_reported_by_its_worker_and_taken_up_by_another(folder):
  order(folder, 'a', 'wait')
  first = work(folder, 'a')
  wait_for(lambda: starts(folder, 'a'))
  second = work(folder, 'a')
  says(second, '# waiting for a')
  os.kill(starts(folder, 'a')[0], signal.SIGKILL)
  (folder / 'a' / 'alone').unlink()
  wait_for(lambda: len(starts(folder, 'a')) == 2)
  order(folder, 'a', '')
  statuses, printed = ends(first, second)
  assert statuses == [1, 0] and printed[0][1] == 'error: failed: a (status -9)\n'


def test_what_fails_is_tried_once_by_all_workers_and_again_by_a_later_start(folder):
  order(folder, 'a', 'wait')
  first = work(folder, 'a', 'b')
  wait_for(lambda: starts(folder, 'a'))
  second = work(folder, 'a', 'b')
  says(second, '# waiting for a')
  order(folder, 'a', '3')
  statuses, printed = ends(first, second)
  assert statuses == [1, 1] and len(starts(folder, 'a')) == len(starts(folder, 'b')) == 1
  assert printed[0][1] == 'error: failed: a (status 3)\n'
  assert printed[1][1].startswith('error: failed: a (failed: status 3, ') and f'process {first.pid}, ' in printed[1][1]
  order(folder, 'a', '')
  assert ends(work(folder, 'a', 'b'))[0] == [0] and len(starts(folder, 'a')) == 2


def test_signals_reach_the_training_and_end_a_worker_that_waits(folder):
  order(folder, 'a', 'wait')
  first = work(folder, 'a', 'b')
  wait_for(lambda: starts(folder, 'a'))
  second = work(folder, 'a')
  says(second, '# waiting for a')
  second.send_signal(signal.SIGTERM)
  assert ends(second)[0] == [cluster.PREEMPTED]
  first.send_signal(signal.SIGINT)
  assert ends(first)[0] == [cluster.PREEMPTED] and not starts(folder, 'b')
  order(folder, 'a', '')
  assert ends(work(folder, 'a', 'b'))[0] == [0] and len(starts(folder, 'a')) == 2


def test_a_run_that_another_worker_finished_is_not_started_though_its_record_is_not_seen_yet(folder, monkeypatch):
  # As on a network file system that remembers for a while that there was no such file.
  monkeypatch.chdir(folder)
  order(folder, 'a', 'wait')
  first = work(folder, 'a')
  wait_for(lambda: starts(folder, 'a'))
  seen = []

  def finished(workdir):
    if seen.append(workdir) is None and len(seen) == 2:  # The first look was at what the other holds.
      order(folder, 'a', '')
      first.wait()

  monkeypatch.setattr(ablation, 'finished', finished)
  assert ablation.train_all([Job('a', 0, 'a', (sys.executable, 'train.py', 'a'))], shared=True) == 0
  assert ends(first)[0] == [0] and len(starts(folder, 'a')) == 1


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
  def none(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  jobs = [Job('a', 0, str(tmp_path / 'w' / 'a-0'), ('false',))]
  monkeypatch.setattr(fcntl, 'flock', none)
  with pytest.raises(UserError, match='a-0.lock cannot be locked: No locks available. .*two workers.*--workdir'):
    ablation.train_all(jobs, shared=True)
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='cannot write .*/file/a-0.lock: .*choose another --workdir'):
    ablation.train_all([Job('a', 0, str(tmp_path / 'file' / 'a-0'), ('false',))], shared=True)


def test_waiting_for_a_lock_ends_when_it_is_let_go(tmp_path):
  code = ('import sys, time; from fer_jax.ablation import held\n'
          'with held(sys.argv[1]): print("held", flush=True); sys.stdin.read()')
  holder = subprocess.Popen([sys.executable, '-c', code, str(tmp_path / 'lock')], cwd=ROOT, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  assert holder.stdout.readline() == 'held\n'
  with ablation.held(str(tmp_path / 'lock')) as claim:
    assert claim is None
  holder.stdin.close()
  with ablation.held(str(tmp_path / 'lock'), wait=True) as claim:
    assert len(claim) == 1 and holder.wait() == 0


def test_jobs_go_seed_by_seed():
  jobs = ablation.list_jobs('t.py:faces', ['a', 'b'], 2, 'runs/x/', ['--config.epochs=1'])
  assert [(job.row, job.seed, job.workdir, job.lock) for job in jobs] == [
      (row, seed, f'runs/x/{row}-{seed}', f'runs/x/{row}-{seed}.lock') for seed in (0, 1) for row in 'ab']
  assert jobs[1].command == (sys.executable, '-m', 'fer_jax.train', '--config=t.py:faces:b', '--config.seed=0',
                             '--workdir=runs/x/b-0', '--config.epochs=1')
  assert ablation.homes('runs/x/', 'a', 1) == ('runs/x/a-1', 'runs/x/a/seed-1')
  with pytest.raises(UserError, match='--seeds=0: give a whole number above 0'):
    ablation.list_jobs('t.py:faces', ['a'], 0, 'runs')


def test_rows_are_those_of_the_config(tmp_path):
  config = tmp_path / 'table.py'
  config.write_text("ROWS = {'plain': {}, 'shuffled': {}, 'uniform': {}}")
  assert ablation.choose_rows(f'{config}:faces', '') == ['plain', 'shuffled', 'uniform']
  assert ablation.choose_rows(f'{config}:faces', 'uniform,plain,uniform') == ['uniform', 'plain']
  with pytest.raises(UserError, match="--rows: .*table.py has no row 'unifrom'; did you mean 'uniform'"):
    ablation.choose_rows(f'{config}:faces', 'plain,unifrom')
  for wrong in (str(config), f'{config}x:faces'):
    with pytest.raises(UserError, match='give an ablation config and its data set, such as'):
      ablation.choose_rows(wrong, '')
  config.write_text('')
  with pytest.raises(UserError, match='table.py has no ROWS; the configs with rows are in configs/ablations'):
    ablation.choose_rows(f'{config}:faces', '')


def test_a_run_is_finished_when_its_record_says_so(tmp_path):
  assert ablation.finished(str(tmp_path)) is None
  (tmp_path / 'run.json').write_text(json.dumps({'started': 'then'}))
  assert ablation.finished(str(tmp_path)) is None
  (tmp_path / 'run.json').write_text(json.dumps({'finished': 'now'}))
  assert ablation.finished(str(tmp_path)) == 'now'
  assert ablation.PREEMPTED == cluster.PREEMPTED
