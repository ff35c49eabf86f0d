"""The picture wall of an ablation: the same faces for all rows, each with the map of every row laid over it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.reports import pictures
from fer_jax.runtime import storage

WALLS = 2  # Maps shown at most.
_PREFERRED = ('cam', 'logit_sum', 'attention', 'predicted')


def walls(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Makes the walls from the panel of the first run of each row.

  Args:
    rows: each with name and runs, of which each has workdir, config, record and result.

  Returns:
    columns (a row each), seeds (in words), walls [{map, faces}], remarks (sentences on what is missing). A face is
    label, photo, prior ('' where there is none) and cells {uri, prediction, correct}, one for each column.
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
  if not columns:
    return {'columns': [], 'seeds': '', 'walls': [], 'remarks': remarks}
  names = [name for name in columns[0]['panel']['names'] if all(name in column['panel']['names'] for column in columns)]
  if not names:
    remarks.append('The rows have no face in common.')
  seeds = [column['run'].config['seed'] for column in columns]
  said = (f'seed {seeds[0]}' if len(set(seeds)) == 1 else
          ', '.join(f"{column['row']['name']}: {seed}" for column, seed in zip(columns, seeds, strict=True)))
  return {'columns': columns, 'seeds': said, 'remarks': remarks,
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
  whole = {'images', 'names', 'labels'} <= set(panel)
  return panel, '' if whole else 'the faces of its first seed lack names or labels'


def _data(run: Any) -> tuple[Any, ...]:
  protocol = run.result['protocol']
  return tuple(protocol.get(key) for key in ('dataset', 'variant', 'split'))


def _maps(columns: Sequence[Mapping[str, Any]]) -> list[str]:
  """The maps to show: those that a row's loss acts on first, then by preference."""
  found = list(dict.fromkeys(key.removeprefix('after/') for column in columns for key in column['panel']
                             if key.startswith('after/')))
  configs = [column['run'].config for column in columns]
  kind = lambda options: (options.get('attribution'), options.get('target'))
  aligned = {kind(loss) for config in configs for loss in (config.get('losses') or {}).values()
             if loss.get('loss') == 'alignment' and loss.get('weight')}
  def rank(name: str) -> tuple[bool, int]:
    acted_on = any(kind((config.get('explain') or {}).get(name, {})) in aligned for config in configs)
    return not acted_on, _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED)

  return sorted(found, key=rank)[:WALLS]


def _face(columns: Sequence[Mapping[str, Any]], name: str, which: str) -> dict[str, Any]:
  """One face of a wall."""
  cells, first = [], None
  for column in columns:
    panel, classes = column['panel'], column['run'].record['classes']
    i = list(panel['names']).index(name)
    label, prediction = (pictures.class_name(panel[key][i], classes) if key in panel else ''
                         for key in ('labels', 'predictions'))
    values = panel.get(f'after/{which}')
    cells.append({'uri': '' if values is None else pictures.data_uri(pictures.overlay(panel['images'][i], values[i])),
                  'prediction': prediction, 'correct': label == prediction if label and prediction else None})
    first = first or (panel, i, label)
  panel, i, label = first
  image, prior = panel['images'][i], ''
  if 'priors' in panel:
    prior = pictures.data_uri(pictures.overlay(image, panel['priors'][i]))
  return {'label': label, 'photo': pictures.data_uri(pictures.photo(image)), 'prior': prior, 'cells': cells}
