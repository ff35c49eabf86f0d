"""The queue of trainings: workers that share its jobs, are killed, fail and wait for each other."""

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from fer_jax.analysis import queue
from fer_jax.analysis.queue import Job
from fer_jax.errors import UserError
from fer_jax.runtime import cluster, lock
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
assert sys.argv[2:] == ['--num_processes=1']  # It is not to meet those of other workers.
print('memory', os.environ.get('XLA_CLIENT_MEM_FRACTION'), flush=True)
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
from fer_jax.analysis.queue import Job, train_all
named = [text.partition('<') for text in sys.argv[2:]]  # 'STUDENT<TEACHER', or one without a teacher.
jobs = [Job(name, 0, name, (sys.executable, 'train.py', name), after) for name, _, after in named]
sys.exit(train_all(jobs, shared=True, workers=int(sys.argv[1])))
"""


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'train.py').write_text(TRAIN)
  return tmp_path


def order(folder, name, what):
  """Tells the training of a run to 'wait', to end with a status, or, with '', to finish."""
  (folder / 'todo.part').write_text(what)
  (folder / 'todo.part').replace(folder / f'{name}.todo')


def work(folder, *names, workers=1, **own):
  environment = {name: value for name, value in os.environ.items() if not name.startswith('XLA_')}
  return subprocess.Popen([sys.executable, '-c', WORK, str(workers), *names], cwd=folder, text=True,
                          env=environment | {'PYTHONPATH': str(ROOT)} | own, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)


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
    assert {path.name for path in (folder / name).iterdir()} == {'starts', 'run.json', 'lock'}
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
    if seen.append(workdir) is None and seen.count('a') == 2:  # The first look was at what the other holds.
      order(folder, 'a', '')
      first.wait()

  monkeypatch.setattr(queue, 'finished', finished)
  monkeypatch.setattr(queue, '_UNSEEN', 0.5)  # Who learns from it waits for the record, but not for ever.
  jobs = [Job(name, 0, name, (sys.executable, 'train.py', name), after) for name, after in (('a', ''), ('b', 'a'))]
  begun = time.monotonic()
  assert queue.train_all(jobs, shared=True) == 0 and time.monotonic() > begun + 0.5
  assert ends(first)[0] == [0] and len(starts(folder, 'a')) == len(starts(folder, 'b')) == 1


def test_who_learns_from_a_run_waits_for_its_end_and_the_others_do_not(folder):
  order(folder, 'a', 'wait')
  first = work(folder, 'b<a', 'a', 'c')
  wait_for(lambda: starts(folder, 'a'))
  second = work(folder, 'b<a', 'a', 'c')
  assert says(second, '# waiting for ').startswith('# waiting for b (after a), a (in training, ')
  assert starts(folder, 'c') and not starts(folder, 'b')
  order(folder, 'a', '')
  statuses, printed = ends(first, second)
  assert statuses == [0, 0], printed
  assert [len(starts(folder, name)) for name in 'abc'] == [1, 1, 1] and not list(folder.glob('*/twice'))
  statuses, [(out, _)] = ends(work(folder, 'b<a', 'a'))
  assert statuses == [0] and out.count(': finished at') == 2


def test_who_learns_from_a_run_that_fails_is_not_started_by_any_worker(folder):
  order(folder, 'a', 'wait')
  names = ('c<b', 'b<a', 'a', 'd', 'f<e')  # Nobody here trains e.
  first = work(folder, *names)
  wait_for(lambda: starts(folder, 'a'))
  second = work(folder, *names)
  says(second, '# waiting for ')
  order(folder, 'a', '3')
  statuses, printed = ends(first, second)
  assert statuses == [1, 1] and not any(starts(folder, name) for name in 'bcef') and len(starts(folder, 'd')) == 1
  for _, err in printed:
    assert len(re.findall(r'[bcf] \(its teacher failed\)', err)) == 3 and re.search(r'\ba \((failed: )?status 3', err)
  order(folder, 'a', '')
  statuses, [(_, err)] = ends(work(folder, *names[:-1]))
  assert statuses == [0] and [len(starts(folder, name)) for name in 'abc'] == [2, 1, 1], err


def test_two_learn_from_a_run_at_the_same_time_and_from_one_that_leaves_no_record(folder):
  for name in 'bc':
    order(folder, name, 'wait')
  order(folder, 'a', '0')
  process = work(folder, 'b<a', 'c<a', 'a', workers=2)
  wait_for(lambda: starts(folder, 'b') and starts(folder, 'c'))
  assert not (folder / 'a' / 'run.json').exists()  # Status 0 is enough, or it would be waited for.
  for name in 'bc':
    order(folder, name, '')
  statuses, [(out, _)] = ends(process)
  told = out.splitlines()
  assert statuses == [0] and told[:2] == ['# a: in training, see a.log', '# a: finished'] and len(told) == 6


def test_a_run_that_is_trained_by_hand_is_waited_for(folder):
  with lock.alone(folder / 'a'):
    worker = work(folder, 'a', 'b')
    assert f'process {os.getpid()}, ' in says(worker, '# waiting for a (in training, ')
    assert starts(folder, 'b') and not starts(folder, 'a')
  statuses, printed = ends(worker)
  assert statuses == [0] and len(starts(folder, 'a')) == 1, printed


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
  def none(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  jobs = [Job('a', 0, str(tmp_path / 'w' / 'a-0'), ('false',))]
  monkeypatch.setattr(fcntl, 'flock', none)
  with pytest.raises(UserError, match='a-0/lock cannot be locked: No locks available. .*two workers.*--workdir'):
    queue.train_all(jobs, shared=True)
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='cannot write .*/file/a-0/lock: .*choose another --workdir'):
    queue.train_all([Job('a', 0, str(tmp_path / 'file' / 'a-0'), ('false',))], shared=True)


def test_a_run_is_finished_when_its_record_says_so(tmp_path):
  assert queue.finished(str(tmp_path)) is None
  (tmp_path / 'run.json').write_text(json.dumps({'started': 'then'}))
  assert queue.finished(str(tmp_path)) is None
  (tmp_path / 'run.json').write_text(json.dumps({'finished': 'now'}))
  assert queue.finished(str(tmp_path)) == 'now'
  for damaged in ('{"finis', '', '[]'):
    (tmp_path / 'run.json').write_text(damaged)
    with pytest.raises(UserError, match=f'^{tmp_path}/run.json is damaged: .*Put it back, or remove {tmp_path} to'):
      queue.finished(str(tmp_path))
  assert queue.PREEMPTED == cluster.PREEMPTED


def test_several_workers_of_one_process_train_at_the_same_time_each_with_a_log(folder):
  names = [f'run-{i}' for i in range(5)]
  order(folder, 'run-0', 'wait')
  order(folder, 'run-1', 'wait')
  process = work(folder, *names, workers=2)
  wait_for(lambda: starts(folder, 'run-0') and starts(folder, 'run-1'))  # Neither can end before both are there.
  assert not starts(folder, 'run-2')
  order(folder, 'run-0', '')
  wait_for(lambda: starts(folder, 'run-4'))  # One goes through the rest while the other trains.
  order(folder, 'run-1', '3')
  [status], [(out, err)] = ends(process)
  assert status == 1 and err == 'error: failed: run-1 (status 3)\n'
  assert all(len(starts(folder, name)) == 1 and not (folder / name / 'twice').exists() for name in names)
  lines = out.splitlines()
  assert [line for line in lines if 'run-1' in line] == [
      f'# run-1: {what}, see run-1.log' for what in ('in training', 'status 3')]
  assert {f'# {name}: finished' for name in names if name != 'run-1'} <= set(lines) and len(lines) == 10
  for name in names:
    command, said = (folder / f'{name}.log').read_text().splitlines()
    assert command.endswith(f'train.py {name}') and said == 'memory 0.450'


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_trainings_of_a_process(number, folder):
  for name in 'ab':
    order(folder, name, 'wait')
  process = work(folder, 'a', 'b', 'c', workers=2)
  wait_for(lambda: all((folder / name / 'starts').exists() for name in 'ab'))
  process.send_signal(number)
  [status], [(out, err)] = ends(process)
  assert status == cluster.PREEMPTED and not err and not starts(folder, 'c')
  assert out.splitlines()[-2:] == [f'# {name}: interrupted, see {name}.log' for name in 'ab']
  assert not list(folder.glob('*/alone'))  # Both have saved.


def test_a_training_that_is_preempted_stops_the_others_and_one_that_is_killed_does_not(folder):
  for name in 'ab':
    order(folder, name, 'wait')
  process = work(folder, 'a', 'b', workers=2)
  wait_for(lambda: starts(folder, 'a') and starts(folder, 'b'))
  os.kill(starts(folder, 'a')[0], signal.SIGTERM)
  assert ends(process)[0] == [cluster.PREEMPTED] and not list(folder.glob('*/alone'))
  process = work(folder, 'a', 'b', workers=2)
  wait_for(lambda: all(len(starts(folder, name)) == 2 for name in 'ab'))
  os.kill(starts(folder, 'a')[1], signal.SIGKILL)
  says(process, '# a: status -9')
  order(folder, 'b', '')
  [status], [(_, err)] = ends(process)
  assert status == 1 and err == 'error: failed: a (status -9)\n' and (folder / 'b' / 'run.json').exists()


@pytest.mark.parametrize('own', ['XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION',
                                 'XLA_PYTHON_CLIENT_PREALLOCATE'])
def test_an_allocator_that_the_user_has_set_is_left_alone(own, folder):
  assert ends(work(folder, 'a', workers=2, **{own: '0.2'}))[0] == [0]
  said = '0.2' if own == 'XLA_CLIENT_MEM_FRACTION' else None
  assert f'memory {said}\n' in (folder / 'a.log').read_text()
