"""A run's record: which code it was made by."""

import io
import os
import subprocess
import sys
import tarfile

import pytest

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
