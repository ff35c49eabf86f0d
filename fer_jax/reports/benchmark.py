"""The papers' benchmark tables: finished runs, grouped over their seeds, beside the published numbers.

``collect`` reads workdirs and ``make_tables`` makes tables of what they hold, which ``formats.render`` prints.
Published numbers are data: ``published.json`` has each with where it stands, how it is known and what to beware of.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.errors import UserError, nearest
from fer_jax.metrics.intervals import t_interval, wilson
from fer_jax.reports.formats import Column, Line, Table
from fer_jax.reports.table import leaks, other_data
from fer_jax.runtime import storage
from fer_jax.training import config_files


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


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """One evaluation of a finished run: the contents of config.json, run.json and evaluation/<split>.json."""

  workdir: str
  config: Mapping[str, Any]
  record: Mapping[str, Any]
  result: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """What a table is about.

  Attributes:
    title: its heading.
    dataset: a folder of data/builders.
    variants: the variants whose numbers may stand beside the published ones.
    measure: (config, result) -> pairs of what sets a result apart ('' if nothing does) and its metrics.
    split: the one that papers report.
    others: whether other variants get a table of their own; else they belong to another benchmark.
  """

  title: str
  dataset: str
  variants: tuple[str, ...]
  measure: Callable[[Mapping[str, Any], Mapping[str, Any]], Iterator[tuple[str, Measured]]]
  split: str = 'test'
  others: bool = True


def _measure_rates(config: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[tuple[str, Measured]]:
  found = {'accuracy': rate(result)}
  if result['mean_class_accuracy'] is not None:
    found['mean class accuracy'] = Value(100 * result['mean_class_accuracy'])
  if 'without_copies' in result:
    found['accuracy without copies of training images'] = rate(result['without_copies'])
  yield '', found


# How the lists of RAN are called varies.
_SUBSETS = {'occlusion': r'occlu', 'pose > 30': r'(?<!\d)30(?!\d)', 'pose > 45': r'(?<!\d)45(?!\d)'}


def _measure_subsets(config: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[tuple[str, Measured]]:
  subsets = result.get('subsets') or {}
  found = {metric: [name for name in subsets if re.search(form, name)] for metric, form in _SUBSETS.items()}
  # Of two lists for one metric neither is taken.
  yield '', {metric: rate(subsets[names[0]]) for metric, names in found.items()
             if len(names) == 1 and subsets[names[0]]['count']}


_COSINES = {'cam': 'CAM-COS', 'attention': 'ATT-COS'}


def _measure_cosines(config: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[tuple[str, Measured]]:
  # Not 'cosine', which is that with the landmarks.
  cosines = {_COSINES.get(name, f"cosine of '{name.replace('_', ' ')}'"): Value(row['action_unit_cosine'])
             for name, row in (result.get('alignment') or {}).items() if row.get('action_unit_cosine') is not None}
  if cosines:
    yield '', {'accuracy': rate(result), **cosines}


_TYPES = {'': '', 'one_class': ', one class', 'two_class': ', two classes', 'three_class': ', three classes'}


def _measure_triplets(config: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[tuple[str, Measured]]:
  for name, scored in (result.get('triplets') or {}).items():
    options = config['comparisons'][name]
    if (options.get('dataset') or config['data']['dataset'], options.get('truth')) == ('fec', 'annotators'):
      agreement = options.get('agreement', 'two_thirds')
      apart = [f"split {options['split']}"] * (options['split'] != 'test')
      apart += [f'agreement {agreement}'] * (agreement != 'two_thirds')
      groups = {'': scored, **scored['types']}
      yield ', '.join(apart), {f'triplet accuracy{_TYPES[kind]}': _triplets(row) for kind, row in groups.items()
                               if row['accuracy'] is not None}


def _triplets(scored: Mapping[str, Any]) -> Value:
  # Many photographs have gone from the web. Triplets share faces, so Wilson's interval would be too short.
  mark = '' if scored['count'] == scored['listed'] else f"{scored['count']:,} of {scored['listed']:,} triplets"
  return Value(100 * scored['accuracy'], _percent(scored['accuracy_interval']), mark)


def rate(rates: Mapping[str, Any]) -> Value:
  """An accuracy in per cent with its Wilson interval over faces, from an evaluation or a part of one."""
  count = rates['count']
  return Value(100 * rates['accuracy'], _percent(wilson(round(rates['accuracy'] * count), count)))


def _percent(ends: Sequence[float]) -> list[float]:
  return [100 * end for end in ends]


_SETS = {
    'rafdb': ('RAF-DB', 'rafdb', ('aligned', 'original')),
    'affectnet7': ('AffectNet-7', 'affectnet', ('csv7', 'npy7')),
    'affectnet8': ('AffectNet-8', 'affectnet', ('csv8', 'npy8')),
    'ferplus': ('FERPlus', 'ferplus', ('majority',)),
    'sfew': ('SFEW', 'sfew', ('aligned',)),
    'fer2013': ('FER2013', 'fer2013', ('default', 'votes')),
}


def _benchmark(key: str, suffix: str, measure: Callable[..., Iterator[tuple[str, Measured]]]) -> Benchmark:
  title, dataset, variants = _SETS[key]
  split = 'valid' if dataset in ('affectnet', 'sfew') else 'test'
  return Benchmark(title + suffix, dataset, variants, measure, split, others=dataset != 'affectnet')


BENCHMARKS = {
    **{key: _benchmark(key, '', _measure_rates) for key in _SETS},
    # Of any data set: the faces are those of the comparison.
    'fec': Benchmark('FEC', '', (), _measure_triplets),
    **{f'{key}_subsets': _benchmark(key, ', subsets of RAN', _measure_subsets)
       for key in ('ferplus', 'affectnet8', 'rafdb')},
    **{f'{key}_au_cues': _benchmark(key, ', agreement with action units', _measure_cosines)
       for key in ('rafdb', 'affectnet7', 'ferplus')},
}


@functools.cache
def published() -> list[dict[str, Any]]:
  """The published numbers, in the order of the tables.

  Returns:
    Entries of table (a key of ``BENCHMARKS``), system (the name of our config, with the row of an ablation), row (what
    the paper calls it), metric, value (per cent, or a cosine), source, mark ('source': read in a text, code or figure
    of the authors or of who reports it; 'recalled': from memory or a listing; 'recomputed': from their figures;
    'computed': no result of theirs), caveat.
  """
  return json.loads(Path(__file__).with_name('published.json').read_text(encoding='utf-8'))


def collect(patterns: Sequence[str]) -> tuple[list[Run], list[str]]:
  """Reads finished runs.

  Args:
    patterns: workdirs, local or on gs://, in which '*', '?' and '[...]' stand for several.

  Returns:
    The evaluations of test splits, and a sentence for each workdir that could not be used.

  Raises:
    UserError: there is no such folder.
  """
  return read(dict.fromkeys(path for pattern in patterns for path in expand(pattern)))


def read(workdirs: Iterable[str]) -> tuple[list[Run], list[str]]:
  """The evaluations of test splits in these very folders, and a sentence for each that could not be used."""
  runs, problems = [], []
  for workdir in workdirs:
    try:
      runs += _read(workdir)
    except FileNotFoundError as error:
      problems.append(f'{workdir} holds no evaluated run: no {Path(str(error.filename or error)).name}.')
    except UserError as error:
      problems.append(f'{workdir}: {error}')
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      problems.append(f'{workdir} is damaged or of another version: {type(error).__name__}: {error}.')
  return runs, problems


def expand(pattern: str) -> list[str]:
  """The folders that a pattern of ``collect`` stands for.

  Raises:
    UserError: there is none.
  """
  head, wild = re.fullmatch(r'((?:[^*?\[]*/)?)(.*)', pattern.rstrip('/')).groups()
  paths = storage.as_path(head or '.').glob(wild) if re.search(r'[*?\[]', wild) else [storage.as_path(pattern)]
  folders = sorted(str(path) for path in paths if path.is_dir())
  if not folders:
    raise UserError(f"--workdirs={pattern}: there is no such folder; give folders of training runs, such as "
                    "--workdirs='runs/*'.")
  return folders


def _read(workdir: str) -> list[Run]:
  folder = storage.as_path(workdir)
  config, record = (storage.read_json(folder / name) for name in ('config.json', 'run.json'))
  if 'finished' not in record:
    raise UserError('this run has not finished; give its command again and it goes on.')
  test = config['data']['test']
  # Evaluations with changes to the config are in files of their own.
  others = sorted(path for path in (folder / 'evaluation').glob('*.json') if path.name != f'{test}.json')
  results = [storage.read_json(path) for path in (folder / 'evaluation' / f'{test}.json', *others)]
  runs = [Run(workdir, config, record, result) for result in results if result['protocol']['split'] == test]
  for run in runs:
    if run.result['accuracy'] is None:
      raise UserError('the test split has no labelled faces.')
    # What is missing shows here, where the workdir can be named.
    _identity(run), _protocol([run]), list(marks([run]))
    for benchmark in BENCHMARKS.values():
      list(_measure(benchmark, run))
  return runs


def make_tables(runs: Sequence[Run], keys: Sequence[str] = ()) -> tuple[list[Table], list[str]]:
  """Makes the benchmark tables.

  Args:
    runs: from ``collect``.
    keys: of ``BENCHMARKS``; none for all.

  Returns:
    The tables, one for each benchmark and rule (a label rule, a choice of classes, another split), and a sentence for
    each run that is in none of them or repeats a seed. Published numbers are in the table of their own rule.

  Raises:
    UserError: an unknown key.
  """
  for key in keys:
    if key not in BENCHMARKS:
      raise UserError(f"there is no table '{key}'{nearest(key, BENCHMARKS)}")
  tables, remarks, used = [], [], set()
  for key in keys or BENCHMARKS:
    by_rule: dict[str, list[tuple[Run, Measured]]] = {'': []}
    for run in runs:
      for rule, measured in _measure(BENCHMARKS[key], run):
        by_rule.setdefault(rule, []).append((run, measured))
        used.add(id(run))
    for rule, measurements in by_rule.items():
      theirs = [entry for entry in published() if entry['table'] == key] if not rule else []
      lines, repeated = _lines(measurements, theirs)
      remarks += [sentence for sentence in repeated if sentence not in remarks]
      if lines:
        tables.append(Table(BENCHMARKS[key].title + f' ({rule})' * bool(rule), COLUMNS, tuple(lines)))
  where = 'these tables' if keys else 'the benchmark tables'
  remarks += [f"{run.workdir} is in none of {where}: it was tested on {run.result['protocol']['dataset']} "
              f"({run.result['protocol']['variant']})." for run in runs if id(run) not in used]
  return tables, remarks


def _measure(benchmark: Benchmark, run: Run) -> Iterator[tuple[str, Measured]]:
  """Pairs of the rule that sets a result apart from the published ones ('' if none does) and metrics."""
  data = run.config['data']
  variant = data['variant'].partition('-similarity')[0]  # However aligned, the faces and labels are the same.
  if benchmark.dataset not in ('', data['dataset']) or not (benchmark.others or variant in benchmark.variants):
    return
  rules = []
  if benchmark.dataset:
    rules += [f'labels: {variant}'] * (variant not in benchmark.variants)
    rules += [f"only {', '.join(data['classes'])}"] * bool(data.get('classes'))
    rules += [f"split {data['test']}"] * (data['test'] != benchmark.split)
  for rule, measured in benchmark.measure(run.config, run.result):
    if measured:
      yield ', '.join(filter(None, [*rules, rule])), measured


def by_config(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """Runs by the names of their rows: those that differ in their seed alone are one row.

  Raises:
    UserError: two of a row have the same seed.
  """
  rows: dict[str, dict[int, Run]] = {}
  for run in runs:
    first = rows.setdefault(_identity(run), {}).setdefault(run.config['seed'], run)
    if first is not run:
      raise UserError(f"{run.workdir} repeats seed {run.config['seed']} of {first.workdir}; name one of the two.")
  labels = _labels([next(iter(seeds.values())) for seeds in rows.values()])
  return {label: list(seeds.values()) for label, seeds in zip(labels, rows.values(), strict=True)}


def _lines(measurements: Sequence[tuple[Run, Measured]], theirs: Sequence[Mapping[str, Any]]
           ) -> tuple[list[Line], list[str]]:
  """The lines of a table, in the order of the published systems, other runs behind them; and which seeds repeat."""
  groups: dict[str, dict[int, tuple[Run, Measured]]] = {}
  repeated = []
  for run, measured in measurements:
    seeds = groups.setdefault(_identity(run), {})
    if (first := seeds.setdefault(run.config['seed'], (run, measured)))[0] is not run:
      repeated.append(f"{run.workdir} repeats seed {run.config['seed']} of {first[0].workdir} and was left out.")
  labels = dict(zip(groups, _labels([next(iter(seeds.values()))[0] for seeds in groups.values()]), strict=True))
  systems = {identity: _system(next(iter(seeds.values()))[0]) for identity, seeds in groups.items()}
  lines = []
  for system in dict.fromkeys([entry['system'] for entry in theirs] + sorted(systems.values())):
    entries = [entry for entry in theirs if entry['system'] == system]
    ours = [identity for identity in groups if systems[identity] == system]
    for identity in ours:
      lines += _group_lines(labels[identity], list(groups[identity].values()), entries)
    for row in dict.fromkeys(entry['row'] for entry in entries if not ours):
      lines += _group_lines(row, [], [entry for entry in entries if entry['row'] == row])
  return lines, repeated


def _group_lines(label: str, runs: Sequence[tuple[Run, Measured]], entries: Sequence[Mapping[str, Any]]) -> list[Line]:
  """A line for each metric that these runs, which differ in their seed alone, or these published entries have."""
  lines = []
  metrics = [metric for _, measured in runs for metric in measured] + [entry['metric'] for entry in entries]
  for metric in dict.fromkeys(metrics):
    found = {run: measured[metric] for run, measured in runs if metric in measured}
    beside = [entry for entry in entries if entry['metric'] == metric]
    notes = [*([_protocol(list(found))] if found else []), *(f"{entry['source']}." for entry in beside)]
    cells = {'row': label, 'metric': metric, **(_over_seeds(found, metric) if found else {}),
             'published': '; '.join(_shown(entry, label) for entry in beside)}
    leaky = 'LEAKY' in cells.get('marks', '')
    lines.append(Line(cells, tuple(dict.fromkeys(notes)), 'leaky' if leaky else ''))
  return lines


def _over_seeds(found: Mapping[Run, Value], metric: str) -> dict[str, str]:
  """Our cells of a line, by column."""
  values = [value.value for value in found.values()]
  mean, low, high, count = t_interval(values)
  if count == 1:
    low, high = next(iter(found.values())).interval
  numbers = {'ours': mean, 'sd': float(np.std(values, ddof=1)) if count > 1 else None,
             '95 % from': low, '95 % to': high}
  decimals = 3 if 'cosine' in metric or metric.endswith('-COS') else 2
  beware = [*marks(list(found)), *(value.mark for value in found.values() if value.mark)]
  return {'marks': '; '.join(dict.fromkeys(beware)), 'seeds': str(count),
          **{name: '' if number is None else f'{number:.{decimals}f}' for name, number in numbers.items()}}


def _shown(entry: Mapping[str, Any], label: str) -> str:
  """A published number with its name, where the row has another, and in brackets what to beware of."""
  value = f"{entry['value']:.2f}" if entry['metric'].endswith('-COS') else str(entry['value'])
  beware = '; '.join([entry['mark']] * (entry['mark'] != 'source') + [entry['caveat']] * bool(entry['caveat']))
  return ' '.join([value, *([entry['row']] if entry['row'] != label else []), *([f'[{beware}]'] if beware else [])])


def _system(run: Run) -> str:
  """What published numbers call the run's config: an ablation's row of the whole system is the system."""
  table, _, row = run.result['name'].partition('/')
  name = row if table in ('systems', row) else run.result['name']
  return ' with '.join([name, *run.result.get('overrides', [])])


def _identity(run: Run) -> str:
  """Equal for runs that differ in their seed alone."""
  return json.dumps([run.result['name'], settings(run), run.result.get('overrides', [])], sort_keys=True)


def settings(run: Run) -> dict[str, str]:
  """The flat config and what was tested on, without the seed and without where the data lie."""
  found = {key: json.dumps(value) for key, value in config_files.flat(run.config).items()
           if key not in ('seed', 'seeds', 'data.dir')}
  return found | {'test data': run.result['protocol']['fingerprint'][:12]}


def _labels(runs: Sequence[Run]) -> list[str]:
  """The names of rows; what differs is added where several would have the same name."""
  labels = []
  for run in runs:
    label = ' with '.join([run.result['name'], *run.result.get('overrides', [])])
    ours, alike = settings(run), [settings(r) for r in runs if r.result['name'] == run.result['name']]
    differing = [f'{key}={value}' for key, value in ours.items() if any(other.get(key) != value for other in alike)]
    if differing:
      more = f', and {len(differing) - 3} more' if len(differing) > 3 else ''
      label += f" ({', '.join(differing[:3])}{more})"
    labels.append(label)
  return labels


def marks(runs: Sequence[Run]) -> Iterator[str]:
  """What must be known before the numbers of these runs are compared with others."""
  reasons = dict.fromkeys(reason for run in runs for reason in leaks(run.result))
  if reasons:
    yield f"LEAKY: {'; '.join(reasons)}"
  if any(not run.result['step'] for run in runs):
    yield 'UNTRAINED'
  if (looks := max(run.result['protocol'].get('looks', 1) for run in runs)) > 1:
    yield f'the test split was looked at {looks} times'
  yield from dict.fromkeys(filter(None, (other_data(run.result) for run in runs)))


def _protocol(runs: Sequence[Run]) -> str:
  """One sentence on how these runs, which differ in their seed alone, were trained and tested, and where they lie."""
  return f"{runs[0].result['name']}: {protocol(runs)}; {', '.join(run.workdir for run in runs)}."


def protocol(runs: Sequence[Run]) -> str:
  """How runs were trained and tested, by which code and on what, with all the values that they have."""
  def every(value: Callable[[Run], object], separator: str = ' and ') -> str:
    return separator.join(dict.fromkeys(str(value(run)) for run in runs))

  tested = lambda key: every(lambda run: run.result['protocol'][key])
  return (f"{tested('dataset')} ({tested('variant')}), trained on {tested('trained_on')} from {every(_start)} "
          f"({every(_net)}, {every(lambda run: run.config['image_size'])} px, "
          f"{every(lambda run: format(run.config['epochs'], 'g'))} epochs), select {tested('select')}, tested on "
          f"{tested('split')} ({every(lambda run: format(run.result['protocol']['n'], ','))} faces, {tested('K')} "
          f"classes), looks {every(lambda run: run.result['protocol'].get('looks', 1))}; "
          f"seeds {every(lambda run: run.config['seed'], ', ')}; commit {every(lambda run: run.result['commit'])}; "
          f"{every(lambda run: run.result['hardware'])}")


def _start(run: Run) -> str:
  return f"the backbone of {run.config['init_from']}" if run.config.get('init_from') else 'random parameters'


def _net(run: Run) -> str:
  backbone = run.config['model']['backbone']
  width = f"width {backbone['width']}" if 'width' in backbone else ''
  return ' '.join(str(value) for value in (backbone['name'], backbone.get('depth', ''), width) if value != '')
