"""Starting: XLA's flags, what is around a process, and what processes agree on. More is in test_distributed.py."""

import ctypes
import importlib.metadata
import os
import time
from types import SimpleNamespace

import jax
import jaxlib
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.runtime import cluster, devices


@pytest.fixture(autouse=True)
def told(monkeypatch):
  """What glibc is told by ``start``, instead of telling it."""
  calls = []
  monkeypatch.setattr(ctypes, 'CDLL', lambda name: SimpleNamespace(mallopt=lambda *pair: calls.append(pair)))
  return calls


def started(monkeypatch, version='0.10.2', **environment):
  monkeypatch.setattr(jaxlib, '__version__', version)
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  monkeypatch.delenv('FER_JAX_CPU_FLAGS', raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  cluster.start()
  return os.environ.get('XLA_FLAGS', '')


def test_flag_is_added_once_and_can_be_overridden(monkeypatch):
  flag = cluster.XLA_FLAGS['cpu', '0.10.2']
  assert started(monkeypatch) == flag
  assert started(monkeypatch, XLA_FLAGS='--xla_x=1') == f'--xla_x=1 {flag}'
  own = flag.split('=')[0] + '=own'
  assert started(monkeypatch, XLA_FLAGS=own) == own
  assert started(monkeypatch, FER_JAX_CPU_FLAGS='0') == ''


def test_a_process_on_cpu_keeps_its_memory_unless_told_otherwise(monkeypatch, told):
  started(monkeypatch)
  assert told == [(-4, 0), (-1, -1), (-8, 1)]
  started(monkeypatch, FER_JAX_CPU_FLAGS='0')
  monkeypatch.setattr(devices, 'may_be_others', lambda: True)
  started(monkeypatch)
  assert len(told) == 3
  monkeypatch.setattr(devices, 'may_be_others', lambda: False)
  monkeypatch.setattr(ctypes, 'CDLL', lambda name: SimpleNamespace())  # Another libc.
  started(monkeypatch)


def test_another_jaxlib_gets_no_flag_it_may_not_know(monkeypatch):
  assert started(monkeypatch, version='0.99.0') == ''


def test_a_machine_that_may_have_an_accelerator_gets_no_flag_of_the_cpu(monkeypatch):
  monkeypatch.setattr(importlib.metadata, 'entry_points', lambda group: [group])
  assert started(monkeypatch, JAX_PLATFORMS='') == ''
  assert started(monkeypatch, JAX_PLATFORMS='cpu') != ''


def test_a_batch_must_split_over_the_devices():
  mesh = cluster.make_mesh()
  cluster.check_batch(16, mesh)
  with pytest.raises(UserError, match='batch_size=12 does not split over 8 devices'):
    cluster.check_batch(12, mesh)


def test_rows_of_a_process():
  batch = {'row': np.arange(6)}
  assert cluster.own_rows(batch)['row'].tolist() == list(range(6))


def test_devices_are_in_the_order_of_their_processes():
  assert [device.id for device in cluster.make_mesh(jax.devices()[::-1]).devices] == list(range(8))


SLURM = {'SLURM_JOB_ID': '5', 'SLURM_STEP_NODELIST': 'node[003-007],other', 'SLURM_NTASKS': '40', 'SLURM_PROCID': '12',
         'SLURM_LOCALID': '4'}
OPEN_MPI = {'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1,10.148.0.1:34911', 'OMPI_COMM_WORLD_SIZE': '4',
            'OMPI_COMM_WORLD_RANK': '3', 'OMPI_COMM_WORLD_LOCAL_RANK': '1'}


@pytest.fixture
def joined(monkeypatch):
  """What start() would call and join: a list of the arguments."""
  calls = []
  monkeypatch.setenv('FER_JAX_CPU_FLAGS', '0')
  monkeypatch.setattr(cluster, 'meet', lambda *arguments: calls.append(arguments))
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *arguments, **options: calls.append(arguments))
  return calls


@pytest.mark.parametrize('environment, expected', [
    (SLURM, ('node003:61445', 40, 12, [4])), (OPEN_MPI, ('10.96.0.1:62624', 4, 3, [1])),
    (SLURM | {'JAX_LOCAL_DEVICE_IDS': '0,1'}, ('node003:61445', 40, 12, [0, 1]))])
def test_what_is_around_a_process_is_found_out(environment, expected, joined, monkeypatch):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  cluster.start(timeout=7)
  assert joined == [(*expected[:3], 7), expected]


def test_explicit_arguments_go_before_what_is_around(joined, monkeypatch):
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  cluster.start('here:1', 2, 1)
  assert joined == [('here:1', 2, 1, 300.0), ('here:1', 2, 1, None)]
  joined.clear()
  cluster.start(process_id=3)
  assert joined[0] == ('node003:61445', 40, 3, 300.0)


def test_what_is_around_is_waited_for_aloud_and_one_process_may_run_alone(joined, monkeypatch, capsys):
  for name, value in (SLURM | {'SLURM_PROCID': '0'}).items():  # A shell in srun --pty.
    monkeypatch.setenv(name, value)
  said = []

  def meet(*_):
    while not any(said):
      time.sleep(0.01)
      said[:] = [capsys.readouterr().err]

  monkeypatch.setattr(cluster, 'meet', meet)
  cluster.start(timeout=7)
  assert said == ['note: waits up to 7 s for all 40 processes at node003:61445, as what is around this one (number 0) '
                  'says: SLURM, MPI or the platform. --num_processes=1 runs it alone.\n']
  for number in ('0', '12'):
    joined.clear()
    monkeypatch.setenv('SLURM_PROCID', number)
    cluster.start(num_processes=1)
    assert not joined
  monkeypatch.setattr(cluster, 'meet', lambda *_: time.sleep(0.05))
  cluster.start('here:1', 2, 0)  # Who gives all flags knows.
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('variables, direct', [
    ({'http_proxy': 'p:1'}, '10.0.0.2'), ({'https_proxy': 'p:1', 'no_proxy': 'a,.b'}, '10.0.0.2,a,.b'),
    ({'grpc_proxy': 'p:1', 'no_proxy': 'a', 'no_grpc_proxy': 'c'}, '10.0.0.2,c'), ({'no_proxy': 'a'}, None)])
def test_a_proxy_is_not_between_processes(variables, direct, joined, monkeypatch):
  for name in ('http_proxy', 'https_proxy', 'grpc_proxy', 'no_proxy', 'no_grpc_proxy'):
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(cluster, 'os', SimpleNamespace(environ=dict(os.environ)))
  cluster.start('10.0.0.2:1', 2, 1)
  assert cluster.os.environ.get('no_grpc_proxy') == direct
  assert cluster.os.environ.get('no_proxy') == variables.get('no_proxy')


def test_without_anything_around_there_is_one_process(joined):
  cluster.start()
  assert not joined


def test_what_is_missing_is_named(joined):
  with pytest.raises(UserError, match='^--num_processes and --process_id must be given too'):
    cluster.start('here:1')


def test_a_cluster_that_cannot_be_made_out(joined, monkeypatch):
  monkeypatch.setenv('OMPI_MCA_orte_hnp_uri', 'nonsense.0')
  monkeypatch.setenv('OMPI_COMM_WORLD_SIZE', '2')
  with pytest.raises(UserError, match='a cluster is there, but JAX cannot make out its processes'):
    cluster.start()


def test_one_process_agrees_with_itself():
  assert cluster.gather('a') == ['a'] and cluster.once(lambda: {'a': 1}) == {'a': 1}
  cluster.check_same('this', 'a')
  with pytest.raises(UserError, match='^no$'):
    with cluster.together():
      raise UserError('no')


def test_processes_that_differ_are_named(monkeypatch):
  monkeypatch.setattr(cluster, 'gather', lambda text: [text, text, 'other'])
  with pytest.raises(UserError, match='^the config of process 2 is not that of process 0'):
    cluster.check_same('the config', 'a')
  monkeypatch.setattr(cluster, 'gather', lambda text: ['', 'no data', 'no room'])
  with pytest.raises(UserError, match='^process 1: no data; process 2: no room$'):
    with cluster.together():
      pass
