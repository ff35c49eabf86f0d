"""Reads the basic set of RAF-DB as distributed, and says precisely what is wrong with it."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fer_jax.data.preparing.files import File, Tree, how_to, open_tree, read_lines
from fer_jax.data.preparing.records import Box, Listed
from fer_jax.errors import UserError

CLASSES = ('surprise', 'fear', 'disgust', 'happiness', 'sadness', 'anger', 'neutral')  # Labels 1 to 7 of the list.
VARIANTS = {'aligned': '_aligned.jpg', 'original': '.jpg'}  # Folders of Image/, and how their files' names end.
SPLITS = ('train', 'test')  # How names begin.

HOW_TO = how_to(__file__)

_TABLE = r'EmoLabel/list_par?tition_label\.txt'
_COPY = r'(train|test)/[1-7]/[^/]+'
CODES = {'gender': 2, 'race': 2, 'age': 4}  # Of an annotation, with the largest.
_POINTS = 10  # Numbers of the five points in an annotation.


class Found(NamedTuple):
  """What was read."""

  table: str  # The list of names and labels, as messages call it.
  faces: list[Listed]
  problems: list[str]  # Lines of the list that cannot be used.
  notes: list[str]


class _Folder(NamedTuple):
  root: str  # As messages call it.
  ending: str
  files: Mapping[str, File]  # By stem; none where the folder is not there.

  def of(self, stem: str) -> File:
    if stem not in self.files:
      raise ValueError(f'{stem}{self.ending} is not in {self.root}')
    return self.files[stem]


def open_files(path: str | None, variant: str) -> Found:
  """Reads RAF-DB at ``path``, a zip or a folder.

  Raises:
    UserError: no such path, something else lies there, a zip is still packed, or there is no image at all.
  """
  tree = open_tree(path, HOW_TO)
  # The compound set has the same layout and other labels.
  basic = {name: file for name, file in tree.files.items() if 'compound' not in name.split('/')[:-1]}
  root = Tree(tree.root, basic, HOW_TO).level_of(_TABLE)
  table = next((file for name, file in root.files.items() if re.fullmatch(_TABLE, name)), None)
  if table is None:
    raise _no_table(root)
  images = _folder(root, f'Image/{variant}', VARIANTS[variant])
  if not images.files:
    others = ''.join(f' There are images in Image/{other}: prepare them with --variant={other}.' for other in VARIANTS
                     if _folder(root, f'Image/{other}', VARIANTS[other]).files)
    raise UserError(f'{images.root} has no images *{images.ending}.{others}\n{HOW_TO}')
  manual = _folder(root, 'Annotation/manual', '_manu_attri.txt')
  boxes = _folder(root, 'Annotation/boundingbox', '_boundingbox.txt') if variant == 'original' else None
  listed = set()

  def read(line: str) -> Listed:
    stem, label = _read_line(line)
    listed.add(stem)
    box = _read_box(boxes.of(stem)) if boxes and boxes.files else None
    points, codes = _read_attributes(manual.files[stem]) if stem in manual.files else (None, (-1,) * len(CODES))
    # Released points are of the original photos.
    return Listed(f'{stem}_aligned.jpg', images.of(stem), label, box, points=points if boxes else None,
                  extra=dict(zip(CODES, codes, strict=True)))

  rows, problems = read_lines(table.lines(), read, lambda face: face.name.replace('_aligned.', '.'))
  if not rows:
    raise UserError(f'{table} lists no image. Obtain the file anew.')
  faces, notes = [face for _, face in rows if face], []
  if extra := sorted(images.files.keys() - listed):
    notes.append(f'{len(extra):,} image(s) of {images.root} are not in the list and were ignored, e.g. {extra[0]}')
  if boxes and not boxes.files:
    notes.append(f'{boxes.root} is not there: images are whole photos, not cut to the face.')
  if unknown := [face.name.removesuffix('_aligned.jpg') for face in faces if face.extra['gender'] < 0]:
    notes.append(f'{len(unknown):,} face(s) have no manual points, gender, race and age in {manual.root}, e.g. '
                 f'{unknown[0]}{manual.ending}')
  return Found(str(table), faces, problems, notes)


def _no_table(root: Tree) -> UserError:
  if any(re.search(f'(^|/){_COPY}$', name) for name in root.files):
    classes = ','.join(f'{i}:{name}' for i, name in enumerate(CLASSES, 1))
    return UserError(f'{root.root} is not RAF-DB as distributed but a copy sorted into folders train/1 to test/7. '
                     f'Prepare it with\n  --dataset=faces_folder --source={root.level_of(_COPY).root} '
                     f'--classes={classes}')
  return root.lacks('has no EmoLabel/list_patition_label.txt')


def _folder(root: Tree, folder: str, ending: str) -> _Folder:
  """The files of a folder, or of one of the same name in it, as some programs unpack; UserError where it is packed."""
  found = root.below(f'{folder}/').level_of(rf'[^/]+{re.escape(ending)}')
  files = {name.removesuffix(ending): file for name, file in found.files.items() if name.endswith(ending)}
  packed = f'/{folder.rpartition("/")[2]}.zip'
  if not files and (zips := [name for name in root.files if f'/{name}'.endswith(packed)]):
    raise UserError(f'{root.root}/{zips[0]} is still packed; unpack it, so that there are '
                    f'{root.root}/{folder}/train_00001{ending} and so on.')
  return _Folder(found.root, ending, files)


def _read_line(line: str) -> tuple[str, int]:
  fields = line.split()
  if len(fields) != 2:
    raise ValueError(f'expected 2 fields (name, label), found {len(fields)}: {line!r}')
  name, label = fields
  if not re.fullmatch(rf'({"|".join(SPLITS)})_.+\.jpg', name):
    raise ValueError(f'a name should be such as train_00001.jpg or test_0001.jpg, found {name!r}')
  if not re.fullmatch('[1-7]', label):
    raise ValueError(f'a label of the basic set should be 1 to 7, found {label!r}')
  return name.removesuffix('.jpg'), int(label) - 1


def _read_box(file: File) -> Box:
  left, top, right, bottom = box = _numbers(file, 4, '4 numbers (left, top, right, bottom)')
  if left >= right or top >= bottom:
    raise ValueError(f'{file}: the face box {box} is empty; expected left, top, right, bottom')
  return box


def _read_attributes(file: File) -> tuple[np.ndarray, tuple[int, ...]]:
  """Five points (5, 2) in pixels of the original image, as ``align.TEMPLATE`` has them, and the codes."""
  numbers = _numbers(file, 13, '13 numbers (5 points, gender, race, age)')
  codes = numbers[_POINTS:]
  for (name, most), code in zip(CODES.items(), codes, strict=True):
    if code not in range(most + 1):
      raise ValueError(f'{file}: the {name} should be 0 to {most}, found {code:g}')
  return _from_the_left(np.reshape(numbers[:_POINTS], (5, 2))), tuple(map(int, codes))


def _numbers(file: File, count: int, what: str) -> tuple[float, ...]:
  """The numbers in a file, separated by white space; ValueError where it has something else or cannot be read."""
  try:
    content = file.read()
  except ValueError as e:
    raise ValueError(f'{file}: {e}') from e
  try:
    numbers = tuple(map(float, content.split()))
  except ValueError:
    numbers = ()
  if len(numbers) != count or not np.isfinite(numbers).all():
    raise ValueError(f'{file}: expected {what}, found {content[:60].decode(errors="replace")!r}')
  return numbers


def _from_the_left(points: np.ndarray) -> np.ndarray:
  """Eyes, nose and mouth (5, 2) with the image's left first: whose left comes first in the files is nowhere said."""
  across, down = points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)
  return points if across[0] * down[1] >= across[1] * down[0] else points[[1, 0, 2, 4, 3]]
