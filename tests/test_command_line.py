"""What every command does with its streams and with Ctrl-C, in processes as small as can be."""

import os
import subprocess
import sys

import pytest

from tests.processes import ROOT

# A command that prints what no latin-1 has, works on, and prints again; or is told to stop in the middle.
COMMAND = """
import os, signal, sys, time
from fer_jax import command_line
def main(given):
  print('\\u25b2 sad [/] \\udcff', flush=True)
  print('progress \\u25b2', file=sys.stderr, flush=True)
  if os.environ.get('SLOW'):
    sys.stdin.read()  # Until nobody reads any more.
  if os.environ.get('STOP'):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # What a shell starts in the background ignores it.
    signal.raise_signal(signal.SIGINT)
  print('line\\n' * 20_000)
  with open(os.environ['DONE'], 'w') as file:
    file.write('done')
command_line.run(lambda: None, main)
"""


def run(tmp_path, *options, shell='', **variables):
  line = f'exec {sys.executable} {" ".join(options)} -c "$COMMAND" {shell}'
  variables = {'COMMAND': COMMAND, 'DONE': str(tmp_path / 'done'), 'PYTHONPATH': str(ROOT), **variables}
  ended = subprocess.run(['bash', '-c', line], env=os.environ | variables, capture_output=True)
  return ended.returncode, ended.stdout, ended.stderr, (tmp_path / 'done').exists()


@pytest.mark.parametrize('variables, first', [
    ({'PYTHONIOENCODING': 'latin-1:strict'}, rb'\u25b2 sad [/] \udcff'),
    ({'PYTHONIOENCODING': 'utf-8'}, '▲ sad [/] \\udcff'.encode()),
    ({'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}, rb'\u25b2 sad [/] \udcff')])
def test_output_of_any_encoding_is_printed(variables, first, tmp_path):
  status, out, err, done = run(tmp_path, **variables)
  assert status == 0 and done and out.startswith(first) and out.count(b'line') == 20_000 and b'Traceback' not in err


@pytest.mark.parametrize('option, shell', [
    ('', '>&-'), ('', '>&- 2>&-'), ('', '> /dev/full'), ('-u', '> /dev/full'), ('', '2> /dev/full')])
def test_output_that_cannot_be_written_is_lost_and_the_work_is_done(option, shell, tmp_path):
  status, _, err, done = run(tmp_path, option, shell=shell)
  assert status == 0 and done and b'Error' not in err
  assert (tmp_path / 'done').read_text() == 'done'  # Nothing was printed into it.


@pytest.mark.parametrize('options', [(), ('-u',)])
def test_a_pipe_that_is_closed_ends_nothing(options, tmp_path):
  variables = {'DONE': str(tmp_path / 'done'), 'PYTHONPATH': str(ROOT), 'SLOW': 'yes'}
  process = subprocess.Popen([sys.executable, *options, '-c', COMMAND], env=os.environ | variables,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  process.stdout.readline()  # As head -1 does.
  process.stdout.close()
  process.stdin.close()
  assert process.wait() == 0 and (tmp_path / 'done').exists()


def test_ctrl_c_is_one_word_and_status_130(tmp_path):
  status, _, err, done = run(tmp_path, STOP='yes', PYTHONIOENCODING='utf-8')
  assert (status, err.decode(), done) == (130, 'progress ▲\nCtrl-C\n', False)
