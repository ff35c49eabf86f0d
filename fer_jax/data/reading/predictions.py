"""Anybody's predictions, from a file: csv with a header, or JSON lines; a row a face.

A row has the face's name in the column ``name`` (or ``file``), and its class in ``class`` (or ``prediction``), or a
probability in a column for each class. Names of classes are the data set's, or any that ``face.canonical`` knows. The
detector's ``score`` tells which of several faces of a picture counts. Other columns are not read: what ``predict``
writes can be scored as it is.

    name,class                      name,happy,sad,...         {"name": "a.png", "class": "happy"}
    a.png,happy                     a.png,0.9,0.1,...          {"name": "a.png", "probabilities": {"happy": 0.9, ...}}
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data.face import EXPRESSIONS, canonical
from fer_jax.errors import UserError, listed, nearest
from fer_jax.runtime import storage

NAMES, ANSWERS, SCORE = ('name', 'file'), ('class', 'prediction'), 'score'

PREFIX = 'probability of '  # Which a class's column may have where the class is called as another column is.

TOLERANCE = 0.01  # How far from 1 probabilities may sum up: they may be rounded to two or three digits.


class Row(NamedTuple):
  """What a file says of a face."""

  line: int  # Where it stands in the file.
  name: str
  answer: int | None  # Index into ``Predictions.classes``; None: it says that there is no face, or no answer.
  probabilities: np.ndarray | None  # (C,) float64 that sum up to 1, of ``Predictions.classes``.
  score: float | None  # The detector's.


class Predictions(NamedTuple):
  """The rows of a file; ``classes`` are those that were asked for, and then other expressions that it names."""

  classes: tuple[str, ...]
  rows: list[Row]
  columns: int  # How many classes have a column of probabilities; 0 where the file has none.


def read(path: str | os.PathLike[str], classes: Sequence[str]) -> Predictions:
  """Reads a file of predictions; see the module's docstring.

  Args:
    classes: of the faces, in the order of their labels.

  Raises:
    UserError: it cannot be read, or a row is not as said; the message has the line's number.
  """
  rows = list(_rows(path))
  if not rows:
    raise UserError(f'{path} holds no predictions.')
  columns = dict.fromkeys(column for _, row in rows for column in row)
  name = next((column for column in NAMES if column in columns), None)
  if name is None:
    raise UserError(f"{path}: no column is called 'name' or 'file'; its columns are {', '.join(columns)}.")
  known = _Classes(classes)
  answer = next((column for column in ANSWERS if column in columns), None)
  shares = {column: known.index(column.removeprefix(PREFIX)) for column in columns
            if column not in (*NAMES, *ANSWERS, SCORE)}
  shares = {column: index for column, index in shares.items() if index is not None}
  if not shares and answer is None:
    raise UserError(f"{path}: there is neither a column 'class' nor one for each class ({', '.join(classes)}); its "
                    f"columns are {', '.join(columns)}.")
  if twice := [column for i, column in enumerate(shares) if shares[column] in list(shares.values())[:i]]:
    raise UserError(f"{path}: '{twice[0]}' is a second column for the class {known.names[shares[twice[0]]]}.")
  read_row = _probabilities if shares else _answer
  made = [read_row(f'{path}, line {line}', line, row, name, shares or answer, known) for line, row in rows]
  return Predictions(tuple(known.names), made, len(shares))


class _Classes:
  """Finds classes by what files call them; expressions that are none of the data set's are added behind."""

  def __init__(self, classes: Sequence[str]):
    self.names = list(classes)

  def index(self, text: str) -> int | None:
    """The index of a class; None where ``text`` is no expression."""
    if text in self.names:
      return self.names.index(text)
    expression = canonical(text)
    for index, name in enumerate(self.names):
      if name.casefold() == text.strip().casefold() or expression and canonical(name) == expression:
        return index
    if expression is None:
      return None
    self.names.append(expression)
    return len(self.names) - 1


def _probabilities(where: str, line: int, row: Mapping[str, str], name: str, shares: Mapping[str, int],
                   known: _Classes) -> Row:
  """A row of a file with a column for each class."""
  values = {column: row.get(column, '') for column in shares}
  empty = [column for column, value in values.items() if not value]
  if len(empty) == len(values):
    return Row(line, _name(where, row, name), None, None, _score(where, row))
  if empty:
    raise UserError(f"{where}: no probability of '{empty[0]}'; give all of {', '.join(shares)}, or none where there is "
                    'no face.')
  found = np.zeros(len(known.names))
  for column, index in shares.items():
    found[index] = _number(where, column, values[column])
  total = float(found.sum())
  if (found < 0).any() or (found > 1 + TOLERANCE).any() or abs(total - 1) > TOLERANCE:
    hint = ('these look like percentages: divide them by 100' if (found >= 0).all() and abs(total - 100) < 1 else
            'if these are logits, give their softmax' if (found < 0).any() or (found > 1).any() else
            'give probabilities of all classes of the network')
    raise UserError(f'{where}: the probabilities sum up to {total:.4g} and lie between {found.min():.4g} and '
                    f'{found.max():.4g}, but should sum up to 1; {hint}.')
  return Row(line, _name(where, row, name), int(found.argmax()), found / total, _score(where, row))


def _answer(where: str, line: int, row: Mapping[str, str], name: str, answer: str, known: _Classes) -> Row:
  """A row of a file with a class."""
  text = row.get(answer, '')
  index = known.index(text) if text else None
  if text and index is None:
    raise UserError(f"{where}: there is no class '{text}'{nearest(text, dict.fromkeys((*known.names, *EXPRESSIONS)))}")
  return Row(line, _name(where, row, name), index, None, _score(where, row))


def _name(where: str, row: Mapping[str, str], column: str) -> str:
  if not (name := row.get(column, '')):
    raise UserError(f"{where}: the column '{column}' is empty; it names the face.")
  return name if '/' in name else name.replace('\\', '/')  # Of Windows.


def _score(where: str, row: Mapping[str, str]) -> float | None:
  return _number(where, SCORE, row[SCORE]) if row.get(SCORE) else None


def _number(where: str, column: str, text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise UserError(f"{where}: '{column}' is '{text}', which is no finite number.")
  return value


def _rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, str]]]:
  """Pairs of a line's number and its cells by column, as text without space around; '' where there is nothing."""
  try:
    text = storage.read_text(path).removeprefix('\ufeff')
  except FileNotFoundError as error:
    raise UserError(f'there is no file {path}; give a csv file, JSON lines, or evaluation/SPLIT.npz of a run.'
                    ) from error
  except ValueError as error:
    raise UserError(f'{path} is no text in UTF-8; give a csv file, or JSON lines.') from error
  if text.lstrip()[:1] in ('{', '['):
    yield from _json_rows(path, text)
    return
  reader = csv.reader(io.StringIO(text, newline=''), strict=True)
  try:
    header = [cell.strip() for cell in next(reader, [])]
    if twice := [column for column in header if column and header.count(column) > 1]:
      raise UserError(f"{path}: the column '{twice[0]}' is there twice.")
    for cells in reader:
      if any(cells) and len(cells) != len(header):
        raise UserError(f'{path}, line {reader.line_num}: {len(cells)} cells, but the header has {len(header)}; they '
                        'are separated by commas, and a cell that has one stands in "".')
      if any(cells):
        yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))
  except csv.Error as error:
    raise UserError(f'{path}, line {reader.line_num}: {error}; write one row a line, with commas between the cells.'
                    ) from error


def _json_rows(path: str | os.PathLike[str], text: str) -> Iterator[tuple[int, dict[str, str]]]:
  for number, line in enumerate(text.split('\n'), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError as error:
      raise UserError(f'{path}, line {number}: no JSON ({error}); write one object a line.') from error
    if not isinstance(row, dict):
      raise UserError(f'{path}, line {number}: a {type(row).__name__}; write one object a line, such as '
                      '{"name": "a.png", "class": "happiness"}.')
    inner = row.pop('probabilities', None)
    yield number, {key: _text(value) for key, value in (row | (inner if isinstance(inner, dict) else {})).items()}


def _text(value: Any) -> str:
  return '' if value is None else str(value).strip()


def repeated(rows: Sequence[Row], path: str | os.PathLike[str]) -> Row:
  """The row that counts of several, one or more, of one face: that of the detector's highest score.

  Raises:
    UserError: a row has no score.
  """
  if len(rows) > 1 and any(row.score is None for row in rows):
    lines = listed(row.line for row in rows[:3])
    raise UserError(f"{path}: the lines {lines} are of one face ('{rows[0].name}'), and no detector's score says which "
                    'counts; keep one.')
  return max(rows, key=lambda row: row.score or 0.0)
