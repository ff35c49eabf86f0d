"""Tables of networks on each other's test splits: the matrix, and beside every cell what it has to be held against."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.metrics.intervals import t_interval
from fer_jax.reports.formats import Column, Line, Table

_SPREAD = (' ± ', ('', ' sd'))
_ENDS = (' to ', (' from', ' to'))


def make_tables(result: Mapping[str, Any]) -> list[Table]:
  """Makes the matrix, and a table with a line for each of its cells, of what ``WORKDIR/cross.json`` holds.

  Numbers of several seeds are means with ± their standard deviation.
  """
  return [_matrix(result), _cells(result)]


def _matrix(result: Mapping[str, Any]) -> Table:
  tests = [test['name'] for test in result['tests']]
  columns = (Column('trained on', 'l'), *map(Column, tests))
  lines = []
  for row in dict.fromkeys(cell['row'] for cell in result['cells']):
    there = {cell['tested_on']: cell for cell in result['cells'] if cell['row'] == row}
    cells = {test: f"{_accuracy(cell)} [{len(cell['classes'])}]" + ' LEAKY' * bool(_leaks(cell))
             for test, cell in there.items()}
    lines.append(Line({'trained on': row, **cells}))
  notes = ['In brackets the number of classes. Every cell is over the classes that its training and test data share, '
           'so the cells of a row need not be over the same: the table below has the network on its own test split '
           'over the classes of each cell.']
  return Table('Accuracy in %: rows trained on, columns tested on', columns, tuple(lines), tuple(notes))


def _cells(result: Mapping[str, Any]) -> Table:
  columns = (Column('trained on', 'l'), Column('tested on', 'l'), Column('classes'), Column('faces'),
             Column('accuracy, %', apart=_SPREAD), Column('95 %', apart=_ENDS), Column('mean class, %', apart=_SPREAD),
             Column('own test, %', apart=_SPREAD), Column('lost', apart=_SPREAD),
             Column('no copies, %', apart=_SPREAD), Column('chance, %'), Column('largest, %'),
             Column('seeds'), Column('marks', 'p{.15\\linewidth}'))
  lines = []
  for cell in result['cells']:
    runs, majority = cell['runs'], cell['majority']
    own = [run['own_test'] for run in runs]
    shown = {
        'trained on': cell['row'], 'tested on': cell['tested_on'], 'classes': str(len(cell['classes'])),
        'faces': f"{cell['count']:,}", 'accuracy, %': _accuracy(cell), '95 %': _interval(runs),
        'mean class, %': _mean(run['mean_class_accuracy'] for run in runs),
        'chance, %': f"{100 * cell['chance']:.2f}", 'largest, %': f"{100 * majority['share']:.2f}",
        'seeds': str(len(runs)), 'marks': '; '.join(_marks(cell))}
    if not cell['own']:
      shown['own test, %'] = _mean(rates['accuracy'] for rates in own)
      shown['lost'] = _mean(rates['accuracy'] - run['accuracy'] for run, rates in zip(runs, own, strict=True))
    if cell['copies'] and cell['copies'] < cell['count']:
      shown['no copies, %'] = _mean(run['without_copies']['accuracy'] for run in runs)
    lines.append(Line(shown, tuple(_notes(cell)), 'leaky' if _leaks(cell) else ''))
  counts = {len(cell['runs']) for cell in result['cells']}
  notes = ['Classes are joined by name. Faces of a class that the network does not know are left out, and of its '
           'logits only those of the shared classes are compared: it cannot answer with another class, as if it had '
           'never learned it.',
           'Own test: the same network over the same classes on the test split of its own data set. Lost: what the '
           'other data set costs, in percentage points. No copies: without the faces that have an exact copy in the '
           'training split.',
           'Chance: a guess among the classes. Largest: always the class that most of these faces have.',
           'Images of every data set are brought to the side and the number of channels that the network was trained '
           'with; how a data set crops and aligns its faces stays as it is, and is a part of what is measured.']
  if counts - {1}:
    notes.append("95 % over several seeds (Student's t) covers what the seed decides, and takes the test faces as they "
                 'are.')
  if 1 in counts:
    notes.append('95 % of a single seed (Wilson) covers which faces were tested, and says nothing of other seeds.')
  if any(cell['copies'] for cell in result['cells']):
    notes.append('Copies are counted pixel for pixel at the stored size; the same photograph in another size or '
                 'compression is not found.')
  tests = '; '.join(f"{test['name']} is the split {test['split']} of {test['dataset']}"
                    + f" ({test['variant']})" * bool(test['variant']) for test in result['tests'])
  notes.append(f"Tested on: {tests}.")
  notes.append(f"Measured {result['measured']} on {result['hardware']}.")
  return Table('Every cell of the matrix', columns, tuple(lines), tuple(notes))


def _notes(cell: Mapping[str, Any]) -> Iterable[str]:
  left = ', '.join(f'{name} ({count:,} faces)' for name, count in cell['left_out'].items())
  yield (f"{cell['row']} on {cell['tested_on']}: classes {', '.join(cell['classes'])}"
         + (f'; left out: {left}' if left else '') + '.')
  if cell['copies'] and cell['own']:
    yield (f"{cell['row']} on {cell['tested_on']}: {cell['copies']:,} of the {cell['count']:,} faces have an exact "
           'copy in its training split, as distributed.')
  every = lambda key: ', '.join(dict.fromkeys(str(run[key]) for run in cell['runs']))
  yield (f"{cell['row']}: '{cell['config']}', seeds {every('seed')}, step {every('step')}, commit {every('commit')}; "
         f"{every('workdir')}.")


def _marks(cell: Mapping[str, Any]) -> list[str]:
  reasons = _leaks(cell)
  marks = [f"LEAKY: {'; '.join(reasons)}"] if reasons else []
  if any(not run['step'] for run in cell['runs']):
    marks.append('UNTRAINED')
  return marks


def _leaks(cell: Mapping[str, Any]) -> list[str]:
  return list(dict.fromkeys(reason for run in cell['runs'] for reason in run['leaks']))


def _accuracy(cell: Mapping[str, Any]) -> str:
  return _mean(run['accuracy'] for run in cell['runs'])


def _mean(rates: Iterable[float]) -> str:
  """'mean ± standard deviation' in per cent, or of a single rate just that."""
  values = 100 * np.array(list(rates))
  return f'{values.mean():.2f}' + (f' ± {values.std(ddof=1):.2f}' if len(values) > 1 else '')


def _interval(runs: Sequence[Mapping[str, Any]]) -> str:
  if len(runs) == 1:
    low, high = runs[0]['accuracy_interval']
  else:
    low, high = t_interval([run['accuracy'] for run in runs])[1:3]
  return f'{100 * low:.2f} to {100 * high:.2f}'
