"""Reads the three folders of FERPlus as distributed, and says precisely what is wrong with them."""

import re
from typing import NamedTuple

from fer_jax.data.builders.ferplus import labels
from fer_jax.data.preparing.files import File, Tree, fields_of, how_to, open_tree, read_lines
from fer_jax.errors import UserError, raise_if

FOLDERS = {'train': 'FER2013Train', 'valid': 'FER2013Valid', 'test': 'FER2013Test'}

HOW_TO = how_to(__file__)


class Row(NamedTuple):
  """One line of a label.csv."""

  name: str
  votes: tuple[int, ...]  # In the order of labels.VOTES.
  image: File


class Split(NamedTuple):
  """One of the three folders."""

  rows: list[Row]
  extra: list[str]  # Images without a line in label.csv.


def open_files(path: str | None) -> dict[str, Split]:
  """Reads the label.csv files of FERPlus at ``path``, a zip or a folder.

  Returns:
    The splits 'train', 'valid' and 'test'.

  Raises:
    UserError: no such path, something else lies there, a bad line, a repeated name, or a row without its image; the
      message names file and line.
  """
  tree = open_tree(path, HOW_TO)
  root = tree.level_of(rf'({"|".join(FOLDERS.values())})/(label\.csv|[^/]*\.png)')
  folders = root.folders()
  if missing := [folder for folder in FOLDERS.values() if folder not in folders]:
    fer2013 = any(name.endswith(('fer2013.csv', 'icml_face_data.csv')) for name in root.files)
    raise root.lacks(f'has no {" and no ".join(missing)}',
                     'This is FER2013 as Kaggle has it, without the votes of FERPlus.\n' * fer2013)
  return {split: _read_folder(root.below(f'{folder}/')) for split, folder in FOLDERS.items()}


def _read_folder(folder: Tree) -> Split:
  table = f'{folder.root}/label.csv'
  if 'label.csv' not in folder.files:
    raise UserError(f'{table} is missing.\n{HOW_TO}')
  lines, problems = read_lines(folder.files['label.csv'].lines(), _read_row, lambda row: row[0])
  raise_if(problems, f'bad lines in {table}')
  if not lines:
    raise UserError(f'{table} is empty.')
  rows = [Row(name, votes, folder.files[name]) for _, (name, votes) in lines if name in folder.files]
  hint = '' if rows else f'\nThere is no PNG in {folder.root}: run generate_training_data.py first.\n{HOW_TO}'
  raise_if([f'line {number}: {name}' for number, (name, _) in lines if name not in folder.files],
           f'{table} lists images that are not beside it', hint)
  listed = {name for _, (name, _) in lines}
  return Split(rows, [path for path in folder.images() if path not in listed])


def _read_row(line: str) -> tuple[str, tuple[int, ...]]:
  fields = fields_of(line)
  if len(fields) != 2 + len(labels.VOTES):
    raise ValueError(f'expected 12 fields (name, face box, 10 votes), found {len(fields)}')
  name, box, *votes = fields
  if not re.fullmatch(r'\((\s*\d+\s*,){3}\s*\d+\s*\)', box):
    raise ValueError(f'the face box should be four numbers such as (0, 0, 48, 48), found {box!r}')
  if bad := [vote for vote in votes if not re.fullmatch(r'\d{1,6}', vote.strip())]:
    raise ValueError(f'the votes should be 10 whole numbers, found {", ".join(map(repr, bad))}')
  return name, tuple(int(vote) for vote in votes)
