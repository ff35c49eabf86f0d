"""An evaluation: one screen of it or all of it on the console, and the tables that its page has too."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_jax.metrics.intervals import wilson
from fer_jax.reports import calibration, scoring
from fer_jax.reports.alignment import alignment_tables, best_map
from fer_jax.reports.formats import Column, Line, Table, show
from fer_jax.reports.words import (
  chosen,
  comparisons,
  ends,
  evaluations,
  interval,
  leaks,
  mark,
  measures,
  named,
  percent,
  remarks,
  started,
  title,
  warnings,
)
from fer_jax.runtime import cluster

CHANCE = 1 / 3  # Triplets that a guess gets right: any of three faces may be the odd one.

_TYPES = {'one_class': 'of one class', 'two_class': 'of two classes', 'three_class': 'of three classes'}


def subset_table(result: Mapping[str, Any], heading: str = 'subsets') -> Table:
  """The subsets of an evaluation, and the whole split where duplicates are known; without lines where there is none."""
  lines = []
  for name, rates in _subsets(result).items():
    said = (('duplicates', '{:,} repeated'), ('unmatched', '{:,} not in this split'),
            ('disagreeing', '{:,} with another label here'))
    amiss = ', '.join(words.format(rates[key]) for key, words in said if rates.get(key))
    notes = [f"{name}: of {rates['listed']:,} lines {amiss}."] if amiss else []
    other = rates.get('without_duplicates')
    lines.append(Line({
        'subset': name + mark(result), 'faces': f"{rates['count']:,}", 'accuracy': percent(rates['accuracy']),
        '95 %': interval(rates['accuracy_interval']), 'mean class accuracy': percent(rates['mean_class_accuracy']),
        'without duplicates': f"{percent(other['accuracy'])} ({other['count']:,} faces)" if other else '–'}, notes))
  columns = (Column('subset', 'l'), *map(Column, ('faces', 'accuracy', '95 %', 'mean class accuracy',
                                                  'without duplicates')))
  return Table(heading, columns, tuple(lines))


def triplet_table(name: str, comparison: Mapping[str, Any]) -> Table:
  """An entry of an evaluation's ``triplets``, all first and chance last; types of which it lists none are left out."""
  groups = {'all': comparison, **{_TYPES.get(name, name): row for name, row in comparison['types'].items()}}
  lines = [Line({'faces': name + mark(comparison), 'triplets': _scored(row), 'accuracy': percent(row['accuracy']),
                 '95 %': interval(row['accuracy_interval'])})
           for name, row in groups.items() if row['listed'] or name == 'all']
  lines.append(Line({'faces': 'chance', 'accuracy': percent(CHANCE)}, style='trivial'))
  return Table(name, (Column('faces', 'l'), Column('triplets'), Column('accuracy', bar=True), Column('95 %')),
               tuple(lines), (f"Truth: {comparison['truth']}. Embedding of {comparison['dim']:,} numbers.",
                              *warnings(comparison.get('apart', ()))))


def print_evaluation(result: Mapping[str, Any], report: str | os.PathLike[str] | None = None, verbose: bool = False
                     ) -> None:
  """Prints an evaluation, what ``summarise`` returns, on the console of process 0; its ``report`` is named in the end.

  ``verbose``: all classes, maps, subsets and triplets as tables; otherwise the worst classes, and a line for each
  other. With ``protocol`` it says what was measured and warns of a leak.
  """
  protocol, leaky = result.get('protocol') or {}, mark(result)
  words = [f"{result['count']:,} faces, {len(result['classes'])} classes"]
  if 'predictions' in result:
    words.append(f"{result['name']}, {result['predictions']['file']}")
  if protocol.get('trained_on'):
    words.append(f"trained on {protocol['trained_on']}, {chosen(protocol)}")
  if start := started(protocol):
    words.append(f'started from {start}')
  if 'evaluations' in protocol:
    times = evaluations(result)
    words.append(f"evaluated {'once' if times == 1 else f'{times} times'} here")
  shown: list[str | Table] = [
      f"\n{named(protocol) if protocol.get('dataset') else 'evaluation'} {title(result)}: {'; '.join(words)}",
      *(f"{name} {percent(result[name.replace(' ', '_')])} (95 %: {interval(result.get(bounds))}){leaky}"
        for name, bounds in (('accuracy', 'accuracy_interval'), ('mean class accuracy', 'mean_class_interval')))]
  if others := measures(result):
    shown.append('   '.join(f'{name} {text}' for name, text, _ in others) + leaky)
  shown += calibration.line(result)
  shown += warnings(leaks(result), remarks(result, *scoring.remarks(result)))
  if result.get('absent_classes'):
    shown.append(f"no examples of {', '.join(result['absent_classes'])}: left out of the mean class accuracy.")
  show(*shown, *(_tables(result) if verbose else _lines(result)), *scoring.against(result))
  if report is not None:
    cluster.say(f'Report: {report}')


def _subsets(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  """Rates by name, the whole split last where its duplicates are known."""
  return {**(result.get('subsets') or {}), **({'all faces': result} if 'without_duplicates' in result else {})}


def _lines(result: Mapping[str, Any]) -> list[str]:
  """The worst classes, the best map, and each subset and list of triplets."""
  confusion = np.array(result['confusion'])
  worst = [f"{name} {percent(result['recall'][name])} ({confusion[k, k]:,} of {confusion[k].sum():,})"
           for k, name in sorted(enumerate(result['classes']), key=lambda pair: result['recall'].get(pair[1], 2))
           if name in result['recall']][:2]
  lines = [f"worst recall: {', '.join(worst)}"] * bool(worst) + list(filter(None, [best_map(result)]))
  for name, rates in _subsets(result).items():
    line = f"{name}: {percent(rates['accuracy'])} ({ends(rates['accuracy_interval'])}) of {rates['count']:,} faces"
    if other := rates.get('without_duplicates'):
      line += f"; without duplicates {percent(other['accuracy'])} of {other['count']:,}"
    lines.append(line)
  return lines + [f"triplets '{name}': {percent(all_of['accuracy'])} ({ends(all_of['accuracy_interval'])}) of "
                  f"{_scored(all_of)}; chance {percent(CHANCE)}{mark(all_of)}"
                  + f": {'; '.join(all_of['apart'])}" * bool(all_of['apart'])
                  for name, all_of in comparisons(result).items()]


def class_table(result: Mapping[str, Any], heading: str = 'classes') -> Table:
  """What an evaluation made of the faces of each class."""
  lines, answers = [], [*result['classes'], 'no answer']
  for i, (name, row) in enumerate(zip(result['classes'], result['confusion'], strict=True)):
    if count := sum(row):
      errors, other = max((n, j) for j, n in enumerate(row) if j != i) if len(row) > 1 else (0, 0)
      lines.append(Line({'class': name, 'recall': percent(row[i] / count), '95 %': interval(wilson(row[i], count)),
                         'faces': f'{count:,}',
                         'most often taken for': f'{answers[other]} ({errors})' if errors else ''}))
  columns = map(Column, ('class', 'recall', '95 %', 'faces', 'most often taken for'))
  return Table(heading + mark(result), tuple(columns), tuple(lines))


def _tables(result: Mapping[str, Any]) -> list[Table]:
  """Tables of classes, subsets, maps and triplets."""
  subsets = subset_table(result)
  return [class_table(result), *[subsets] * bool(subsets.lines),
          *alignment_tables(result), *(triplet_table(f"triplets '{name}'", scores)
                                       for name, scores in comparisons(result).items())]


def _scored(row: Mapping[str, Any]) -> str:
  """How many of the listed triplets were scored."""
  return f"{row['count']:,}" + f" of {row['listed']:,}" * (row['count'] != row['listed'])
