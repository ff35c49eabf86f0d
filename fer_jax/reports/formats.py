"""A table of text cells with notes, and its forms: text for the console, and Markdown, csv and LaTeX for files.

Pages draw the same tables, with the macros of ``macros.html``.
"""

import csv
import dataclasses
import io
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.highlighter import RegexHighlighter
from rich.table import Column as RichColumn
from rich.table import Table as RichTable
from rich.text import Text
from rich.theme import Theme

from fer_jax.errors import UserError
from fer_jax.metrics.intervals import SEEDS, share_interval
from fer_jax.runtime import cluster, storage
from fer_jax.runtime.console import plain

# How csv takes cells apart: what separates the two numbers, and what is added to the column's name for each.
SPREAD = (' ± ', ('', ' sd'))
ENDS = (' to ', (' from', ' to'))

TOO_FEW = 'too few seeds'  # In the place of an interval.


class Column(NamedTuple):
  """A column: its heading, how LaTeX sets it, and ``SPREAD`` or ``ENDS`` where csv has two columns in its place.

  With ``bar`` a page draws a bar below each number, of the share that it is: '81.2 %', or '0.812'.
  """

  name: str
  latex: str = 'r'
  apart: tuple[str, tuple[str, str]] | None = None
  bar: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
  """A line: the texts of the columns that have one, and whole sentences about it.

  ``style`` is 'leaky' for a number that must not be compared, 'trivial' for one that owes nothing to training.
  """

  cells: Mapping[str, str]
  notes: tuple[str, ...] = ()
  style: str = ''

  def __getitem__(self, column: str) -> str:
    return self.cells.get(column, '')


@dataclasses.dataclass(frozen=True)
class Table:
  """A table whose lines may be compared; its notes, whole sentences, stand below those about lines."""

  title: str
  columns: tuple[Column, ...]
  lines: tuple[Line, ...]
  notes: tuple[str, ...] = ()

  @property
  def header(self) -> list[Column]:
    """All columns that are printed."""
    return [*self.columns, *[Column('notes', 'l')] * any(line.notes for line in self.lines)]

  @property
  def names(self) -> list[str]:
    """The headings of ``header``."""
    return [column.name for column in self.header]

  def numbered(self) -> tuple[list[list[str]], list[str]]:
    """The cells below ``header``, with numbers for notes, and the notes from 1, those about the table last."""
    notes = list(dict.fromkeys(note for line in self.lines for note in line.notes))
    numbers = lambda line: [', '.join(str(notes.index(note) + 1) for note in line.notes)] * bool(notes)
    cells = [[*(line[column.name] for column in self.columns), *numbers(line)] for line in self.lines]
    return cells, [*notes, *self.notes]


def mean(values: Iterable[float], decimals: int = 2) -> str:
  """'mean ± standard deviation', or of a single value just that."""
  values = list(values)
  text = f'{np.mean(values):.{decimals}f}'
  return f'{text} ± {np.std(values, ddof=1):.{decimals}f}' if len(values) > 1 else text


def interval_of(results: Sequence[Mapping[str, Any]]) -> str:
  """The 95 % interval of an accuracy in per cent: over seeds, of a single one over faces (Wilson)."""
  low, high = (share_interval([result['accuracy'] for result in results])[1:3] if len(results) > 1 else
               results[0]['accuracy_interval'])
  return TOO_FEW if low is None else f'{100 * low:.2f} to {100 * high:.2f}'


def covered(counts: Collection[int]) -> list[str]:
  """Notes on what ``interval_of`` covers, where lines have these numbers of seeds."""
  notes = []
  if max(counts, default=0) >= SEEDS:
    notes.append("95 % over several seeds (Student's t on the logit scale) covers what the seed decides, and takes the "
                 'test faces as they are.')
  if 2 in counts:
    notes.append(f'Two seeds are too few for an interval over seeds; {SEEDS} have one.')
  if 1 in counts:
    notes.append('95 % of a single seed (Wilson) covers which faces were tested, and says nothing of other seeds.')
  return notes


def check_out(path: str | None) -> None:
  """Raises a UserError, before the work begins, where ``deliver`` knows no form for the ending of a path."""
  if path and os.path.splitext(path)[1] not in ('.md', '.csv', '.tex'):
    raise UserError(f'--out={path}: the ending says the form; give a name that ends in .md, .csv or .tex.')


def deliver(tables: Sequence[Table], path: str | os.PathLike[str] | None) -> str:
  """What a command prints: the tables, as wide as the terminal if there is one, or that they are written to ``path``.

  Raises a UserError where the file has an ending of no form, or cannot be written.
  """
  if not path:
    return render(tables, '').removesuffix('\n')
  path = os.fspath(path)
  check_out(path)
  storage.write_text(path, render(tables, os.path.splitext(path)[1]))
  return f'Written: {path}'


def render(tables: Sequence[Table], form: str) -> str:
  """Tables as text, one below the other.

  In csv they have one header with the columns of all, the title in front and the notes of the line in full; in the
  other forms notes are numbered below each table. ``form`` is a key of ``FORMS``: the ending of a file, or '' for the
  console.
  """
  return FORMS[form](tables)


class _Warnings(RegexHighlighter):
  highlights = (r'(?P<leaky>LEAKY|^Leaky: [^\n]*)', r'(?P<note>^Note: [^\n]*)')


_THEME = Theme({'leaky': 'bold red', 'note': 'yellow', 'leaky_line': 'red', 'trivial_line': 'dim'})


def _console() -> Console:
  return Console(width=None if sys.stdout.isatty() else int(os.environ.get('COLUMNS', 200)), highlighter=_Warnings(),
                 quiet=not cluster.is_main(), theme=_THEME, markup=False, emoji=False)


def show(*parts: str | Table, out: Console | None = None) -> None:
  """Prints sentences and tables on the console of process 0; what names hold is printed as it is, and not obeyed."""
  out = out or _console()
  for part in parts:
    if isinstance(part, str):
      out.print(plain(part))
      continue
    cells, notes = part.numbered()
    columns = (RichColumn(Text(plain(name)), overflow='fold') for name in part.names)
    title = Text(plain(part.title), style='table.title')
    drawn = RichTable(*columns, title=title, title_justify='left', box=box.SIMPLE)
    for row, line in zip(cells, part.lines, strict=True):
      style = line.style or 'leaky' * any(cell.endswith(' LEAKY') for cell in row)
      drawn.add_row(*(Text(plain(cell)) for cell in row), style=f'{style}_line' if style else None)
    out.print(drawn)
    for number, note in enumerate(notes, 1):
      out.print(plain(f'{number}. {note}'))
    out.print()


def _text(tables: Sequence[Table]) -> str:
  with (out := _console()).capture() as captured:
    show(*tables, out=out)
  return captured.get()


def markdown_text(text: str) -> str:
  """A text as Markdown that shows it as it is."""
  return re.sub(r'([\\|*_<>\[\]`])', r'\\\1', text)


def _markdown(tables: Sequence[Table]) -> str:
  row = lambda cells: f"| {' | '.join(map(markdown_text, cells))} |"
  parts = []
  for table in tables:
    cells, notes = table.numbered()
    parts += [f'## {markdown_text(table.title)}', '', row(table.names),
              '|' + ' --- |' * len(table.header), *map(row, cells), '',
              *(f'{number}. {markdown_text(note)}' for number, note in enumerate(notes, 1)), '']
  return '\n'.join(parts)


_LATEX = str.maketrans({'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '<': '$<$',
                        '>': '$>$', '±': r'$\pm$', **{character: '\\' + character for character in '&%$#_{}'}})


def _latex(tables: Sequence[Table]) -> str:
  row = lambda cells: ' & '.join(f'{{{cell.translate(_LATEX)}}}' for cell in cells) + r' \\'
  parts = ['% Needs the packages booktabs and longtable.']
  for table in tables:
    cells, notes = table.numbered()
    layout = ''.join(column.latex for column in table.header)
    parts += [rf'\begin{{longtable}}{{{layout}}}', rf'\caption{{{table.title.translate(_LATEX)}}} \\', r'\toprule',
              row(table.names), r'\midrule', r'\endhead', *map(row, cells), r'\bottomrule', r'\end{longtable}',
              *(rf'\noindent {number}. {note.translate(_LATEX)}\par' for number, note in enumerate(notes, 1)), '']
  return '\n'.join(parts)


def _csv(tables: Sequence[Table]) -> str:
  rows = []
  for table in tables:
    for line in table.lines:
      rows.append(row := {'table': table.title})
      for name, _, apart, _ in table.columns:
        separator, endings = apart or ('\n', ('',))
        row |= dict(zip((name + ending for ending in endings), [*line[name].split(separator), ''], strict=False))
      row['notes'] = ' '.join(line.notes)
  header = dict.fromkeys(['table', *(name for row in rows for name in row if name != 'notes'), 'notes'])
  writer = csv.DictWriter(file := io.StringIO(), list(header), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return file.getvalue()


FORMS = {'': _text, '.md': _markdown, '.csv': _csv, '.tex': _latex}
