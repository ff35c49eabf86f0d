"""Accuracy under drawn corruptions: the table of one or several runs, and what a run's page says and draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_jax.reports import figures
from fer_jax.reports.formats import Column, Line, Table, show
from fer_jax.reports.words import every_leak, interval, leaks, percent, remarks, warnings

# Said wherever the numbers are shown.
CAVEAT = ('The corruptions are drawn, and drawn corruptions are not real occlusion, blur or light: they rank networks '
          "under a known change and do not tell how a network does on such photographs. RAN's lists of truly occluded "
          'and turned faces do (evaluate --subset).')

_SPREAD = 'sd over seeds, or 95 %'


def print_robustness(groups: Mapping[str, Sequence[Mapping[str, Any]]], kinds: Sequence[str] = ()) -> None:
  """Prints the curves of runs in one table, and what to beware of; arguments as those of ``make_table``."""
  beware = []
  for name, results in groups.items():
    for result in results:
      beware += warnings((), _remarks(result), f"{name}, seed {result['seed']}: ")
    beware += warnings(every_leak(results), about=f'{name}: ')
  show('', make_table(groups, kinds), *beware, CAVEAT)


def make_table(groups: Mapping[str, Sequence[Mapping[str, Any]]], kinds: Sequence[str] = ()) -> Table:
  """Makes one table of the curves of runs, severity by severity.

  ``groups`` are {name of a row: contents of robustness/SPLIT.json of the runs that differ in their seed alone}: of
  several seeds it has means with their standard deviation, of a single run the Wilson interval over its faces.
  ``kinds`` are of corruptions; none for all that every run has been through.
  """
  several = len(groups) > 1
  everything = [result for results in groups.values() for result in results]
  first, majority = everything[0], everything[0]['majority']
  levels = [('none', 'clean', lambda result: result['clean'])]
  shown = [kind for kind in kinds or first['kinds'] if all(kind in result['kinds'] for result in everything)]
  for kind in shown:
    levels += [('' if i else kind, level['label'], lambda result, kind=kind, i=i: result['kinds'][kind]['levels'][i])
               for i, level in enumerate(first['kinds'][kind]['levels'])]
  lines = []
  for kind, label, level in levels:
    for i, (name, results) in enumerate(groups.items()):
      mark, seeds = ' LEAKY' * bool(every_leak(results)), list(map(level, results))
      lines.append(Line({
          'corruption': '' if i else kind, 'severity': '' if i else label, 'run': name + mark,
          'accuracy': _mean(seeds, 'accuracy') + mark * (not several), _SPREAD: _spread(seeds),
          'relative drop': _mean(seeds, 'relative_drop'), 'mean class accuracy': _mean(seeds, 'mean_class_accuracy')}))
  lines.append(Line({
      'corruption': 'largest class', 'severity': majority['class'], 'accuracy': percent(majority['share']),
      'mean class accuracy': percent(1 / len(first['classes']))}, style='trivial'))
  columns = (Column('corruption', 'l'), Column('severity'), *[Column('run', 'l')] * several,
             Column('accuracy', bar=True), Column(_SPREAD), Column('relative drop'), Column('mean class accuracy'))
  notes = [f"{kind}: {first['kinds'][kind]['what']}." for kind in shown]
  notes += [f"{name}: mean of {len(results)} seeds ({', '.join(str(result['seed']) for result in results)})."
            for name, results in groups.items() if several and len(results) > 1]
  protocol = first['protocol']
  return Table(f"{protocol['dataset']} {protocol['split']} under drawn corruptions: {protocol['n']:,} faces, "
               f"{len(first['classes'])} classes", columns, tuple(lines), tuple(notes))


def sections(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
  """What the page says and draws of the contents of robustness/SPLIT.json, by the stem of their files."""
  option = lambda value: f'{value[0]:g} to {value[1]:g}' if isinstance(value, Sequence) else f'{value:g}'
  return [result | {
      'split': result['protocol']['split'],
      'leaks': leaks(result),
      'remarks': _remarks(result),
      'shown': ', '.join(f'{name.replace("_", " ")} {option(value)}' for name, value in result['augment'].items()
                         if value and not name.startswith('erasing_')) or 'nothing',
      'table': make_table({'': [result]}),
      'charts': [{'kind': kind, 'what': measured['what'], 'drawing': _curves(f'robustness {stem} {kind}', result, kind)}
                 for kind, measured in result['kinds'].items()],
  } for stem, result in results.items()]


def _remarks(result: Mapping[str, Any]) -> list[str]:
  differs = result['differs'] and (
      f"on the clean faces {result['differs']:,} of {result['protocol']['n']:,} answers are not those of the "
      'evaluation, as happens on other hardware')
  return remarks(result, differs)


def _curves(name: str, result: Mapping[str, Any], kind: str) -> Markup:
  """Draws accuracy with its interval, and mean class accuracy, against the severities of a corruption, side by side.

  The clean faces stand in their place among them, as some kinds go both ways. A dashed line is the share of the largest
  class; the axis goes from 0 to 100 %, so that several can be compared.
  """
  clean = {'severity': 0.0, 'label': 'clean', **result['clean']}
  levels = sorted([clean, *result['kinds'][kind]['levels']], key=lambda level: level['severity'])
  with figures.canvas(4.2, 2.5) as (figure, axes):
    places, lows, highs = range(len(levels)), *zip(*(level['accuracy_interval'] for level in levels), strict=True)
    axes.fill_between(places, 100 * np.array(lows), 100 * np.array(highs), color=figures.THEME['accent'], alpha=0.18,
                      linewidth=0)
    for key, colour in (('mean_class_accuracy', figures.THEME['warm']), ('accuracy', figures.THEME['accent'])):
      axes.plot(places, [100 * level[key] for level in levels], color=colour, linewidth=1.6, marker='o', markersize=3.5)
    axes.axhline(100 * result['majority']['share'], color=figures.THEME['muted'], linewidth=1.2, linestyle='--')
    axes.set(ylim=(0, 100))
    axes.set_xticks(places, [level['label'] for level in levels], fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(False, axis='x')
    return figures.svg(figure, name)


def _mean(levels: Sequence[Mapping[str, Any]], key: str) -> str:
  """The mean over seeds; a dash where it is not known of all."""
  values = [level.get(key) for level in levels]
  return percent(None if None in values else float(np.mean(values)))


def _spread(levels: Sequence[Mapping[str, Any]]) -> str:
  if len(levels) == 1:
    return interval(levels[0]['accuracy_interval'])
  return f"± {percent(float(np.std([level['accuracy'] for level in levels], ddof=1)))}"
