"""The papers' benchmark tables: finished runs, grouped over their seeds, beside the published numbers.

Published numbers are data: ``published.json`` has each with where it stands, how it is known and what to beware of.
"""

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.errors import UserError, nearest
from fer_jax.metrics.intervals import share_interval, t_interval
from fer_jax.reports.formats import Column, Line, Table
from fer_jax.reports.runs import Run, grouped, marks, protocol
from fer_jax.reports.words import comparisons


class Value(NamedTuple):
  """A metric of one run, in the unit that is printed; its 95 % interval, if one run has one; what to beware of."""

  value: float
  interval: Sequence[float | None] = (None, None)
  mark: str = ''


Measured = dict[str, Value]

# One metric of one row is a line.
COLUMNS = (Column('row', 'p{.14\\linewidth}'), Column('metric', 'p{.1\\linewidth}'), Column('ours'),
           Column('marks', 'p{.12\\linewidth}'), Column('sd'), Column('95 % from'), Column('95 % to'), Column('seeds'),
           Column('published', 'p{.2\\linewidth}'))


class Benchmark(NamedTuple):
  """What a table is about: its heading, a folder of data/builders, variants that may stand beside published numbers.

  ``measure`` gives of a run pairs of what sets its result apart ('' if nothing does) and its metrics.
  """

  title: str
  dataset: str
  variants: tuple[str, ...]
  measure: Callable[[Run], Iterator[tuple[str, Measured]]]


def rate(rates: Mapping[str, Any], name: str = 'accuracy', interval: str = 'accuracy_interval') -> Value:
  """A rate of an evaluation, or of a part of one, in per cent with its interval over faces."""
  ends = rates.get(interval)
  return Value(100 * rates[name], [100 * end for end in ends] if ends else (None, None))


def _measure_rates(run: Run) -> Iterator[tuple[str, Measured]]:
  found = {'accuracy': rate(run.result),
           'mean class accuracy': rate(run.result, 'mean_class_accuracy', 'mean_class_interval')}
  if 'without_duplicates' in run.result:
    found['accuracy without duplicates of training images'] = rate(run.result['without_duplicates'])
  yield '', found


# How the lists of RAN are called varies.
_SUBSETS = {'occlusion': r'occlu', 'pose > 30': r'(?<!\d)30(?!\d)', 'pose > 45': r'(?<!\d)45(?!\d)'}


def _measure_subsets(run: Run) -> Iterator[tuple[str, Measured]]:
  subsets = run.result.get('subsets') or {}
  found = {metric: [name for name in subsets if re.search(form, name)] for metric, form in _SUBSETS.items()}
  # Of two lists for one metric neither is taken.
  yield '', {metric: rate(subsets[names[0]]) for metric, names in found.items()
             if len(names) == 1 and subsets[names[0]]['count']}


_COSINES = {'cam': 'CAM-COS', 'attention': 'ATT-COS'}


def _measure_cosines(run: Run) -> Iterator[tuple[str, Measured]]:
  # Not 'cosine', which is that with the landmarks.
  cosines = {}
  for name, row in (run.result.get('alignment') or {}).items():
    key = 'action_unit_published_cosine'
    metric = _COSINES.get(name, f"cosine of '{name.replace('_', ' ')}'")
    if key not in row:  # Of an older file: the same but of attention, of which it is no ATT-COS.
      key, metric = 'action_unit_cosine', metric.replace('ATT-COS', "cosine of 'attention', not enlarged as in ATT-COS")
    if row.get(key) is not None:
      cosines[metric] = Value(row[key])
  if cosines:
    yield '', {'accuracy': rate(run.result), **cosines}


_TYPES = {'': '', 'one_class': ', one class', 'two_class': ', two classes', 'three_class': ', three classes'}


def _measure_triplets(run: Run) -> Iterator[tuple[str, Measured]]:
  for name, scored in comparisons(run.result).items():
    options = run.config['comparisons'][name]
    if (options.get('dataset') or run.config['data']['dataset'], options.get('truth')) == ('fec', 'annotators'):
      agreement = options.get('agreement', 'two_thirds')
      apart = [f"split {options['split']}"] * (options['split'] != 'test')
      apart += [f'agreement {agreement}'] * (agreement != 'two_thirds')
      apart += [f"LEAKY: {'; '.join(scored['apart'])}"] * bool(scored['apart'])
      groups = {'': scored, **scored['types']}
      # Many photographs have gone from the web.
      coverage = lambda row: '' if row['count'] == row['listed'] else f"{row['count']:,} of {row['listed']:,} triplets"
      yield ', '.join(apart), {f'triplet accuracy{_TYPES[kind]}': rate(row)._replace(mark=coverage(row))
                               for kind, row in groups.items() if row['accuracy'] is not None}


_SETS = {
    'rafdb': ('RAF-DB', 'rafdb', ('aligned', 'original')),
    'affectnet7': ('AffectNet-7', 'affectnet', ('csv7', 'npy7')),
    'affectnet8': ('AffectNet-8', 'affectnet', ('csv8', 'npy8')),
    'ferplus': ('FERPlus', 'ferplus', ('majority',)),
    'sfew': ('SFEW', 'sfew', ('aligned',)),
    'fer2013': ('FER2013', 'fer2013', ('default', 'votes')),
}

BENCHMARKS = {
    **{key: Benchmark(*_SETS[key], _measure_rates) for key in _SETS},
    # Of any data set: the faces are those of the comparison.
    'fec': Benchmark('FEC', '', (), _measure_triplets),
    **{f'{key}_{ending}': Benchmark(_SETS[key][0] + words, *_SETS[key][1:], measure)
       for ending, words, measure, keys in (
           ('subsets', ', subsets of RAN', _measure_subsets, ('ferplus', 'affectnet8', 'rafdb')),
           ('au_cues', ', agreement with action units', _measure_cosines, ('rafdb', 'affectnet7', 'ferplus')))
       for key in keys},
}


@functools.cache
def published() -> list[dict[str, Any]]:
  """The published numbers, in the order of the tables.

  Each has table (a key of ``BENCHMARKS``), system (the name of our config, with the row of an ablation), row (what the
  paper calls it), metric, value (per cent, or a cosine), reference, mark ('read': in a text, code or figure of the
  authors or of who reports it; 'recalled': from memory or a listing; 'recomputed': from their figures; 'computed': no
  result of theirs), caveat.
  """
  return json.loads(Path(__file__).with_name('published.json').read_text(encoding='utf-8'))


def make_tables(runs: Sequence[Run], keys: Sequence[str] = ()) -> tuple[list[Table], list[str]]:
  """Makes the benchmark tables ``keys``, all of ``BENCHMARKS`` by default, from the runs of ``runs.collect``.

  Returns the tables, one for each benchmark and rule (a label rule, a choice of classes, another split), and a sentence
  for each run that is in none of them or repeats a seed. Published numbers are in the table of their own rule. Raises a
  UserError for an unknown key.
  """
  for key in keys:
    if key not in BENCHMARKS:
      raise UserError(f"there is no table '{key}'{nearest(key, BENCHMARKS)}")
  tables, remarks, used = [], [], set()
  for key in keys or BENCHMARKS:
    by_rule: dict[str, dict[Run, Measured]] = {'': {}}
    for run in runs:
      for rule, measured in _measure(BENCHMARKS[key], run):
        by_rule.setdefault(rule, {})[run] = measured
        used.add(run)
    for rule, measured in by_rule.items():
      theirs = [entry for entry in published() if entry['table'] == key] if not rule else []
      lines, repeated = _lines(measured, theirs)
      remarks += [f'{words} and was left out.' for words in repeated]
      if lines:
        tables.append(Table(BENCHMARKS[key].title + f' ({rule})' * bool(rule), COLUMNS, tuple(lines)))
  where = 'these tables' if keys else 'the benchmark tables'
  remarks += [f"{run.workdir} is in none of {where}: it was tested on {run.result['protocol']['dataset']} "
              f"({run.result['protocol']['variant']})." for run in runs if run not in used]
  return tables, list(dict.fromkeys(remarks))


def _measure(benchmark: Benchmark, run: Run) -> Iterator[tuple[str, Measured]]:
  """Pairs of the rule that sets a result apart from the published ones ('' if none does) and metrics."""
  data = run.config['data']
  variant = data['variant'].partition('-similarity')[0]  # However aligned, the faces and labels are the same.
  other = variant not in benchmark.variants
  # AffectNet's variants of other class counts have a benchmark of their own.
  if benchmark.dataset not in ('', data['dataset']) or benchmark.dataset == 'affectnet' and other:
    return
  rules = []
  if benchmark.dataset:
    reported = 'valid' if benchmark.dataset in ('affectnet', 'sfew') else 'test'
    rules += [f'labels: {variant}'] * other
    rules += [f"only {', '.join(data['classes'])}"] * bool(data.get('classes'))
    rules += [f"split {data['test']}"] * (data['test'] != reported)
  for rule, measured in benchmark.measure(run):
    if measured:
      yield ', '.join(filter(None, [*rules, rule])), measured


def _lines(measured: Mapping[Run, Measured], theirs: Sequence[Mapping[str, Any]]) -> tuple[list[Line], list[str]]:
  """The lines of a table, in the order of the published systems, other runs behind them; and which seeds repeat."""
  rows, repeated = grouped(measured)
  systems = {label: _system(row[0]) for label, row in rows.items()}
  lines = []
  for system in dict.fromkeys([entry['system'] for entry in theirs] + sorted(systems.values())):
    entries = [entry for entry in theirs if entry['system'] == system]
    ours = [label for label in rows if systems[label] == system]
    for label in ours:
      lines += _row_lines(label, {run: measured[run] for run in rows[label]}, entries)
    for label in dict.fromkeys(entry['row'] for entry in entries if not ours):
      lines += _row_lines(label, {}, [entry for entry in entries if entry['row'] == label])
  return lines, repeated


def _row_lines(label: str, ours: Mapping[Run, Measured], entries: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
  """A line for each metric that these runs, which differ in their seed alone, or these published entries have."""
  metrics = [metric for measured in ours.values() for metric in measured] + [entry['metric'] for entry in entries]
  for metric in dict.fromkeys(metrics):
    found = {run: measured[metric] for run, measured in ours.items() if metric in measured}
    beside = [entry for entry in entries if entry['metric'] == metric]
    notes, runs = [f"{entry['reference']}." for entry in beside], list(found)
    if runs:
      notes.insert(0, f"{runs[0].result['name']}: {protocol(runs)}; {', '.join(run.workdir for run in runs)}.")
    cells = {'row': label, 'metric': metric, **(_over_seeds(found, metric) if found else {}),
             'published': '; '.join(_shown(entry, label) for entry in beside)}
    yield Line(cells, tuple(dict.fromkeys(notes)), 'leaky' if 'LEAKY' in cells.get('marks', '') else '')


def _over_seeds(found: Mapping[Run, Value], metric: str) -> dict[str, str]:
  """Our cells of a line, by column."""
  values = [value.value for value in found.values()]
  cosine = 'cosine' in metric or metric.endswith('-COS')
  mean, low, high, count = t_interval(values) if cosine else share_interval(values, 100)
  if count == 1:
    low, high = next(iter(found.values())).interval
  numbers = {'ours': mean, 'sd': float(np.std(values, ddof=1)) if count > 1 else None,
             '95 % from': low, '95 % to': high}
  decimals = 3 if cosine else 2
  beware = [*marks(list(found)), *(value.mark for value in found.values() if value.mark),
            *['two seeds are too few for an interval'] * (count == 2)]
  own = all('predictions' not in run.result for run in found)  # Of others nobody knows how many they trained.
  return {'marks': '; '.join(dict.fromkeys(beware)), 'seeds': str(count) if own else '',
          **{name: '' if number is None else f'{number:.{decimals}f}' for name, number in numbers.items()}}


def _shown(entry: Mapping[str, Any], label: str) -> str:
  """A published number with its name, where the row has another, and in brackets what to beware of."""
  value = f"{entry['value']:.2f}" if entry['metric'].endswith('-COS') else str(entry['value'])
  beware = '; '.join([entry['mark']] * (entry['mark'] != 'read') + [entry['caveat']] * bool(entry['caveat']))
  return ' '.join([value, *([entry['row']] if entry['row'] != label else []), *([f'[{beware}]'] if beware else [])])


def _system(run: Run) -> str:
  """What published numbers call the run's config: an ablation's row of the whole system is the system."""
  table, _, row = run.result['name'].partition('/')
  name = row if table in ('systems', 'papers', row) else run.result['name']
  return ' with '.join([name, *run.result.get('overrides', [])])
