"""Parts of a split that are scored apart: faces named by a list file.

A list file has one face a line: a plain file name, or one of the forms of the lists of RAN (arXiv 1905.04075;
kaiwang960112/Challenge-condition-FER-dataset), whose numbers are a label, a number of classes and a kind of occlusion:

    1_fer0034656.png 8 0        FERPlus, occlusion: label_name, classes, occlusion
    0/fer0032226.jpg            FERPlus, pose: label/name
    test_0003_aligned 3 4       RAF-DB, occlusion: name, label, occlusion
    0/test_0004_aligned.jpg     RAF-DB, pose
    val/0/0f3c...e1/            AffectNet, occlusion
    0/0f3c...e1.jpg             AffectNet, pose
    7/0f3c...e1/8.jpg           AffectNet, pose: label/name/crop
"""

import collections
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from fer_jax.errors import UserError

Entry = tuple[str, int | None]  # Name and label.

_FORMS = tuple(map(re.compile, (
    r'(?P<label>\d+)_(?P<name>\S+\.\w+) \d+ \d+',
    r'(?P<name>[^\s/]+) (?P<label>\d+) \d+',
    r'(?:val/)?(?P<label>\d+)/(?P<name>[^\s/]+)(?:/(?:\d+\.\w+)?)?',
    r'(?P<name>[^\s/]+)',
)))


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
  """Which examples of a split a list names."""

  mask: np.ndarray  # bool (N,), the examples that are in the list.
  listed: int  # Lines of the list.
  duplicates: int  # Lines whose name an earlier line has.
  unmatched: int  # Names that no example of the split has, or several.
  disagreeing: int  # Examples whose label is another one in the list; they are in ``mask`` and keep the split's label.


def read_list(path: str | Path) -> list[Entry]:
  """Reads a list file; see the module's docstring. Line ends may be LF or CRLF, and empty lines are skipped.

  Returns:
    (name as written, label or None) for each line.

  Raises:
    UserError: no such file, nothing in it, or a line of another form; the message has the line's number.
  """
  try:
    text = Path(path).expanduser().read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, 'strerror', None) or 'it is no text'
    raise UserError(f'cannot read the subset list {path}: {reason}.') from error
  entries = []
  for number, line in enumerate(text.splitlines(), 1):
    if not line.strip():
      continue
    found = next((m for form in _FORMS if (m := form.fullmatch(line.strip()))), None)
    if not found:
      raise UserError(f"{path}, line {number}: '{line.strip()}' names no face; write one file name a line, or use the "
                      'lists of RAN as they are (see fer_jax/data/reading/subsets.py).')
    label = found.groupdict().get('label')
    entries.append((found['name'], None if label is None else int(label)))
  if not entries:
    raise UserError(f'the subset list {path} is empty.')
  return entries


def read_lists(paths: Sequence[str | Path]) -> dict[str, list[Entry]]:
  """Reads several lists, each named by its file's name without the ending; a path given twice is read once.

  Raises:
    UserError: see ``read_list``, or two files have the same name.
  """
  lists: dict[str, list[Entry]] = {}
  for path in dict.fromkeys(map(Path, paths)):
    if path.stem in lists:
      raise UserError(f"two subset lists are called '{path.stem}'; rename one, results are filed by this name.")
    lists[path.stem] = read_list(path)
  return lists


def match(entries: Sequence[Entry], names: Sequence[str], labels: np.ndarray) -> Subset:
  """Finds the examples of a list in a split. Names are compared without folder and ending: lists differ in both.

  Args:
    names: the split's N file names.
    labels: their labels, int (N,), -1 where unknown.
  """
  rows = collections.defaultdict(list)
  for row, name in enumerate(names):
    rows[_stem(name)].append(row)
  mask, unmatched, disagreeing = np.zeros(len(names), bool), 0, 0
  listed = {_stem(name): label for name, label in reversed(entries)}  # The first line of a name counts.
  for stem, label in listed.items():
    if len(rows.get(stem, ())) != 1:
      unmatched += 1
      continue
    row = rows[stem][0]
    mask[row] = True
    disagreeing += label is not None and labels[row] >= 0 and label != labels[row]
  return Subset(mask, len(entries), len(entries) - len(listed), unmatched, int(disagreeing))


def _stem(name: str) -> str:
  return PurePosixPath(name).stem
