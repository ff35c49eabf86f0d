"""A run's record: which code it was made by."""

import io
import os
import subprocess
import sys
import tarfile

import pytest

from fer_jax.runtime import storage
from fer_jax.training import setup, workdir
from tests import faces
from tests.processes import ROOT


def git(*arguments, **options):
  return subprocess.run(['git', '-C', str(ROOT), *arguments], capture_output=True, check=True, **options).stdout


@pytest.fixture
def archive(tmp_path):
  """The code without git, as launchers copy it to other machines."""
  if not (ROOT / '.git').exists():
    pytest.skip('this is no git checkout')
  with tarfile.open(fileobj=io.BytesIO(git('archive', 'HEAD'))) as file:
    file.extractall(tmp_path, filter='data')
  return tmp_path


def test_code_from_an_archive_knows_its_commit(archive):
  script = 'from fer_jax.training import workdir; print(workdir.__file__, workdir.commit())'
  told = subprocess.run([sys.executable, '-c', script], cwd=archive, env=os.environ | {'PYTHONPATH': str(archive)},
                        capture_output=True, text=True, check=True).stdout
  head = git('rev-parse', '--short=12', 'HEAD', text=True).strip()
  assert told.split() == [str(archive / 'fer_jax/training/workdir.py'), head]


def test_a_run_of_before_some_keys_got_other_names(tmp_path):
  settings = setup.settings(faces.config())
  workdir.open_workdir(settings, tmp_path, [])
  theirs = {**settings, 'seeds': 1, 'data': {**settings['data'], 'copies': False}}
  del theirs['data']['duplicates']
  storage.write_json(tmp_path / 'config.json', theirs)
  storage.write_json(tmp_path / 'run.json', {'looks': {'test': 2}})
  assert setup.settings(workdir.read_config(tmp_path)) == settings and workdir.is_claimed(tmp_path, settings)
  assert workdir.read_run(tmp_path) == {'evaluations': {'test': 2}}
