"""The architecture as a test: folders are floors, imports go down only, and the core never loads TensorFlow or PyTorch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'fer_jax'

# Folders from the top floor down; the root's commands stand above all. A file imports from its own folder, from floors
# below, and nothing else. ``data`` stands for the files directly in it.
FLOORS = [
    {'analysis'},
    {'training'},
    {'reports', 'losses'},
    {'data.reading', 'attribution', 'metrics'},
    {'models', 'data.builders'},
    {'data.preparing'},
    {'data'},
    {'landmarks', 'runtime'},
]
GROUND = ['registry', 'errors']  # Files at the root that everything may import, the lower one last.
TOP = len(FLOORS)


def floor(module):
  """The floor of a module of fer_jax, 0 the lowest; ``folder`` is the longest one that is listed."""
  parts = module.split('.')[1:]
  for i, names in enumerate(FLOORS):
    for length in (2, 1):
      if '.'.join(parts[:length]) in names:
        if length == 1 and parts[:2] and '.'.join(parts[:2]) in set().union(*FLOORS):
          continue
        return TOP - i, '.'.join(parts[:length])
  if parts and parts[0] in GROUND:
    return -GROUND.index(parts[0]), parts[0]
  return TOP + 1, 'commands'


def imports(path):
  """Modules of fer_jax that a file imports, at its top or inside of a function."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'fer_jax':
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        exists = (PACKAGE.parent / name.replace('.', '/')).with_suffix('.py').exists()
        folder = (PACKAGE.parent / name.replace('.', '/')).is_dir()
        if exists or folder or node.module != 'fer_jax':
          yield name if exists or folder else node.module
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names if alias.name.startswith('fer_jax.'))


def test_folders_import_from_floors_below():
  wrong = []
  for path in PACKAGE.rglob('*.py'):
    module = '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)
    if module in ('fer_jax.__init__', 'fer_jax.__main__'):  # The library's dozen names, and the menu.
      continue
    height, home = floor(module.removesuffix('.__init__'))
    wrong += [f'{module} imports {other}' for other in imports(path)
              if floor(other)[1] != home and floor(other)[0] >= height]
  assert not wrong, '\n'.join(sorted(wrong))


def test_every_module_says_what_it_is_for():
  for path in PACKAGE.rglob('*.py'):
    assert ast.get_docstring(ast.parse(path.read_text())), path


def test_landmarks_and_metrics_do_not_import_jax():
  code = ('import sys, fer_jax.landmarks.heatmap, fer_jax.landmarks.action_units, fer_jax.metrics.summary;'
          'assert "jax" not in sys.modules')
  subprocess.run([sys.executable, '-c', code], check=True, cwd=PACKAGE.parent)


def test_a_training_run_needs_neither_tensorflow_nor_torch():
  code = ('import sys, fer_jax.training.loop; from fer_jax import registry;'
          '[registry.find("data.builders", name) for name in registry.names("data.builders")];'
          'assert not {"tensorflow", "torch", "apache_beam"} & set(sys.modules)')
  subprocess.run([sys.executable, '-c', code], check=True, cwd=PACKAGE.parent)
