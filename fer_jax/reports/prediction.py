"""What a network says of people's pictures, as rows: in a csv file or one of JSON lines, and on the console.

Everything here takes what is answered as it comes, and keeps no more of it than it shows.
"""

import csv
import io
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fer_jax.errors import UserError
from fer_jax.reports.formats import Column, Line, Table, show
from fer_jax.runtime import cluster, storage
from fer_jax.runtime.paths import is_remote

ENDINGS = ('.csv', '.jsonl')  # Of a file of rows.
NO_FACE = 'no face'

_BEFORE = ('file', 'frame', 'seconds', 'left', 'top', 'right', 'bottom', 'score')  # Columns beside the classes.
_AFTER = ('class', 'entropy', 'abstain', 'reason')
_SHOWN = 20  # Rows on the console.


class Output(Protocol):
  """Something that is made of answers."""

  def add(self, answered: Any) -> None:
    """Takes a picture (``analysis.face_rows.Answered``)."""

  def finish(self) -> None:
    """No more pictures come."""


def rows(answered: Any) -> list[dict[str, Any]]:
  """The rows of a picture: one for each face, or one with the reason why there is none. All have the same keys.

  file: its path; frame, seconds: of a video, None of a photograph; box: [left, top, right, bottom] in pixels of the
  upright picture; score: the detector's; class: the one of the highest probability; probabilities: by class, in the
  order of the run; entropy: of them, in nats; abstain: whether the highest one is below the run's threshold, None
  without one; reason: None for a face.
  """
  picture = answered.picture
  of_picture = {'file': picture.file, 'frame': picture.frame, 'seconds': _short(picture.seconds)}
  nothing = dict.fromkeys(('box', 'score', 'class', 'probabilities', 'entropy', 'abstain', 'reason'))
  if not answered.faces:
    return [of_picture | nothing | {'reason': picture.reason or NO_FACE}]
  return [of_picture | nothing | {
      'box': [round(float(value), 2) for value in face.box], 'score': _short(face.score), 'class': face.label,
      'probabilities': {name: _short(value) for name, value in face.probabilities.items()},
      'entropy': _short(face.entropy), 'abstain': face.abstain} for face in answered.faces]


def _short(value: float | None) -> float | None:
  """Without digits that float32 does not have."""
  return None if value is None else float(f'{value:.7g}')


class RowsFile:
  """A file of rows, .csv or .jsonl: written beside as they come, and put in its place when they end.

  A process that is killed leaves what it wrote in ``PATH.part``.
  """

  def __init__(self, path: str | os.PathLike[str], classes: Sequence[str]):
    """Opens it.

    Args:
      classes: names, in the order of the columns.

    Raises:
      UserError: it cannot be written.
    """
    self._path = storage.as_path(path)
    # An object appears in its store when it is whole.
    self._part = self._path if is_remote(path) else self._path.with_name(self._path.name + '.part')
    self._csv = self._path.suffix == '.csv'
    # A class may be called as another column is.
    self._columns = {name: f'probability of {name}' if name in _BEFORE + _AFTER else name for name in classes}
    with storage.explained(path):
      if not is_remote(path):
        self._path.parent.mkdir(parents=True, exist_ok=True)
      self._file = self._part.open('wb')
    if self._csv:
      self._write([[*_BEFORE, *self._columns.values(), *_AFTER]])

  def add(self, answered: Any) -> None:
    """Writes the rows of a picture; raises a UserError where there is no room."""
    found = rows(answered)
    self._write(map(self._cells, found) if self._csv else found)

  def finish(self) -> None:
    """Puts the file in its place."""
    with storage.explained(self._path):
      self._file.close()
      if self._part != self._path:
        self._part.replace(self._path)

  def _cells(self, row: Mapping[str, Any]) -> list[Any]:
    probabilities = row['probabilities'] or {}
    abstain = {None: '', True: 'true', False: 'false'}[row['abstain']]
    return [row['file'], row['frame'], row['seconds'], *(row['box'] or [None] * 4), row['score'],
            *(probabilities.get(name) for name in self._columns), row['class'], row['entropy'], abstain, row['reason']]

  def _write(self, found: Any) -> None:
    text = io.StringIO()
    if self._csv:
      csv.writer(text, lineterminator='\n').writerows(found)
    else:
      text.writelines(storage.to_json(row) + '\n' for row in found)
    with storage.explained(self._path):
      self._file.write(text.getvalue().encode(errors='backslashreplace'))  # A file's name need not be UTF-8.
      self._file.flush()


def check_paths(out: str | None, page: str | None, inputs: Sequence[str]) -> None:
  """Raises UserError, before anything is computed, where a file to write has an ending of no form, or is an input."""
  for flag, path, endings in (('out', out, ENDINGS), ('page', page, ('.html',))):
    if not path:
      continue
    if os.path.splitext(path)[1] not in endings:
      raise UserError(f"--{flag}={path}: the ending says the form; give a name that ends in {' or '.join(endings)}.")
    path = storage.as_path(path)
    if not is_remote(path) and path.exists() and any(
        os.path.exists(one) and os.path.samefile(path, one) for one in inputs):
      raise UserError(f'--{flag}={path} is one of the pictures, and would be replaced; give another name.')


class Console:
  """The first rows as a table, where no file was asked for."""

  def __init__(self):
    self._first: list[dict[str, Any]] = []
    self._count = 0

  def add(self, answered: Any) -> None:
    """Keeps the rows of a picture, if they are among the first."""
    found = rows(answered)
    self._first += found[:max(_SHOWN - self._count, 0)]
    self._count += len(found)

  def finish(self) -> None:
    """Prints them."""
    if self._first:
      more = self._count - len(self._first)
      notes = (f'{more:,} more rows: --out=rows.csv has all.',) if more else ()
      show(_table(self._first, notes))


def _table(found: Sequence[Mapping[str, Any]], notes: tuple[str, ...]) -> Table:
  """Rows for people: the three likeliest classes, and no column that would be empty."""
  def cells(row: Mapping[str, Any]) -> dict[str, str]:
    of = lambda key, form: '' if row[key] is None else format(row[key], form)
    at = {'file': row['file'], 'frame': of('frame', ','), 'seconds': of('seconds', '.2f')}
    if row['reason']:
      return at | {'likeliest classes': f"({row['reason']})"}
    best = sorted(row['probabilities'].items(), key=lambda item: -item[1])[:3]
    return at | {'box': ' '.join(f'{value:.0f}' for value in row['box']), 'score': of('score', '.2f'),
                 'likeliest classes': ', '.join(f'{name} {value:.2f}' for name, value in best),
                 'entropy': of('entropy', '.2f'), 'abstain': {None: '', True: 'yes', False: 'no'}[row['abstain']]}
  lines = [Line({key: text for key, text in cells(row).items() if text}) for row in found]
  names = ('file', 'frame', 'seconds', 'box', 'score', 'likeliest classes', 'entropy', 'abstain')
  columns = [Column(name, 'l') for name in names if any(line[name] for line in lines)]
  return Table('What the network says', tuple(columns), tuple(lines), notes)


class Tally:
  """Counts, and says them in the end.

  Attributes:
    unit: what a picture is called.
    pictures, faces, empty, unreadable, abstained: how many; ``empty`` are pictures in which no face was found.
  """

  def __init__(self, unit: str = 'picture'):
    self.unit = unit
    self.pictures = self.faces = self.empty = self.unreadable = self.abstained = 0
    self._since = time.monotonic()

  def add(self, answered: Any) -> None:
    """Counts a picture."""
    self.pictures += 1
    self.faces += len(answered.faces)
    self.unreadable += bool(answered.picture.reason)
    self.empty += not answered.faces and not answered.picture.reason
    self.abstained += sum(face.abstain is True for face in answered.faces)

  def __str__(self) -> str:
    """As '12 pictures: 15 faces, of which 2 abstained, 1 picture without a face, 0 unreadable'."""
    plural = lambda count, word: f"{count:,} {word}{'s' * (count != 1)}"
    abstained = f', of which {self.abstained:,} abstained' * bool(self.abstained)
    return (f'{plural(self.pictures, self.unit)}: {plural(self.faces, "face")}{abstained}, {self.empty:,} without a '
            f'face, {self.unreadable:,} unreadable')

  def finish(self) -> None:
    """Says them."""
    seconds = time.monotonic() - self._since
    cluster.say(f'{self}; {seconds:.1f} s, {self.faces / max(seconds, 1e-9):.3g} faces a second.')
