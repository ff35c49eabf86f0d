"""Reads FERPlus as distributed, a zip or a folder, and says precisely what is wrong with it."""

import csv
import pathlib
import re
import zipfile
import zlib
from typing import NamedTuple

from absl import logging

from fer_jax.data.builders.ferplus import labels
from fer_jax.errors import UserError

FOLDERS = {'train': 'FER2013Train', 'valid': 'FER2013Valid', 'test': 'FER2013Test'}

HOW_TO = """\
FERPlus is prepared from --source=PATH, a zip or a folder with
  FER2013Train/label.csv, FER2013Train/fer0000000.png ...   28,558 images
  FER2013Valid/label.csv ...                                 3,579 images
  FER2013Test/label.csv ...                                  3,573 images
(the three folders may lie in a folder data/). To obtain it: clone https://github.com/microsoft/FERPlus (the labels),
download fer2013.csv of the Kaggle challenge "challenges-in-representation-learning-facial-expression-recognition-
challenge" (the images) and run FERPlus's src/generate_training_data.py, which writes the images beside the labels."""

_SHOWN = 20  # Problems of one kind in a message.


class Row(NamedTuple):
  """One line of a label.csv."""

  name: str
  votes: tuple[int, ...]  # In the order of labels.VOTES.


class Split:
  """One of the three folders: its rows, and its images by name."""

  def __init__(self, folder: pathlib.Path | zipfile.Path):
    """Reads label.csv and compares it with the images beside it.

    Raises:
      UserError: a bad line, a repeated name, or a row without its image; the message names file and line.
    """
    self._folder = folder
    table = folder / 'label.csv'
    if not table.is_file():
      raise UserError(f'{table} is missing.\n{HOW_TO}')
    self.rows, lines = _read_table(table)
    images = {p.name for p in folder.iterdir() if p.name.lower().endswith('.png')}
    missing = [f'line {lines[row.name]}: {row.name}' for row in self.rows if row.name not in images]
    hint = '' if images else f'\nThere is no PNG in {folder}: run generate_training_data.py first.\n{HOW_TO}'
    _raise_if(missing, f'{table} lists images that are not beside it', hint)
    self.extra = sorted(images - lines.keys())
    if self.extra:
      logging.warning('%s: ignored %d image(s) without a line in label.csv, e.g. %s', folder, len(self.extra),
                      ', '.join(self.extra[:3]))

  def read(self, name: str) -> bytes:
    """The encoded image as distributed.

    Raises:
      ValueError: the file or its entry in the zip cannot be read.
    """
    try:
      return (self._folder / name).read_bytes()
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as e:
      raise ValueError(f'unreadable ({e})') from e


def open_source(path: str | None) -> dict[str, Split]:
  """Opens FERPlus at ``path``, a zip or a folder, with or without a level above the three folders.

  Returns:
    The splits 'train', 'valid' and 'test'.

  Raises:
    UserError: there is no such path, or something else lies there; the message says what was found.
  """
  if not path:
    raise UserError(HOW_TO)
  root = _root(pathlib.Path(path).expanduser())
  found = {name: root / folder for name, folder in FOLDERS.items() if (root / folder).is_dir()}
  if missing := [FOLDERS[name] for name in FOLDERS if name not in found]:
    raise UserError(f'{root} has no {" and no ".join(missing)}; found there: {_listing(root)}.\n{HOW_TO}')
  splits = {name: Split(folder) for name, folder in found.items()}
  home = {}
  for name, split in splits.items():
    for row in split.rows:
      if (other := home.setdefault(row.name, name)) != name:
        raise UserError(f'{row.name} is listed in {FOLDERS[other]}/label.csv and in {FOLDERS[name]}/label.csv of '
                        f'{root}; an image belongs to one split. Obtain the data anew.')
  return splits


def check_counts(found: dict[str, list[int]], rule: str) -> None:
  """Compares images per split and class with the counts of the official label files.

  Args:
    found: for each split, the number of images of each class.
    rule: the label rule of the training split.

  Raises:
    UserError: they differ; the message has both, class by class.
  """
  problems = []
  for split, counts in found.items():
    used = labels.rule_of_split(rule, split)
    expected = labels.COUNTS[used][split]
    if tuple(counts) != expected:
      problems.append(f'  {split} by {used}: found {sum(counts):,}, expected {sum(expected):,}')
      problems += [f'    {name}: found {n:,}, expected {m:,} ({n - m:+,})'
                   for name, n, m in zip(labels.CLASSES, counts, expected, strict=True) if n != m]
  if problems:
    raise UserError('the label.csv files are not those of the official FERPlus; images per class:\n' +
                    '\n'.join(problems) + '\nObtain them from https://github.com/microsoft/FERPlus, or accept what '
                    'there is with --nocheck_counts: the results are then not comparable.')


def _root(path: pathlib.Path) -> pathlib.Path | zipfile.Path:
  """The folder, perhaps within a zip, that should hold the three folders."""
  if path.is_dir():
    inner = path / 'data'
    return inner if any((inner / folder).is_dir() for folder in FOLDERS.values()) else path
  if not path.exists():
    raise UserError(f'--source: {path} does not exist.\n{HOW_TO}')
  if not zipfile.is_zipfile(path):
    raise UserError(f'--source: {path} is neither a folder nor a zip file (or a damaged one).\n{HOW_TO}')
  archive = zipfile.ZipFile(path)
  # A zip made by hand, or GitHub's, has more levels above.
  levels = {name.partition(folder)[0] for name in archive.namelist() for folder in FOLDERS.values()
            if re.search(f'(^|/){folder}/(label\\.csv|[^/]*\\.png)$', name) and not name.startswith('__MACOSX/')}
  if len(levels) > 1:
    raise UserError(f'{path} holds FERPlus more than once: below {", ".join(sorted(levels))}. Keep one.')
  return zipfile.Path(archive, levels.pop() if levels else '')


def _listing(folder: pathlib.Path | zipfile.Path) -> str:
  names = sorted(p.name + '/' * p.is_dir() for p in folder.iterdir())
  hints = ''
  if any('fer2013.csv' in name or 'icml_face_data' in name for name in names):
    hints = ' (this is FER2013 as Kaggle has it, without the votes of FERPlus)'
  return (', '.join(names[:10]) + (f' and {len(names) - 10} more' if len(names) > 10 else '') or 'nothing') + hints


def _read_table(table: pathlib.Path | zipfile.Path) -> tuple[list[Row], dict[str, int]]:
  """The rows of a label.csv, and the line of each name."""
  try:
    text = table.read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error) as e:
    raise UserError(f'{table} cannot be read as text: {e}') from e
  rows, lines, problems = [], {}, []
  reader = csv.reader(text.splitlines())
  for fields in reader:
    try:
      row = _read_row(fields)
      if (before := lines.setdefault(row.name, reader.line_num)) != reader.line_num:
        raise ValueError(f'{row.name} is already in line {before}')
      rows.append(row)
    except ValueError as e:
      problems.append(f'line {reader.line_num}: {e}')
  _raise_if(problems, f'bad lines in {table}')
  if not rows:
    raise UserError(f'{table} is empty.')
  return rows, lines


def _read_row(fields: list[str]) -> Row:
  if len(fields) != 2 + len(labels.VOTES):
    raise ValueError(f'expected 12 fields (name, face box, 10 votes), found {len(fields)}')
  name, box, *votes = fields
  if not re.fullmatch(r'\((\s*\d+\s*,){3}\s*\d+\s*\)', box):
    raise ValueError(f'the face box should be four numbers such as (0, 0, 48, 48), found {box!r}')
  if bad := [vote for vote in votes if not re.fullmatch(r'\d{1,6}', vote.strip())]:
    raise ValueError(f'the votes should be 10 whole numbers, found {", ".join(map(repr, bad))}')
  return Row(name, tuple(int(vote) for vote in votes))


def _raise_if(problems: list[str], what: str, hint: str = '') -> None:
  if problems:
    more = [f'... and {len(problems) - _SHOWN} more'] if len(problems) > _SHOWN else []
    raise UserError(f'{what} ({len(problems)}):\n  ' + '\n  '.join(problems[:_SHOWN] + more) + hint)
