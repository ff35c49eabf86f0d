"""Parts of a split that are scored apart: faces named by a list file.

A list file has one face a line: its name as the data set has it (``test/happy/my face.png``), the end of that name, or
a form of the lists of RAN (arXiv 1905.04075; kaiwang960112/Challenge-condition-FER-dataset), whose numbers are a label,
a number of classes and a kind of occlusion:

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
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from fer_jax.data.image_file import ENDINGS
from fer_jax.data.preparing.files import composed
from fer_jax.errors import UserError
from fer_jax.runtime.paths import expand


class Entry(NamedTuple):
  """A line of a list."""

  name: str
  label: int | None  # Where the line has one.
  line: str  # The whole, which may be a name of the data set's that looks like one of RAN's forms.


_FORMS = tuple(map(re.compile, (
    r'(?P<label>\d+)_(?P<name>\S+\.\w+) \d+ \d+',
    r'(?P<name>[^\s/]+) (?P<label>\d+) \d+',
    r'(?:val/)?(?P<label>\d+)/(?P<name>[^\s/]+)(?:/(?:\d+\.\w+)?)?',
    r'(?P<name>[^\s/]+)',
    r'(?P<name>.*[^/]/(?:[^/\s]+|[^/]+\.\w+))',
    rf'(?P<name>(?!\d+ )[^/]+(?i:{"|".join(map(re.escape, ENDINGS))}))',
)))


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
  """Which examples of a split a list names."""

  mask: np.ndarray  # bool (N,), the examples that are in the list.
  listed: int  # Lines of the list.
  duplicates: int  # Lines whose name an earlier line has.
  unmatched: int  # Names that no example of the split has, or several of them alike.
  disagreeing: int  # Examples whose label is another one in the list; they are in ``mask`` and keep the split's label.


def read_list(path: str | Path) -> list[Entry]:
  """Reads a list file; see the module's docstring. Line ends may be LF or CRLF, and empty lines are skipped.

  Returns:
    The entry of each line.

  Raises:
    UserError: no such file, nothing in it, or a line of another form; the message has the line's number.
  """
  try:
    text = Path(expand(path)).read_text(encoding='utf-8-sig')
  except (OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or 'it is no text in UTF-8, or that is no path'
    raise UserError(f'cannot read the subset list {path}: {reason}.') from error
  entries = []
  for number, line in enumerate(text.splitlines(), 1):
    line = composed(line.strip())
    if not line:
      continue
    found = next((m for form in _FORMS if (m := form.fullmatch(line))), None)
    if not found:
      raise UserError(f"{path}, line {number}: '{line}' names no face; write one file name a line, or use the "
                      'lists of RAN as they are (see fer_jax/data/reading/subsets.py).')
    label = found.groupdict().get('label')
    entries.append(Entry(found['name'], None if label is None else int(label), line))
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
  """The examples of a list in a split, see ``find``.

  Args:
    names: the split's N file names.
    labels: their labels, int (N,), -1 where unknown.
  """
  mask, found, unmatched, disagreeing = np.zeros(len(names), bool), set(), 0, 0
  for entry, row in zip(entries, find(entries, names), strict=True):
    key = entry.name if row is None else row
    label = entry.label if row is None or composed(names[row]) != entry.line else None
    if key in found:  # The first line of a face counts.
      continue
    found.add(key)
    if row is None:
      unmatched += 1
      continue
    mask[row] = True
    disagreeing += label is not None and labels[row] >= 0 and label != labels[row]
  return Subset(mask, len(entries), len(entries) - len(found), unmatched, int(disagreeing))


def find(entries: Sequence[Entry], names: Sequence[str]) -> list[int | None]:
  """The row of each entry in a split with these N file names: the one of exactly this name; else, since lists differ in
  folders and endings, the one whose name differs from it in these alone, see ``_nearest``; None where there is none."""
  exact, alike = {}, collections.defaultdict(list)
  for row, name in enumerate(map(composed, names)):
    exact[name] = row
    alike[PurePosixPath(name).stem].append((row, _folders(name)))
  return [exact[entry.line] if entry.line in exact else _nearest(entry, alike) for entry in entries]


def _nearest(entry: Entry, alike: Mapping[str, Sequence[tuple[int, list[str]]]]) -> int | None:
  """The row whose name is the entry's but for its ending and for outer folders that only one of them has, or, in RAN's
  lists, for any; None where there is none, or several that share as many folders."""
  stem, folders, near = PurePosixPath(entry.name).stem, _folders(entry.line), []
  for row, others in alike.get(stem, ()):
    shared = next((i for i, (ours, theirs) in enumerate(zip(folders, others, strict=False)) if ours != theirs),
                  min(len(folders), len(others)))
    if entry.label is not None or shared == min(len(folders), len(others)):
      near.append((shared, row))
  best = [row for shared, row in near if shared == max(near)[0]]
  return best[0] if len(best) == 1 else None


def _folders(name: str) -> list[str]:
  """The folders that a name is in, the innermost first."""
  return list(PurePosixPath(name).parts[-2::-1])
