"""Runs the commands as a user does: in processes of their own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Cheap compiles, and one device unless the test asks for more.
_FLAGS = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'


def environment(data_dir, devices=1):
  """The environment of a process with so many virtual devices."""
  return os.environ | {'TFDS_DATA_DIR': str(data_dir), 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT),
                       'XLA_FLAGS': f'{_FLAGS} --xla_force_host_platform_device_count={devices}'}


def start(module, *arguments, data_dir, devices=1, cwd=ROOT):
  """Starts ``python -m fer_jax.<module>`` with output to pipes."""
  return subprocess.Popen([sys.executable, '-m', f'fer_jax.{module}', *arguments], cwd=cwd,
                          env=environment(data_dir, devices), text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)


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
