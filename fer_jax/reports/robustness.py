"""Accuracy under drawn corruptions: the console table of one or several runs, and what a run's page says and draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich.markup import escape

from fer_jax.reports import figures
from fer_jax.reports.console import console, table, warn
from fer_jax.reports.words import every_leak, interval, leaks, percent, remarks

# Said wherever the numbers are shown.
CAVEAT = ('The corruptions are drawn, and drawn corruptions are not real occlusion, blur or light: they rank networks '
          "under a known change and do not tell how a network does on such photographs. RAN's lists of truly occluded "
          'and turned faces do (evaluate --subset).')


def print_robustness(groups: Mapping[str, Sequence[Mapping[str, Any]]], kinds: Sequence[str] = ()) -> None:
  """Prints the curves of runs in one table, severity by severity.

  Args:
    groups: {name of a row: contents of robustness/SPLIT.json of the runs that differ in their seed alone}. The means of
      several are printed with their standard deviation; of a single run the Wilson interval over its faces.
    kinds: of corruptions; none for all that every run has been through.
  """
  out, several = console(), len(groups) > 1
  everything = [result for results in groups.values() for result in results]
  first, majority = everything[0], everything[0]['majority']
  reasons = {name: every_leak(results) for name, results in groups.items()}
  shown = [kind for kind in kinds or first['kinds'] if all(kind in result['kinds'] for result in everything)]
  rows: list[Any] = []

  def add(kind: str, label: str, levels: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for i, (name, over_seeds) in enumerate(levels.items()):
      mark = ' LEAKY' * bool(reasons[name])
      rows.append((('' if i else kind, '' if i else label, *[name + mark] * several,
                    percent(_mean(over_seeds, 'accuracy')) + mark * (not several), _spread(over_seeds),
                    percent(_mean(over_seeds, 'relative_drop')), percent(_mean(over_seeds, 'mean_class_accuracy'))),
                   False))

  add('none', 'clean', {name: [result['clean'] for result in results] for name, results in groups.items()})
  for kind in shown:
    rows.append(None)
    for i, level in enumerate(first['kinds'][kind]['levels']):
      add('' if i else kind, level['label'], {name: [result['kinds'][kind]['levels'][i] for result in results]
                                              for name, results in groups.items()})
  rows += [None, (('largest class', majority['class'], *[''] * several, percent(majority['share']), '', '',
                   percent(1 / len(first['classes']))), True)]
  out.print(f"\n[bold]{first['protocol']['dataset']}[/] {escape(first['protocol']['split'])} under drawn corruptions: "
            f"{first['protocol']['n']:,} faces, {len(first['classes'])} classes")
  out.print(table(('corruption', 'severity', *['run'] * several, 'accuracy', 'sd over seeds, or 95 %',
                   'relative drop', 'mean class'), rows))
  for kind in shown:
    out.print(f"{kind}: {first['kinds'][kind]['what']}.")
  for name, results in groups.items():
    if several and len(results) > 1:
      out.print(escape(f"{name}: mean of {len(results)} seeds ({', '.join(str(r['seed']) for r in results)})."))
    for result in results:
      warn(out, (), _remarks(result), f"{name}, seed {result['seed']}: ")
    warn(out, reasons[name], about=f'{name}: ')
  out.print(CAVEAT)


def sections(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
  """What the page says and draws of the contents of robustness/SPLIT.json, by the stem of their files."""
  option = lambda value: f'{value[0]:g} to {value[1]:g}' if isinstance(value, Sequence) else f'{value:g}'
  return [result | {
      'split': result['protocol']['split'],
      'leaks': leaks(result),
      'remarks': _remarks(result),
      'shown': ', '.join(f'{name.replace("_", " ")} {option(value)}' for name, value in result['augment'].items()
                         if value and not name.startswith('erasing_')) or 'nothing',
      'charts': [{'kind': kind, 'what': measured['what'], 'levels': measured['levels'],
                  'drawing': _curves(f'robustness {stem} {kind}', result, kind)}
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


def _mean(levels: Sequence[Mapping[str, Any]], key: str) -> float | None:
  """The mean over seeds; None where it is not known of all."""
  values = [level.get(key) for level in levels]
  return None if None in values else float(np.mean(values))


def _spread(levels: Sequence[Mapping[str, Any]]) -> str:
  if len(levels) == 1:
    return interval(levels[0]['accuracy_interval'])
  return f"± {percent(float(np.std([level['accuracy'] for level in levels], ddof=1)))}"
