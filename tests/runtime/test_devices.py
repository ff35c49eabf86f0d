"""What is said of devices that JAX cannot use."""

import fnmatch
import functools
import logging
import os
import subprocess
import sys

import jax
import pytest

from fer_jax.errors import UserError
from fer_jax.runtime import cluster, devices
from tests.processes import ROOT, environment

BROKEN = "def initialize():\n  raise RuntimeError('Unable to load cuSPARSE. Is it installed?')\n"

SHOW = """
import logging
from fer_jax.runtime import cluster, devices
logging.root.setLevel(logging.CRITICAL)  # As commands do.
devices.listen()
print(devices.plugins())
print(cluster.banner(cluster.make_mesh()))
"""


def test_a_plugin_that_fails_is_told_and_the_first_line_says_that_all_runs_on_the_cpu(tmp_path):
  plugin = tmp_path / 'jax_plugins/broken/__init__.py'
  plugin.parent.mkdir(parents=True)
  plugin.write_text(BROKEN)
  variables = environment(tmp_path) | {'PYTHONPATH': f'{tmp_path}:{ROOT}', 'JAX_PLATFORMS': ''}
  shown = subprocess.run([sys.executable, '-c', SHOW], env=variables, capture_output=True, text=True, check=True)
  found, banner = shown.stdout.splitlines()
  assert 'broken' in found
  assert '; falls back to the CPU: ' in banner and 'JAX_PLATFORMS=cpu if that is meant' in banner
  [note] = [line for line in shown.stderr.splitlines() if line.startswith('note: falls back to the CPU: ')]
  assert note.endswith('jax_plugins.broken.initialize(): Unable to load cuSPARSE. Is it installed?')
  assert 'Traceback' not in shown.stderr


@pytest.fixture
def heard(monkeypatch):
  """Listens as commands do, with nothing heard so far; there are the tests' devices, and nobody asked for them."""
  monkeypatch.setattr(devices, '_NOTES', devices._Notes())
  logger = logging.getLogger(devices._JAX)
  level, handlers, propagate = logger.level, list(logger.handlers), logger.propagate
  devices.listen()
  before = jax.config.jax_platforms
  jax.config.update('jax_platforms', '')
  yield logger
  jax.config.update('jax_platforms', before)
  logger.setLevel(level)
  logger.handlers[:], logger.propagate = handlers, propagate


def test_a_warning_of_jax_is_told_once(heard, capsys, monkeypatch):
  monkeypatch.setattr(devices.glob, 'glob', lambda pattern: [])
  heard.warning('An NVIDIA GPU may be present on this machine, but a\nCUDA-enabled jaxlib is not installed.')
  heard.info('Nothing to see.')
  devices.find()
  devices.find()
  assert capsys.readouterr().err == (
      'note: falls back to the CPU: JAX could not start the support for an accelerator that is installed '
      '(JAX_PLATFORMS=cpu if that is meant). JAX: An NVIDIA GPU may be present on this machine, but a CUDA-enabled '
      'jaxlib is not installed.\n')


def test_an_accelerator_that_lies_idle_is_named_unless_the_cpu_is_asked_for(heard, monkeypatch):
  there = ['/dev/nvidia0']
  monkeypatch.setattr(devices.glob, 'glob', functools.partial(fnmatch.filter, there))
  mesh = cluster.make_mesh()
  assert '; falls back to the CPU: this machine has /dev/nvidia0, but JAX cannot use it' in cluster.banner(mesh)
  there[:] = ['/dev/accel1']  # A TPU.
  assert 'this machine has /dev/accel1' in devices.fallback()
  jax.config.update('jax_platforms', 'cpu')
  assert devices.fallback() == '' and cluster.banner(mesh).endswith("mesh {'data': 8}")
  jax.config.update('jax_platforms', '')
  there.clear()
  assert devices.fallback() == ''


@pytest.mark.parametrize('error, platforms, said', [
    (AssertionError(), 'cuda', 'JAX finds no device for JAX_PLATFORMS=cuda. Give JAX_PLATFORMS=cpu'),
    (RuntimeError("Unable to initialize backend 'x': it is unknown. (set JAX_PLATFORMS='' to choose)"), 'x',
     "for JAX_PLATFORMS=x: Unable to initialize backend 'x': it is unknown. Give"),
    (RuntimeError('The TPU is already in use by process 7.\nMore.'), '',
     'device: The TPU is already in use by process 7. Give')])
def test_devices_that_are_not_there_are_one_sentence(error, platforms, said, heard, monkeypatch):
  def fail():
    raise error

  monkeypatch.setattr(jax, 'devices', fail)
  jax.config.update('jax_platforms', platforms)
  with pytest.raises(UserError) as raised:
    cluster.make_mesh()
  assert said in str(raised.value)


def test_a_platform_that_is_not_here_ends_a_command_with_one_line(tmp_path):
  ended = subprocess.run([sys.executable, '-m', 'fer_jax.evaluate', f'--workdir={tmp_path}'], cwd=ROOT, text=True,
                         env=os.environ | {'JAX_PLATFORMS': 'nonsense'}, capture_output=True)
  assert ended.returncode == 2 and ended.stderr.startswith('error: JAX finds no device for JAX_PLATFORMS=nonsense')
  assert len(ended.stderr.splitlines()) == 1
