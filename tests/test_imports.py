"""The architecture as a test: imports point down only, and the core never loads TensorFlow or PyTorch."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / 'fer_jax'

# From the ground up; a module may import from lower levels and from its own package folder.
LEVELS = [
    {'errors'},
    {'registry', 'landmarks', 'rollcall', 'ablation'},
    {'data', 'models', 'attribution', 'cluster', 'optim'},
    {'losses', 'metrics', 'storage', 'commands'},
    {'state', 'teacher'},
    {'step', 'checkpoint'},
    {'run', 'sources', 'monitoring'},
    {'reports', 'evaluation', 'scaling', 'seeds'},
    {'experiment', 'randomisation'},
    {'frozen', 'faithfulness'},
    {'corruption', 'matrix'},
    {'ablate', 'train', 'evaluate', 'prepare', 'bench', 'features', 'transfer', 'report', 'robustness', 'cross',
     'explain'},
]
LEVEL = {name: i for i, names in enumerate(LEVELS) for name in names}


def imports(path):
  """Names of the parts of fer_jax that a file imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      if node.module == 'fer_jax':
        yield from (alias.name for alias in node.names if not alias.name.startswith('__'))
      elif node.module.startswith('fer_jax.'):
        yield node.module.split('.')[1]
    elif isinstance(node, ast.Import):
      yield from (a.name.split('.')[1] for a in node.names if a.name.startswith('fer_jax.'))


def test_imports_point_down():
  wrong = []
  for path in PACKAGE.rglob('*.py'):
    part = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    if part == '__init__':
      continue
    wrong += [f'{path.relative_to(PACKAGE)} imports {other}' for other in imports(path)
              if other != part and LEVEL[other] >= LEVEL[part]]
  assert not wrong, '\n'.join(wrong)


def test_every_module_says_what_it_is_for():
  for path in PACKAGE.rglob('*.py'):
    assert ast.get_docstring(ast.parse(path.read_text())), path


def test_landmarks_and_metrics_do_not_import_jax():
  code = ('import sys, fer_jax.landmarks.heatmap, fer_jax.landmarks.action_units, fer_jax.metrics.summary;'
          'assert "jax" not in sys.modules')
  subprocess.run([sys.executable, '-c', code], check=True, cwd=PACKAGE.parent)


def test_a_training_run_needs_neither_tensorflow_nor_torch():
  code = ('import sys, fer_jax.experiment; from fer_jax import registry;'
          '[registry.find("data.builders", name) for name in registry.names("data.builders")];'
          'assert not {"tensorflow", "torch", "apache_beam"} & set(sys.modules)')
  subprocess.run([sys.executable, '-c', code], check=True, cwd=PACKAGE.parent)
