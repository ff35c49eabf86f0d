"""tpu_vm.sh: its commands, that gcloud knows their options, and 'keep' against a gcloud that takes slices away."""

import os
import shlex
import shutil
import subprocess
import time

import pytest

from tests.launch.launchers import ROOT, call, program

SLICE = ('--name=pal', '--zone=us-west4-a')
TRAIN = ('--', 'python', '-m', 'fer_jax.train', '--config=configs/pal.py', "--config.losses.pal.taps=('stage3',)")
LIST = ['gcloud', 'compute', 'tpus', 'queued-resources', 'list', '--zone=us-west4-a', '--filter=name ~ /pal$',
        '--format=value(state.state)']


def dry_run(action, *options):
  status, out, err = call('tpu_vm.sh', action, *SLICE, '--dry_run', *options)
  assert status == 0, err
  return [shlex.split(line) for line in out.splitlines() if not line.startswith('#')]


def test_create_asks_for_a_queued_resource():
  create = ['gcloud', 'compute', 'tpus', 'queued-resources', 'create', 'pal', '--node-id=pal', '--zone=us-west4-a']
  assert dry_run('create') == [
      [*create, '--accelerator-type=v5litepod-16', '--runtime-version=v2-alpha-tpuv5-lite'], LIST]
  assert dry_run('create', '--project=p', '--accelerator=v5p-8', '--spot', '--valid_until=6h')[0] == [
      *create, '--project=p', '--accelerator-type=v5p-8', '--runtime-version=v2-alpha-tpuv5', '--spot',
      '--valid-until-duration=6h']
  assert '--runtime-version=mine' in dry_run('create', '--accelerator=v9-8', '--runtime=mine')[0]


def test_install_copies_the_committed_code_and_the_data_to_all():
  archive, copy, ssh = dry_run('install', '--data=gs://b/data')
  file = archive[-2].removeprefix('--output=')
  assert archive == ['git', '-C', str(ROOT), 'archive', '--format=tar.gz', f'--output={file}', 'HEAD']
  assert copy == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'scp', file, 'pal:fer_jax.tar.gz', '--zone=us-west4-a',
                  '--worker=all']
  assert ssh[:8] == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'pal', '--zone=us-west4-a', '--worker=all']
  assert 'tar -xzf fer_jax.tar.gz -C fer_jax' in ssh[8] and '"jax[tpu]" "./fer_jax[gcs]"' in ssh[8]
  assert ssh[8].endswith('gcloud storage rsync --recursive gs://b/data tensorflow_datasets')


def test_logs_and_delete():
  assert dry_run('logs', '--worker=3') == [
      ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'pal', '--zone=us-west4-a', '--worker=3',
       '--command=tail -n 100 -F fer_jax.log']]
  assert dry_run('delete') == [['gcloud', 'compute', 'tpus', 'queued-resources', 'delete', 'pal', '--zone=us-west4-a',
                                '--force', '--quiet']]


def test_what_run_starts_on_a_host_survives_the_connection_and_leaves_its_status(tmp_path):
  """The very text that goes through ssh, run in a home of its own."""
  (tmp_path / 'env' / 'bin').mkdir(parents=True)
  (tmp_path / 'env' / 'bin' / 'activate').write_text(f'PATH={tmp_path}/bin:$PATH\n')
  (tmp_path / 'fer_jax').mkdir()
  program(tmp_path / 'bin', 'python', '#!/bin/sh\nprintf "<%s>" "$@"\nsleep 0.5\nexit 75\n')
  [ssh] = dry_run('run', *TRAIN)
  assert ssh[7] == '--worker=all'
  status_file = tmp_path / 'status'
  command = ssh[8].removeprefix('--command=').replace('/dev/shm/fer_jax.status', str(status_file))
  for attempt in ('starts', 'is refused while the first goes on'):
    shell = subprocess.run(['bash', '-c', command], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert status_file.read_text() == 'running\n'
    assert shell.returncode == (attempt != 'starts'), shell.stderr
  assert 'a run is going on here' in shell.stderr
  while status_file.read_text() in ('running\n', ''):
    time.sleep(0.05)
  assert status_file.read_text() == '75\n'
  assert (tmp_path / 'fer_jax.log').read_text() == ''.join(f'<{word}>' for word in TRAIN[2:])


# Says what a script of states says: a line for each question about the slice, and one for each about the command.
GCLOUD = """#!/usr/bin/env bash
cd {folder}
next() {{ head -n 1 "$1"; sed -i 1d "$1"; }}
case "$*" in
  *'queued-resources list'*) next states ;;
  *'--command=cat '*) next outcomes ;;
  *'queued-resources create'*) echo create >> calls ;;
  *'queued-resources delete'*) echo delete >> calls ;;
  *'--command=mkdir'*) echo install >> calls ;;
  *'--command=if'*) echo start >> calls ;;
  *' pal:fer_jax.log pal.log '*) echo log >> calls ;;
esac
"""


def keep(folder, states, outcomes):
  program(folder / 'bin', 'gcloud', GCLOUD.format(folder=folder))
  program(folder / 'bin', 'sleep', '#!/bin/sh\n')
  for name, lines in (('states', states), ('outcomes', outcomes)):
    (folder / name).write_text(''.join(f'{line}\n' for line in lines))
  status, out, err = call('tpu_vm.sh', 'keep', *SLICE, *TRAIN, programs=folder / 'bin', cwd=folder, TMPDIR=str(folder))
  return status, (folder / 'calls').read_text().split(), out + err


def test_keep_creates_a_preempted_slice_again_until_the_command_has_ended(tmp_path):
  status, calls, out = keep(
      tmp_path,
      ['', 'WAITING_FOR_RESOURCES', 'ACTIVE', 'ACTIVE', 'SUSPENDING', 'SUSPENDED', '', 'PROVISIONING'] + ['ACTIVE'] * 5,
      ['absent', 'running', 'absent', '75', '', 'running', '0'])
  assert calls == ['create', 'install', 'start',  # The first slice, until it is taken away.
                   'delete', 'create', 'install', 'start',
                   'start',  # Status 75 on a slice that is still there.
                   'log', 'delete'], out
  assert status == 0 and 'the command ended with status 0; its output is in pal.log' in out


def test_keep_ends_with_the_commands_failure_and_gives_the_slice_back(tmp_path):
  status, calls, out = keep(tmp_path, ['ACTIVE', 'ACTIVE'], ['absent', '2'])
  assert status == 2 and calls == ['install', 'start', 'log', 'delete'] and 'ended with status 2' in out


def test_keep_gives_up_after_three_failures(tmp_path):
  program(tmp_path / 'bin', 'git', '#!/bin/sh\nexit 1\n')  # Nothing can be installed.
  status, _, out = keep(tmp_path, ['', *['ACTIVE'] * 3], ['absent'] * 3)
  assert status == 2 and 'error: given up after 3 failures. The slice may still cost' in out


@pytest.mark.skipif(not shutil.which('gcloud'), reason='gcloud is not installed')
def test_gcloud_knows_every_option(tmp_path):
  everywhere = {'--project', '--format', '--quiet'}  # "gcloud wide flags", which the page of a command only mentions.
  used = {}
  for line in dry_run('keep', '--project=p', '--spot', '--valid_until=6h', '--data=gs://b/data', *TRAIN):
    if line[0] == 'gcloud':
      used.setdefault(tuple(line[:5]), set()).update(word.split('=')[0] for word in line if word.startswith('--'))
  assert len(used) == 5
  for command, options in used.items():
    page = subprocess.run([*command, '--help'], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          env=os.environ | {'CLOUDSDK_CONFIG': str(tmp_path), 'PAGER': 'cat'}).stdout
    page = page.replace('\033[m', '').replace('\033[1m', '')
    assert not {option for option in options - everywhere if option not in page}, command
