"""An ablation's tables of differences in accuracy: to the first row, and the primary comparisons."""

import dataclasses
from collections.abc import Sequence

from fer_jax.reports.ablation_rows import MARKS, ROW, SEEDS, Row, beware, row_line, title_of
from fer_jax.reports.differences import Difference, compare, disagreements
from fer_jax.reports.formats import ENDS, Column, Line, Table


def differences(rows: Sequence[Row]) -> Table:
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
  return Table(title_of(rows, f'accuracy, difference to {first.name}'), (ROW, SEEDS, *columns, MARKS), tuple(lines),
               tuple(notes))


def primary_comparisons(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> list[Table]:
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
  columns = (ROW, Column('against', 'l'), SEEDS, *columns, Column('holds', 'l'), MARKS)
  return [Table(title_of(rows, 'accuracy, primary comparisons'), columns, tuple(lines), tuple(notes))]


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
    marks = [*(f'{other.name}: {mark}' for mark in beware(other)), *disagreements((*row.runs, *other.runs))]
    if test:
      notes.append(f'{row.name}: {test.ours_only:,} faces are right only here, {test.theirs_only:,} only in '
                   f'{other.name}.')
  return row_line(row, cells, notes, marks)
