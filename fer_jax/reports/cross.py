"""Tables of networks on each other's test splits: the matrix, and beside every cell what it has to be held against."""

from collections.abc import Iterable, Mapping
from typing import Any

from fer_jax.reports.formats import ENDS, SPREAD, Column, Line, Table, covered, interval_of, mean
from fer_jax.reports.words import every, named


def make_tables(result: Mapping[str, Any]) -> list[Table]:
  """Makes the matrix, and a table with a line for each of its cells, of what ``WORKDIR/cross.json`` holds.

  Numbers of several seeds are means with ± their standard deviation.
  """
  return [_matrix(result), _table(result)]


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


def _table(result: Mapping[str, Any]) -> Table:
  columns = (Column('trained on', 'l'), Column('tested on', 'l'), Column('classes'), Column('faces'),
             Column('accuracy, %', apart=SPREAD), Column('95 %', apart=ENDS), Column('mean class, %', apart=SPREAD),
             Column('own test, %', apart=SPREAD), Column('lost', apart=SPREAD),
             Column('no duplicates, %', apart=SPREAD), Column('chance, %'), Column('largest, %'),
             Column('seeds'), Column('marks', 'p{.15\\linewidth}'))
  lines = []
  for cell in result['cells']:
    runs, leaks = cell['runs'], _leaks(cell)
    marks = [f"LEAKY: {'; '.join(leaks)}"] * bool(leaks) + ['UNTRAINED'] * any(not run['step'] for run in runs)
    shown = {
        'trained on': cell['row'], 'tested on': cell['tested_on'], 'classes': str(len(cell['classes'])),
        'faces': f"{cell['count']:,}", 'accuracy, %': _accuracy(cell), '95 %': interval_of(runs),
        'mean class, %': mean(100 * run['mean_class_accuracy'] for run in runs),
        'chance, %': mean([100 * cell['chance']]), 'largest, %': mean([100 * cell['majority']['share']]),
        'seeds': str(len(runs)), 'marks': '; '.join(marks)}
    if not cell['own']:
      shown['own test, %'] = mean(100 * run['own_test']['accuracy'] for run in runs)
      shown['lost'] = mean(100 * (run['own_test']['accuracy'] - run['accuracy']) for run in runs)
    if cell['duplicates'] and cell['duplicates'] < cell['count']:
      shown['no duplicates, %'] = mean(100 * run['without_duplicates']['accuracy'] for run in runs)
    lines.append(Line(shown, tuple(_notes(cell)), 'leaky' if leaks else ''))
  notes = ['Classes are joined by name. Faces of a class that the network does not know are left out, and of its '
           'logits only those of the shared classes are compared: it cannot answer with another class, as if it had '
           'never learned it.',
           'Own test: the same network over the same classes on the test split of its own data set. Lost: what the '
           'other data set costs, in percentage points. No duplicates: without the faces that are also, pixel for '
           'pixel, in the training split.',
           'Chance: a guess among the classes. Largest: always the class that most of these faces have.',
           'Images of every data set are brought to the side and the number of channels that the network was trained '
           'with; how a data set crops and aligns its faces stays as it is, and is a part of what is measured.']
  notes += covered({len(cell['runs']) for cell in result['cells']})
  if any(cell['duplicates'] for cell in result['cells']):
    notes.append('Duplicates are counted pixel for pixel at the stored size; the same photograph in another size or '
                 'compression is not found.')
  tests = '; '.join(f"{test['name']} is the split {test['split']} of {named(test)}" for test in result['tests'])
  notes.append(f"Tested on: {tests}.")
  notes.append(f"Measured {result['measured']} on {result['hardware']}.")
  return Table('Every cell of the matrix', columns, tuple(lines), tuple(notes))


def _notes(cell: Mapping[str, Any]) -> Iterable[str]:
  left = ', '.join(f'{name} ({count:,} faces)' for name, count in cell['left_out'].items())
  yield (f"{cell['row']} on {cell['tested_on']}: classes {', '.join(cell['classes'])}"
         + (f'; left out: {left}' if left else '') + '.')
  if cell['duplicates'] and cell['own']:
    yield (f"{cell['row']} on {cell['tested_on']}: {cell['duplicates']:,} of the {cell['count']:,} faces are exact "
           'duplicates of faces in its training split, as distributed.')
  of = lambda key: every((run[key] for run in cell['runs']), ', ')
  yield (f"{cell['row']}: '{cell['config']}', seeds {of('seed')}, step {of('step')}, commit {of('commit')}; "
         f"{of('workdir')}.")


def _leaks(cell: Mapping[str, Any]) -> list[str]:
  return list(dict.fromkeys(reason for run in cell['runs'] for reason in run['leaks']))


def _accuracy(cell: Mapping[str, Any]) -> str:
  return mean(100 * run['accuracy'] for run in cell['runs'])
