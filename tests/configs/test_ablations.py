"""Every row of every ablation table is a config that takes a tiny step and differs from its system as it says."""

import importlib
import json
import pkgutil
import re

import pytest

from configs import ablations
from fer_jax.errors import UserError
from tests import faces
from tests.configs.test_configs import assert_takes_a_step

TABLES = sorted(m.name for m in pkgutil.iter_modules(ablations.__path__))


def table(name):
  return importlib.import_module(f'configs.ablations.{name}')


def programs():
  """{a row's config without its positive fractions, which are constants of the program: the first row that has it}."""
  found = {}
  for name in TABLES:
    for row in table(name).ROWS:
      parts = faces.shrink(table(name).get_config(f'ferplus:{row}')).to_dict()
      parts = {key: parts[key] for key in ('data', 'sources', 'losses', 'regions', 'model', 'teacher', 'augment')}
      found.setdefault(re.sub(r'(?!0\.0\b)\b\d+\.\d+', 'x', json.dumps(parts, sort_keys=True)), (name, row))
  return found


# Where rows differ in a weight or a margin alone, one takes the step and the others are traced.
FIRST = set(programs().values())


@pytest.mark.parametrize('name, row', [(name, row) for name in TABLES for row in table(name).ROWS])
def test_every_row_takes_a_step(name, row):
  config = table(name).get_config(f'ferplus:{row}')
  assert config.is_locked and config.name == f'{name}/{row}'
  check = assert_takes_a_step if (name, row) in FIRST else faces.assert_traces
  check(faces.shrink(config))


@pytest.mark.parametrize('name', [name for name in TABLES if name != 'systems'])
def test_rows_differ_from_one_another(name):
  rows = {row: str(table(name).get_config(f'ferplus:{row}').to_dict() | {'name': ''}) for row in table(name).ROWS}
  assert len(set(rows.values())) == len(rows)


def test_rows_of_the_systems_share_one_recipe():
  rows = {row: table('systems').get_config(f'ferplus:{row}').to_dict() for row in table('systems').ROWS}
  shared = rows['baseline'].keys() - {'name', 'losses', 'regions', 'explain', 'model'}
  for row in rows.values():
    assert all(row[key] == rows['baseline'][key] for key in shared)
    assert row['model']['backbone'] == rows['baseline']['model']['backbone']


def test_mistakes_are_named():
  with pytest.raises(UserError, match="no row 'true_clas'; did you mean 'true_class'.*behind the data set"):
    table('pal').get_config('ferplus:true_clas')
  with pytest.raises(UserError, match="unknown data set 'ferplu'"):
    table('ran').get_config('ferplu:random')
  with pytest.raises(UserError, match="row 'a' changes 'model.head.form', which the system does not have"):
    ablations.choose(table('pal').pal.get_config, {'a': {'model.head.form': 'code'}}, 'ferplus:a', 'pal')
