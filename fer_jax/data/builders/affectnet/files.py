"""Reads the two releases of AffectNet as distributed, and says precisely what is wrong with them."""

import collections
import csv
import dataclasses
import functools
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from fer_jax.data.preparing.files import File, Tree, how_to, open_tree, read_lines
from fer_jax.data.preparing.records import Box
from fer_jax.errors import UserError, raise_if
from fer_jax.runtime.paths import expand
from fer_jax.runtime.progress import progress

# By the numbers of the annotation; the last three are no classes.
EXPRESSIONS = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger', 'contempt', 'none',
               'uncertain', 'no-face')
CLASSES = EXPRESSIONS[:8]

# The first release.
IMAGES, LISTS = 'Manually_Annotated_Images', 'Manually_Annotated_file_lists'
TABLES = {'train': 'training.csv', 'valid': 'validation.csv'}
COLUMNS = ('subDirectory_filePath', 'face_x', 'face_y', 'face_width', 'face_height', 'facial_landmarks', 'expression',
           'valence', 'arousal')

# The second release.
FOLDERS = {'train': 'train_set', 'valid': 'val_set'}
PARTS = ('exp', 'val', 'aro', 'lnd')

HOW_TO = how_to(__file__)

# What is in the paths of a release, and what it is.
_RELEASES = {
    'csv': (rf'{IMAGES}/[^/]+/[^/]+|{LISTS}/[^/]+\.csv', 'the first release of AffectNet (csv lists)'),
    'npy': (r'(?:train|val)_set/(?:images|annotations)/[^/]+', 'the second release of AffectNet (npy annotations)'),
}
_COPY = r'(?:train|val|valid|test)/[0-7]/[^/]+'


class Face(NamedTuple):
  """One annotated face."""

  path: str  # Of its image in the folder of images.
  label: int  # Index into EXPRESSIONS.
  valence: float = math.nan  # In [-1, 1]; NaN where there is none. So is arousal.
  arousal: float = math.nan
  landmarks: np.ndarray | None = None  # float32 (68, 2) in pixels of the image.
  box: Box | None = None


@dataclasses.dataclass
class Split:
  """One of the two splits, and what is wrong with it."""

  where: str  # Its csv file or its folder.
  images: Mapping[str, File]  # By path.
  faces: list[Face] = dataclasses.field(default_factory=list)  # Those of the wanted classes whose image is there.
  # How many faces have another expression, by its name.
  dropped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  problems: list[str] = dataclasses.field(default_factory=list)  # Lines or annotations that cannot be used.
  missing: list[str] = dataclasses.field(default_factory=list)  # Those without image; images without annotations.
  extra: list[str] = dataclasses.field(default_factory=list)  # Images that no line of a csv file names.

  def add(self, face: Face, classes: int) -> None:
    """Takes a face, if its expression is among the first ``classes``."""
    if face.label < classes:
      self.faces.append(face)
    else:
      self.dropped[EXPRESSIONS[face.label]] += 1


def open_files(path: str | None, release: str, classes: int) -> dict[str, Split]:
  """Lists the faces of AffectNet at ``path``, a zip or a folder.

  Args:
    release: 'csv' (the first) or 'npy' (the second).
    classes: how many of ``CLASSES`` are wanted.

  Returns:
    The splits 'train' and 'valid'.

  Raises:
    UserError: no such path, something else than this release lies there, or a table or a folder is missing.
  """
  tree = open_tree(path, HOW_TO)
  pattern, _ = _RELEASES[release]
  if not _has(tree, pattern):
    for other, (its_pattern, name) in _RELEASES.items():
      if _has(tree, its_pattern):
        raise UserError(f'{tree.root} is {name}, which the variant {release}{classes} does not read: prepare it with '
                        f'--variant={other}{classes}.')
    if _has(tree, _COPY):
      named = ','.join(f'{i}:{name}' for i, name in enumerate(CLASSES))
      raise UserError(f'{tree.root} is a copy of AffectNet in folders of images, not a release. Prepare it with '
                      f'--dataset=faces_folder --classes={named}')
    raise tree.lacks('is not AffectNet')
  if release == 'csv':
    return _first_release(tree, classes)
  root = tree.level_of(pattern)
  return {split: _read_folder(root.below(f'{folder}/'), classes) for split, folder in FOLDERS.items()}


def _has(tree: Tree, pattern: str) -> bool:
  return any(re.search(f'(?:^|/)(?:{pattern})$', path) for path in tree.files)


def _first_release(tree: Tree, classes: int) -> dict[str, Split]:
  images = tree.level_of(f'{IMAGES}/[^/]+/[^/]+').below(f'{IMAGES}/').images()
  if not images:
    raise tree.lacks(f'has no images in a folder {IMAGES}')
  lists = tree.level_of(rf'{LISTS}/[^/]+\.csv').below(f'{LISTS}/')
  unlisted, splits = dict(images), {}
  for split, name in TABLES.items():
    if name not in lists.files:
      raise UserError(f'{lists.root}/{name} is missing; found there: {lists.listing()}.\n{HOW_TO}')
    splits[split] = _read_table(lists.files[name], images, unlisted, classes)
  splits['train'].extra = list(unlisted)
  return splits


def _read_table(table: File, images: Mapping[str, File], unlisted: dict[str, File], classes: int) -> Split:
  """Reads a csv file; takes the images that it names out of ``unlisted``."""
  name = PurePosixPath(str(table)).name
  rows, problems = read_lines(_lines(table), functools.partial(read_line, classes=classes), lambda face: face.path)
  split = Split(str(table), images, problems=[f'{name}, {problem}' for problem in problems])
  for number, face in rows:
    if face:
      unlisted.pop(face.path, None)
      if face.label < classes and face.path not in images:
        split.missing.append(f'{name}, line {number}: {face.path}')
      else:
        split.add(face, classes)
  return split


def _lines(table: File) -> list[tuple[int, str]]:
  """The number and text of each line that is neither blank nor the header; UserError where there is none."""
  lines = [(number, line) for number, line in table.lines()
           if not (number == 1 and line.lstrip('"').startswith(COLUMNS[0]))]
  if not lines:
    raise UserError(f'{table} is empty. Obtain the file anew.')
  return lines


def read_line(line: str, classes: int = len(CLASSES)) -> Face:
  """Reads a line of a csv file; of expressions from ``classes`` on, no more than path and expression.

  Raises:
    ValueError, csv.Error: it is not as it should be; the message says what is wrong.
  """
  fields = [field.strip() for field in next(csv.reader([line.strip()]))]
  if len(fields) != len(COLUMNS):
    raise ValueError(f'expected {len(COLUMNS)} fields ({", ".join(COLUMNS)}), found {len(fields)}')
  path, *box, landmarks, expression, valence, arousal = fields
  label = _label(expression, len(EXPRESSIONS))
  if label >= classes:
    return Face(path, label)
  x, y, width, height = (_number(text, math.nan) for text in box)
  if not (math.isfinite(x + y + width + height) and width > 0 and height > 0):
    raise ValueError(f'the face box should be x, y, width > 0, height > 0, found {", ".join(map(repr, box))}')
  return Face(path, label, _affect(valence, 'valence'), _affect(arousal, 'arousal'),
              _landmarks(landmarks.split(';')) if landmarks else None, (x, y, x + width, y + height))


def _number(text: str, otherwise: float) -> float:
  try:
    return float(text)
  except ValueError:
    return otherwise


def _label(text: str, end: int) -> int:
  if (label := _number(text, -1)) not in range(end):
    raise ValueError(f'the expression should be 0..{end - 1}, found {text!r}')
  return int(label)


def _affect(text: str, name: str) -> float:
  value = _number(text or 'nan', math.inf)
  if math.isnan(value) or value == -2:
    return math.nan
  if abs(value) > 1:
    raise ValueError(f'the {name} should be from -1 to 1, or -2 for none, found {text!r}')
  return value


def _landmarks(numbers: Sequence[str] | np.ndarray) -> np.ndarray:
  if np.size(numbers) != 136:
    raise ValueError(f'the landmarks should be 136 numbers, found {np.size(numbers)}')
  points = np.asarray(numbers, np.float32).reshape(68, 2)  # ValueError where they are no numbers.
  if not np.isfinite(points).all():
    raise ValueError('the landmarks should be finite numbers')
  return points


def _read_folder(folder: Tree, classes: int) -> Split:
  annotations, images = folder.below('annotations/'), folder.below('images/').images()
  for name, files in (('annotations', annotations.files), ('images', images)):
    if not files:
      raise folder.lacks(f'has no {name}')
  split, by_id = Split(folder.root, images), {}
  for path in images:
    if (other := by_id.setdefault(path.rpartition('.')[0], path)) != path:
      split.missing.append(f'images/{path} has no annotation of its own: it is those of {other}')
  parts = collections.defaultdict(dict)
  for path, file in annotations.files.items():
    if match := re.fullmatch(rf'([0-9]+)_({"|".join(PARTS)})\.npy', path):
      parts[match[1]][match[2]] = file
  split.missing += [f'images/{path} has no annotation' for id_, path in by_id.items() if id_ not in parts]
  for id_ in progress(sorted(parts, key=int), desc=f'reading {folder.root}', unit='face'):
    if lacking := [f'annotations/{id_}_{part}.npy' for part in PARTS if part not in parts[id_]]:
      split.missing.append(f'{", ".join(lacking)}: not there')
    elif id_ not in by_id:
      split.missing.append(f'images/{id_}.jpg: not there')
    else:
      try:
        split.add(_read_annotation(by_id[id_], parts[id_], classes), classes)
      except ValueError as e:
        split.problems.append(str(e))
  return split


def _read_annotation(path: str, parts: Mapping[str, File], classes: int) -> Face:
  """Reads the four files of a face, of expressions from ``classes`` on the first; ValueError names one that is bad."""
  def read(part, convert, *args):
    try:
      array = np.lib.format.read_array(io.BytesIO(parts[part].read()), allow_pickle=False)
      return convert(array if part == 'lnd' else str(array.item()), *args)
    except Exception as e:  # A broken header makes NumPy raise almost anything.
      raise ValueError(f'{parts[part]}: {e}') from e

  label = read('exp', _label, len(CLASSES))
  if label >= classes:
    return Face(path, label)
  return Face(path, label, read('val', _affect, 'valence'), read('aro', _affect, 'arousal'), read('lnd', _landmarks))


def names_in_first_release(path: str, faces: Sequence[Face]) -> dict[str, str]:
  """The names that validation images of the second release have in the first, by their path.

  The number of an image is its line in the first release's validation.csv, counted from 0 at the second face: the first
  was taken for a header and is the one that the second release lacks.

  Args:
    path: of the first release's validation.csv.
    faces: of the second release's validation split.

  Raises:
    UserError: the file cannot be read, or its expressions are not those of the faces.
  """
  rows = _lines(File(expand(path)))[1:]
  names, problems = {}, []
  for face in faces:
    try:
      number, line = rows[int(face.path.partition('.')[0])]
      first = read_line(line, classes=0)
      if first.label != face.label:
        raise ValueError(f'{EXPRESSIONS[face.label]}, but {EXPRESSIONS[first.label]} in line {number}')
      names[face.path] = f'{PurePosixPath(first.path).stem}.jpg'
    except IndexError:
      problems.append(f'{face.path}: there is no such line, the file has {len(rows) + 1:,} faces')
    except (ValueError, csv.Error) as e:
      problems.append(f'{face.path}: {e}')
  raise_if(problems, f'--first_release: {path} does not agree with the second release', '\nGive validation.csv of the '
           'first release as distributed, or leave the option away.')
  return names
