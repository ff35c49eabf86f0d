"""Prints an evaluation on the console: one screen of it, or all of it."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.markup import escape

from fer_jax.metrics.intervals import wilson
from fer_jax.reports.alignment import TRIVIAL, alignment_groups, best_map
from fer_jax.reports.console import LEAKY, console, table, warn
from fer_jax.reports.words import (
  SELECT,
  ends,
  evaluations,
  interval,
  leaks,
  measures,
  named,
  percent,
  remarks,
  title,
)

CHANCE = 1 / 3  # Triplets that a guess gets right: any of three faces may be the odd one.

_TYPES = {'one_class': 'of one class', 'two_class': 'of two classes', 'three_class': 'of three classes'}


def subset_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The subsets of an evaluation, and the whole split where duplicates are known: rates, 'name' and 'remarks'."""
  rows = []
  for name, subset in (result.get('subsets') or {}).items():
    said = ((subset.get('duplicates'), '{:,} repeated'), (subset.get('unmatched'), '{:,} not in this split'),
            (subset.get('disagreeing'), '{:,} with another label here'))
    lines = ', '.join(words.format(count) for count, words in said if count)
    rows.append({'without_duplicates': None, **subset, 'name': name,
                 'remarks': f"of {subset['listed']:,} lines {lines}" if lines else ''})
  if 'without_duplicates' in result:
    rows.append({**result, 'name': 'all faces', 'remarks': ''})
  return rows


def triplet_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Rows of an entry of an evaluation's ``triplets``, all first and chance last: name, triplets, accuracy, interval.

  Types of which the list has no triplet are left out. 'triplets' says in words how many of the listed were scored.
  """
  groups = {'all': comparison, **{_TYPES.get(name, name): row for name, row in comparison['types'].items()}}
  rows = []
  for name, row in groups.items():
    if row['listed'] or name == 'all':
      whole = row['count'] == row['listed']
      rows.append({'name': name, 'accuracy': row['accuracy'], 'interval': row['accuracy_interval'], 'trivial': False,
                   'triplets': f"{row['count']:,}" if whole else f"{row['count']:,} of {row['listed']:,}"})
  return [*rows, {'name': 'chance', 'accuracy': CHANCE, 'interval': None, 'trivial': True, 'triplets': ''}]


def print_evaluation(result: Mapping[str, Any], report: str | os.PathLike[str] | None = None, verbose: bool = False
                     ) -> None:
  """Prints an evaluation on the console of process 0.

  Args:
    result: what ``summarise`` returns; with ``protocol`` it says what was measured and warns of a leak.
    report: the page, which is named in the end.
    verbose: all classes, maps, subsets and triplets as tables; otherwise the worst classes, and a line for each other.
  """
  out, reasons, protocol = console(), leaks(result), result.get('protocol') or {}
  mark = LEAKY if reasons else ''
  words = [f"{result['count']:,} faces, {len(result['classes'])} classes"]
  if protocol.get('trained_on'):
    words.append(f"trained on {protocol['trained_on']}, {SELECT.get(protocol['select'], protocol['select'])}")
  if 'evaluations' in protocol:
    times = evaluations(result)
    words.append(f"evaluated {'once' if times == 1 else f'{times} times'} here")
  data = escape(named(protocol)) if protocol.get('dataset') else 'evaluation'
  out.print(f"\n[bold]{data}[/] {escape(title(result))}: {escape('; '.join(words))}")
  for name, bounds in (('accuracy', 'accuracy_interval'), ('mean class accuracy', 'mean_class_interval')):
    out.print(f"{name} [bold]{percent(result[name.replace(' ', '_')])}[/] (95 %: {interval(result.get(bounds))}){mark}")
  if others := measures(result):
    out.print('   '.join(f'{name} [bold]{text}[/]' for name, text, _ in others) + mark)
  warn(out, reasons, remarks(result))
  if result.get('absent_classes'):
    out.print(f"no examples of {escape(', '.join(result['absent_classes']))}: left out of the mean class accuracy.")
  for line in _tables(result, mark) if verbose else _lines(result):
    out.print(line)
  if report is not None:
    out.print(f'Report: {escape(str(report))}', soft_wrap=True)


def _lines(result: Mapping[str, Any]) -> list[str]:
  """The worst classes, the best map, and each subset and list of triplets."""
  confusion, lines = np.array(result['confusion']), []
  worst = [f"{name} {percent(result['recall'][name])} ({confusion[k, k]:,} of {confusion[k].sum():,})"
           for k, name in sorted(enumerate(result['classes']), key=lambda pair: result['recall'].get(pair[1], 2))
           if name in result['recall']][:2]
  lines += [f"worst recall: {', '.join(worst)}"] * bool(worst)
  lines += filter(None, [best_map(result)])
  for row in subset_rows(result):
    line = f"{row['name']}: {percent(row['accuracy'])} ({ends(row['accuracy_interval'])}) of {row['count']:,} faces"
    if other := row['without_duplicates']:
      line += f"; without duplicates {percent(other['accuracy'])} of {other['count']:,}"
    lines.append(line)
  for name, comparison in (result.get('triplets') or {}).items():
    row = triplet_rows(comparison)[0]
    lines.append(f"triplets '{name}': {percent(row['accuracy'])} ({ends(row['interval'])}) of {row['triplets']}; "
                 f'chance {percent(CHANCE)}')
  return [escape(line) for line in lines]


def _tables(result: Mapping[str, Any], mark: str) -> list[Any]:
  """Tables of classes, subsets, maps and triplets, with the lines between them."""
  shown, rows = [], []
  for i, (name, row) in enumerate(zip(result['classes'], result['confusion'], strict=True)):
    if count := sum(row):
      errors, other = max((n, j) for j, n in enumerate(row) if j != i) if len(row) > 1 else (0, 0)
      wrong = f"{result['classes'][other]} ({errors})" if errors else ''
      rows.append(((name, percent(row[i] / count), ends(wilson(row[i], count)), f'{count:,}', wrong), False))
  shown.append(table(('class', 'recall', '95 %', 'faces', 'most often taken for'), rows))

  if rows := subset_rows(result):
    header = ('subset' + mark, 'faces', 'accuracy', '95 %', 'mean class', 'without duplicates in training')
    other = lambda rates: f"{percent(rates['accuracy'])} ({rates['count']:,})" if rates else '–'
    shown.append(table(header, (((
        row['name'], f"{row['count']:,}", percent(row['accuracy']), ends(row['accuracy_interval']),
        percent(row['mean_class_accuracy']), other(row['without_duplicates'])), False) for row in rows)))
    shown += [escape(f"{row['name']}: {row['remarks']}.") for row in rows if row['remarks']]

  groups = alignment_groups(result)
  for group in groups:
    faces = '' if group['faces'] is None else f", {group['faces']:,} faces"
    cells = lambda row: [cell['text'] + {True: ' ▲', False: ' ▽', None: ''}[cell['beats']] for cell in row['cells']]
    shown.append(table(('map' + mark, *group['columns']), [((row['name'], *cells(row)), row['trivial'])
                                                           for row in group['rows']],
                       f"maps and {group['title']}{faces}"))
    shown += filter(None, [group['remark']])
  if groups:
    constant = [row['name'] for row in groups[0]['rows'] if row['key'] in TRIVIAL]
    shown.append(f"▲ above, ▽ not above the same picture for every face ({', '.join(constant)}).")

  for name, comparison in (result.get('triplets') or {}).items():
    shown.append(f"triplets '{escape(name)}', the truth being [bold]{escape(comparison['truth'])}[/]; embedding of "
                 f"{comparison['dim']:,} numbers")
    shown.append(table(('faces' + mark, 'triplets', 'accuracy', '95 %'), (((
        row['name'], row['triplets'], percent(row['accuracy']), '' if row['trivial'] else ends(row['interval'])),
        row['trivial']) for row in triplet_rows(comparison))))
  return shown
