"""A row of an ablation, and what every table says of one: its line, means over its seeds, what to beware of."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.reports.differences import disagreements
from fer_jax.reports.formats import SPREAD, Column, Line, mean
from fer_jax.reports.runs import Run, marks

ROW, SEEDS, MARKS = Column('row', 'l'), Column('seeds'), Column('marks', 'p{.15\\linewidth}')


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of an ablation: its name in the config's ROWS, one finished run a seed, in order, and how many are wanted."""

  name: str
  runs: tuple[Run, ...]
  wanted: int


def spread_columns(measures: Sequence[tuple[str, str, int, int]]) -> list[Column]:
  return [Column(title, apart=SPREAD) for _, title, _, _ in measures]


def mean_cells(entries: Sequence[Mapping[str, Any]], measures: Sequence[tuple[str, str, int, int]],
               constant: bool = False) -> dict[str, str]:
  """Means over entries of what all of them have; ``constant``: they owe nothing to the run."""
  cells = {}
  for key, title, scale, decimals in measures:
    values = [scale * entry[key] for entry in entries if entry.get(key) is not None]
    if values and len(values) == len(entries):
      # What owes nothing to a run is the same for all, or they were tested on other faces.
      cells[title] = mean(values[:1] if constant and np.ptp(values) < 5e-4 else values, decimals)
  return cells


def row_line(row: Row, cells: Mapping[str, str], notes: Sequence[str] = (), marks: Sequence[str] = ()) -> Line:
  """A line of a row, with what must be known of its runs."""
  said = dict.fromkeys([*beware(row), *marks])
  return Line({'row': row.name, 'seeds': count_of(row, len(row.runs)), 'marks': '; '.join(said), **cells}, tuple(notes),
              'leaky' if any('LEAKY' in mark for mark in said) else '')


def count_of(row: Row, there: int) -> str:
  return str(there) if there == row.wanted else f'{there} of {row.wanted}'


def beware(row: Row) -> list[str]:
  """Marks of a row."""
  found = [*marks(row.runs), *disagreements(row.runs, settings=True)] if row.runs else []
  return [*found, *['unfinished'] * (len(row.runs) < row.wanted)]


def title_of(rows: Sequence[Row], what: str) -> str:
  names = dict.fromkeys(run.config['name'].rpartition('/')[0] for row in rows for run in row.runs)
  return ': '.join(filter(None, [' and '.join(names), what]))
