"""Every row of every ablation table is a config whose step can be traced, and differs from its system as it says."""

import importlib
import pkgutil

import pytest

from configs import ablations
from fer_jax.errors import UserError
from tests import faces

TABLES = sorted(m.name for m in pkgutil.iter_modules(ablations.__path__))


def table(name):
  return importlib.import_module(f'configs.ablations.{name}')


@pytest.mark.parametrize('name, row', [(name, row) for name in TABLES for row in table(name).ROWS])
def test_every_row_has_a_step(name, row):
  config = table(name).get_config(f'ferplus:{row}')
  assert config.is_locked and config.name == f'{name}/{row}'
  faces.assert_traces(faces.shrink(config))


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


@pytest.mark.parametrize('name, row', [('pal', 'stage3'), ('arm', 'no_affinity')])
def test_rows_of_the_accelerators_recipe(name, row):
  small, large = (table(name).get_config(f'ferplus{recipe}:{row}') for recipe in ('', ':accelerator'))
  assert (small.name, small.losses) == (large.name, large.losses) == (f'{name}/{row}', small.losses)
  assert (small.model.backbone.width, large.model.backbone.width) == (16, 64)
  assert small.model.head.name == large.model.head.name


def test_mistakes_are_named():
  with pytest.raises(UserError, match="systems.py: row 'arm' has sizes of its own; name the data set alone"):
    table('systems').get_config('ferplus:accelerator:arm')
  with pytest.raises(UserError, match="no row ''.*as in pal.py:ferplus:pal"):
    table('pal').get_config('ferplus')
  with pytest.raises(UserError, match="no row 'true_clas'; did you mean 'true_class'.*behind the data set"):
    table('pal').get_config('ferplus:true_clas')
  with pytest.raises(UserError, match="unknown data set 'ferplu'"):
    table('ran').get_config('ferplu:random')
  with pytest.raises(UserError, match="row 'a' changes 'model.head.form', which the system does not have"):
    ablations.choose(table('pal').pal.get_config, {'a': {'model.head.form': 'code'}}, 'ferplus:a', 'pal')
