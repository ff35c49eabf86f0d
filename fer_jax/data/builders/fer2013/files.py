"""Reads FER2013 as distributed, a csv of pixels or a folder of images, and says precisely what is wrong with it."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data import face
from fer_jax.data.builders.faces_folder import files as faces_folder
from fer_jax.data.preparing.files import File, Tree, fields_of, how_to, open_tree, read_lines
from fer_jax.errors import UserError
from fer_jax.runtime.paths import expand

CLASSES = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise', 'neutral')
VOTES = (*CLASSES, 'contempt', 'unknown', 'NF')
SPLITS = {'Training': 'train', 'PublicTest': 'valid', 'PrivateTest': 'test'}
SIDE = 48  # Of the images, in pixels.

_TABLES = ('fer2013.csv', 'icml_face_data.csv')
_POOR_TABLES = ('train.csv', 'test.csv')  # Kaggle's, without Usage.
_VOTES_TABLE = 'fer2013new.csv'

HOW_TO = how_to(__file__)


class Pixels(NamedTuple):
  """An image of the csv file, in the place of a file."""

  table: str  # What messages call the csv file.
  line: int
  values: bytes  # Row by row.

  def __str__(self) -> str:
    return f'{self.table}, line {self.line}'

  def read(self) -> bytes:
    """The image as PNG."""
    return face.png(np.frombuffer(self.values, np.uint8).reshape(SIDE, SIDE)).getvalue()

  def stamp(self) -> tuple[int, ...]:
    """Nothing: the content is here."""
    return ()


class Row(NamedTuple):
  """One row of the csv file."""

  name: str
  usage: str
  label: int
  image: Pixels
  votes: tuple[int, ...] = ()  # In the order of VOTES, where wanted.


def open_table(path: str | None, votes: bool = False) -> tuple[list[Row], list[str]]:
  """Reads the csv file of FER2013, and that of the votes if wanted, in a zip or a folder or itself at ``path``.

  Returns:
    The rows, and what is wrong with those that cannot be used.

  Raises:
    UserError: no such path, something else lies there, a file cannot be read or lacks columns, or the two are not of
      the same rows.
  """
  tree, file = _open(path)
  if not file:
    hint = _hint(tree) or ('For images in folders choose --variant=folder.\n' if tree.images() else '')
    raise tree.lacks(f'has no {" or ".join(_TABLES)}', hint)
  rows, problems = _read(file, ('emotion', 'pixels', 'usage'), _row)
  others = [(0, ('', ()))] * len(rows)
  if votes:
    if not (beside := _find(tree, _VOTES_TABLE)):
      raise tree.lacks(f'has no {_VOTES_TABLE}, the votes of FERPlus')
    others, more = _read(beside, ('usage', *(name.lower() for name in VOTES)), _votes)
    problems += more
    what = f'{file} and {beside} should list the same images in the same order'
    if len(rows) != len(others):
      raise UserError(f'{what}, but have {len(rows):,} and {len(others):,} rows. Obtain both anew.')
    for (line, row), (_, other) in zip(rows, others, strict=True):
      if row and other and row[0] != other[0]:
        raise UserError(f'{what}, but line {line} of the first is {row[0]} and this row of the second {other[0]}. '
                        'Obtain both anew.')
  return [Row(f'fer2013_{i:05d}.png', *row[:2], Pixels(str(file), line, row[2]), other[1])
          for i, ((line, row), (_, other)) in enumerate(zip(rows, others, strict=True)) if row and other], problems


def agreement(rows: Sequence[Row]) -> tuple[int, int]:
  """How many labels have the most votes, of how many images; those with a tie are not counted."""
  agree = [row.votes.index(max(row.votes)) == row.label for row in rows if row.votes.count(max(row.votes)) == 1]
  return sum(agree), len(agree)


def open_folders(path: str | None) -> faces_folder.Faces:
  """Lists the images of FER2013 in folders; 'valid' is told from 'test' where the names of the files tell it.

  Raises:
    UserError: no such path, something else lies there, or a split or a class is missing; or only some names tell.
  """
  tree, table = _open(path)
  if table and not tree.images():
    raise UserError(f'{table} is FER2013 as a csv file: prepare it without --variant=folder.')
  faces = faces_folder.open_files(path, _hint(tree) + HOW_TO)
  for split in ('train', 'test'):
    found = faces.splits.get(split, {})
    if missing := set(CLASSES) - {face.canonical(folder) for folder in found}:
      raise UserError(f'{faces.root}: {split} has no folder with images of {", ".join(sorted(missing))}; found there: '
                      f'{", ".join(found) or "nothing"}.\n{HOW_TO}')
  if 'valid' in faces.splits:
    return faces
  told: dict[str, dict[str, dict[str, File]]] = {}  # By usage, '' where a name does not tell it, and by class.
  for folder, images in faces.splits['test'].items():
    for name, file in images.items():
      usage = name.rpartition('/')[2].partition('_')[0]
      told.setdefault(usage if usage in ('PublicTest', 'PrivateTest') else '', {}).setdefault(folder, {})[name] = file
  if other := [name for images in told.pop('', {}).values() for name in images]:
    if not told:
      return faces
    raise UserError(f'{faces.root}: some images of test are called PublicTest_ or PrivateTest_ and {len(other):,} are '
                    f'not, e.g. {other[0]}. Obtain the data set anew.')
  told['Training'] = faces.splits['train']
  return faces._replace(splits={split: told[usage] for usage, split in SPLITS.items() if usage in told})


def _open(path: str | None) -> tuple[Tree, File | None]:
  """The files at a path, and the csv file of FER2013 among them."""
  file = expand(path or '')
  if file.lower().endswith('.csv') and os.path.isfile(file):
    folder, name = os.path.split(file)
    beside = os.path.join(folder, _VOTES_TABLE)
    files = {name: File(file)} | ({_VOTES_TABLE: File(beside)} if os.path.isfile(beside) else {})
    return Tree(folder or '.', files, HOW_TO), File(file)
  tree = open_tree(path, HOW_TO)
  return tree, next(filter(None, (_find(tree, name) for name in _TABLES)), None)


def _find(tree: Tree, name: str) -> File | None:
  """The file of this name, wherever it is; UserError where there are several."""
  found = [file for path, file in tree.files.items() if path.rpartition('/')[2] == name]
  if len(found) > 1:
    raise UserError(f'{tree.root} has {name} more than once: {", ".join(map(str, found))}. Keep one.')
  return found[0] if found else None


def _hint(tree: Tree) -> str:
  """What lies there instead of FER2013, as a line of text; '' where that is not known."""
  names = {path.rpartition('/')[2] for path in tree.files}
  if 'label.csv' in names:
    return 'This is FERPlus: prepare it with --dataset=ferplus.\n'
  if not names.isdisjoint(_POOR_TABLES):
    return "Kaggle's train.csv and test.csv do not do: no Usage names the split, and test.csv has no labels.\n"
  return ''


def _read(file: File, columns: Sequence[str], parse: Callable[..., Any]) -> tuple[list[tuple[int, Any]], list[str]]:
  """As ``read_lines``, of the wanted columns, in whatever order and case; UserError where there is no such table."""
  lines = file.lines()
  first, header = next(lines, (0, ''))
  header = [field.strip().lower() for field in fields_of(header, strict=False)]
  if first and (missing := [column for column in columns if column not in header]):
    shown = ', '.join(field[:20] for field in header[:12])
    raise UserError(f'{file}, line {first}: the header has no {", ".join(missing)}; found {shown}.\n{HOW_TO}')

  def read(line: str) -> Any:
    fields = fields_of(line)
    if len(fields) != len(header):
      raise ValueError(f'expected {len(header)} fields ({", ".join(header)}), found {len(fields)}')
    return parse(*(fields[header.index(column)].strip() for column in columns))

  rows, problems = read_lines(lines, read)
  if not rows:
    raise UserError(f'{file} has no row. Obtain the file anew.\n{HOW_TO}')
  return rows, [f'{file.entry or os.path.basename(file.path)}, {problem}' for problem in problems]


def _row(label: str, pixels: str, usage: str) -> tuple[str, int, bytes]:
  if label not in tuple('0123456'):
    raise ValueError(f'the emotion should be a whole number from 0 to 6, found {label!r}')
  return _usage(usage), int(label), _pixels(pixels)


def _pixels(text: str) -> bytes:
  values = text.split()
  if len(values) != SIDE * SIDE:
    raise ValueError(f'expected {SIDE * SIDE:,} pixels, found {len(values):,}')
  try:
    return bytes(map(int, values))
  except ValueError:
    bad = next(value for value in values if not value.isdecimal() or len(value) > 3 or int(value) > 255)
    raise ValueError(f'the pixels should be whole numbers from 0 to 255, found {bad!r}') from None


def _votes(usage: str, *votes: str) -> tuple[str, tuple[int, ...]]:
  if bad := [vote for vote in votes if not vote.isdecimal() or len(vote) > 6]:
    raise ValueError(f'the votes should be 10 whole numbers, found {", ".join(map(repr, bad))}')
  return _usage(usage), tuple(map(int, votes))


def _usage(text: str) -> str:
  if text not in SPLITS:
    raise ValueError(f'the usage should be one of {", ".join(SPLITS)}, found {text!r}')
  return text
