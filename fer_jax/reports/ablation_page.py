"""Writes an ablation's report: one HTML page that sets its rows beside each other, in numbers, drawings and faces."""

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from etils import epath

from fer_jax.metrics.confusion import recall
from fer_jax.metrics.intervals import share_interval, wilson
from fer_jax.reports import figures, row_figures, template, wall
from fer_jax.reports.ablation_rows import Row
from fer_jax.reports.alignment import CLASS_FREE, TRIVIAL
from fer_jax.reports.differences import Difference, compare, disagreements
from fer_jax.reports.formats import Table
from fer_jax.reports.row_figures import Dots
from fer_jax.reports.runs import Run, net, settings, start_of
from fer_jax.reports.words import brief, chosen, evaluations, every, every_leak, named, other_data
from fer_jax.runtime import storage

# Charts of accuracy against alignment: title, axis, map, key of its row in an evaluation's alignment.
_MEASURES = (
    ('ATT-COS', 'cosine with action units', 'attention', 'action_unit_published_cosine'),
    ('CAM-COS', 'cosine with action units', 'cam', 'action_unit_published_cosine'),
    ('CAM and landmarks', 'Pearson correlation with landmarks', 'cam', 'pearson'),
    ('Sum of logits and landmarks', 'Pearson correlation with landmarks', 'logit_sum', 'pearson'),
)


def write_page(workdir: str | os.PathLike[str], rows: Sequence[Row], tables: Sequence[Table]) -> epath.Path:
  """Writes ``workdir/report.html`` and returns its path; what is missing becomes a sentence on the page.

  Differences are to the first of the rows. Raises a UserError where the page cannot be written.
  """
  workdir = storage.as_path(workdir)
  return template.write(workdir / 'report.html', 'ablation.html', lambda: _contents(workdir, rows, tables))


def _contents(workdir: epath.Path, rows: Sequence[Row], tables: Sequence[Table]) -> dict[str, Any]:
  """The template's variables."""
  described = [_described(workdir, place, row) for place, row in enumerate(rows)]
  runs = [run for row in rows for run in row.runs]
  compared = [(row, compare(row['runs'], described[0]['runs'])) for row in described[1:]
              if row['runs'] and described[0]['runs']]
  return {
      'name': runs[0].result['name'].partition('/')[0] if runs else storage.absolute(workdir).name,
      'words': _words(runs) if runs else 'No run of this ablation has finished yet.',
      'rows': described,
      'evaluations': max((evaluations(run.result) for run in runs), default=1),
      'disagreements': [*disagreements(runs),
                        *dict.fromkeys(filter(None, (other_data(run.result) for run in runs)))],
      'facts': _facts(runs) if runs else [],
      'compared': sum(bool(_ends(found)) for _, found in compared),
      'differing': [row['name'] + f" ({row['mark']})" * bool(row['mark']) for row, found in compared
                    if _leaves_out_0(found)],
      'problems': [f"{row['name']}: {found.problem}" for row, found in compared if found.problem],
      'accuracy': row_figures.intervals('accuracy', [row['dots'] for row in described], 'accuracy, %'),
      'difference': row_figures.intervals(
          'difference', [_difference_dots(*pair) for pair in compared],
          'difference in accuracy, percentage points', zero=True) if compared else '',
      'tables': tables,
      'changes': _changes(rows),
      'scatters': _scatters(described),
      'recalls': _recalls(described),
      'confusions': [(row, _confusion(row)) for row in described if row['runs']],
      'walls': wall.walls(described),
      'data_seeds': sorted({run.config['data'].get('seed', -1) for run in runs} - {-1}),
  }


def _described(workdir: epath.Path, place: int, row: Row) -> dict[str, Any]:
  """What every section says of a row."""
  reasons = every_leak(run.result for run in row.runs)
  untrained = any(run.result['step'] == 0 for run in row.runs)
  values = [100 * run.result['accuracy'] for run in row.runs]
  described = {
      'name': row.name, 'place': place, 'colour': row_figures.colour(place), 'runs': row.runs, 'wanted': row.wanted,
      'missing': max(row.wanted - len(row.runs), 0), 'leaks': reasons, 'leaky': bool(reasons), 'untrained': untrained,
      'mark': 'LEAKY' if reasons else 'UNTRAINED' if untrained else '',
      'accuracy': share_interval(values, 100) if values else None,
      'links': [{'seed': run.config['seed'], 'accuracy': run.result['accuracy'],
                 'address': _address(workdir, run.workdir)} for run in row.runs],
  }
  text, faces = 'no finished run', None
  if values:
    sd = f', sd {np.std(values, ddof=1):.2f}' if len(values) > 1 else ''
    of = f' of {row.wanted}' if len(values) < row.wanted else ''
    text = f"{np.mean(values):.2f} %{sd}, {len(values)}{of} seed{'s' if of or len(values) > 1 else ''}"
    faces = [100 * end for end in row.runs[0].result['accuracy_interval']] if len(values) == 1 else None
  return described | {'dots': _dots(described, values, text, faces)}


def _dots(row: Mapping[str, Any], values: Sequence[float], text: str, faces: Sequence[float] | None = None) -> Dots:
  """A row of a chart of per cent, with its interval over seeds."""
  low, high = share_interval(values, 100)[1:3] if values else (None, None)
  return Dots(row['name'], row['place'], values, low, high, text, row['mark'], faces)


def _ends(difference: Difference) -> list[tuple[float, float]]:
  """The intervals that are known of a difference: over seeds, over faces."""
  known = [found for found in (difference.over_seeds, difference.over_faces) if found and found.low is not None]
  return [(found.low, found.high) for found in known]


def _leaves_out_0(difference: Difference) -> bool:
  """Whether all that is known of a difference speaks against its being 0."""
  ends = _ends(difference)
  return bool(ends) and all(low > 0 or high < 0 for low, high in ends)


def _difference_dots(row: Mapping[str, Any], difference: Difference) -> Dots:
  seeds, faces = difference.over_seeds, difference.over_faces
  if seeds is None:
    return Dots(row['name'], row['place'], [], text='not comparable', mark=row['mark'])
  text = f'{seeds.difference:+.2f}' + ''.join(f' [{low:+.2f}, {high:+.2f}]' for low, high in _ends(difference)[:1])
  return Dots(row['name'], row['place'], [seeds.difference], seeds.low, seeds.high, text.replace('-', '−'), row['mark'],
              (faces.low, faces.high) if faces else None, hollow=not _leaves_out_0(difference))


def _words(runs: Sequence[Run]) -> str:
  """One sentence on data and protocol, from the first run; where others differ, ``disagreements`` says it."""
  protocol = runs[0].result['protocol']
  return (f"Trained on “{protocol['trained_on']}” of {named(protocol)}, tested on {protocol['n']:,} faces of its "
          f"{protocol['split']} split, {protocol['K']} classes, with {chosen(protocol)}. What the rows change is "
          'listed below.')


def _facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
  """Tiles: label and value, with all the values that the runs have."""
  of = lambda value: every((found for found in map(value, runs) if found not in (None, '')), ', ') or '–'
  start = lambda run: f', started from {found}' if (found := start_of(run)) else ''
  return [
      ('Data set', of(lambda run: named(run.result['protocol']))),
      ('Net', of(lambda run: f"{net(run, ', ')}, {run.config['image_size']} px{start(run)}")),
      ('Parameters', of(lambda run: brief(run.record.get('parameters') or ''))),
      ('Seeds', every(sorted({run.config['seed'] for run in runs}), ', ')),
      ('Hardware', of(lambda run: run.record.get('hardware') or run.result.get('hardware'))),
      ('Code', of(lambda run: run.record.get('commit') or run.result.get('commit'))),
  ]


def _changes(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, bool]]]]:
  """The keys of the config in which rows differ: for each row its value, and whether it is like the first with runs."""
  per_row = [settings(row.runs[0]) if row.runs else None for row in rows]
  known = [found for found in per_row if found is not None]
  changes = []
  for key in dict.fromkeys(key for found in known for key in found if key not in ('name', 'test data')):
    values = [found.get(key, '–') for found in known]
    if len(set(values)) > 1:
      texts = [found.get(key, '–').strip('"') if found else '–' for found in per_row]
      changes.append((key, [(text, text in ('–', values[0].strip('"'))) for text in texts]))
  return changes


def _scatters(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Accuracy against each of ``_MEASURES`` that a row has."""
  found = []
  for title, axis, name, key in _MEASURES:
    value = lambda run, row: ((run.result.get('alignment') or {}).get(row) or {}).get(key)  # noqa: B023
    points, without = [], []
    for row in rows:
      runs = [run for run in row['runs'] if value(run, name) is not None]
      if runs:
        accuracies = [100 * run.result['accuracy'] for run in runs]
        dots = Dots(row['name'], row['place'], accuracies, mark=row['mark'])
        points.append((dots, [value(run, name) for run in runs]))
      elif row['runs']:
        without.append(row['name'])
    if points:
      constants = {}
      for trivial in (*TRIVIAL, CLASS_FREE):
        values = [value(run, trivial) for row in rows for run in row['runs'] if value(run, trivial) is not None]
        if values:
          constants[trivial.replace('_', ' ')] = float(np.mean(values))
      found.append({'title': title, 'without': without, 'constants': constants,
                    'drawing': row_figures.scatter(title, points, constants, axis, 'accuracy, %')})
  return found


def _recalls(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """A chart for each class of the first row with runs; rows of other classes are named."""
  shown = [row for row in rows if row['runs']]
  classes = shown[0]['runs'][0].result['classes'] if shown else []
  alike = [row for row in shown if all(run.result['classes'] == classes for run in row['runs'])]
  rates = [np.array([recall(np.array(run.result['confusion'])) for run in row['runs']]) for row in alike]
  counts = np.sum(alike[0]['runs'][0].result['confusion'], axis=1) if alike else []
  charts = []
  for k, (name, count) in enumerate(zip(classes, counts, strict=True)):
    dots = [_dots(row, list(100 * rate[:, k]), f'{100 * rate[:, k].mean():.1f} %',
                  [100 * end for end in wilson(count * rate[0, k], count)] if len(rate) == 1 else None)
            for row, rate in zip(alike, rates, strict=True) if count]
    charts.append({'name': name, 'count': int(count),
                   'drawing': row_figures.compact(f'recall of {name}', dots, 'recall, %') if count else ''})
  return {'charts': charts, 'left_out': [row['name'] for row in shown if row not in alike]}


def _confusion(row: Mapping[str, Any]) -> Any:
  """The drawing of a row's confusions, added up over its seeds."""
  classes = row['runs'][0].result['classes']
  pooled = np.sum([run.result['confusion'] for run in row['runs'] if run.result['classes'] == classes], axis=0)
  return figures.confusion_matrix(pooled, classes, f"confusion {row['name']}", small=True)


def _address(workdir: epath.Path, of: str) -> str:
  """The relative address of a run's page; '' where it has none, or lies in another kind of storage."""
  start, end = (str(storage.absolute(path)) for path in (workdir, of))
  if start.startswith('gs://') != end.startswith('gs://') or not (storage.as_path(of) / 'report.html').exists():
    return ''
  return quote(posixpath.join(posixpath.relpath(end, start), 'report.html'))
