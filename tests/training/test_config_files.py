"""Config files: by path or by name, from any folder, with the neighbours they import; and how changes are recorded."""

import json
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from fer_jax.errors import UserError
from fer_jax.training import config_files
from tests.processes import ROOT, environment


@pytest.mark.parametrize('name, path, argument', [
    ('pal', 'pal', ''), ('pal:ferplus', 'pal', 'ferplus'), ('pal.py', 'pal', ''), ('configs/pal.py:x', 'pal', 'x'),
    ('configs/pal', 'pal', ''), ('ablations/pal:ferplus:true_class', 'ablations/pal', 'ferplus:true_class'),
    ('configs/ablations/systems.py', 'ablations/systems', '')])
def test_a_config_of_the_package_is_found_by_name_from_any_folder(name, path, argument, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert config_files.find(name) == (str(ROOT / 'configs' / f'{path}.py'), argument)


def test_a_file_comes_first(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'pal').write_text('')
  assert config_files.find('pal:x') == ('pal', 'x')


@pytest.mark.parametrize('name, nearest', [
    ('pall', 'pal'), ('configs/baselin.py:ferplus', 'baseline'), ('ablations/sytems', 'ablations/systems'),
    ('/nowhere/configs/pal.py', 'pal'), ('', None), ('common', None)])
def test_an_unknown_config_names_the_nearest(name, nearest):
  with pytest.raises(UserError) as error:
    config_files.find(name)
  assert f"there is no config file '{name.partition(':')[0]}'" in str(error.value) and 'quickstart' in str(error.value)
  assert nearest is None or f"did you mean '{nearest}'?" in str(error.value)


def test_configs_elsewhere_import_those_of_the_package(tmp_path):
  own = tmp_path / 'mine.py'
  own.write_text('from configs import pal\n\n\ndef get_config(argument):\n  config = pal.get_config(argument)\n'
                 "  config.name = 'mine'\n  return config\n")
  config = config_files.load_config(f'{own}:synthetic_faces', ['epochs=2'])
  assert (config.name, config.epochs, config.data.dataset) == ('mine', 2, 'synthetic_faces')


def test_neighbours_come_before_those_of_the_package(tmp_path):
  for folder in ('a', 'b'):
    (tmp_path / folder / 'configs' / 'deep').mkdir(parents=True)
    (tmp_path / folder / 'configs' / 'pal.py').write_text(f"NAME = '{folder}'")
    (tmp_path / folder / 'configs' / 'deep' / 'x.py').write_text('from configs import baseline, pal\nNAME = pal.NAME')
  run = lambda folder: config_files.run(str(tmp_path / folder / 'configs' / 'deep' / 'x.py'))
  try:
    assert run('a')['NAME'] == 'a' and run('b')['NAME'] == 'b'  # Each its own, in one process.
    assert run('a')['baseline'].__file__ == str(ROOT / 'configs' / 'baseline.py')
  finally:
    config_files.run(str(ROOT / 'configs' / 'pal.py'))
  assert config_files.load_config('pal').name.startswith('pal')


def test_a_config_that_cannot_be_loaded_is_one_sentence(tmp_path):
  own = tmp_path / 'mine.py'
  for text, message in (('from configs import nothing', 'nothing'), ('def get_config(:', 'invalid syntax'),
                        ('def get_config(a): return a', 'missing 1 required')):
    own.write_text(text)
    with pytest.raises(UserError, match=message):
      config_files.load_config(str(own))


FORMS = '''
import json, sys
from fer_jax import command_line, train
command_line.run(train.define, lambda given: print(json.dumps([given.config.name, given.config.seed,
                 given.config.data.table, command_line.overrides(given)])))
'''


@pytest.mark.parametrize('arguments', [
    ['--config=pal', '--config.seed=3', '--config.data.table=False'],
    ['--config', 'pal', '--config.seed', '3', '--noconfig.data.table'],
    ['-config=configs/pal.py', '-config.seed=3', '--config.data.table=false'],
    ['-config', str(ROOT / 'configs/pal.py'), '--config.seed=2', '-config.seed', '3', '-noconfig.data.table']])
def test_every_form_of_a_flag_is_taken_and_recorded(arguments, tmp_path):
  done = subprocess.run([sys.executable, '-c', FORMS, '--workdir=x', *arguments], cwd=tmp_path, text=True,
                        env=environment(tmp_path), capture_output=True)
  assert done.returncode == 0, done.stderr
  name, seed, table, overrides = json.loads(done.stdout)
  assert name.startswith('pal') and seed == 3 and table is False
  assert overrides == ['--config.seed=3', '--config.data.table=False']


@pytest.fixture
def config():
  values = {'order': 'stored', 'rate': 0.5, 'sizes': (1, 2), 'table': True, 'head': {'mean': 'running'}}
  return ConfigDict(values).lock()


def test_changes_are_python_literals_or_plain_text(config):
  config_files.change_config(config, ['order=sorted', 'rate=1', 'sizes=(3, 4)', 'table=False', 'head.mean="batch"'])
  assert config.to_dict() == {'order': 'sorted', 'rate': 1.0, 'sizes': (3, 4), 'table': False,
                              'head': {'mean': 'batch'}}
  config_files.change_config(config, ['order=a=b c'])
  assert config.order == 'a=b c'


@pytest.mark.parametrize('change, message', [
    ('ordre=sorted', '--set=ordre=sorted: Key "ordre" does not exist'), ('rate=fast', '--set=rate=fast: Could not'),
    ('head.x.y=1', '--set=head.x.y=1: '), ('order', '--set=order: write --set=KEY=VALUE')])
def test_changes_that_cannot_be(config, change, message):
  with pytest.raises(UserError) as error:
    config_files.change_config(config, [change])
  assert str(error.value).startswith(message)
