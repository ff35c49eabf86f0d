"""Reads FEC, two csv files of triplets and an index of cropped faces, and says precisely what is wrong with them."""

import collections
import operator
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from fer_jax.data import triplets
from fer_jax.data.preparing.files import File, fields_of, how_to, open_tree, read_lines
from fer_jax.errors import UserError, raise_if

FILES = {'train': 'faceexp-comparison-data-train-public.csv', 'test': 'faceexp-comparison-data-test-public.csv'}
INDEX = 'index.csv'
COLUMNS = ('url', 'left', 'right', 'top', 'bottom', 'file')

# What becomes of a triplet that can be read.
OUTCOMES = ('tie', 'missing image', 'unreadable image', 'kept')

HOW_TO = how_to(__file__)

_TYPES = {f'{name.upper()}_TRIPLET': name for name in triplets.TYPES}
_BEYOND = 0.1  # A box may reach this far out of its photo, in fractions of the photo.


class Face(NamedTuple):
  """A face: a photo, and a box in it as fractions of the photo's width and height, to 6 decimals."""

  url: str
  left: float
  right: float
  top: float
  bottom: float


class Triplet(NamedTuple):
  """One line of a csv file."""

  faces: tuple[Face, Face, Face]
  type: str  # One of triplets.TYPES.
  votes: tuple[int, int, int]  # How many raters found that face to be the odd one out.

  @property
  def odd(self) -> int | None:
    """Which face has more votes than each of the others; None where none has."""
    most = max(self.votes)
    return self.votes.index(most) if self.votes.count(most) == 1 else None


class Split:
  """One of the two csv files, and what becomes of its triplets."""

  def __init__(self, table: File, index: Mapping[Face, str], images: Mapping[str, File]):
    """Reads the csv file.

    Args:
      index: where the images of faces are said to be, relative to the data set's folder.
      images: the files that are there, by such paths.

    Raises:
      UserError: the file is empty or not UTF-8.
    """
    self.table, self.images = table, images
    known = {}

    def read(line: str) -> Triplet:
      triplet = read_row(fields_of(line))
      # Equal faces become one object, which saves memory: a face is in ten triplets or so.
      return triplet._replace(faces=tuple(known.setdefault(face, face) for face in triplet.faces))

    rows, problems = read_lines(table.lines(), read)
    if not rows:
      raise UserError(f'{table} is empty. Obtain the file anew.\n{HOW_TO}')
    self._triplets = [triplet for _, triplet in rows if triplet]
    self.malformed = [f'{PurePosixPath(str(table)).name}, {problem}' for problem in problems]  # No triplets.
    self.faces = list(known)  # Of its triplets, in the order of the lines.
    self.files = {face: index[face] for face in known if index.get(face) in images}  # Paths of images that are there.
    self.unreadable = set()  # Faces whose image turned out to be so; whoever reads them says it.

  def kept(self) -> list[Triplet]:
    """The triplets that have a majority and three images which are not known to be unreadable.

    Raises:
      UserError: there are none; the message says what became of those that are listed.
    """
    kept = [triplet for triplet in self._triplets if self._outcome(triplet) == 'kept']
    if not kept:
      counts = collections.Counter(map(self._outcome, self._triplets))
      reasons = [f'{len(self.malformed):,} malformed', *(f'{counts[what]:,} {what}' for what in OUTCOMES[:-1])]
      example = f' The first malformed one: {self.malformed[0]}.' if self.malformed else ''
      raise UserError(f'no triplet is left of {len(self._triplets) + len(self.malformed):,} in {self.table}: '
                      f'{", ".join(reasons)}.{example} Check that {INDEX} has URLs and boxes as they are '
                      'in the csv file, and paths of images that are there.')
    return kept

  def decided(self) -> list[Triplet]:
    """The triplets that have a majority, whether their images are there or not."""
    return [triplet for triplet in self._triplets if triplet.odd is not None]

  def name(self, face: Face) -> str:
    """What a face is called: its file, or its URL and box where there is none."""
    return self.files.get(face) or ' '.join(map(str, face))

  def coverage(self) -> str:
    """A table of what became of the triplets, by type; the type of a malformed line is unknown."""
    counts = collections.Counter((self._outcome(triplet), triplet.type) for triplet in self._triplets)
    rows = {outcome: [counts[outcome, kind] for kind in triplets.TYPES] for outcome in OUTCOMES}
    listed, malformed = map(sum, zip(*rows.values(), strict=True)), len(self.malformed)
    table = [('', *triplets.TYPES, 'total'), ('listed', *listed, len(self._triplets) + malformed),
             ('malformed', *'-' * len(triplets.TYPES), malformed)]
    table += [(name, *row, sum(row)) for name, row in rows.items()]
    text = lambda cell: f'{cell:,}' if isinstance(cell, int) else cell
    return ''.join(f'{name:<18}' + ''.join(f'{text(cell):>13}' for cell in cells) + '\n' for name, *cells in table)

  def _outcome(self, triplet: Triplet) -> str:
    """One of ``OUTCOMES``, the first that applies."""
    if triplet.odd is None:
      return 'tie'
    if any(face not in self.files for face in triplet.faces):
      return 'missing image'
    return 'kept' if self.unreadable.isdisjoint(triplet.faces) else 'unreadable image'


def open_files(path: str | None) -> dict[str, Split]:
  """Opens FEC at ``path``, a folder or a zip; its csv files may lie in a folder FEC_dataset in it.

  Returns:
    The splits 'train' and 'test'.

  Raises:
    UserError: there is no such folder, a file is missing or cannot be read, or the index has a bad line; the message
      names file and line.
  """
  tree = open_tree(path, HOW_TO)
  inner = 'FEC_dataset/' * any(f'FEC_dataset/{name}' in tree.files for name in FILES.values())
  needed = [*(inner + name for name in FILES.values()), INDEX]
  if missing := [name for name in needed if name not in tree.files]:
    raise tree.lacks(f'has no {" and no ".join(missing)}')
  index = _read_index(tree.files[INDEX])
  return {split: Split(tree.files[inner + name], index, tree.files) for split, name in FILES.items()}


def read_row(fields: list[str]) -> Triplet:
  """Makes a triplet of the fields of a line.

  Args:
    fields: three times URL, left, right, top, bottom; the type; for each rater an id and which face is the odd one out,
      '1' to '3'.

  Raises:
    ValueError: the fields are something else; the message says what.
  """
  annotations = fields[17::2]
  if len(fields) < 18 or len(fields) % 2:
    raise ValueError('expected 16 fields (URL and box of three faces, type) and a pair (rater, annotation) for each '
                     f'rater, found {len(fields)} fields')
  faces = tuple(_face(fields[5 * k:5 * k + 5]) for k in range(3))
  if len(set(faces)) < 3:
    raise ValueError('the same face occurs twice')
  if fields[15] not in _TYPES:
    raise ValueError(f'the type should be one of {", ".join(_TYPES)}, found {fields[15]!r}')
  if bad := [annotation for annotation in annotations if annotation not in ('1', '2', '3')]:
    raise ValueError(f'the annotations should be 1, 2 or 3, found {", ".join(map(repr, bad))}')
  return Triplet(faces, _TYPES[fields[15]], tuple(annotations.count(k) for k in '123'))


def _face(fields: list[str]) -> Face:
  url, *box = fields
  try:
    left, right, top, bottom = (round(float(number), 6) for number in box)
    good = all(-_BEYOND <= low < high <= 1 + _BEYOND for low, high in ((left, right), (top, bottom)))
  except ValueError:
    good = False
  if not url or not good:
    raise ValueError('a face should be a URL and left < right, top < bottom as fractions of the photo, found '
                     f'{", ".join(map(repr, fields))}')
  return Face(url, left, right, top, bottom)


def _read_index(table: File) -> dict[Face, str]:
  """The image of each face."""
  files, faces, lines = {}, {}, {}
  rows = table.lines()
  first, header = next(rows, (0, ''))
  if not first:
    raise UserError(f'{table} is empty. Write the file anew.\n{HOW_TO}')
  if tuple(fields_of(header, strict=False)) != COLUMNS:
    raise UserError(f'{table}, line {first}: the header should be {",".join(COLUMNS)}, found {header!r}.\n{HOW_TO}')

  def read(line: str) -> tuple[Face, str]:
    fields = fields_of(line)
    if len(fields) != len(COLUMNS):
      raise ValueError(f'expected {len(COLUMNS)} fields ({", ".join(COLUMNS)}), found {len(fields)}')
    file = PurePosixPath(fields[5])
    if not file.name or file.is_absolute() or '..' in file.parts:
      raise ValueError(f'the file should be a path relative to that of {INDEX} and within it, found {fields[5]!r}')
    return _face(fields[:5]), file.as_posix()

  rows, problems = read_lines(rows, read)
  for number, (face, file) in filter(operator.itemgetter(1), rows):
    if files.setdefault(face, file) != file:
      problems.append(f'line {number}: this face is already in line {lines[face]}, with another file: {files[face]}')
    elif (other := faces.setdefault(file, face)) != face:
      problems.append(f'line {number}: {file} is already in line {lines[other]}, for another face')
    lines.setdefault(face, number)
  raise_if(problems, f'bad lines in {table}', '\nCorrect them: a face, a URL and a box in the photo, has one image of '
            'its own.')
  return files
