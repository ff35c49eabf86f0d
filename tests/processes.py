"""Runs the commands as a user does: in processes of their own.

These are forked from one that has imported what commands need, which takes longer than most of them run. That a command
starts without it is for test_install.py, test_imports.py and the launchers.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

from tensorflow_datasets.core import constants

ROOT = Path(__file__).resolve().parents[1]

# Cheap compiles, and one device unless the test asks for more.
_FLAGS = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'

_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(['fer_jax.analysis.ablation', 'fer_jax.analysis.cross', 'fer_jax.analysis.faithfulness',
                                 'fer_jax.analysis.robustness', 'fer_jax.analysis.transfer', 'fer_jax.training.loop',
                                 'matplotlib.figure', 'matplotlib.backends.backend_agg'])


def environment(data_dir, devices=1):
  """The environment of a process with so many virtual devices."""
  return os.environ | {'TFDS_DATA_DIR': str(data_dir), 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT),
                       'XLA_FLAGS': f'{_FLAGS} --xla_force_host_platform_device_count={devices}'}


class Process:
  """A process that calls a function; of ``subprocess.Popen`` it has what tests use."""

  def __init__(self, function, *arguments, cwd=ROOT, **variables):
    self._files = [tempfile.NamedTemporaryFile('r') for _ in range(2)]
    self._process = _CONTEXT.Process(target=_run, args=(function, arguments, str(cwd), environment(**variables),
                                                        [file.name for file in self._files]))
    with mock.patch.dict(os.environ, PYTHONPATH=str(ROOT)):  # Of the process that all are forked from.
      self._process.start()
    self.pid = self._process.pid

  @property
  def returncode(self):
    return self._process.exitcode

  def poll(self):
    return self.returncode

  def send_signal(self, number):
    os.kill(self.pid, number)

  def kill(self):
    self.send_signal(signal.SIGKILL)

  def communicate(self, timeout=None):
    """Waits for its end; returns (stdout, stderr)."""
    self._process.join(timeout)
    if self.returncode is None:
      self.kill()
      raise subprocess.TimeoutExpired(self._process.name, timeout)
    return self.printed()

  def printed(self):
    """What it has written so far to (stdout, stderr)."""
    return tuple(Path(file.name).read_text() for file in self._files)


def _run(function, arguments, cwd, variables, files):
  for descriptor, name in enumerate(files, start=1):
    os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), descriptor)
  os.chdir(cwd)
  os.environ.clear()
  os.environ.update(variables)
  signal.signal(signal.SIGINT, signal.default_int_handler)  # Tests in the background of a shell ignore Ctrl-C.
  constants.DATA_DIR = variables['TFDS_DATA_DIR']  # Read when TFDS is imported, which was before.
  sys.path.insert(0, cwd)
  try:
    function(*arguments)
  finally:
    atexit._run_exitfuncs()  # As any process but a forked one does.


def command(module, *arguments):
  """Does what ``python -m fer_jax.<module>`` does."""
  sys.argv = [module, *arguments]
  runpy.run_module(f'fer_jax.{module}', run_name='__main__', alter_sys=True)


def start(module, *arguments, **options):
  """Starts ``python -m fer_jax.<module>``; the options are those of ``environment``, and ``cwd``."""
  return Process(command, module, *arguments, **options)


def call(module, *arguments, data_dir, **options):
  """Runs it to its end; returns (exit status, stdout, stderr)."""
  process = start(module, *arguments, data_dir=data_dir, **options)
  out, err = process.communicate(timeout=300)
  return process.returncode, out, err


def start_together(count, module, *arguments, **options):
  """Starts ``count`` processes that are one run; a list."""
  address = f'localhost:{free_port()}'
  return [start(module, *arguments, f'--coordinator_address={address}', f'--num_processes={count}', f'--process_id={i}',
                **options) for i in range(count)]


def finish(processes, status=0):
  """Waits for processes, asserts their exit status, and returns what they printed: [(stdout, stderr)]."""
  printed = [process.communicate(timeout=300) for process in processes]
  assert [process.returncode for process in processes] == [status] * len(processes), printed
  return printed


def free_port():
  """A port that nothing uses right now."""
  with socket.socket() as probe:
    probe.bind(('', 0))
    return probe.getsockname()[1]


TINY = ('--config.data.variant=tiny', '--config.data.size=32', '--config.image_size=16',
        '--config.model.backbone.width=4', '--config.model.backbone.depth=10', '--config.batch_size=16',
        '--config.eval_batch_size=16', '--config.log_every=1')
