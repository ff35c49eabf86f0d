"""The menu: ``fer_jax COMMAND ...`` is ``python -m fer_jax.COMMAND ...``; without a command it lists them."""

import ast
import runpy
import sys
from pathlib import Path

from fer_jax.errors import nearest


def commands() -> dict[str, str]:
  """What each command does, the first line of its docstring, by its name: a command is a file here that has flags."""
  found = {}
  for path in sorted(Path(__file__).parent.glob('*.py')):
    tree = ast.parse(path.read_text(encoding='utf-8'))  # Importing would take seconds.
    if any(isinstance(node, ast.FunctionDef) and node.name == 'define' for node in tree.body):
      found[path.stem] = (ast.get_docstring(tree) or '').partition('\n')[0]
  return found


def main() -> None:
  """Runs the command that the first argument names."""
  name, known = (sys.argv[1:] or ['--help'])[0], commands()
  if name in ('--help', '-h'):
    print('fer_jax COMMAND --name=value ...; fer_jax COMMAND --help lists the options.\n')
    print('\n'.join(f'  {name:11} {line}' for name, line in known.items()))
  elif name in known:
    del sys.argv[1]
    runpy.run_module(f'fer_jax.{name}', run_name='__main__', alter_sys=True)
  else:
    print(f"error: there is no command '{name}'{nearest(name, known)}", file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  main()
