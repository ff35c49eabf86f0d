"""A run's record: which code it was made by, and what is left of it in damaged files and in those of other versions."""

import copy
import functools
import io
import os
import subprocess
import sys
import tarfile

import pytest

from fer_jax.errors import UserError
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

@pytest.fixture
def run(tmp_path):
  """The workdir of a run that has begun, and its settings."""
  settings = setup.settings(faces.config())
  workdir.open_workdir(settings, tmp_path / 'run', [])
  return tmp_path / 'run', settings


def test_runs_of_earlier_versions_have_the_values_of_before(run):
  folder, settings = run
  theirs = copy.deepcopy(settings) | {'seeds': 1, 'select': 'ema'}
  theirs['data']['cache'] = True  # A key that is gone.
  theirs['data']['copies'] = theirs['data'].pop('duplicates')  # Keys that got other names.
  for key in ('eval_order', 'remat', 'variables', 'teacher', 'sources', 'init_from', 'regions',
              'data.table', 'data.resident', 'data.resident_steps', 'data.maps', 'data.seed', 'augment.noise',
              'model.region_norm', 'length', 'checkpoint_minutes'):  # And some that came later.
    *path, last = key.split('.')
    del functools.reduce(lambda node, name: node[name], path, theirs)[last]
  storage.write_json(folder / 'config.json', theirs)
  assert setup.settings(workdir.read_config(folder)) == settings and workdir.is_claimed(folder, settings)
  storage.write_json(folder / 'run.json', {'looks': {'test': 2}})
  assert workdir.read_run(folder) == {'evaluations': {'test': 2}}
  balanced = {**theirs['data'], 'balanced': True}
  del balanced['order']
  storage.write_json(folder / 'config.json', theirs | {'select': 'holdout', 'data': balanced})
  read = workdir.read_config(folder)
  assert (read.select, read.variables, read.data.order) == ('holdout', 'trained', 'balanced')
  assert 'balanced' not in read.data


def test_what_an_earlier_run_did_not_explain_is_not_explained(run):
  folder, settings = run
  del settings['explain']
  storage.write_json(folder / 'config.json', settings)
  assert workdir.read_config(folder).explain.to_dict() == {}


def test_keys_of_a_newer_version_are_told_and_left_out(run, capsys):
  folder, settings = run
  settings['data']['colour'] = {'space': 'lab'}
  storage.write_json(folder / 'config.json', settings | {'precision': 8})
  read = workdir.read_config(folder)
  assert 'precision' not in read and 'colour' not in read.data and read.data.size == 16
  workdir.read_config(folder)
  said = capsys.readouterr().err  # Once.
  assert said.count('note: ') == 1 and f'config.json of {folder} has data.colour and precision, which' in said
  with pytest.raises(UserError, match='precision is 8 there, absent here'):
    workdir.is_claimed(folder, setup.settings(faces.config()))


@pytest.mark.parametrize('content, why', [
    (lambda whole: whole[:300], r'Expecting|Unterminated|delimiter'), (lambda whole: b'', 'Expecting value'),
    (lambda whole: b'\xff\xfe{}', "can't decode"), (lambda whole: b'not JSON', 'Expecting value'),
    (lambda whole: b'[]', 'it holds a list'), (lambda whole: b'null', 'it holds a NoneType')])
@pytest.mark.parametrize('name', ['config.json', 'run.json'])
def test_a_damaged_record_is_named_by_all_who_read_it(name, content, why, run):
  folder, settings = run
  (folder / name).write_bytes(content((folder / 'config.json').read_bytes()))
  message = rf'^{folder}/{name} is damaged \(.*({why}).*\): put a copy of it back, or train again in another --workdir'
  for read in (lambda: workdir.open_workdir(settings, folder, []), lambda: workdir.read_finished(folder),
               lambda: setup.load(folder, None)):
    with pytest.raises(UserError, match=message):
      read()


def test_a_record_that_is_gone_or_without_a_whole_config_is_named(run):
  folder, settings = run
  (folder / 'run.json').unlink()
  with pytest.raises(UserError, match='run.json is gone: put it back, or train again in another --workdir'):
    workdir.open_workdir(settings, folder, [])
  for part, why in (
      ({}, 'it lacks name, seed, data.dataset'), (settings | {'losses': 1, 'data': []}, 'it lacks data.dataset'),
      (settings | {'losses': 1}, 'its losses is 1'), (settings | {'optimizer': None}, 'its optimizer is null'),
      (settings | {'epochs': '2'}, 'its epochs is "2"'),
      (settings | {'explain': {'cam': []}}, r'its explain.cam is \[')):
    storage.write_json(folder / 'config.json', part)
    with pytest.raises(UserError, match=f'config.json is damaged .{why}'):
      workdir.read_config(folder)
  storage.write_json(folder / 'run.json', {'classes': None})
  with pytest.raises(UserError, match='run.json is damaged .its classes is null'):
    workdir.read_run(folder)


def test_records_of_runs_leave_the_commit_as_it_is(tmp_path, monkeypatch):
  clone = tmp_path / 'clone'
  for name in ('fer_jax/training/workdir.py', 'configs/records/run.json'):
    (clone / name).parent.mkdir(parents=True, exist_ok=True)
    (clone / name).write_text('')
  monkeypatch.setattr(workdir, '__file__', str(clone / 'fer_jax/training/workdir.py'))
  who = ['-c', 'user.name=x', '-c', 'user.email=x']
  for command in (['init', '-q'], ['add', 'fer_jax'], [*who, 'commit', '-qm', 'x']):
    subprocess.run(['git', '-C', clone, *command], check=True)
  clean = workdir.commit()
  assert len(clean) == 12
  (clone / 'configs/mine.py').write_text('')
  assert workdir.commit() == f'{clean}-dirty'


def test_the_commit_is_read_from_a_clone_of_another_user(monkeypatch, tmp_path):
  if not (ROOT / '.git').exists():
    pytest.skip('this is no git checkout')
  head = git('rev-parse', '--short=12', 'HEAD', text=True).strip()
  monkeypatch.setenv('GIT_TEST_ASSUME_DIFFERENT_OWNER', '1')  # Git's own switch for its tests.
  assert workdir.commit().removesuffix('-dirty') == head
  # Where it cannot be read, it is said why.
  monkeypatch.setenv('GIT_DIR', str(tmp_path))
  assert workdir.commit().startswith('version 0.1.0, commit unknown (fatal: not a git repository')
  monkeypatch.setenv('PATH', '')
  assert workdir.commit() == "version 0.1.0, commit unknown ([Errno 2] No such file or directory: 'git')"
