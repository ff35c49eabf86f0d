"""launch/README.md: every command block is run here, or says to its reader that it is not, and why."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.launch.launchers import ROOT, call, program
from tests.processes import TINY

TEXT = (ROOT / 'launch' / 'README.md').read_text()
BLOCK = re.compile(r'(?P<before>[^\n]*)\n```(?P<kind>[^\n]*)\n(?P<commands>.*?)\n```', re.DOTALL)
BLOCKS = list(BLOCK.finditer(TEXT))
RUN = [match['commands'] for match in BLOCKS if match['kind'] == 'sh']
NOT_RUN = [match['commands'] for match in BLOCKS if match['kind'] == 'console']
LAUNCHERS = {f'launch/{name}' for name in ('local.sh', 'slurm.sbatch', 'tpu_vm.sh', 'gke/run.sh', 'sweep')}


def test_every_block_is_run_or_says_that_it_is_not():
  assert TEXT.count('\n```') == 2 * len(BLOCKS) and len(RUN) + len(NOT_RUN) == len(BLOCKS)
  for match in BLOCKS:
    marked = re.fullmatch(r'\*Not run in the tests: needs .+\.\*', match['before']) is not None
    assert marked == (match['kind'] == 'console'), match[0]


def test_every_launcher_is_in_a_block():
  assert LAUNCHERS <= {word for commands in RUN + NOT_RUN for word in commands.split()}


@pytest.fixture
def clone(tmp_path):
  """A folder that looks like the clone, where 'python' trains smaller nets for a shorter time."""
  for name in ('launch', 'configs'):
    (tmp_path / name).symlink_to(ROOT / name)
  smaller = shlex.join([*TINY, '--config.epochs=0.25'])
  program(tmp_path / 'bin', 'python', f'#!/bin/sh\ncase "$*" in *fer_jax.train*) set -- "$@" {smaller} ;; esac\n'
                                      f'exec {sys.executable} "$@"\n')
  return tmp_path


@pytest.mark.parametrize('commands', RUN, ids=lambda commands: ' '.join(commands.split()[:1]))
def test_commands_run(commands, clone):
  if 'mpirun' in commands and not shutil.which('mpirun'):
    pytest.skip('mpirun is not installed (apt install openmpi-bin)')
  environment = os.environ | {
      'PATH': f"{clone / 'bin'}:{os.environ['PATH']}", 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu',
      'TFDS_DATA_DIR': str(clone / 'data'),
      'XLA_FLAGS': '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true',
      'OMPI_ALLOW_RUN_AS_ROOT': '1', 'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1', 'OMPI_MCA_rmaps_base_oversubscribe': '1'}
  done = subprocess.run(['bash', '-euo', 'pipefail', '-c', commands], cwd=clone, env=environment, text=True,
                        capture_output=True, timeout=300)
  assert done.returncode == 0, done.stdout + done.stderr
  for workdir in re.findall(r'--workdir=(runs/\S+)', commands):
    if '--dry_run' not in commands:
      record = json.loads((clone / workdir / 'run.json').read_text())
      assert record['finished'] and record['processes'] == 2
      assert record['devices'] == (4 if '--devices=2' in commands else 2)


def test_launchers_of_the_other_blocks_take_their_arguments():
  """What can be checked without the platform: their dry runs."""
  tried = set()
  for line in '\n'.join(NOT_RUN).splitlines():
    words = shlex.split(line)
    script = next((word for word in words if word in LAUNCHERS), None)
    if script and words[0] in (script, 'sbatch'):
      rest = words[words.index(script) + 1:]
      at = 0 if script == 'launch/slurm.sbatch' else 1
      status, out, err = call(script.removeprefix('launch/'), *rest[:at], '--dry_run', *rest[at:])
      assert status == 0 and out, line + err
      tried.add(script)
  assert tried == {'launch/slurm.sbatch', 'launch/tpu_vm.sh', 'launch/gke/run.sh'}


@pytest.mark.parametrize('message', [
    ' missing at ', 'has not reached process 0', 'cannot listen at port', 'must be given too', 'does not split over',
    'is not that of process 0', 'holds a run of another config', 'gs:// paths need a package that is not installed',
    'was cut off; what is left of it is ignored', 'can be restored and is used instead',
    'holds no config.json here, though process 0 has written it'])
def test_messages_are_those_of_the_program(message):
  code = ' '.join(path.read_text() for path in (ROOT / 'fer_jax').rglob('*.py'))
  assert message in TEXT and message in re.sub(r"'\s+f?'", '', code)
