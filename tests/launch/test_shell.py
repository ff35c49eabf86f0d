"""All launchers: shellcheck, help, and mistakes that end with one clear line and status 2."""

import shutil
import subprocess

import pytest

from tests.launch.launchers import ROOT, bare_path, call

SCRIPTS = ('local.sh', 'tpu_vm.sh', 'gke/run.sh', 'slurm.sbatch', 'sweep')
SHELL = sorted(path for path in (ROOT / 'launch').rglob('*') if path.suffix in ('.sh', '.sbatch'))


@pytest.mark.skipif(not shutil.which('shellcheck'), reason='shellcheck is not installed (apt install shellcheck)')
@pytest.mark.parametrize('path', SHELL, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
  checked = subprocess.run(['shellcheck', '--external-sources', path], cwd=ROOT, capture_output=True, text=True)
  assert checked.returncode == 0, checked.stdout
  assert 'shellcheck disable' not in path.read_text()


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_says_how_to_call_it(script):
  status, out, err = call(script, '--help')
  assert status == 0, err
  assert f'launch/{script} ' in out and '--dry_run' in out and 'set -euo' not in out


def test_every_program_can_be_started():
  assert len(SHELL) == 5
  for script in SCRIPTS:
    assert (ROOT / 'launch' / script).stat().st_mode & 0o111, script


TRAIN = ('--', 'python', '-m', 'fer_jax.train')
SLICE = ('--name=a', '--zone=z')
PODS = ('--name=a', '--image=i', '--data_bucket=b')


@pytest.mark.parametrize('script, arguments, message', [
    ('local.sh', ['--process=2', *TRAIN], "unknown option '--process=2'. With a value, written --name=value, there "
                                          'are: processes devices grace. Without: requeue dry_run.'),
    ('local.sh', ['--processes', '2', *TRAIN], "unknown option '--processes'"),
    ('local.sh', TRAIN, '--processes=... is missing'),
    ('local.sh', ['--processes=two', *TRAIN], '--processes=two: give a whole number above 0.'),
    ('local.sh', ['--processes=2', '--devices=0', *TRAIN], '--devices=0: give a whole number above 0.'),
    ('local.sh', ['--processes=2'], "no command: write it behind '--'"),
    ('local.sh', ['--processes=2', 'python'], "unexpected argument 'python': the command stands behind '--'."),
    ('tpu_vm.sh', SLICE, 'say what to do: create, install, run, logs, delete or keep'),
    ('tpu_vm.sh', ['destroy', *SLICE], "'destroy' is not known: create, install, run, logs, delete or keep"),
    ('tpu_vm.sh', ['create', '--name=a'], '--zone=... is missing'),
    ('tpu_vm.sh', ['run', *SLICE], "no command: write it behind '--'"),
    ('tpu_vm.sh', ['delete', *SLICE, *TRAIN], "'delete' takes no command; 'run' and 'keep' do."),
    ('tpu_vm.sh', ['create', *SLICE, '--dry_run', '--accelerator=v9-8'], '--accelerator=v9-8: which software'),
    ('tpu_vm.sh', ['create', *SLICE, '--spots'], "unknown option '--spots'"),
    ('gke/run.sh', ['--name=a'], 'say on what: tpu or gpu, as the first word'),
    ('gke/run.sh', ['tpu', '--name=a', *TRAIN], '--image=... is missing'),
    ('gke/run.sh', ['tpu', *PODS, '--nodes=2', *TRAIN], "unknown option '--nodes=2'"),
    ('gke/run.sh', ['tpu', *PODS, '--topology=4x4x', *TRAIN], '--topology=4x4x: write it as GKE does'),
    ('gke/run.sh', ['tpu', *PODS, '--topology=2x3', *TRAIN], 'has 6 chips, which hosts of --chips=4 do not make up'),
    ('gke/run.sh', ['gpu', *PODS, '--name=My_run', *TRAIN], '--name=My_run: small letters, digits'),
    ('gke/run.sh', ['gpu', *PODS, '--data_bucket=gs://b', *TRAIN], '--data_bucket=gs://b: only the name'),
    ('gke/run.sh', ['gpu', *PODS, '--restarts=-1', *TRAIN], '--restarts=-1: give a whole number.'),
    ('slurm.sbatch', [], 'nothing to run'),
    ('slurm.sbatch', ['--config=c'], 'this is a batch script: sbatch launch/slurm.sbatch --config=c'),
    ('sweep', ['--config=configs/ablations/pal.py:ferplus', '--workdir=w', '--rows=plane'], "did you mean 'plain'?"),
    ('sweep', ['--config=configs/pal.py:ferplus', '--workdir=w'], 'configs/pal.py has no ROWS'),
    ('sweep', ['--config=configs/ablations/pal.py', '--workdir=w'], 'give an ablation config and its data set'),
    ('sweep', ['--config=configs/ablations/pal.py:ferplus', '--workdir=w', '--seeds=0'], '--seeds=0: give a whole'),
    ('sweep', ['--config=configs/ablations/pal.py:ferplus', '--workdir=w', '--seed=3'], '--seed=3'),
    ('sweep', ['--config=configs/ablations/pal.py:ferplus'], '--workdir'),
])
def test_a_mistake_is_one_clear_line_and_status_2(script, arguments, message):
  status, out, err = call(script, *arguments)
  assert status == 2 and message in err and out == ''
  assert len([line for line in err.splitlines() if 'error: ' in line]) == 1


@pytest.mark.parametrize('script, arguments, message', [
    ('tpu_vm.sh', ['delete', *SLICE], "'gcloud' is not installed: it comes with the Google Cloud CLI"),
    ('gke/run.sh', ['gpu', *PODS, *TRAIN], "'kubectl' is not installed: it comes with the Google Cloud CLI"),
])
def test_a_program_that_is_missing_is_named(script, arguments, message, tmp_path):
  status, _, err = call(script, *arguments, PATH=bare_path(tmp_path / 'bin'))
  assert status == 2 and message in err
  assert call(script, *arguments[:1], '--dry_run', *arguments[1:], PATH=bare_path(tmp_path / 'other'))[0] == 0
