"""Runs the launchers as a user does, with small stand-ins for the platforms' programs where a test needs them."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(script, *arguments, cwd=ROOT, programs=None, **environment):
  """Starts ``launch/<script>``; programs found in the folder ``programs`` go before all others."""
  path = os.environ['PATH'] if programs is None else f"{programs}:{os.environ['PATH']}"
  environment = {'PATH': path, 'XLA_FLAGS': '', 'PYTHONPATH': str(ROOT)} | environment
  return subprocess.Popen([str(ROOT / 'launch' / script), *map(str, arguments)], cwd=cwd, text=True,
                          env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def call(script, *arguments, **options):
  """Runs it to its end; returns (exit status, stdout, stderr)."""
  process = start(script, *arguments, **options)
  out, err = process.communicate(timeout=120)
  return process.returncode, out, err


def program(folder, name, text):
  """Puts an executable script into ``folder`` and returns the folder."""
  folder.mkdir(exist_ok=True)
  (folder / name).write_text(text)
  (folder / name).chmod(0o755)
  return folder


def bare_path(folder):
  """A PATH with nothing but what every system has."""
  folder.mkdir(exist_ok=True)
  for name in ('bash', 'cat', 'dirname', 'env', 'git', 'python3', 'sed'):
    (folder / name).symlink_to(shutil.which(name))
  return str(folder)
