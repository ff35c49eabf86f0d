"""An ablation's tables: its rows beside each other, over their seeds, with what may be concluded from a difference.

A row without a finished run is a line without numbers.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.errors import UserError, listed
from fer_jax.metrics.action_units import CLASS_FREE
from fer_jax.reports.alignment import GROUPS, PUBLISHED, TRIVIAL
from fer_jax.reports.cost import cost
from fer_jax.reports.differences import Difference, compare, disagreements
from fer_jax.reports.formats import ENDS, SPREAD, Column, Line, Table, covered, interval_of, mean
from fer_jax.reports.runs import Run, marks, protocol, read, settings
from fer_jax.reports.words import every
from fer_jax.runtime import storage

# Key of an evaluation or of a cost, title, factor, decimals.
_ACCURACY = ('accuracy', 'accuracy, %', 100, 2)
_SCORES = (('mean_class_accuracy', 'mean class, %', 100, 2), ('macro_f1', 'macro F1, %', 100, 2),
           ('ece', 'ECE, %', 100, 2), ('nll', 'NLL, nats', 1, 3))
_COSTS = (('images_per_second', 'images/s', 1, 0), ('device_hours', 'device-hours', 1, 4))

_NO_NETWORK = (*TRIVIAL, CLASS_FREE)

_ROW, _SEEDS, _MARKS = Column('row', 'l'), Column('seeds'), Column('marks', 'p{.15\\linewidth}')


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of an ablation: its name in the config's ROWS, one finished run a seed, in order, and how many are wanted."""

  name: str
  runs: tuple[Run, ...]
  wanted: int


def collect(workdir: str | os.PathLike[str], seeds: Mapping[str, int]) -> tuple[list[Row], list[str]]:
  """Reads the runs of the rows in ``seeds``, {name: number of seeds}: WORKDIR/NAME-SEED, local or on gs://.

  Returns the rows in order, and a sentence about every run that is there and is not used. Raises a UserError where
  there is no such folder.
  """
  folder = storage.as_path(workdir)
  if not folder.is_dir():
    raise UserError(f'--workdir={workdir}: there is no such folder; give the one that holds the runs.')
  there = {path.name for path in folder.iterdir() if path.is_dir()}
  rows, problems = [], []
  for name, count in seeds.items():
    runs = []
    for seed in range(count):
      found, said = read(str(folder / home) for home in [f'{name}-{seed}'] if home in there)
      problems += said
      for run in found:
        if run.config['name'].rpartition('/')[2] != name or run.config['seed'] != seed:
          problems.append(f"{run.workdir} is left out: it holds '{run.config['name']}' with seed {run.config['seed']}.")
        elif not run.result.get('overrides'):  # Evaluations with changes to the config answer another question.
          runs.append(run)
    numbers = [re.fullmatch(re.escape(name) + r'-(\d+)', entry) for entry in there]
    if more := sorted(int(found[1]) for found in numbers if found and int(found[1]) >= count):
      # Who leaves some out should know.
      problems.append(f'{folder} also holds seed {listed(more)} of {name}, beyond the {count} wanted.')
    rows.append(Row(name, tuple(runs), count))
  return rows, problems


def make_tables(rows: Sequence[Row], command: str, primary: Sequence[tuple[str, str]] = ()) -> list[Table]:
  """Makes the tables of an ablation from the rows of ``collect``, of which the others are compared with the first.

  They are scores, with the command that makes them in a note; the ``primary`` comparisons, pairs of names, corrected
  for their number; differences to the first row, if there are others; cost; and, where attribution maps were evaluated,
  their alignment. Numbers are means over seeds, with ± their standard deviation.
  """
  tables = [_scores(rows, command), *_primary(rows, primary)]
  if rows[1:]:
    tables.append(_differences(rows))
  tables.append(_costs(rows))
  return tables + _alignments(rows)


def _scores(rows: Sequence[Row], command: str) -> Table:
  columns = (_ROW, _SEEDS, *_columns([_ACCURACY]), Column('95 %', apart=ENDS), *_columns(_SCORES), _MARKS)
  runs = [run for row in rows for run in row.runs]
  lines = []
  for row in rows:
    results = [run.result for run in row.runs]
    cells = _cells(results, (_ACCURACY, *_SCORES)) | ({'95 %': interval_of(results)} if results else {})
    lines.append(_line(row, cells, [*_changes(row, rows[0]), *_own_protocol(row, rows[0])]))
  notes = [f'All rows: {protocol(runs)}.'] if runs else []
  notes += [*covered({len(row.runs) for row in rows}), f'Made by: {command}']
  return Table(_title(rows, 'scores'), columns, tuple(lines), tuple(notes))


def _changes(row: Row, first: Row) -> Iterator[str]:
  """What a row changes in the first row's config."""
  if row is not first and row.runs and first.runs:
    ours, theirs = settings(row.runs[0]), settings(first.runs[0])
    changes = [f"{key}={ours.get(key, 'absent')}" for key in sorted(ours.keys() | theirs.keys())
               if key != 'name' and ours.get(key) != theirs.get(key)]
    more = f' and {len(changes) - 6} more' if len(changes) > 6 else ''
    yield f"{row.name} is {first.name} with {', '.join(changes[:6]) or 'no change'}{more}."


def _own_protocol(row: Row, first: Row) -> Iterator[str]:
  """How a row was trained and tested, where not as the first one."""
  unseeded = lambda runs: {protocol([dataclasses.replace(run, config={**run.config, 'seed': 0})]) for run in runs}
  if row.runs and unseeded(row.runs) != unseeded(first.runs):
    yield f'{row.name}: {protocol(row.runs)}.'


def _differences(rows: Sequence[Row]) -> Table:
  first = rows[0]
  columns = _difference_columns()
  found = {row.name: compare(row.runs, first.runs) for row in rows[1:] if row.runs and first.runs}
  lines = [_difference_line(row, first, found.get(row.name), columns) for row in rows[1:]]
  notes = [f'In percentage points of accuracy; above 0 the row is better than {first.name}.'] if found else [
      f'There are not two rows with a finished run, one of them {first.name}: nothing can be compared.']
  faces = [difference for difference in found.values() if difference.over_faces]
  if faces:
    notes.append('Over faces (paired bootstrap of the share of seeds that were right on each face): covers which faces '
                 'were tested, takes the trained networks as they are, and so does not cover other seeds.')
  if any(difference.mcnemar for difference in faces):
    notes.append('p over faces (exact McNemar test), for one seed each: of these two networks, not of the recipes.')
  if any(difference.over_seeds and difference.over_seeds.low is not None for difference in found.values()):
    notes.append("Over seeds (Welch's t): covers what the seed decides, takes the test faces as they are, and assumes "
                 'that accuracies are normal over seeds. To hold for other faces and other seeds a difference has to '
                 'stand out over both.' + ' Two seeds on a side leave it hardly a degree of freedom: such an interval '
                 'is very wide.' * any(len(row.runs) == 2 for row in rows))
  if len(found) > 1:
    notes.append(f'The p-values are not corrected for the {len(found)} comparisons: where no row differed, about one '
                 'comparison in twenty would be below 0.05.')
  return Table(_title(rows, f'accuracy, difference to {first.name}'), (_ROW, _SEEDS, *columns, _MARKS), tuple(lines),
               tuple(notes))


def _primary(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> list[Table]:
  """The table of the primary comparisons whose rows are both among ``rows``, corrected for all of ``pairs``."""
  named, count = {row.name: row for row in rows}, len(pairs)
  shown = [(named[ours], named[theirs]) for ours, theirs in pairs if ours in named and theirs in named]
  if not shown:
    return []
  level = 1 - 0.05 / count
  columns, lines = _difference_columns(level, f' x {count}' * (count > 1)), []
  for row, other in shown:
    found = compare(row.runs, other.runs, level) if row.runs and other.runs else None
    line = _difference_line(row, other, found, columns, count)
    lines.append(dataclasses.replace(line, cells={**line.cells, 'against': other.name, 'holds': _holds(found)}))
  correction = 'One comparison needs no correction: both intervals are at the level 95 %.' if count == 1 else (
      f"Bonferroni's correction for {count} comparisons: every interval is at the level 1 - 0.05 / {count} = "
      f'{_percent(level)}, every p-value is multiplied by {count} (at most 1). So chance, of the seeds or of the '
      'faces, lets any of them leave 0 out in about one such table in twenty at most.')
  notes = ['In percentage points of accuracy; above 0 the row is better than the one it is against.',
           'The primary comparisons are those that the config states, to be chosen before anything is trained: '
           f'{count}, of which {len(shown)} have both rows here. {correction}',
           "'yes' stands where both intervals, over faces (paired bootstrap) and over seeds (Welch's t), leave 0 out "
           "on the same side; 'no' where one includes it, which does not say that the rows are equal; nothing where "
           'one is missing: over seeds it takes two of each row.']
  columns = (_ROW, Column('against', 'l'), _SEEDS, *columns, Column('holds', 'l'), _MARKS)
  return [Table(_title(rows, 'accuracy, primary comparisons'), columns, tuple(lines), tuple(notes))]


def _holds(found: Difference | None) -> str:
  """Whether a difference stands out over faces and over seeds, to the same side; '' where one is not known."""
  known = [one for one in (found.over_faces, found.over_seeds) if one and one.low is not None] if found else []
  if len(known) < 2:
    return ''
  return 'yes' if all(one.low > 0 for one in known) or all(one.high < 0 for one in known) else 'no'


def _percent(level: float) -> str:
  return f'{100 * level:.5g} %'


def _difference_columns(level: float = 0.95, times: str = '') -> tuple[Column, ...]:
  """The columns of a comparison; ``times`` stands behind p."""
  return (Column('difference'), Column(f'{_percent(level)} over faces', apart=ENDS), Column(f'p over faces{times}'),
          Column(f'{_percent(level)} over seeds', apart=ENDS), Column(f'p over seeds{times}'))


def _difference_line(row: Row, other: Row, found: Difference | None, columns: Sequence[Column], times: int = 1) -> Line:
  """A line of a row beside another one; p-values are multiplied by ``times``."""
  cells, notes, marks = {'seeds': f'{len(row.runs)} and {len(other.runs)}'}, [], []
  if found:
    ends = lambda known: '' if known is None or known.low is None else f'{known.low:+.2f} to {known.high:+.2f}'
    p_value = lambda test: '' if test is None or test.p_value is None else f'{min(times * test.p_value, 1):.2g}'
    seeds, faces, test = found[:3]
    texts = (f'{seeds.difference:+.2f}' if seeds else '', ends(faces), p_value(test), ends(seeds), p_value(seeds))
    cells |= {column.name: text for column, text in zip(columns, texts, strict=True)}
    notes = [f'{row.name}: {found.problem}'] * bool(found.problem)
    marks = [*(f'{other.name}: {mark}' for mark in _beware(other)), *disagreements((*row.runs, *other.runs))]
    if test:
      notes.append(f'{row.name}: {test.ours_only:,} faces are right only here, {test.theirs_only:,} only in '
                   f'{other.name}.')
  return _line(row, cells, notes, marks)


def _costs(rows: Sequence[Row]) -> Table:
  columns = (_ROW, _SEEDS, *_columns(_COSTS), Column('parameters'), Column('hardware', 'p{.25\\linewidth}'), _MARKS)
  lines, known = [], []
  for row in rows:
    costs = [cost(run) or {} for run in row.runs]
    known += [one['device_hours'] for one in costs if one]
    lines.append(_line(row, _cells(costs, _COSTS) | {
        key: every(run.record.get(key, '') for run in row.runs) for key in ('parameters', 'hardware')}))
  notes = ('Compare images/s and device-hours only between runs on the same hardware with nothing else running on it.',
           'Device-hours are those of one seed: training with compiling, without evaluations. Added up over '
           f'{len(known)} of {sum(len(row.runs) for row in rows)} finished runs, whose logs are whole: '
           f'{sum(known):.4f}.')
  return Table(_title(rows, 'cost'), columns, tuple(lines), notes)


def _alignments(rows: Sequence[Row]) -> list[Table]:
  """The alignment of every map of every row, and below it the trivial maps once; none where no map was evaluated."""
  measured = {row.name: [run.result.get('alignment') or {} for run in row.runs] for row in rows}
  everything = [alignment for row in rows for alignment in measured[row.name]]
  maps = dict.fromkeys(name for alignment in everything for name in alignment)
  shown = [(key, f'{group}: {title}' + ', %' * share, 100 if share else 1, 2 if share else 3)
           for group, _, columns in GROUPS for key, title, share in columns
           if any(entry.get(key) is not None for alignment in everything for entry in alignment.values())]
  if not shown:
    return []
  lines = []
  for name in sorted(maps, key=lambda name: name in _NO_NETWORK):
    of = lambda alignments: [alignment[name] for alignment in alignments if name in alignment]  # noqa: B023
    title = name.replace('_', ' ')
    if name in _NO_NETWORK:
      cells = _cells(of(everything), shown, constant=True)
      lines.append(Line({'map': title, 'row': 'no network', **cells}, (), 'trivial'))
      continue
    for row in rows:
      entries = of(measured[row.name])
      lines.append(_line(row, {'map': title, 'seeds': _count(row, len(entries)), **_cells(entries, shown)}))
  constant = ', '.join(name.replace('_', ' ') for name in TRIVIAL if name in maps)
  notes = [f'Maps of no network stand at the bottom. {constant.capitalize()}: the same picture for every face; what is '
           'not above them says nothing about the face shown.'] if constant else []
  notes += ['Class free: drawn from the landmarks of the face, without its class.'] * (CLASS_FREE in maps)
  if any(key == 'action_unit_published_cosine' for key, *_ in shown):
    notes.append(f"'action units: {PUBLISHED}' of the map cam is CAM-COS of AU cues, that of the map attention "
                 'ATT-COS, enlarged as their code does it; the other columns have each map where the network sees it.')
  columns = (Column('map', 'l'), _ROW, _SEEDS, *_columns(shown), _MARKS)
  return [Table(_title(rows, 'alignment of attribution maps'), columns, tuple(lines), tuple(notes))]


def _columns(measures: Sequence[tuple[str, str, int, int]]) -> list[Column]:
  return [Column(title, apart=SPREAD) for _, title, _, _ in measures]


def _cells(entries: Sequence[Mapping[str, Any]], measures: Sequence[tuple[str, str, int, int]], constant: bool = False
           ) -> dict[str, str]:
  """Means over entries of what all of them have; ``constant``: they owe nothing to the run."""
  cells = {}
  for key, title, scale, decimals in measures:
    values = [scale * entry[key] for entry in entries if entry.get(key) is not None]
    if values and len(values) == len(entries):
      # What owes nothing to a run is the same for all, or they were tested on other faces.
      cells[title] = mean(values[:1] if constant and np.ptp(values) < 5e-4 else values, decimals)
  return cells


def _line(row: Row, cells: Mapping[str, str], notes: Sequence[str] = (), marks: Sequence[str] = ()) -> Line:
  """A line of a row, with what must be known of its runs."""
  said = dict.fromkeys([*_beware(row), *marks])
  return Line({'row': row.name, 'seeds': _count(row, len(row.runs)), 'marks': '; '.join(said), **cells}, tuple(notes),
              'leaky' if any('LEAKY' in mark for mark in said) else '')


def _count(row: Row, there: int) -> str:
  return str(there) if there == row.wanted else f'{there} of {row.wanted}'


def _beware(row: Row) -> list[str]:
  """Marks of a row."""
  found = [*marks(row.runs), *disagreements(row.runs, settings=True)] if row.runs else []
  return [*found, *['unfinished'] * (len(row.runs) < row.wanted)]


def _title(rows: Sequence[Row], what: str) -> str:
  names = dict.fromkeys(run.config['name'].rpartition('/')[0] for row in rows for run in row.runs)
  return ': '.join(filter(None, [' and '.join(names), what]))
