"""What frozen features are worth on another data set: the console tables, and what the page says and draws."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from fer_jax.reports import figures
from fer_jax.reports.console import LEAKY, console, table, warn
from fer_jax.reports.words import ends, named, percent

_TRIVIAL = ('untrained network', 'majority class')  # Features that owe nothing to training.


def print_transfer(result: Mapping[str, Any]) -> None:
  """Prints how well frozen features separate the classes of another data set: the content of transfer/NAME.json."""
  out, said = console(), _described(result)
  mark = LEAKY if said['leaky'] else ''
  out.print(f"\n[bold]{escape(said['title'])}[/]{mark}")
  out.print(escape(said['words']))
  warn(out, result['leaks'])
  header = ('features' + mark, 'method', 'accuracy', '95 %', 'mean class', 'chosen')
  out.print(table(header, (((
      row['features'], row['method'], percent(row['accuracy']), ends(row['accuracy_interval']),
      percent(row['mean_class_accuracy']), row['chosen']), row['trivial']) for row in said['rows'])))
  names, rows = said['shots']
  if rows:
    out.print(table(('faces of each class' + mark, *names, 'draws'), (
        ((f"{row['shots']:,}", *row['cells'], str(row['draws'])), False) for row in rows)))
    out.print('linear probe, mean ± standard deviation over draws of the faces')
    for row in rows:
      if row['remarks']:
        out.print(f"At {row['shots']:,} faces, {row['remarks']}.")


def sections(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
  """What the page says and draws of the contents of transfer/NAME.json, by the stem of their files."""
  return [_described(result) | {
      'curve': figures.few_shot(f'few-shot curve {stem}', result['few_shot'], _levels(result))
               if result['few_shot'] else ''} for stem, result in results.items()]


def _described(result: Mapping[str, Any]) -> dict[str, Any]:
  """Adds title, words, 'leaky', what console and page say of 'rows', and 'shots', see ``_few_shot``."""
  target, seen = result['target'], result['seen_in_training']
  classes = target['classes']
  shown = ('all of these classes' if len(seen) == len(classes) else
           f"these of the classes: {', '.join(seen)}" if seen else 'none of these classes')
  return result | {
      'title': f"{named(target)}, {result['layer']} features",
      'words': f"Learned from {target['train_count']:,} faces of {target['train']}, tested on {target['test_count']:,} "
               f"of {target['test']}; {len(classes)} classes: {', '.join(classes)}. The features are {result['dim']:,} "
               f"numbers for each face, from step {result['step']:,}. The network was trained on {shown}.",
      'leaky': bool(result['leaks']),
      'rows': [row | {'trivial': row['features'] in _TRIVIAL, 'chosen': _chosen(row['chosen'])}
               for row in result['rows']],
      'shots': _few_shot(result)}


def _chosen(chosen: Mapping[str, Any]) -> str:
  """The hyper-parameters of a row in words; what is as it should be ('converged') is not said."""
  said = [f'not {key}' if value is False else f'{key} {value:.4g}'
          for key, value in chosen.items() if value is not True]
  return ', '.join(said).replace('_', ' ')


def _few_shot(result: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
  """Names of the columns, kinds of features, and for each number of shots: shots, draws, remarks, and cells (texts)."""
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


def _levels(result: Mapping[str, Any]) -> dict[str, float]:
  """Accuracies that a few-shot curve is held against: of all labels, and of none."""
  found = {(row['features'], row['method']): row['accuracy'] for row in result['rows']}
  levels = {f"linear probe, all {result['target']['train_count']:,} faces": ('this network', 'linear probe'),
            'majority class': ('majority class', '-')}
  return {name: found[key] for name, key in levels.items() if key in found}
