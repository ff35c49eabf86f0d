"""local.sh: what each process gets, whose status counts, and who hears a signal."""

import json
import os
import re
import shlex
import signal
import sys

import pytest

from tests.launch.launchers import call, program, start

# Ends with the status that the environment names for its number; 'wait' goes on until SIGTERM, then saves.
FAKE = """
import json, os, pathlib, signal, sys, time
number = next(a.split('=')[1] for a in sys.argv if a.startswith('--process_id='))
folder = pathlib.Path(os.environ['FOLDER'])
def save(*_):
  (folder / f'saved{number}').touch()
  sys.exit(75)
signal.signal(signal.SIGTERM, save)
round = len(list(folder.glob(f'pid{number}.*')))
(folder / f'pid{number}.{round}').write_text(str(os.getpid()))
names = ('XLA_FLAGS', 'JAX_PLATFORMS', 'CUDA_VISIBLE_DEVICES')
print(json.dumps([sys.argv[1:], {name: os.environ.get(name) for name in names}]), flush=True)
ending = os.environ['ENDINGS'].split(';')[round].split(',')[int(number)]
if ending == 'wait':
  time.sleep(60)
if ending == 'killed':
  os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(ending))
"""


@pytest.fixture
def fake(tmp_path):
  (tmp_path / 'fake.py').write_text(FAKE)
  return lambda *options: [*options, '--', sys.executable, tmp_path / 'fake.py', "it's", '$HOME']


def address(words):
  return next(word for word in words if word.startswith('--coordinator_address='))


def test_dry_run_prints_a_line_for_each_process():
  status, out, err = call('local.sh', '--processes=2', '--devices=3', '--dry_run', '--', 'python', '-m',
                          'fer_jax.train', "--config.losses.pal.taps=('stage3',)", XLA_FLAGS='--xla_a=1')
  assert status == 0, err
  lines = [shlex.split(line) for line in out.splitlines()]
  port = address(lines[0])
  assert re.fullmatch(r'--coordinator_address=127\.0\.0\.1:\d+', port)
  assert lines == [
      ['env', 'JAX_PLATFORMS=cpu', 'XLA_FLAGS=--xla_a=1 --xla_force_host_platform_device_count=3', 'python', '-m',
       'fer_jax.train', "--config.losses.pal.taps=('stage3',)", port, '--num_processes=2', f'--process_id={i}']
      for i in range(2)]


def test_every_process_gets_its_number_and_the_others_lines_are_marked(fake, tmp_path):
  status, out, err = call('local.sh', *fake('--processes=3', '--devices=2'), FOLDER=str(tmp_path), ENDINGS='0,0,0')
  assert status == 0, err
  printed = {}
  for line in out.splitlines():
    mark, text = re.fullmatch(r'(?:\[(\d)\] )?(.*)', line).groups()
    printed[int(mark or 0)] = json.loads(text)
  assert sorted(printed) == [0, 1, 2]
  for i, (words, environment) in printed.items():
    assert words == ["it's", '$HOME', address(printed[0][0]), '--num_processes=3', f'--process_id={i}']
    assert environment == {'XLA_FLAGS': '--xla_force_host_platform_device_count=2', 'JAX_PLATFORMS': 'cpu',
                           'CUDA_VISIBLE_DEVICES': None}


@pytest.mark.parametrize('visible, seen', [('', ['CUDA_VISIBLE_DEVICES=0', 'CUDA_VISIBLE_DEVICES=1']),
                                           ('5,7,6', ['CUDA_VISIBLE_DEVICES=5', 'CUDA_VISIBLE_DEVICES=7'])])
def test_each_process_has_one_gpu(visible, seen, tmp_path):
  programs = program(tmp_path / 'bin', 'nvidia-smi', "#!/bin/sh\nprintf '0\\n1\\n'\n")
  options = {'programs': programs, 'CUDA_VISIBLE_DEVICES': visible}
  status, out, err = call('local.sh', '--processes=2', '--dry_run', '--', 'python', **options)
  assert status == 0 and [line.split()[1] for line in out.splitlines()] == seen, err
  status, _, err = call('local.sh', '--processes=4', '--dry_run', '--', 'python', **options)
  assert status == 2 and f"--processes=4, but there are {len(visible.split(',')) if visible else 2} GPUs" in err
  status, out, _ = call('local.sh', '--processes=4', '--devices=1', '--dry_run', '--', 'python', **options)
  assert status == 0 and 'CUDA' not in out and out.count('JAX_PLATFORMS=cpu') == 4


@pytest.mark.parametrize('ending, status, ended', [
    ('75,75', 75, []), ('0,75', 75, []), ('75,3', 3, ['process 1 ended with status 3']),
    ('wait,3,wait', 3, ['process 1 ended with status 3', 'ending process 0 2 after 1 s']),
    ('wait,killed', 137, ['process 1 ended with status 137', 'ending process 0 after 1 s'])])
def test_status_is_that_of_the_first_failure(ending, status, ended, fake, tmp_path):
  processes = ending.count(',') + 1
  found, _, err = call('local.sh', *fake(f'--processes={processes}', '--grace=1'), FOLDER=str(tmp_path), ENDINGS=ending)
  assert found == status
  assert re.findall('^local.sh: (.*)', err, re.MULTILINE) == ended
  assert not list(tmp_path.glob('saved*'))
  for i in range(processes):
    with pytest.raises(ProcessLookupError):
      os.kill(int((tmp_path / f'pid{i}.0').read_text()), 0)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('requeue', [(), ('--requeue',)])
def test_a_signal_reaches_all_and_ends_it(number, requeue, fake, tmp_path):
  # Tests that a shell runs in the background ignore Ctrl-C, and so does what they start, unless it is handled here.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  process = start('local.sh', *fake('--processes=2', *requeue), FOLDER=str(tmp_path), ENDINGS='wait,wait')
  signal.signal(signal.SIGINT, before)
  assert process.stdout.readline() and process.stdout.readline()  # Both have their handlers now.
  process.send_signal(number)
  process.communicate(timeout=30)
  assert process.returncode == 75
  assert (tmp_path / 'saved0').exists() and (tmp_path / 'saved1').exists()


def test_requeue_starts_again_while_the_status_is_75(fake, tmp_path):
  status, out, err = call('local.sh', *fake('--processes=2', '--requeue'), FOLDER=str(tmp_path),
                          ENDINGS='75,75;0,75;0,0;1,1')
  assert status == 0 and err.count('starting again') == 2 and len(out.splitlines()) == 6
  status, _, err = call('local.sh', *fake('--processes=2', '--requeue'), FOLDER=str(tmp_path), ENDINGS=';;;75,75;4,4')
  assert status == 4 and err.count('starting again') == 1
