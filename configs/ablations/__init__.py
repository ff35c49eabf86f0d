"""Ablations: tables of configs that differ from one system in a few keys each.

Every file has ``ROWS``, {row: {dotted key: value}}, and the ``get_config`` of all configs, with a row behind the data
set:

    python -m fer_jax.train --config=configs/ablations/pal.py:ferplus:true_class --workdir=runs/pal_true_class
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from fer_jax.errors import UserError, nearest

Rows = Mapping[str, Mapping[str, Any]]


def choose(system: Callable[[str], ConfigDict], rows: Rows, argument: str, table: str) -> ConfigDict:
  """The config of one row: ``system``'s, with the row's changes.

  Args:
    system: ``get_config`` of the system that is ablated.
    rows: the table.
    argument: 'DATASET:ROW', or 'DATASET:accelerator:ROW'.
    table: the table's name; the run is called 'table/row'.

  Raises:
    UserError: an unknown row, the message names the nearest; or ':accelerator' with a row that is made for a CPU.
  """
  dataset, _, row = argument.rpartition(':') if ':' in argument else (argument, '', '')
  if row not in rows:
    raise UserError(f"configs/ablations/{table}.py has no row '{row}'{nearest(row, rows)} "
                    f'Name it behind the data set, as in {table}.py:{dataset}:{next(iter(rows))}')
  if ':' in dataset and {'batch_size', 'epochs'} & rows[row].keys():
    raise UserError(f"configs/ablations/{table}.py: row '{row}' has sizes of its own; name the data set alone.")
  config = system(dataset)
  with config.unlocked():
    config.name = f'{table}/{row}'
    for key, value in rows[row].items():
      *path, last = key.split('.')
      node = config
      for part in path:
        node = node[part]
      if last not in node:
        raise UserError(f"configs/ablations/{table}.py: row '{row}' changes '{key}', which the system does not have.")
      node[last] = value
  return config
