"""Prints an evaluation, or a transfer to another data set, on the console."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_jax.metrics.calibration import BINS
from fer_jax.metrics.intervals import wilson
from fer_jax.reports.alignment import TRIVIAL, alignment_groups
from fer_jax.runtime import cluster

TRIVIAL_FEATURES = ('untrained network', 'majority class')  # Rows that owe nothing to training.

CHANCE = 1 / 3  # Triplets that a guess gets right: any of three faces may be the odd one.

_TYPES = {'one_class': 'of one class', 'two_class': 'of two classes', 'three_class': 'of three classes'}


def percent(rate: float | None) -> str:
  """Prints a rate in [0, 1] with two decimals, or a dash where it is unknown."""
  return '–' if rate is None else f'{100 * rate:.2f} %'


def interval(ends: Sequence[float] | None) -> str:
  """Prints an interval (low, high) of a rate, or a dash where it is unknown."""
  return '–' if ends is None else f'{percent(ends[0])} to {percent(ends[1])}'


def measures(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  """What an evaluation says beside accuracy: (title, number with its unit, remark); older files lack some of it."""
  shown = (
      ('macro_f1', 'macro F1', percent, 'Over the classes that occur or were predicted.'),
      ('nll', 'NLL', _nats, 'Mean negative log-likelihood of the true class: less is better.'),
      ('ece', f'ECE, {BINS} bins', percent, 'Gap between confidence and accuracy. A small split makes it larger.'))
  return [(title, text(result[key]), remark) for key, title, text, remark in shown if key in result]


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


def other_data(result: Mapping[str, Any]) -> str:
  """Says that the data have changed since training; '' where they have not."""
  then, now = (result.get('protocol') or {}).get('other_data') or ('', '')
  return f'the data are not those of the training: their digest was {then[:12]}, now it is {now[:12]}' if then else ''


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


def transfer_title(result: Mapping[str, Any]) -> str:
  """Names a transfer: its target data set, and the layer of the features."""
  target = result['target']
  variant = f" ({target['variant']})" if target['variant'] else ''
  return f"{target['dataset']}{variant}, {result['layer']} features"


def transfer_words(result: Mapping[str, Any]) -> str:
  """What a transfer measured: splits, classes, features, and which of the classes the network had been shown."""
  target, seen = result['target'], result['seen_in_training']
  classes = target['classes']
  shown = ('all of these classes' if len(seen) == len(classes) else
           f"these of the classes: {', '.join(seen)}" if seen else 'none of these classes')
  return (f"Learned from {target['train_count']:,} faces of {target['train']}, tested on {target['test_count']:,} of "
          f"{target['test']}; {len(classes)} classes: {', '.join(classes)}. The features are {result['dim']:,} numbers "
          f"for each face, from step {result['step']:,}. The network was trained on {shown}.")


def chosen_words(chosen: Mapping[str, Any]) -> str:
  """The hyper-parameters of a transfer's row in words; what is as it should be ('converged') is not said."""
  said = [f'not {key}' if value is False else f'{key} {value:.4g}'
          for key, value in chosen.items() if value is not True]
  return ', '.join(said).replace('_', ' ')


def few_shot_rows(result: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
  """The few-shot table of a transfer: the kinds of features, and a row for each number of shots.

  Returns:
    Names of the columns, and rows of shots, draws, remarks, and cells (a text for each column).
  """
  names = list(dict.fromkeys(point['features'] for point in result['few_shot']))
  rows = []
  for shots in sorted({point['shots'] for point in result['few_shot']}):
    points = {point['features']: point for point in result['few_shot'] if point['shots'] == shots}
    first = next(iter(points.values()))
    said = ((first.get('short_classes'), '{} of the classes have fewer and give all'),
            (first.get('skipped_classes'), '{} of the classes have none and count as wrong'))
    cells = ['–' if name not in points else percent(points[name]['accuracy']) if points[name]['sd'] is None else
             f"{100 * points[name]['accuracy']:.2f} ± {percent(points[name]['sd'])}" for name in names]
    rows.append({'shots': shots, 'draws': first['draws'], 'cells': cells,
                 'remarks': ', '.join(words.format(count) for count, words in said if count)})
  return names, rows


def print_evaluation(result: Mapping[str, Any], console: Console | None = None) -> None:
  """Prints rates, calibration, recall by class with Wilson 95 % intervals, subsets, alignment and triplets.

  Args:
    result: what ``summarise`` returns; with ``protocol`` the heading says what was measured and warns of a leak.
    console: where to; if None, the standard output of process 0.
  """
  console = console or Console(quiet=not cluster.is_main())
  protocol, reasons = result.get('protocol') or {}, leaks(result)
  low, high = result['accuracy_interval']
  mark = '  [bold red]LEAKY[/]' if reasons else ''
  console.print(f"\n[bold]{protocol.get('dataset', 'evaluation')}[/] {escape(title(result))}: "
                f"{result['count']:,} faces, {len(result['classes'])} classes", highlight=False)
  console.print(f"accuracy [bold]{percent(result['accuracy'])}[/] (95 %: {percent(low)} to {percent(high)}){mark}   "
                f"mean class accuracy [bold]{percent(result['mean_class_accuracy'])}[/]{mark}", highlight=False)
  if others := measures(result):
    console.print('   '.join(f'{title} [bold]{text}[/]' for title, text, _ in others) + mark, highlight=False)
  if reasons:
    console.print(f"[red]Leaky: {'; '.join(reasons)}. Compare this with no honest result.[/]", highlight=False)
  if changed := other_data(result):
    console.print(f'[yellow]Note: {changed}.[/]', highlight=False)
  if result.get('absent_classes'):
    console.print(f"no examples of {', '.join(result['absent_classes'])}: left out of the mean class accuracy.",
                  highlight=False)

  table = Table('class', 'recall', '95 %', 'faces', 'most often taken for')
  for i, (name, row) in enumerate(zip(result['classes'], result['confusion'], strict=True)):
    if count := sum(row):
      errors, other = max((n, j) for j, n in enumerate(row) if j != i) if len(row) > 1 else (0, 0)
      wrong = f"{result['classes'][other]} ({errors})" if errors else ''
      table.add_row(name, percent(row[i] / count), _ends(wilson(row[i], count)), f'{count:,}', wrong)
  console.print(table)

  if rows := subset_rows(result):
    table = Table('subset' + mark, 'faces', 'accuracy', '95 %', 'mean class', 'without copies in training')
    for row in rows:
      other = row['without_copies']
      table.add_row(escape(row['name']), f"{row['count']:,}", percent(row['accuracy']),
                    _ends(row['accuracy_interval']), percent(row['mean_class_accuracy']),
                    f"{percent(other['accuracy'])} ({other['count']:,})" if other else '–')
    console.print(table)
    for row in rows:
      if row['remarks']:
        console.print(f"{escape(row['name'])}: {row['remarks']}.", highlight=False)

  groups = alignment_groups(result)
  for group in groups:
    faces = '' if group['faces'] is None else f", {group['faces']:,} faces"
    table = Table('map' + mark, *group['columns'], title=f"maps and {group['title']}{faces}", title_justify='left')
    for row in group['rows']:
      cells = [cell['text'] + {True: ' ▲', False: ' ▽', None: ''}[cell['beats']] for cell in row['cells']]
      table.add_row(escape(row['name']), *cells, style='dim' if row['trivial'] else None)
    console.print(table)
    if group['remark']:
      console.print(group['remark'], highlight=False)
  if groups:
    constant = [row['name'] for row in groups[0]['rows'] if row['key'] in TRIVIAL]
    console.print(f"▲ above, ▽ not above the same picture for every face ({', '.join(constant)}).", highlight=False)

  for name, comparison in (result.get('triplets') or {}).items():
    console.print(f"triplets '{escape(name)}', the truth being [bold]{escape(comparison['truth'])}[/]; embedding of "
                  f"{comparison['dim']:,} numbers", highlight=False)
    table = Table('faces' + mark, 'triplets', 'accuracy', '95 %')
    for row in triplet_rows(comparison):
      table.add_row(row['name'], row['triplets'], percent(row['accuracy']),
                    '' if row['trivial'] else _ends(row['interval']), style='dim' if row['trivial'] else None)
    console.print(table)


def print_transfer(result: Mapping[str, Any], console: Console | None = None) -> None:
  """Prints how well frozen features separate the classes of another data set, and the few-shot table if there is one.

  Args:
    result: the content of a run's transfer/NAME.json.
    console: where to; if None, the standard output of process 0.
  """
  console = console or Console(quiet=not cluster.is_main())
  mark = '  [bold red]LEAKY[/]' if result['leaks'] else ''
  console.print(f'\n[bold]{escape(transfer_title(result))}[/]{mark}', highlight=False)
  console.print(escape(transfer_words(result)), highlight=False)
  if result['leaks']:
    console.print(f"[red]Leaky: {escape('; '.join(result['leaks']))}. Compare this with no honest result.[/]",
                  highlight=False)
  table = Table('features' + mark, 'method', 'accuracy', '95 %', 'mean class', 'chosen')
  for row in result['rows']:
    table.add_row(row['features'], row['method'], percent(row['accuracy']), _ends(row['accuracy_interval']),
                  percent(row['mean_class_accuracy']), escape(chosen_words(row['chosen'])),
                  style='dim' if row['features'] in TRIVIAL_FEATURES else None)
  console.print(table)
  names, rows = few_shot_rows(result)
  if rows:
    table = Table('faces of each class' + mark, *names, 'draws')
    for row in rows:
      table.add_row(f"{row['shots']:,}", *row['cells'], str(row['draws']))
    console.print(table)
    console.print('linear probe, mean ± standard deviation over draws of the faces', highlight=False)
    for row in rows:
      if row['remarks']:
        console.print(f"At {row['shots']:,} faces, {row['remarks']}.", highlight=False)


def _nats(value: float | None) -> str:
  return '–' if value is None else f'{value:.3f} nats'


def _ends(interval: Sequence[float] | None) -> str:
  return '–' if interval is None else f'{100 * interval[0]:.1f} to {100 * interval[1]:.1f}'
