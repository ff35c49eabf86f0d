"""A randomised test that fails says how to repeat it, and then draws the same numbers."""

import re

from tests import conftest

pytest_plugins = ['pytester']

DRAWS = '''
def test_draw(chance):
  assert False, f'drew {chance.random()}'
'''


def test_a_failing_randomised_test_says_how_to_repeat_it(pytester):
  path = pytester.makepyfile(DRAWS)
  run = lambda *arguments: pytester.runpytest_inprocess(path, *arguments, plugins=[conftest]).stdout.str()
  first = run()
  seed = re.search(rf"To repeat it: python -m pytest -n 0 --seed=(\d+) '{path.name}::test_draw'", first)[1]
  drew = lambda printed: re.search(r'AssertionError: drew (\S+)', printed)[1]
  assert drew(run(f'--seed={seed}')) == drew(first) != drew(run(f'--seed={int(seed) + 1}'))
