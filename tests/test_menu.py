"""The menu: ``fer_jax`` lists the commands and runs them, and all of them fit into one process."""

import subprocess
import sys

import pytest

from fer_jax.__main__ import commands
from tests.processes import ROOT, call, environment

NOT_COMMANDS = {'__init__', '__main__', 'command_line', 'errors', 'registry'}


def run(*arguments, cwd=ROOT):
  done = subprocess.run([sys.executable, '-m', 'fer_jax', *arguments], cwd=cwd, env=environment(cwd), text=True,
                        capture_output=True, timeout=300)
  return done.returncode, done.stdout, done.stderr


def test_every_file_of_the_root_is_a_command_or_shared():
  assert {path.stem for path in (ROOT / 'fer_jax').glob('*.py')} == commands().keys() | NOT_COMMANDS
  assert {'train', 'evaluate', 'prepare', 'ablate'} <= commands().keys()


@pytest.mark.parametrize('arguments', [[], ['--help']])
def test_the_list_has_a_line_for_each_command(arguments, tmp_path):
  status, out, err = run(*arguments, cwd=tmp_path)
  assert status == 0 and not err
  listed = dict(line.strip().split(maxsplit=1) for line in out.splitlines()[2:])
  assert listed == commands()
  assert all(line.endswith('.') and len(line) < 120 for line in listed.values())


def test_an_unknown_command_is_one_error_with_the_nearest():
  status, out, err = run('trian', '--workdir=x')
  assert status == 2 and not out
  assert err.startswith("error: there is no command 'trian'; did you mean 'train'?") and len(err.splitlines()) == 1


def test_a_command_of_the_menu_is_the_module(tmp_path):
  assert run('report', '--help')[:2] == call('report', '--help', data_dir=tmp_path)[:2]
  status, _, err = run('report', f'--workdirs={tmp_path}/none', cwd=tmp_path)
  assert status == 2 and err.startswith('error: ') and 'there is no such folder' in err


def test_all_commands_are_imported_into_one_process_define_nothing_and_load_no_jax():
  code = '''
import importlib, sys
from absl import app, flags  # absl has flags of its own.
before = set(flags.FLAGS)
from fer_jax.__main__ import commands
for name in commands():
  importlib.import_module(f'fer_jax.{name}')
assert set(flags.FLAGS) == before, set(flags.FLAGS) - before
assert 'jax' not in sys.modules and 'tensorflow' not in sys.modules
'''
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, env=environment(ROOT))
