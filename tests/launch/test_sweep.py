"""sweep: the runs of a table, what the queue leaves out and goes on with, and whose status counts."""

import json
import os
import shlex
import signal
import sys

import pytest

from tests.launch.launchers import ROOT, call, start

# In place of the real training: notes its arguments, and ends as the workdir's file 'todo' says.
TRAIN = """
import os, pathlib, signal, sys, time
workdir = pathlib.Path(next(a.split('=')[1] for a in sys.argv if a.startswith('--workdir=')))
workdir.mkdir(parents=True, exist_ok=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print('trains', *sys.argv[1:], flush=True)
for flag in sys.argv:
  if flag.startswith('--process_id='):  # Nobody ends before all have come, as in the real one.
    (workdir / flag).touch()
    while len(list(workdir.glob('--process_id=*'))) < 2:
      time.sleep(0.01)
todo = workdir / 'todo'
if todo.exists():
  if todo.read_text() == 'wait':
    time.sleep(60)
  sys.exit(int(todo.read_text()))
(workdir / 'run.json').write_text('{"finished": "2026-01-01T00:00:00"}')
"""


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'table.py').write_text("ROWS = {'a': {}, 'b': {}, 'c': {}}\n")
  package = tmp_path / 'fer_jax'
  package.mkdir()
  (package / '__init__.py').touch()
  (package / 'train.py').write_text(TRAIN)
  return tmp_path


def todo(folder, run, what):
  (folder / 'w' / run).mkdir(parents=True)
  (folder / 'w' / run / 'todo').write_text(what)


def sweep(folder, *options, begin=call):
  return begin('sweep', '--config=table.py:faces', '--workdir=w', *options, cwd=folder, PYTHONPATH=str(folder))


def trained(out):
  return [line.split('--workdir=w/')[1].split()[0] for line in out.splitlines() if line.startswith('trains ')]


def test_dry_run_lists_every_row_and_seed():
  arguments = ('--config=configs/ablations/pal.py:ferplus', '--rows=pal,plain', '--seeds=2', '--workdir=runs/pal/',
               '--dry_run')
  status, out, err = call('sweep', *arguments, '--', "--config.losses.pal.taps=('stage3',)", '--dry_run')
  assert status == 0, err
  lines = [shlex.split(line) for line in out.splitlines()]
  assert all(os.path.samefile(line[0], sys.executable) for line in lines)
  assert [line[1:] for line in lines] == [
      ['-m', 'fer_jax.train', f'--config=configs/ablations/pal.py:ferplus:{row}',
       f'--config.seed={seed}', f'--workdir=runs/pal/{row}-{seed}', "--config.losses.pal.taps=('stage3',)", '--dry_run']
      for seed in (0, 1) for row in ('pal', 'plain')]
  status, out, err = call('sweep', *arguments, '--via=slurm', "--sbatch=--partition=gpu --constraint='a b'")
  assert status == 0, err
  [line] = map(shlex.split, out.splitlines())
  assert os.path.samefile(line.pop(5), sys.executable)
  assert line == ['sbatch', '--array=0,1,2,3', '--partition=gpu', '--constraint=a b',
                  str(ROOT / 'launch/slurm.sbatch'), str(ROOT / 'launch/sweep'), *arguments[:-1],
                  '--via=slurm', "--sbatch=--partition=gpu --constraint='a b'"]


def test_all_rows_of_a_table_by_default():
  _, out, _ = call('sweep', '--config=configs/ablations/arm.py:ferplus', '--workdir=w', '--dry_run')
  import configs.ablations.arm
  assert len(out.splitlines()) == len(configs.ablations.arm.ROWS)


def test_finished_runs_are_left_out(folder):
  status, out, err = sweep(folder, '--rows=c,a', '--', '--config.x=1')
  assert status == 0 and trained(out) == ['c-0', 'a-0'], err
  assert 'trains --config=table.py:faces:c --config.seed=0 --workdir=w/c-0 --config.x=1' in out
  status, out, _ = sweep(folder, '--seeds=2')
  assert status == 0 and trained(out) == ['b-0', 'a-1', 'b-1', 'c-1']
  assert '# w/a-0: finished at 2026-01-01T00:00:00' in out
  status, out, _ = sweep(folder, '--seeds=2')
  assert status == 0 and trained(out) == [] and out.count('finished at') == 6
  status, out, _ = sweep(folder, '--seeds=2', '--via=slurm')
  assert status == 0 and out == '# all runs are finished\n'


def test_a_failed_run_does_not_stop_the_others(folder):
  todo(folder, 'a-0', '2')
  status, out, err = sweep(folder)
  assert status == 1 and trained(out) == ['a-0', 'b-0', 'c-0']
  assert err == 'error: failed: w/a-0 (status 2)\n'


def teach(folder):
  (folder / 'table.py').write_text("ROWS = {'a': {}, 'b': {}, 'c': {}}\nTEACHERS = {'a': 'b'}\n")


def test_a_row_that_learns_from_another_comes_after_it(folder):
  teach(folder)
  status, out, err = sweep(folder, '--dry_run')
  assert status == 0 and [line.split('--workdir=w/')[1] for line in out.splitlines()] == [
      'a-0 --config.teacher.workdir=w/b-0', 'b-0', 'c-0'], err
  status, out, err = sweep(folder, '--rows=a,c')
  assert status == 2 and err.startswith("error: --rows: 'a' learns from 'b', of which w/b-0 holds no finished run")
  assert not out and not (folder / 'w').exists()
  todo(folder, 'b-1', '2')
  status, out, err = sweep(folder, '--seeds=2')
  assert status == 1 and trained(out) == ['b-0', 'a-0', 'c-0', 'b-1', 'c-1']
  assert err == 'error: failed: w/b-1 (status 2), w/a-1 (its teacher failed)\n'
  status, out, err = sweep(folder, '--rows=a')  # Its teacher is there.
  assert status == 0 and out == '# w/a-0: finished at 2026-01-01T00:00:00\n', err


def test_an_array_is_not_submitted_with_rows_whose_teachers_are_not_finished(folder):
  teach(folder)
  status, out, err = sweep(folder, '--via=slurm', '--dry_run')
  assert status == 2 and not out and err == (
      "error: --via=slurm: w/a-0 learns from w/b-0, which is not finished, and an array has no order: submit the "
      "teachers' rows first (--rows=b), and the others when they are finished.\n")
  status, out, err = sweep(folder, '--via=slurm', '--dry_run', '--rows=b,c')
  assert status == 0 and out.startswith('sbatch --array=0,1 '), err
  assert sweep(folder, '--rows=b')[0] == 0
  status, out, err = sweep(folder, '--via=slurm', '--dry_run', '--rows=a,c')
  assert status == 0 and out.startswith('sbatch --array=0,1 '), err


def test_a_preempted_run_ends_the_queue_with_75_and_is_the_next_to_go_on(folder):
  todo(folder, 'b-0', '75')
  status, out, _ = sweep(folder)
  assert status == 75 and trained(out) == ['a-0', 'b-0']
  (folder / 'w' / 'b-0' / 'todo').unlink()
  status, out, _ = sweep(folder)
  assert status == 0 and trained(out) == ['b-0', 'c-0']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_training(number, folder):
  todo(folder, 'a-0', 'wait')
  process = sweep(folder, begin=start)
  while not process.stdout.readline().startswith('trains '):
    pass
  process.send_signal(number)
  out, _ = process.communicate(timeout=30)
  assert process.returncode == 75 and out == ''


def test_several_processes_go_through_one_queue(folder):
  status, out, err = call('local.sh', '--processes=2', '--', ROOT / 'launch' / 'sweep', '--config=table.py:faces',
                          '--workdir=w', '--rows=a,b', '--', cwd=folder, PYTHONPATH=str(folder))
  assert status == 0, err
  for run in ('a-0', 'b-0'):  # Both have been in both; what they print at the same time may be mixed.
    assert {path.name for path in (folder / 'w' / run).glob('--*')} == {'--process_id=0', '--process_id=1'}
  assert '--num_processes=2' in out
  assert {json.loads((folder / 'w' / run / 'run.json').read_text())['finished'][:4] for run in ('a-0', 'b-0')} == {
      '2026'}
