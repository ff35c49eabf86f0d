"""Reads a folder of images with a folder for each split and each class, and says precisely what is wrong with it."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fer_jax.data import face
from fer_jax.data.image_file import ENDINGS
from fer_jax.data.preparing.files import File, composed, how_to, open_tree
from fer_jax.data.preparing.records import Listed
from fer_jax.errors import UserError, nearest, raise_if

# The split of a folder, by its name in lower case.
SPLITS = {'train': 'train', 'val': 'valid', 'valid': 'valid', 'validation': 'valid', 'test': 'test'}

HOW_TO = how_to(__file__)


class Faces(NamedTuple):
  """The images of a folder, by split, by class folder and by path from ``root``; all in ascending order."""

  root: str
  splits: dict[str, dict[str, dict[str, File]]]
  notes: list[str]  # What there is to say.


def open_files(path: str | None, how_to: str = HOW_TO) -> Faces:
  """Lists the images of the splits 'train', 'valid' and 'test', those there are.

  Args:
    path: a zip or a folder; the folders of the splits may lie some levels down.
    how_to: how the data set is laid out; ends the messages.

  Raises:
    UserError: no such path, no folder of a split, two of the same split, or an image that is in no class.
  """
  tree = open_tree(path, how_to)
  tree = tree.level_of(rf'(?i:({"|".join(SPLITS)})/.*({"|".join(map(re.escape, ENDINGS))}))')
  folders: dict[str, str] = {}
  for folder in tree.folders():
    if split := SPLITS.get(folder.lower()):
      if folders.setdefault(split, folder) != folder:
        raise UserError(f'{tree.root} has {folders[split]}/ and {folder}/, which are both the split {split}. Keep one.')
  trees = {split: tree.below(f'{folders[split]}/') for split in ('train', 'valid', 'test') if split in folders}
  images = {split: below.images() for split, below in trees.items()}
  images = {split: files for split, files in images.items() if files}
  if not images:
    raise tree.lacks('has no folder train, val or test with images')
  stray = [f'{folders[split]}/{name}' for split, files in images.items() for name in files if '/' not in name]
  raise_if(stray, f'{tree.root}: each image belongs in SPLIT/CLASS/, where CLASS is its expression; these are in no '
           'class')
  splits: dict[str, dict[str, dict[str, File]]] = {}
  for split, files in images.items():
    splits[split] = {}
    for name, file in files.items():
      splits[split].setdefault(name.partition('/')[0], {})[f'{folders[split]}/{name}'] = file
  ignored = [name for name in tree.images() if name.partition('/')[0] not in folders.values()]
  notes = [*tree.notes, *(note for below in trees.values() for note in below.others())]
  if ignored:
    notes.append(f'{len(ignored):,} image(s) outside of the folders of the splits were ignored, e.g. {ignored[0]}')
  return Faces(tree.root, splits, notes)


def listed(faces: Faces, labels: Mapping[str, int], hint: str) -> dict[str, list[Listed]]:
  """The faces of every split, in the order of their paths, which are their names.

  Args:
    labels: by class folder.
    hint: what to do about other folders.

  Raises:
    UserError: there are class folders without a label.
  """
  unknown = [f'{split}: {folder} ({len(images):,} image(s))' for split, folders in faces.splits.items()
             for folder, images in folders.items() if folder not in labels]
  raise_if(unknown, f'{faces.root}: folders that are no class', f'\n{hint}')
  return {split: [Listed(name, file, labels[folder]) for folder, images in folders.items()
                  for name, file in images.items()] for split, folders in faces.splits.items()}


def read_classes(classes: Sequence[str]) -> dict[str, str]:
  """The class of each class folder, in the order of the labels; canonical names where they are expressions.

  Args:
    classes: each a folder, or FOLDER:EXPRESSION.

  Raises:
    UserError: an empty name, or a folder or a class that occurs twice.
  """
  names: dict[str, str] = {}
  problems = []
  for one in classes:
    folder, _, name = (part.strip() for part in composed(one).rpartition(':'))
    folder, name = folder or name, face.canonical(name) or name
    if not name:
      problems.append(f'{one!r} names no class')
    elif folder in names:
      problems.append(f'the folder {folder} is named twice')
    elif name in names.values():
      other = next(key for key, value in names.items() if value == name)
      problems.append(f'the folders {other} and {folder} are both {name}: put their images into one folder')
    else:
      names[folder] = name
  raise_if(problems, f'--classes={",".join(classes)}: each class is one folder, unlike these')
  return names


def check_classes(faces: Faces, classes: Sequence[str]) -> list[str]:
  """Checks that each of the class folders ``classes`` is there.

  Returns:
    What there is to say about splits other than train that lack some.

  Raises:
    UserError: no class folders are given, or train lacks some.
  """
  if not classes:
    raise UserError(f'faces_folder needs --classes: the order of the labels is yours to choose. {_proposal(faces)}')
  notes = []
  for split, folders in faces.splits.items():
    missing = [folder for folder in classes if folder not in folders]
    if split == 'train':
      raise_if([f'{folder}{nearest(folder, folders)}' for folder in missing],
               f'{faces.root}: class folders of --classes without an image in train')
    elif missing:
      notes.append(f'{split} has no face of the class folder(s) {", ".join(missing)}.')
  return notes


def _proposal(faces: Faces) -> str:
  """The class folders there are, and a --classes line for them."""
  folders = {folder for split in faces.splits.values() for folder in split}
  # Expressions in the order of this project, then numbers, then other names.
  found = sorted(folders, key=lambda name: (
      face.EXPRESSIONS.index(face.canonical(name)) if face.canonical(name) else len(face.EXPRESSIONS),
      not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
  numbers = any(name.isdecimal() for name in found)
  line = ','.join(f'{name}:EXPRESSION' if name.isdecimal() else name for name in found)
  hint = ('only the owner of the images knows what the numbers mean; write the expression of each into its place'
          if numbers else 'put them into the order that you want')
  return f'{faces.root} has the folders {", ".join(found)}: {hint}, e.g.\n  {shlex.quote(f"--classes={line}")}'
