"""A table of text cells with notes, and its forms: for the console, Markdown, LaTeX, csv and HTML."""

import csv
import dataclasses
import functools
import html
import io
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column as RichColumn
from rich.table import Table as RichTable

from fer_jax.errors import UserError, nearest
from fer_jax.runtime import storage

FORMATS = ('text', 'markdown', 'latex', 'csv')


class Column(NamedTuple):
  """A column of a table.

  Attributes:
    name: its heading; a table has each once.
    latex: how LaTeX sets it.
    apart: (separator, endings): in csv, cells such as '1 to 2' are taken apart into columns called name + ending.
  """

  name: str
  latex: str = 'r'
  apart: tuple[str, tuple[str, str]] | None = None


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of a table.

  Attributes:
    cells: the text of each column that has one: ``line['row']`` is '' where it has none.
    notes: whole sentences about this line.
    style: 'leaky' for a number that must not be compared, 'control' for one that owes nothing to training.
  """

  cells: Mapping[str, str]
  notes: tuple[str, ...] = ()
  style: str = ''

  def __getitem__(self, column: str) -> str:
    return self.cells.get(column, '')


@dataclasses.dataclass(frozen=True)
class Table:
  """A table whose lines may be compared.

  Attributes:
    title: its heading.
    columns: of every line; the numbers of notes stand in one more, behind them.
    lines: from top to bottom.
    notes: whole sentences about the table, below those about lines.
  """

  title: str
  columns: tuple[Column, ...]
  lines: tuple[Line, ...]
  notes: tuple[str, ...] = ()

  @property
  def header(self) -> list[str]:
    """Names of all columns that are printed."""
    return [*(column.name for column in self.columns), 'notes']

  def numbered(self) -> tuple[list[list[str]], list[str]]:
    """The cells below ``header``, with numbers for notes, and the notes from 1, those about the table last."""
    notes = list(dict.fromkeys(note for line in self.lines for note in line.notes))
    cells = [[*(line[column.name] for column in self.columns),
              ', '.join(str(notes.index(note) + 1) for note in line.notes)] for line in self.lines]
    return cells, [*notes, *self.notes]

  def __html__(self) -> str:
    """A heading, a table and a list of notes, for templates: '{{ table }}'."""
    row = lambda tag, cells, style='': (
        f'<tr class="{style}">' + ''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells) + '</tr>')
    cells, notes = self.numbered()
    drawn = [row('td', texts, line.style) for texts, line in zip(cells, self.lines, strict=True)]
    listed = ''.join(f'<li>{html.escape(note)}</li>' for note in notes)
    return '\n'.join([f'<h3>{html.escape(self.title)}</h3>', '<div class="scroll"><table>', row('th', self.header),
                      *drawn, '</table></div>', f'<ol class="note">{listed}</ol>' if notes else ''])


def render(tables: Sequence[Table], form: str, console: Console | None = None) -> str:
  """Prints tables as text.

  Args:
    tables: from ``make_tables``.
    form: one of ``FORMATS``. In csv, tables are one below the other under one header that has the columns of all, with
      the title in front and the notes of the line in full; in the others notes are numbered below each table.
    console: of the form 'text', whose width it has; None: 200 columns.

  Raises:
    UserError: an unknown form.
  """
  writers = {'text': functools.partial(_text, console=console), 'markdown': _markdown, 'latex': _latex, 'csv': _csv}
  if form not in writers:
    raise UserError(f"--format={form}: unknown{nearest(form, FORMATS)}")
  return writers[form](tables)


def deliver(tables: Sequence[Table], form: str, path: str | None) -> str:
  """What a command prints: the tables, as wide as the terminal if there is one, or that they are written to ``path``.

  Raises:
    UserError: an unknown form, or the file cannot be written.
  """
  if path:
    storage.write_text(path, render(tables, form))
    return f'Written: {path}'
  return render(tables, form, Console() if sys.stdout.isatty() else None).removesuffix('\n')


def _text(tables: Sequence[Table], console: Console | None) -> str:
  console = Console(file=io.StringIO(), width=200) if console is None else console
  styles = {'leaky': 'red', 'control': 'dim'}
  with console.capture() as captured:
    for table in tables:
      cells, notes = table.numbered()
      columns = (RichColumn(name, overflow='fold') for name in table.header)
      drawn = RichTable(*columns, title=escape(table.title), title_justify='left', box=box.SIMPLE)
      for row, line in zip(cells, table.lines, strict=True):
        drawn.add_row(*map(escape, row), style=styles.get(line.style))
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
    cells, notes = table.numbered()
    parts += [f'## {plain(table.title)}', '', row(table.header), '|' + ' --- |' * len(table.header), *map(row, cells),
              '', *(f'{number}. {plain(note)}' for number, note in enumerate(notes, 1)), '']
  return '\n'.join(parts)


_LATEX = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '<': '$<$', '>': '$>$',
          '±': r'$\pm$', **{character: '\\' + character for character in '&%$#_{}'}}


def _latex(tables: Sequence[Table]) -> str:
  plain = lambda text: ''.join(_LATEX.get(character, character) for character in text)
  row = lambda cells: ' & '.join(f'{{{plain(cell)}}}' for cell in cells) + r' \\'
  parts = ['% Needs the packages booktabs and longtable.']
  for table in tables:
    cells, notes = table.numbered()
    layout = ''.join(column.latex for column in table.columns) + 'l'
    parts += [rf'\begin{{longtable}}{{{layout}}}', rf'\caption{{{plain(table.title)}}} \\', r'\toprule',
              row(table.header), r'\midrule', r'\endhead', *map(row, cells), r'\bottomrule', r'\end{longtable}',
              *(rf'\noindent {number}. {plain(note)}\par' for number, note in enumerate(notes, 1)), '']
  return '\n'.join(parts)


def _csv(tables: Sequence[Table]) -> str:
  rows = [{'table': table.title, **dict(pair for column in table.columns for pair in _apart(column, line[column.name])),
           'notes': ' '.join(line.notes)} for table in tables for line in table.lines]
  header = ['table', *(name for row in rows for name in row if name != 'notes'), 'notes']
  writer = csv.DictWriter(file := io.StringIO(), list(dict.fromkeys(header)), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return file.getvalue()


def _apart(column: Column, cell: str) -> list[tuple[str, str]]:
  """Pairs of a column in csv and its text."""
  if column.apart is None:
    return [(column.name, cell)]
  separator, endings = column.apart
  first, _, second = cell.partition(separator)
  return [(column.name + endings[0], first), (column.name + endings[1], second)]
