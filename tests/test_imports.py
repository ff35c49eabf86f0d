"""The architecture as a test: folders are floors, imports go down only, the core never loads TensorFlow or PyTorch."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / 'fer_jax'

# Folders from the ground up, and what everything may import from the root; the commands stand above all. A file imports
# from its own folder and from floors below. ``data`` stands for the files directly in it.
FLOORS = [
    {'errors', '__version__'},
    {'registry'},
    {'landmarks', 'runtime'},
    {'data'},
    {'data.preparing'},
    {'models', 'data.builders'},
    {'data.reading', 'attribution', 'metrics'},
    {'reports', 'losses'},
    {'training'},
    {'analysis'},
]


def place(name):
  """The folder of a module or of a name in it, and its floor."""
  parts = name.split('.')[1:]
  for folder in ('.'.join(parts[:2]), '.'.join(parts[:1])):
    for height, folders in enumerate(FLOORS):
      if folder in folders:
        return folder, height
  return 'commands', len(FLOORS)


def imports(path):
  """What a file imports of fer_jax, at its top or inside of a function."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: a relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names if node.module.split('.')[0] == 'fer_jax')
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names if alias.name.startswith('fer_jax.'))


def test_folders_import_from_floors_below():
  wrong = []
  for path in PACKAGE.rglob('*.py'):
    module = '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)
    home, height = place(module)
    wrong += [f'{module} imports {name}' for name in imports(path)
              if place(name)[0] != home and place(name)[1] >= height]
  assert not wrong, '\n'.join(sorted(wrong))


def test_every_folder_is_on_a_floor():
  folders = {path.parent.relative_to(PACKAGE).parts for pattern in ('*/*.py', 'data/*/*.py')
             for path in PACKAGE.glob(pattern)}
  assert {'.'.join(parts) for parts in folders} == set().union(*FLOORS[2:])


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
