"""Prints an evaluation on the console."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_jax.metrics.intervals import wilson

# Columns of the alignment table, here and on the page: key, title, whether it is a share in per cent.
ALIGNMENT = (('cosine', 'cosine', False), ('pearson', 'Pearson', False),
             ('mass_inside_causal_mask', 'mass in causal mask', True), ('causal_auc', 'causal AUC', False))

TRIVIAL = ('uniform', 'centred_gaussian')  # Rows that know nothing of the image.


def percent(rate: float | None) -> str:
  """Prints a rate in [0, 1] with two decimals, or a dash where it is unknown."""
  return '–' if rate is None else f'{100 * rate:.2f} %'


def leaks(result: Mapping[str, Any]) -> list[str]:
  """How the numbers were chosen by, or depend on, the very images they are measured on, in words; empty if not."""
  protocol = result.get('protocol') or {}
  reasons = []
  if protocol.get('seen_in_training'):
    reasons.append('the model was trained on these images')
  if protocol.get('select') == 'best_on_test':
    reasons.append('the parameters were chosen by the accuracy on test images')
  if order := protocol.get('eval_order'):
    reasons.append('each answer depends on the other images of its batch, here '
                   f"{protocol.get('eval_batch_size', '?')} in {order} order")
  if protocol.get('leaky') and not reasons:
    reasons.append('these images helped to choose or to compute the result')
  return reasons


def title(result: Mapping[str, Any], otherwise: str = '') -> str:
  """Names an evaluation: its split (``otherwise`` where unknown) and what was changed for it."""
  split = (result.get('protocol') or {}).get('split') or otherwise
  return f"{split} with {', '.join(result['overrides'])}" if result.get('overrides') else split


def subset_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The subsets of an evaluation, and the whole split where its copies are known: rates, 'name' and 'remarks'."""
  rows = []
  for name, subset in (result.get('subsets') or {}).items():
    said = ((subset.get('duplicates'), '{:,} repeated'), (subset.get('unmatched'), '{:,} not in this split'),
            (subset.get('disagreeing'), '{:,} with another label here'))
    remarks = ', '.join(words.format(count) for count, words in said if count)
    rows.append({'without_copies': None, **subset, 'name': name,
                 'remarks': f"of {subset['listed']:,} lines {remarks}" if remarks else ''})
  if 'without_copies' in result:
    rows.append({**result, 'name': 'all faces', 'remarks': ''})
  return rows


def print_evaluation(result: Mapping[str, Any], console: Console | None = None) -> None:
  """Prints the rates, recall per class with Wilson 95 % intervals, subsets, and alignment beside the trivial maps.

  Args:
    result: what ``summarise`` returns; with ``protocol`` the heading says what was measured and warns of a leak.
    console: where to; standard output if None.
  """
  console = console or Console()
  protocol, reasons = result.get('protocol') or {}, leaks(result)
  low, high = result['accuracy_interval']
  mark = '  [bold red]LEAKY[/]' if reasons else ''
  console.print(f"\n[bold]{protocol.get('dataset', 'evaluation')}[/] {escape(title(result))}: "
                f"{result['count']:,} faces, {len(result['classes'])} classes", highlight=False)
  console.print(f"accuracy [bold]{percent(result['accuracy'])}[/] (95 %: {percent(low)} to {percent(high)}){mark}   "
                f"mean class accuracy [bold]{percent(result['mean_class_accuracy'])}[/]{mark}", highlight=False)
  if reasons:
    console.print(f"[red]Leaky: {'; '.join(reasons)}. Compare this with no honest result.[/]", highlight=False)
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

  if rows := subset_rows(result):
    table = Table('subset' + mark, 'faces', 'accuracy', '95 %', 'mean class', 'without copies in training')
    for row in rows:
      low, high = row['accuracy_interval']
      other = row['without_copies']
      table.add_row(escape(row['name']), f"{row['count']:,}", percent(row['accuracy']),
                    f'{100 * low:.1f} to {100 * high:.1f}', percent(row['mean_class_accuracy']),
                    f"{percent(other['accuracy'])} ({other['count']:,})" if other else '–')
    console.print(table)
    for row in rows:
      if row['remarks']:
        console.print(f"{escape(row['name'])}: {row['remarks']}.", highlight=False)

  if alignment := result.get('alignment'):
    columns = [c for c in ALIGNMENT if any(c[0] in row for row in alignment.values())]
    table = Table('map', *(title for _, title, _ in columns), 'faces')
    for name, row in alignment.items():
      cells = [percent(row.get(key)) if share else _decimals(row.get(key)) for key, _, share in columns]
      table.add_row(name.replace('_', ' '), *cells, f"{row['count']:,}", style='dim' if name in TRIVIAL else None)
    console.print(table)


def _decimals(value: float | None) -> str:
  return '–' if value is None else f'{value:.3f}'
