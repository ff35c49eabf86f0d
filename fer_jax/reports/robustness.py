"""Accuracy under drawn corruptions: the console table of one or several runs, and what a run's page says and draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_jax.reports import figures
from fer_jax.reports.table import interval, leaks, other_data, percent
from fer_jax.runtime import cluster

# Said wherever the numbers are shown.
CAVEAT = ('The corruptions are drawn, and drawn corruptions are not real occlusion, blur or light: they rank networks '
          "under a known change and do not tell how a network does on such photographs. RAN's lists of truly occluded "
          'and turned faces do (evaluate --subset).')


def print_robustness(groups: Mapping[str, Sequence[Mapping[str, Any]]], kinds: Sequence[str] = (),
                     console: Console | None = None) -> None:
  """Prints the curves of runs in one table, severity by severity.

  Args:
    groups: {name of a row: contents of robustness/SPLIT.json of the runs that differ in their seed alone}. The means of
      several are printed with their standard deviation; of a single run the Wilson interval over its faces.
    kinds: of corruptions; none for all that every run has been through.
    console: where to; if None, the standard output of process 0.
  """
  console = console or Console(quiet=not cluster.is_main())
  first = next(iter(groups.values()))[0]
  protocol = first['protocol']
  console.print(f"\n[bold]{protocol['dataset']}[/] {escape(protocol['split'])} under drawn corruptions: "
                f"{protocol['n']:,} faces, {len(first['classes'])} classes", highlight=False)
  several = len(groups) > 1
  named = ['run'] if several else []
  table = Table('corruption', 'severity', *named, 'accuracy', 'sd over seeds, or 95 %', 'relative drop', 'mean class')
  reasons = {name: dict.fromkeys(reason for result in results for reason in leaks(result))
             for name, results in groups.items()}

  def add(kind: str, label: str, levels: Mapping[str, Sequence[Mapping[str, Any]]], section: bool) -> None:
    for i, (name, over_seeds) in enumerate(levels.items()):
      mark = ' [bold red]LEAKY[/]' if reasons[name] else ''
      table.add_row('' if i else kind, '' if i else label, *([escape(name) + mark] if several else []),
                    percent(_mean(over_seeds, 'accuracy')) + ('' if several else mark), _spread(over_seeds),
                    percent(_mean(over_seeds, 'relative_drop')), percent(_mean(over_seeds, 'mean_class_accuracy')),
                    end_section=section and i == len(levels) - 1)

  add('none', 'clean', {name: [result['clean'] for result in results] for name, results in groups.items()}, True)
  everything = [result for results in groups.values() for result in results]
  shown = [kind for kind in kinds or first['kinds'] if all(kind in result['kinds'] for result in everything)]
  for kind in shown:
    steps = [level['label'] for level in first['kinds'][kind]['levels']]
    for i, label in enumerate(steps):
      levels = {name: [result['kinds'][kind]['levels'][i] for result in results] for name, results in groups.items()}
      add('' if i else kind, label, levels, i == len(steps) - 1)
  table.add_row('largest class', escape(first['majority']['class']), *([''] if several else []),
                percent(first['majority']['share']), '', '', percent(1 / len(first['classes'])), style='dim')
  console.print(table)
  for kind in shown:
    console.print(f"{kind}: {first['kinds'][kind]['what']}.", highlight=False)
  for name, results in groups.items():
    if several and len(results) > 1:
      console.print(f"{escape(name)}: mean of {len(results)} seeds ({', '.join(str(r['seed']) for r in results)}).",
                    highlight=False)
    for result in results:
      for words in remarks(result):
        console.print(f"[yellow]Note: {escape(name)}, seed {result['seed']}: {escape(words)}.[/]", highlight=False)
    if reasons[name]:
      console.print(f"[red]Leaky: {escape(name)}: {escape('; '.join(reasons[name]))}. Compare this with no honest "
                    'result.[/]', highlight=False)
  console.print(CAVEAT, highlight=False)


def remarks(result: Mapping[str, Any]) -> list[str]:
  """What a reader of a robustness/SPLIT.json should know of it, as clauses."""
  said = []
  if result['differs']:
    said.append(f"on the clean faces {result['differs']:,} of {result['protocol']['n']:,} answers are not those of the "
                'evaluation, as happens on other hardware')
  if changed := other_data(result):
    said.append(changed)
  if not result['step']:
    said.append('the network is untrained')
  return said


def sections(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
  """What the page says and draws of the contents of robustness/SPLIT.json, by the stem of their files."""
  return [result | {
      'split': result['protocol']['split'],
      'leaks': leaks(result),
      'remarks': remarks(result),
      'shown': ', '.join(f'{name.replace("_", " ")} {_option(value)}' for name, value in result['augment'].items()
                         if value and not name.startswith('erasing_')) or 'nothing',
      'charts': [{'kind': kind, 'what': measured['what'], 'levels': measured['levels'],
                  'drawing': _curves(f'robustness {stem} {kind}', _with_clean(result, kind),
                                     result['majority']['share'])}
                 for kind, measured in result['kinds'].items()],
  } for stem, result in results.items()]


def _curves(name: str, levels: Sequence[Mapping[str, Any]], majority: float) -> Markup:
  """Draws accuracy with its interval, and mean class accuracy, against the severity of a corruption.

  Args:
    name: what the picture is called; marks the ids inside it.
    levels: rows with label, accuracy, accuracy_interval and mean_class_accuracy in [0, 1], in the order they are drawn,
      side by side whatever lies between their severities; the clean faces are one of them.
    majority: share of the largest class, a dashed line.

  Returns:
    An ``<svg>`` element, its vertical axis from 0 to 100 % so that several can be compared.
  """
  with figures.canvas(4.2, 2.5) as (figure, axes):
    places, lows, highs = range(len(levels)), *zip(*(level['accuracy_interval'] for level in levels), strict=True)
    axes.fill_between(places, 100 * np.array(lows), 100 * np.array(highs), color=figures.THEME['accent'], alpha=0.18,
                      linewidth=0)
    for key, colour in (('mean_class_accuracy', figures.THEME['warm']), ('accuracy', figures.THEME['accent'])):
      axes.plot(places, [100 * level[key] for level in levels], color=colour, linewidth=1.6, marker='o', markersize=3.5)
    axes.axhline(100 * majority, color=figures.THEME['muted'], linewidth=1.2, linestyle='--')
    axes.set(ylim=(0, 100))
    axes.set_xticks(places, [level['label'] for level in levels], fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(False, axis='x')
    return figures.svg(figure, name)


def _with_clean(result: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
  """The levels of a kind with the clean faces in their place: some kinds go both ways."""
  clean = {'severity': 0.0, 'label': 'clean', **result['clean']}
  return sorted([clean, *result['kinds'][kind]['levels']], key=lambda level: level['severity'])


def _mean(levels: Sequence[Mapping[str, Any]], key: str) -> float | None:
  """The mean over seeds; None where it is not known of all."""
  values = [level.get(key) for level in levels]
  return None if None in values else float(np.mean(values))


def _spread(levels: Sequence[Mapping[str, Any]]) -> str:
  if len(levels) == 1:
    return interval(levels[0]['accuracy_interval'])
  return f"± {percent(float(np.std([level['accuracy'] for level in levels], ddof=1)))}"


def _option(value: Any) -> str:
  return f'{value[0]:g} to {value[1]:g}' if isinstance(value, Sequence) else f'{value:g}'
