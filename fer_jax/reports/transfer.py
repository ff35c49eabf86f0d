"""What frozen features are worth on another data set: the tables, and what the page says and draws."""

from collections.abc import Mapping
from typing import Any

from fer_jax.reports import figures
from fer_jax.reports.formats import Column, Line, Table, show
from fer_jax.reports.words import interval, named, percent, warnings

_TRIVIAL = ('untrained network', 'majority class')  # Features that owe nothing to training.


def print_transfer(result: Mapping[str, Any]) -> None:
  """Prints how well frozen features separate the classes of another data set: the content of transfer/NAME.json."""
  show('\n' + _title(result), _words(result), *warnings(result['leaks']), *make_tables(result))


def sections(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
  """What the page says and draws of the contents of transfer/NAME.json, by the stem of their files."""
  return [result | {
      'title': _title(result), 'words': _words(result), 'tables': make_tables(result),
      'curve': figures.few_shot(f'few-shot curve {stem}', result['few_shot'], _levels(result))
               if result['few_shot'] else ''} for stem, result in results.items()]


def make_tables(result: Mapping[str, Any]) -> list[Table]:
  """The table of features and methods; and, where it was measured, that of few faces of each class."""
  leaky = ' LEAKY' * bool(result['leaks'])
  lines = [Line({
      'features': row['features'] + leaky, 'method': {'-': '–'}.get(row['method'], row['method']),
      'accuracy': percent(row['accuracy']), '95 %': interval(row['accuracy_interval']),
      'mean class accuracy': percent(row['mean_class_accuracy']), 'chosen': _chosen(row['chosen'])},
                style='trivial' if row['features'] in _TRIVIAL else '') for row in result['rows']]
  columns = (Column('features', 'l'), Column('method', 'l'), Column('accuracy', bar=True), Column('95 %'),
             Column('mean class accuracy'), Column('chosen', 'l'))
  table = Table('all faces' + leaky, columns, tuple(lines))
  return [table, _few_shot(result)] if result['few_shot'] else [table]


def _title(result: Mapping[str, Any]) -> str:
  return f"{named(result['target'])}, {result['layer']} features" + ' LEAKY' * bool(result['leaks'])


def _words(result: Mapping[str, Any]) -> str:
  target, seen = result['target'], result['seen_in_training']
  classes = target['classes']
  shown = ('all of these classes' if len(seen) == len(classes) else
           f"these of the classes: {', '.join(seen)}" if seen else 'none of these classes')
  return (f"Learned from {target['train_count']:,} faces of {target['train']}, tested on {target['test_count']:,} "
          f"of {target['test']}; {len(classes)} classes: {', '.join(classes)}. The features are {result['dim']:,} "
          f"numbers for each face, from step {result['step']:,}. The network was trained on {shown}.")


def _chosen(chosen: Mapping[str, Any]) -> str:
  """The hyper-parameters of a row in words; what is as it should be ('converged') is not said."""
  said = [f'not {key}' if value is False else f'{key} {value:.4g}'
          for key, value in chosen.items() if value is not True]
  return ', '.join(said).replace('_', ' ')


def _few_shot(result: Mapping[str, Any]) -> Table:
  """A line for each number of shots, a column for each kind of features."""
  names = list(dict.fromkeys(point['features'] for point in result['few_shot']))
  lines, notes = [], ['Linear probe, mean ± standard deviation over draws of the faces it learns from.']
  for shots in sorted({point['shots'] for point in result['few_shot']}):
    points = {point['features']: point for point in result['few_shot'] if point['shots'] == shots}
    first = next(iter(points.values()))
    said = ((first.get('short_classes'), '{} of the classes have fewer and give all'),
            (first.get('skipped_classes'), '{} of the classes have none and count as wrong'))
    if remarks := ', '.join(words.format(count) for count, words in said if count):
      notes.append(f'At {shots:,} faces, {remarks}.')
    cells = {name: percent(point['accuracy']) if point['sd'] is None else
             f"{100 * point['accuracy']:.2f} ± {percent(point['sd'])}" for name, point in points.items()}
    lines.append(Line({'faces of each class': f'{shots:,}', **dict.fromkeys(names, '–'), **cells,
                       'draws': str(first['draws'])}))
  return Table('few faces of each class' + ' LEAKY' * bool(result['leaks']),
               tuple(map(Column, ('faces of each class', *names, 'draws'))), tuple(lines), tuple(notes))


def _levels(result: Mapping[str, Any]) -> dict[str, float]:
  """Accuracies that a few-shot curve is held against: of all labels, and of none."""
  found = {(row['features'], row['method']): row['accuracy'] for row in result['rows']}
  levels = {f"linear probe, all {result['target']['train_count']:,} faces": ('this network', 'linear probe'),
            'majority class': ('majority class', '-')}
  return {name: found[key] for name, key in levels.items() if key in found}
