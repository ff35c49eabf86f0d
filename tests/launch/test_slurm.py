"""slurm.sbatch: its dry run, and jobs under a SLURM of one node that is started here where Debian's packages are."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from tests.launch.launchers import ROOT, call

BATCH = str(ROOT / 'launch' / 'slurm.sbatch')
SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"

# The machine's own network, no accounting, no cgroups, no authentication: for this folder's user alone.
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
SlurmctldPort={port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
KillWait=5
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=10 State=UP
"""

# Counts its starts. The first time it waits for SIGTERM, saves at its own pace and ends with 75, or ends as told.
STUB = """
import os, pathlib, signal, sys, time
folder, todo = pathlib.Path(sys.argv[1]), sys.argv[2]
start, number = os.environ.get('SLURM_RESTART_COUNT', '0'), os.environ['SLURM_PROCID']
def save(*_):
  time.sleep(0.5 * int(number))
  (folder / f'saved{start}.{number}').touch()
  sys.exit(75)
signal.signal(signal.SIGTERM, save)
(folder / f'start{start}.{number}').touch()
if start == '0':
  if todo == 'wait':
    time.sleep(60)
  sys.exit(int(todo))
"""


def slurm(*command, **options):
  found = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
  assert found.returncode == 0, found.stdout + found.stderr
  return found.stdout + found.stderr


def until(true, what):
  for _ in range(300):
    if true():
      return
    time.sleep(0.1)
  pytest.fail(f'not within 30 s: {what}')


def free_port():
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
  """A SLURM of one node without GPUs: the folder of its files."""
  programs = ('slurmctld', 'slurmd', 'sbatch', 'srun', 'scontrol')
  missing = [name for name in programs if not shutil.which(name, path=SBIN)]
  if missing:
    pytest.skip(f"not installed: {', '.join(missing)} (apt install slurmctld slurmd slurm-client)")
  folder = tmp_path_factory.mktemp('slurm')
  for name in ('state', 'spool'):
    (folder / name).mkdir()
  conf = folder / 'slurm.conf'
  conf.write_text(CONF.format(host=socket.gethostname().split('.')[0], user=getpass.getuser(), folder=folder,
                              port=free_port(), node_port=free_port()))
  before = os.environ.get('SLURM_CONF')
  os.environ['SLURM_CONF'] = str(conf)
  logs = [open(folder / f'{name}.log', 'w+') for name in ('slurmctld', 'slurmd')]
  daemons = [subprocess.Popen([shutil.which(name, path=SBIN), '-D', '-f', conf], stdout=log, stderr=log)
             for name, log in zip(('slurmctld', 'slurmd'), logs, strict=True)]
  for _ in range(200):
    state = subprocess.run(['sinfo', '--noheader', '--format=%t'], capture_output=True, text=True).stdout.strip()
    if state == 'idle':
      break
    time.sleep(0.1)
  else:
    for daemon in daemons:
      daemon.kill()
    pytest.skip(f"SLURM does not start on this machine (node: '{state}'): "
                + ' '.join(log.read_text()[-500:] for log in sorted(folder.glob('slurm*.log'))))
  yield folder
  subprocess.run(['scancel', f'--user={getpass.getuser()}'])
  until(lambda: not slurm('squeue', '--noheader', '--states=running,completing'), 'jobs have ended')
  for daemon in reversed(daemons):
    daemon.terminate()
    daemon.wait(timeout=30)
  for log in logs:
    log.close()
  os.environ.pop('SLURM_CONF')
  if before:
    os.environ['SLURM_CONF'] = before


def submit(folder, todo, *options):
  (folder / 'stub.py').write_text(STUB)
  return slurm('sbatch', '--parsable', '--gpus-per-node=0', '--ntasks-per-node=2', '--cpus-per-task=1', '--time=5',
               f'--output={folder}/out', *options, BATCH, sys.executable, str(folder / 'stub.py'), str(folder),
               todo).strip()


def state(job):
  return dict(word.split('=', 1) for word in slurm('scontrol', 'show', 'job', job).split() if '=' in word)


def test_dry_run_prints_the_step():
  status, out, err = call('slurm.sbatch', '--dry_run', '--config=configs/pal.py:ferplus', '--workdir=/shared/pal',
                          SLURM_CPUS_PER_TASK='8')
  assert (status, err) == (0, '')
  assert out.strip() == ('srun --gpu-bind=none --kill-on-bad-exit=0 --cpus-per-task=8 python -u -m fer_jax.train '
                         '--config=configs/pal.py:ferplus --workdir=/shared/pal')
  assert call('slurm.sbatch', '--dry_run', 'python', 'x y')[1].strip().endswith("python x\\ y")


def test_a_process_for_each_gpu():
  right = {'SLURM_GPUS_PER_NODE': 'h100:8', 'SLURM_NTASKS_PER_NODE': '8'}
  assert call('slurm.sbatch', '--dry_run', 'x', **right)[0] == 0
  status, _, err = call('slurm.sbatch', '--dry_run', 'x', **right | {'SLURM_NTASKS_PER_NODE': '1'})
  assert status == 2 and '8 GPUs but 1 processes a node' in err and '--ntasks-per-node=8 --gpus-per-node=8' in err


def test_sbatch_takes_the_file(cluster):
  out = slurm('sbatch', '--test-only', '--gpus-per-node=0', BATCH, '--config=c', '--workdir=w')
  assert 'to start at' in out and 'partition test' in out
  refused = subprocess.run(['sbatch', '--test-only', BATCH, '--config=c'], capture_output=True, text=True)
  assert refused.returncode and 'generic resource' in refused.stderr  # One GPU is asked for; this node has none.


def test_sigterm_saves_in_all_processes_and_the_job_comes_back(cluster, tmp_path):
  job = submit(tmp_path, 'wait')
  assert state(job)['Requeue'] == '1'
  until(lambda: len(list(tmp_path.glob('start0.*'))) == 2, 'both processes have started')
  slurm('scancel', '--signal=TERM', job)  # As SLURM does before the time limit: to the steps, not to the script.
  until(lambda: state(job)['Restarts'] == '1', 'the job is back in the queue')
  assert sorted(path.name for path in tmp_path.glob('saved*')) == ['saved0.0', 'saved0.1']
  # It would wait for two minutes: SLURM's node starts no job again in the second in which it has ended it.
  time.sleep(3)
  slurm('scontrol', 'update', f'JobId={job}', 'StartTime=now')
  until(lambda: state(job)['JobState'] == 'COMPLETED', 'the second start has ended')
  assert sorted(path.name for path in tmp_path.glob('start1.*')) == ['start1.0', 'start1.1']
  assert 'preempted with its state saved; back into the queue' in (tmp_path / 'out').read_text()
  assert state(job)['Restarts'] == '1'


@pytest.mark.parametrize('todo, ends', [('0', 'COMPLETED'), ('2', 'FAILED'), ('134', 'FAILED')])
def test_other_statuses_end_the_job(todo, ends, cluster, tmp_path):
  job = submit(tmp_path, todo)
  until(lambda: state(job)['JobState'] not in ('PENDING', 'RUNNING', 'COMPLETING'), 'the job has ended')
  assert (state(job)['JobState'], state(job)['Restarts'], state(job)['ExitCode']) == (ends, '0', f'{todo}:0')


def test_a_cancelled_job_stays_away(cluster, tmp_path):
  job = submit(tmp_path, 'wait')
  until(lambda: len(list(tmp_path.glob('start0.*'))) == 2, 'both processes have started')
  slurm('scancel', job)
  until(lambda: state(job)['JobState'] == 'CANCELLED', 'the job is cancelled')
  until(lambda: len(list(tmp_path.glob('saved0.*'))) == 2, 'both have saved')
  assert state(job)['Restarts'] == '0'


def test_a_sweep_is_one_array_job(cluster, tmp_path, monkeypatch):
  (tmp_path / 'table.py').write_text("ROWS = {'a': {}, 'b': {}}\n")
  (tmp_path / 'w' / 'b-0').mkdir(parents=True)
  (tmp_path / 'w' / 'b-0' / 'run.json').write_text('{"finished": "2026-01-01"}')
  package = tmp_path / 'fer_jax'  # In place of the real training: says what it was asked to do.
  package.mkdir()
  (package / '__init__.py').touch()
  (package / 'train.py').write_text('import os, sys\nprint(os.environ["SLURM_PROCID"], *sys.argv[1:], flush=True)\n')
  monkeypatch.chdir(tmp_path)
  status, out, err = call('sweep', f'--config={tmp_path}/table.py:set', '--seeds=2', '--workdir=w', '--via=slurm',
                          f'--sbatch=--gpus-per-node=0 --time=5 --cpus-per-task=1 --output={tmp_path}/out-%a', '--',
                          '--config.x=1', cwd=tmp_path, PYTHONPATH=str(tmp_path))
  assert status == 0 and out.startswith('sbatch --array=0,2,3 ') and 'Submitted batch job' in out, err
  until(lambda: not slurm('squeue', '--noheader'), 'the jobs have ended')
  line = '0 --config={}:set:{} --config.seed={} --workdir=w/{}-{} --config.x=1\n'
  assert {path.name: path.read_text() for path in tmp_path.glob('out-*')} == {
      f'out-{i}': line.format(tmp_path / 'table.py', row, seed, row, seed)
      for i, row, seed in ((0, 'a', 0), (2, 'a', 1), (3, 'b', 1))}
