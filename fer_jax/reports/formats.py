"""A table of text cells with notes, and its forms: for the console, Markdown, LaTeX and csv."""

import csv
import dataclasses
import functools
import io
import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column
from rich.table import Table as RichTable

from fer_jax.errors import UserError, nearest

FORMATS = ('text', 'markdown', 'latex', 'csv')
COLUMNS = ('row', 'metric', 'ours', 'marks', 'sd', '95 % from', '95 % to', 'seeds', 'published', 'notes')


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of a table: one metric of one row. Numbers are text, '' where there is none; notes are whole sentences."""

  row: str
  metric: str
  ours: str = ''
  marks: str = ''
  sd: str = ''
  low: str = ''
  high: str = ''
  seeds: str = ''
  published: str = ''
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
  """A table whose rows may be compared: one data set under one rule."""

  title: str
  lines: tuple[Line, ...]


def render(tables: Sequence[Table], form: str, console: Console | None = None) -> str:
  """Prints tables as text.

  Args:
    tables: from ``make_tables``.
    form: one of ``FORMATS``. In csv, tables are one below the other under one header, with the title in front and the
      notes in full; in the others notes are numbered below each table.
    console: of the form 'text', whose width it has; None: 200 columns.

  Raises:
    UserError: an unknown form.
  """
  writers = {'text': functools.partial(_text, console=console), 'markdown': _markdown, 'latex': _latex, 'csv': _csv}
  if form not in writers:
    raise UserError(f"--format={form}: unknown{nearest(form, FORMATS)}")
  return writers[form](tables)


def _numbered(table: Table) -> tuple[list[list[str]], list[str]]:
  """The cells of a table with numbers for notes, and the notes."""
  notes = list(dict.fromkeys(note for line in table.lines for note in line.notes))
  cells = [[*dataclasses.astuple(line)[:-1], ', '.join(str(notes.index(note) + 1) for note in line.notes)]
           for line in table.lines]
  return cells, notes


def _text(tables: Sequence[Table], console: Console | None) -> str:
  console = Console(file=io.StringIO(), width=200) if console is None else console
  with console.capture() as captured:
    for table in tables:
      cells, notes = _numbered(table)
      columns = (Column(name, overflow='fold') for name in COLUMNS)
      drawn = RichTable(*columns, title=escape(table.title), title_justify='left', box=box.SIMPLE)
      for row in cells:
        drawn.add_row(*map(escape, row), style='red' if 'LEAKY' in row[3] else None)
      console.print(drawn)
      for number, note in enumerate(notes, 1):
        console.print(f'{number}. {note}', highlight=False, markup=False)
      console.print()
  return captured.get()


def _markdown(tables: Sequence[Table]) -> str:
  plain = lambda text: re.sub(r'([\\|*_<>\[\]`])', r'\\\1', text)
  row = lambda cells: f"| {' | '.join(map(plain, cells))} |"
  parts = []
  for table in tables:
    cells, notes = _numbered(table)
    parts += [f'## {plain(table.title)}', '', row(COLUMNS), '|' + ' --- |' * len(COLUMNS), *map(row, cells), '',
              *(f'{number}. {plain(note)}' for number, note in enumerate(notes, 1)), '']
  return '\n'.join(parts)


_LATEX = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '<': '$<$', '>': '$>$',
          '±': r'$\pm$', **{character: '\\' + character for character in '&%$#_{}'}}


def _latex(tables: Sequence[Table]) -> str:
  plain = lambda text: ''.join(_LATEX.get(character, character) for character in text)
  row = lambda cells: ' & '.join(f'{{{plain(cell)}}}' for cell in cells) + r' \\'
  parts = ['% Needs the packages booktabs and longtable.']
  for table in tables:
    cells, notes = _numbered(table)
    layout = 'p{.14\\linewidth}p{.1\\linewidth}rp{.12\\linewidth}rrrrp{.2\\linewidth}l'
    parts += [rf'\begin{{longtable}}{{{layout}}}', rf'\caption{{{plain(table.title)}}} \\', r'\toprule', row(COLUMNS),
              r'\midrule', r'\endhead', *map(row, cells), r'\bottomrule', r'\end{longtable}',
              *(rf'\noindent {number}. {plain(note)}\par' for number, note in enumerate(notes, 1)), '']
  return '\n'.join(parts)


def _csv(tables: Sequence[Table]) -> str:
  writer = csv.writer(file := io.StringIO(), lineterminator='\n')
  writer.writerow(['table', *COLUMNS])
  for table in tables:
    writer.writerows([table.title, *dataclasses.astuple(line)[:-1], ' '.join(line.notes)] for line in table.lines)
  return file.getvalue()
