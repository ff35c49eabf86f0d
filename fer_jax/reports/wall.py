"""The picture wall of an ablation: the same faces for all rows, each with the map of every row laid over it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.reports import pictures
from fer_jax.runtime import storage

WALLS = 2  # Maps shown at most.
_PREFERRED = ('cam', 'logit_sum', 'attention', 'predicted')


def walls(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Makes the walls from the panel of the first run of each of the rows, which have name and runs.

  Returns columns (a row each), seeds (in words), walls [{map, faces}], remarks (sentences on what is missing), and
  whether faces are restricted, or averaged, the mean face standing for some. A face is label, photo and prior (each ''
  where there is none) and cells {uri, label, prediction, correct}, one for each column.
  """
  remarks, columns = [], []
  for row in rows:
    if not row['runs']:
      remarks.append(f"{row['name']} has no finished run.")
      continue
    run = row['runs'][0]
    panel, problem = _panel(run)
    if problem:
      remarks.append(f"{row['name']}: {problem}.")
    elif columns and _data(run) != _data(columns[0]['run']):
      remarks.append(f"{row['name']} was tested on other data and has other faces.")
    else:
      columns.append({'row': row, 'run': run, 'panel': panel})
  names = [name for name in (columns[0]['panel']['names'] if columns else ())
           if all(name in column['panel']['names'] for column in columns)]
  remarks += ['The rows have no face in common.'] * bool(columns and not names)
  seeds = {column['row']['name']: column['run'].config['seed'] for column in columns}
  said = (f'seed {next(iter(seeds.values()))}' if len(set(seeds.values())) == 1 else
          ', '.join(f'{name}: {seed}' for name, seed in seeds.items()))
  restricted = any('images' in column['panel'] and pictures.restricted(column['run'].config, column['run'].record)
                   for column in columns)
  return {'columns': columns, 'seeds': said, 'remarks': remarks, 'restricted': restricted,
          'averaged': any('images' not in column['panel'] for column in columns),
          'walls': [{'map': which.replace('_', ' '), 'faces': [_face(columns, name, which) for name in names]}
                    for which in _maps(columns) if names]}


def _panel(run: Any) -> tuple[dict[str, np.ndarray], str]:
  """The faces of a run, and why they cannot be used."""
  try:
    panel = storage.read_npz(storage.as_path(run.workdir) / 'panel.npz')
  except FileNotFoundError:
    return {}, 'no faces were kept of its first seed'
  except ValueError:
    return {}, 'the faces of its first seed are damaged'
  whole = {'names', 'labels'} <= set(panel) and {'images', 'mean_face'} & set(panel)
  return panel, '' if whole else 'the faces of its first seed lack names or labels'


def _data(run: Any) -> tuple[Any, ...]:
  protocol = run.result['protocol']
  return tuple(protocol.get(key) for key in ('dataset', 'variant', 'split'))


def _maps(columns: Sequence[Mapping[str, Any]]) -> list[str]:
  """The maps to show: those that a row's loss acts on first, then by preference."""
  found = dict.fromkeys(key.removeprefix('after/') for column in columns for key in column['panel']
                        if key.startswith('after/'))
  configs = [column['run'].config for column in columns]
  kind = lambda options: (options.get('attribution'), options.get('target'))
  aligned = {kind(loss) for config in configs for loss in (config.get('losses') or {}).values()
             if loss.get('loss') == 'alignment' and loss.get('weight')}
  acted_on = lambda name: any(kind((config.get('explain') or {}).get(name, {})) in aligned for config in configs)
  return sorted(found, key=lambda name: (not acted_on(name), (*_PREFERRED, name).index(name)))[:WALLS]


def _face(columns: Sequence[Mapping[str, Any]], name: str, which: str) -> dict[str, Any]:
  """One face of a wall."""
  cells = []
  overlaid = lambda image, values: '' if values is None else pictures.data_uri(pictures.overlay(image, values))
  for column in columns:
    panel, i = column['panel'], list(column['panel']['names']).index(name)
    of = lambda key, panel=panel, i=i: panel[key][i] if key in panel else None
    face = pictures.canvas(panel, i)
    cells.append(pictures.answer(panel, i, column['run'].record['classes']) | {
        'photo': of('images'), 'prior': overlaid(face, of('priors')), 'uri': overlaid(face, of(f'after/{which}'))})
  first = cells[0]
  return {'label': first['label'], 'prior': first['prior'], 'cells': cells,
          'photo': '' if first['photo'] is None else pictures.data_uri(pictures.photo(first['photo']))}
