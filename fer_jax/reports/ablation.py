"""An ablation's tables: its rows beside each other, over their seeds, with what may be concluded from a difference.

A row without a finished run is a line without numbers.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fer_jax.errors import UserError, listed
from fer_jax.metrics.action_units import CLASS_FREE
from fer_jax.reports.ablation_differences import differences, primary_comparisons
from fer_jax.reports.ablation_rows import (
  MARKS,
  ROW,
  SEEDS,
  Row,
  count_of,
  mean_cells,
  row_line,
  spread_columns,
  title_of,
)
from fer_jax.reports.alignment import GROUPS, PUBLISHED, TRIVIAL
from fer_jax.reports.cost import cost
from fer_jax.reports.formats import ENDS, Column, Line, Table, covered, interval_of
from fer_jax.reports.runs import protocol, read, settings
from fer_jax.reports.words import every
from fer_jax.runtime import storage

# Key of an evaluation or of a cost, title, factor, decimals.
_ACCURACY = ('accuracy', 'accuracy, %', 100, 2)
_SCORES = (('mean_class_accuracy', 'mean class, %', 100, 2), ('macro_f1', 'macro F1, %', 100, 2),
           ('ece', 'ECE, %', 100, 2), ('nll', 'NLL, nats', 1, 3))
_COSTS = (('images_per_second', 'images/s', 1, 0), ('device_hours', 'device-hours', 1, 4))

_NO_NETWORK = (*TRIVIAL, CLASS_FREE)


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
  for their number; differences to the first row, if there are others; accuracy on parts of the test split, where they
  were scored; cost; and, where attribution maps were evaluated, their alignment. Numbers are means over seeds, with ±
  their standard deviation.
  """
  tables = [_scores(rows, command), *primary_comparisons(rows, primary)]
  if rows[1:]:
    tables.append(differences(rows))
  return [*tables, *_parts(rows), _costs(rows), *_alignments(rows)]


def _scores(rows: Sequence[Row], command: str) -> Table:
  columns = (ROW, SEEDS, *spread_columns([_ACCURACY]), Column('95 %', apart=ENDS), *spread_columns(_SCORES), MARKS)
  runs = [run for row in rows for run in row.runs]
  lines = []
  for row in rows:
    results = [run.result for run in row.runs]
    cells = mean_cells(results, (_ACCURACY, *_SCORES)) | ({'95 %': interval_of(results)} if results else {})
    lines.append(row_line(row, cells, [*_changes(row, rows[0]), *_own_protocol(row, rows[0])]))
  notes = [f'All rows: {protocol(runs)}.'] if runs else []
  notes += [*covered({len(row.runs) for row in rows}), f'Made by: {command}']
  return Table(title_of(rows, 'scores'), columns, tuple(lines), tuple(notes))


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


def _parts(rows: Sequence[Row]) -> list[Table]:
  """The accuracy on parts of the test split: subsets, and what the training split does not have too."""
  found = {row.name: [_scored_parts(run.result) for run in row.runs] for row in rows}
  counts = {name: part['count'] for parts in found.values() for entry in parts for name, part in entry.items()}
  if not counts:
    return []
  shown = [(name, f'{name}, %', 100, 2) for name in counts]
  lines = [row_line(row, mean_cells([{name: part['accuracy'] for name, part in entry.items()}
                                     for entry in found[row.name]], shown)) for row in rows]
  notes = ('Faces: ' + ', '.join(f'{name} {count:,}' for name, count in counts.items()) + '.',)
  return [Table(title_of(rows, 'accuracy on parts of the test split'), (ROW, SEEDS, *spread_columns(shown), MARKS),
                tuple(lines), notes)]


def _scored_parts(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  """The parts of an evaluation that have faces, each also without duplicates, by their names."""
  parts = {'no duplicates': result.get('without_duplicates')}
  for name, part in (result.get('subsets') or {}).items():
    parts |= {name: part, f'{name}, no duplicates': part.get('without_duplicates')}
  return {name: part for name, part in parts.items() if part and part['count']}


def _costs(rows: Sequence[Row]) -> Table:
  columns = (ROW, SEEDS, *spread_columns(_COSTS), Column('parameters'), Column('hardware', 'p{.25\\linewidth}'), MARKS)
  lines, known = [], []
  for row in rows:
    costs = [cost(run) or {} for run in row.runs]
    known += [one['device_hours'] for one in costs if one]
    lines.append(row_line(row, mean_cells(costs, _COSTS) | {
        key: every(run.record.get(key, '') for run in row.runs) for key in ('parameters', 'hardware')}))
  notes = ('Compare images/s and device-hours only between runs on the same hardware with nothing else running on it.',
           'Device-hours are those of one seed: training with compiling, without evaluations. Added up over '
           f'{len(known)} of {sum(len(row.runs) for row in rows)} finished runs, whose logs are whole: '
           f'{sum(known):.4f}.')
  return Table(title_of(rows, 'cost'), columns, tuple(lines), notes)


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
      cells = mean_cells(of(everything), shown, constant=True)
      lines.append(Line({'map': title, 'row': 'no network', **cells}, (), 'trivial'))
      continue
    for row in rows:
      entries = of(measured[row.name])
      lines.append(row_line(row, {'map': title, 'seeds': count_of(row, len(entries)), **mean_cells(entries, shown)}))
  constant = ', '.join(name.replace('_', ' ') for name in TRIVIAL if name in maps)
  notes = [f'Maps of no network stand at the bottom. {constant.capitalize()}: the same picture for every face; what is '
           'not above them says nothing about the face shown.'] if constant else []
  notes += ['Class free: drawn from the landmarks of the face, without its class.'] * (CLASS_FREE in maps)
  if any(key == 'action_unit_published_cosine' for key, *_ in shown):
    notes.append(f"'action units: {PUBLISHED}' of the map cam is CAM-COS of AU cues, that of the map attention "
                 'ATT-COS, enlarged as their code does it; the other columns have each map where the network sees it.')
  columns = (Column('map', 'l'), ROW, SEEDS, *spread_columns(shown), MARKS)
  return [Table(title_of(rows, 'alignment of attribution maps'), columns, tuple(lines), tuple(notes))]
