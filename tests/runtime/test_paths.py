"""Paths as users write them."""

import os
import pwd

import pytest

from fer_jax.analysis import ablation
from fer_jax.errors import UserError
from fer_jax.reports import runs
from fer_jax.runtime import paths, storage
from fer_jax.training import config_files


def test_the_home_folder_is_known_wherever_a_path_is_read(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  user = pwd.getpwuid(os.getuid())
  for written, meant in (('~/a', tmp_path / 'a'), ('~', tmp_path), ('./~/a', '~/a'), ('a~/b', 'a~/b'),
                         (f'~{user.pw_name}/a', f'{user.pw_dir}/a'), ('gs://bucket/~/a', 'gs://bucket/~/a')):
    assert paths.expand(written).removeprefix('./') == str(meant)
  storage.write_text('~/runs/a/file', 'text')
  assert (tmp_path / 'runs/a/file').read_text() == 'text' == storage.read_text('~/runs/a/file')
  assert str(storage.absolute('~/runs')) == f'{tmp_path}/runs'
  assert runs.expand('~/runs/*') == [f'{tmp_path}/runs/a'] == runs.expand('~/runs/a')
  assert ablation.list_jobs('ablations/pal:ferplus', {'row': 1}, '~/x/')[0].workdir == f'{tmp_path}/x/row-0'
  (tmp_path / 'own.py').write_text('')
  assert config_files.find('~/own.py:faces') == (f'{tmp_path}/own.py', 'faces')


def test_a_user_that_is_not_there_is_named():
  for path in ('~nobody_here/a', '~nobody_here'):
    with pytest.raises(UserError, match=f"^{path}: there is no user 'nobody_here'; write ./{path} for a name"):
      storage.as_path(path)
