"""Several processes are one run: they compute what one process computes, stop together, and say what is wrong."""

import json
import os
import shutil
import signal
import time
from unittest import mock

import jax
import numpy as np
import pytest

from fer_jax.runtime import cluster
from fer_jax.training import evaluation, metrics_log, setup
from fer_jax.training.workdir import read_run
from tests import faces
from tests.processes import TINY, Process, call, finish, free_port, start, start_together
from tests.workdirs import final_state, metrics

# Steps so small that rounding, which differs with the number of devices, is not blown up by training itself; and an
# evaluation after each, because processes take up to a second to agree that one of them got SIGTERM.
# Of seed 0 a ReLU flips by rounding in step 9 (gradient norm off by 7e-4).
# A checkpoint is due after each step: process 0 writes some of them while all go on.
GENTLE = ('--config=configs/pal.py', *TINY, '--config.optimizer.learning_rate=0.0003', '--config.epochs=4.0',
          '--config.evaluate_every=0.25', '--config.checkpoint_every=0.25', '--config.seed=1')
SHARES = (*GENTLE, '--config.data.resident=split')  # A share of the faces lies on each device.


def assert_close(one, two, tolerance):
  """Same metrics and last states, up to the order in which devices' shares are added."""
  for a, b in zip(metrics(one), metrics(two), strict=True):
    assert (a['step'], a['kind']) == (b['step'], b['kind'])
    for name in a.keys() - {'step', 'kind', *metrics_log.TIMING}:
      np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=f'{name} {a}')
  (step, one), (other, two) = final_state(one), final_state(two)
  assert step == other == 16
  # Rounding alone came to 7e-7, and to 1e-5 in the momentum. But a gradient jumps where the input of one ReLU is nearly
  # 0 and rounding decides its sign: in step 23 by 6e-4 (6 of 96 continued runs). A lost momentum or a wrong row: > 0.1.
  for part, bound in (('params', 0.1), ('batch_stats', 0.1), ('ema', 0.1), ('opt_state', 20)):
    for x, y in zip(*(jax.tree.leaves(getattr(state, part)) for state in (one, two)), strict=True):
      np.testing.assert_allclose(x, y, rtol=bound * tolerance, atol=bound * tolerance, err_msg=part)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def whole(runs):
  """One process with four devices; draws the faces, too."""
  finish([start('train', *GENTLE, f'--workdir={runs}/whole', data_dir=runs, devices=4)])
  return runs / 'whole'


@pytest.fixture(scope='module')
def pair(runs, whole):
  """Two processes with two devices each, and what they printed; a proxy that is not there is none of their business."""
  with mock.patch.dict(os.environ, http_proxy='http://127.0.0.1:9', https_proxy='http://127.0.0.1:9'):
    processes = start_together(2, 'train', *SHARES, f'--workdir={runs}/pair', data_dir=runs, devices=2)
  printed = finish(processes)
  return runs / 'pair', printed


@pytest.fixture(scope='module')
def stopped(runs, pair):
  """A run of two processes of which the second got Ctrl-C, and what they printed."""
  processes = start_together(2, 'train', *SHARES, f'--workdir={runs}/stopped', data_dir=runs, devices=2)
  log = runs / 'stopped/metrics.jsonl'
  while not (log.exists() and log.read_text().count('\n') >= 2):
    assert processes[1].poll() is None, processes[1].communicate()
    time.sleep(0.01)
  processes[1].send_signal(signal.SIGINT)
  return runs / 'stopped', finish(processes[:1], status=75) + finish(processes[1:], status=130)


def test_two_processes_compute_what_one_does(whole, pair):
  assert_close(whole, pair[0], 1e-4)
  results = [json.loads((workdir / 'evaluation/test.json').read_text()) for workdir in (whole, pair[0])]
  assert results[0]['confusion'] == results[1]['confusion'] and results[1]['protocol']['evaluations'] == 1
  assert results[1]['hardware'].endswith('in 2 processes')


def test_process_0_speaks_for_all(pair):
  (first, _), (second, _) = pair[1]
  assert first.startswith('2 processes, 4 x ') and "mesh {'data': 4}" in first and '16 rows, 4 a device' in first
  assert 'Report: ' in first
  assert not [line for line in second.splitlines() if line and not line.startswith('[Gloo]')]


def test_ctrl_c_in_one_of_two_saves_one_step_and_ends_the_other_with_75(stopped):
  workdir, ((first, _), _) = stopped
  step = final_state(workdir)[0]
  assert 1 <= step < 16 and f'SIGTERM: step {step} is saved' in first
  assert metrics(workdir)[-1]['step'] == step
  assert 'finished' not in read_run(workdir)


@pytest.mark.parametrize('processes, devices', [(2, 2), (1, 4)])
def test_what_two_processes_left_goes_on_anywhere(runs, pair, stopped, processes, devices):
  workdir = runs / f'resumed_{processes}_{devices}'
  shutil.copytree(stopped[0], workdir)
  (first, _), *_ = finish(start_together(processes, 'train', *SHARES, f'--workdir={workdir}', data_dir=runs,
                                         devices=devices))
  assert f'from step {final_state(stopped[0])[0]}' in first
  same = (processes, devices) == (2, 2)
  assert_close(pair[0], workdir, 0 if same else 1e-4)  # On the same topology: the same bits.


TOLD = ('row', 'label', 'prediction', 'landmarks_valid', 'logits')
COUNTS = (1, 5, 6, 7, 17)  # 1, b - 1, b, b + 1 and more, in batches of b = 6.


def collected(mesh, batch_size):
  """What an evaluation finds of so many faces in batches of so many."""
  system = setup.make_system(faces.config(), faces.CLASSES, 4)
  variables = cluster.replicate(system.initial().variables(), mesh)
  evaluator = setup.make_evaluator(system, mesh)
  for n in COUNTS:
    yield evaluation.collect(evaluator, variables, faces.source(n, seed=n), batch_size, mesh)


def print_collected(*address):
  cluster.start(*address)
  for table in collected(cluster.make_mesh(), 6):
    print('table', json.dumps([table[name].tolist() for name in TOLD]))


def test_evaluation_counts_every_face_once(tmp_path):
  # One process of eight devices, with all faces in one batch; one of six; and three of two.
  at_once = [*collected(cluster.make_mesh(), 24)]
  address = f'localhost:{free_port()}'
  started = [Process(print_collected, address, 3, i, data_dir=tmp_path, devices=2) for i in range(3)]
  printed = [[json.loads(line[6:]) for line in out.splitlines() if line.startswith('table')]
             for out, _ in finish(started)]
  assert printed[0] == printed[1] == printed[2]  # Every process knows the same.
  by_three = [dict(zip(TOLD, map(np.array, table), strict=True)) for table in printed[0]]
  for found in ([*collected(cluster.make_mesh(jax.devices()[:6]), 6)], by_three):
    for n, table, expected in zip(COUNTS, found, at_once, strict=True):
      assert table['row'].tolist() == list(range(n))
      assert table['label'].tolist() == faces.source(n, seed=n).labels.tolist()
      for name in ('prediction', 'landmarks_valid'):
        np.testing.assert_array_equal(table[name], expected[name])
      np.testing.assert_allclose(table['logits'], expected['logits'], atol=2e-3)


def test_a_process_that_does_not_come_is_named(runs, whole):
  address = f'localhost:{free_port()}'
  common = (*GENTLE, f'--workdir={runs}/missing', f'--coordinator_address={address}', '--num_processes=3',
            '--start_timeout=5')
  for _, err in finish([start('train', *common, f'--process_id={i}', data_dir=runs) for i in (0, 2)], status=2):
    assert err.startswith(f'error: start-up: after 5 s process 1 of 3 is missing at {address}.')
  assert not (runs / 'missing').exists()


@pytest.mark.parametrize('flags, message', [
    (['--num_processes=2'], '--coordinator_address and --process_id must be given too'),
    (['--coordinator_address=localhost:1', '--num_processes=2', '--process_id=2'], 'the numbers are 0 to 1'),
    (['--coordinator_address=here', '--num_processes=2', '--process_id=0'], 'give HOST:PORT'),
    (['--profile=3'], '--profile=3: give START:STOP'), (['--profile=5:5'], '--profile=5:5: give START:STOP')])
def test_flags_that_do_not_fit(flags, message, tmp_path):
  status, _, err = call('train', *GENTLE, f'--workdir={tmp_path}/run', *flags, data_dir=tmp_path)
  assert status == 2 and err.startswith('error: ') and message in err and err.count('\n') == 1


def test_what_only_one_process_lacks_stops_both(runs, whole, tmp_path):
  # The second process does not find the data set that the first one has.
  address = f'localhost:{free_port()}'
  common = (*GENTLE, f'--workdir={runs}/lacking', f'--coordinator_address={address}', '--num_processes=2')
  (tmp_path / 'file').write_text('')
  second = start('train', *common, '--process_id=1', data_dir=tmp_path / 'file')
  first = start('train', *common, '--process_id=0', data_dir=runs)
  for i, (_, err) in enumerate(finish([first, second], status=2)):
    assert f'process {i} of 2: error: process 1: cannot write {tmp_path}/file' in err
  assert not (runs / 'lacking').exists()


def test_processes_of_different_configs_do_not_start(runs, whole):
  address = f'localhost:{free_port()}'
  common = (*GENTLE, f'--workdir={runs}/different', f'--coordinator_address={address}', '--num_processes=2')
  first = start('train', *common, '--process_id=0', data_dir=runs)
  second = start('train', *common, '--process_id=1', '--config.seed=2', data_dir=runs)
  for _, err in finish([first, second], status=2):
    assert 'the config of process 1 is not that of process 0' in err


def test_a_workdir_that_processes_do_not_share(runs, whole, tmp_path):
  address = f'localhost:{free_port()}'
  started = [start('train', *GENTLE, f'--workdir={tmp_path}/{i}', f'--coordinator_address={address}',
                   '--num_processes=2', f'--process_id={i}', data_dir=runs) for i in range(2)]
  for _, err in finish(started, status=2):
    assert f'error: process 1: {tmp_path}/1 holds no config.json here, though process 0 has written it' in err


def test_commands_on_a_run_work_in_several_processes(pair, runs):
  before = json.loads((pair[0] / 'evaluation/test.json').read_text())
  workdir = runs / 'evaluated'
  shutil.copytree(pair[0], workdir)
  (first, _), (second, _) = finish(start_together(2, 'evaluate', f'--workdir={workdir}', data_dir=runs))
  after = json.loads((workdir / 'evaluation/test.json').read_text())
  assert after['confusion'] == before['confusion'] and after['protocol']['evaluations'] == 2
  assert 'accuracy' in first and 'accuracy' not in second
  finish(start_together(2, 'features', f'--workdir={workdir}', '--dataset=synthetic_faces', '--variant=tiny',
                        f'--out={runs}/features.npz', data_dir=runs))
  with np.load(runs / 'features.npz') as features:
    assert len(features['names']) == len(features['pooled']) == before['count']
