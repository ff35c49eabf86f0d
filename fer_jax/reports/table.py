"""Prints an evaluation on the console."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from fer_jax.metrics.intervals import wilson

# Columns of the alignment table, here and on the page: key, title, whether it is a share in per cent.
ALIGNMENT = (('cosine', 'cosine', False), ('pearson', 'Pearson', False),
             ('mass_inside_causal_mask', 'mass in causal mask', True), ('causal_auc', 'causal AUC', False))

TRIVIAL = ('uniform', 'centred_gaussian')  # Rows that know nothing of the image.


def percent(rate: float | None) -> str:
  """Prints a rate in [0, 1] with two decimals, or a dash where it is unknown."""
  return '–' if rate is None else f'{100 * rate:.2f} %'


def is_leaky(result: Mapping[str, Any]) -> bool:
  """Whether the numbers were chosen by, or depend on, the very images they are measured on."""
  protocol = result.get('protocol') or {}
  return bool(protocol.get('leaky')) or protocol.get('select') == 'best_on_test'


def print_evaluation(result: Mapping[str, Any], console: Console | None = None) -> None:
  """Prints the rates, recall per class with Wilson 95 % intervals, and alignment beside the trivial maps.

  Args:
    result: what ``summarise`` returns; with ``protocol`` the heading says what was measured and warns of a leak.
    console: where to; standard output if None.
  """
  console = console or Console()
  protocol, leaky = result.get('protocol') or {}, is_leaky(result)
  low, high = result['accuracy_interval']
  mark = '  [bold red]LEAKY[/]' if leaky else ''
  console.print(f"\n[bold]{protocol.get('dataset', 'evaluation')}[/] {protocol.get('split', '')}: "
                f"{result['count']:,} faces, {len(result['classes'])} classes", highlight=False)
  console.print(f"accuracy [bold]{percent(result['accuracy'])}[/] (95 %: {percent(low)} to {percent(high)}){mark}   "
                f"mean class accuracy [bold]{percent(result['mean_class_accuracy'])}[/]{mark}", highlight=False)
  if leaky:
    console.print('[red]These images were trained on, or helped to choose or to compute the result: '
                  'compare it with no honest one.[/]')
  if result.get('absent_classes'):
    console.print(f"no examples of {', '.join(result['absent_classes'])}: left out of the mean.", highlight=False)

  table = Table('class', 'recall', '95 %', 'faces', 'most often taken for')
  for i, (name, row) in enumerate(zip(result['classes'], result['confusion'], strict=True)):
    if count := sum(row):
      low, high = wilson(row[i], count)
      errors, other = max((n, j) for j, n in enumerate(row) if j != i) if len(row) > 1 else (0, 0)
      wrong = f"{result['classes'][other]} ({errors})" if errors else ''
      table.add_row(name, percent(row[i] / count), f'{100 * low:.1f} to {100 * high:.1f}', f'{count:,}', wrong)
  console.print(table)

  if alignment := result.get('alignment'):
    columns = [c for c in ALIGNMENT if any(c[0] in row for row in alignment.values())]
    table = Table('map', *(title for _, title, _ in columns), 'faces')
    for name, row in alignment.items():
      cells = [percent(row.get(key)) if share else _decimals(row.get(key)) for key, _, share in columns]
      table.add_row(name.replace('_', ' '), *cells, f"{row['count']:,}", style='dim' if name in TRIVIAL else None)
    console.print(table)


def _decimals(value: float | None) -> str:
  return '–' if value is None else f'{value:.3f}'
