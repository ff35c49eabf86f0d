"""The files of a data set as distributed, in a folder or in a zip."""

import collections
import csv
import functools
import io
import os
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fer_jax.data.image_file import ENDINGS
from fer_jax.errors import UserError
from fer_jax.runtime.paths import expand

_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError)


def how_to(module: str) -> str:
  """What HOW_TO.txt beside a module's file says: how a data set is obtained, and how its files must lie."""
  return Path(module).with_name('HOW_TO.txt').read_text(encoding='utf-8').rstrip('\n')


class File(NamedTuple):
  """A file on disk, or an entry of a zip; small, and known to other processes."""

  path: str  # Of the file, or of the zip.
  entry: str = ''

  def __str__(self) -> str:
    return f'{self.path}/{self.entry}' if self.entry else self.path

  def read(self) -> bytes:
    """The content.

    Raises:
      ValueError: it cannot be read; the message says why.
    """
    try:
      if self.entry:
        return _archive(self.path).read(self.entry)
      if os.path.exists(self.path) and not os.path.isfile(self.path):  # A pipe would never end.
        raise OSError('not a file')
      return Path(self.path).read_bytes()
    except _UNREADABLE as e:
      raise ValueError(f'unreadable ({e})') from e

  def lines(self) -> Iterator[tuple[int, str]]:
    """Yields the number, from 1, and the text of each line of the content that is not blank, ``composed``.

    Raises:
      UserError: it cannot be read, or is no UTF-8 text.
    """
    try:
      # Decoded line by line: as one text a large file would be in memory twice.
      for number, line in enumerate(io.TextIOWrapper(io.BytesIO(self.read()), 'utf-8-sig'), 1):
        if line.strip():
          yield number, composed(line.rstrip('\n'))
    except ValueError as e:
      raise UserError(f'{self} cannot be read as UTF-8 text: {e}. Obtain the file anew.') from e

  def stamp(self) -> tuple[int, int]:
    """What changes when the content does, without reading it; (-1, -1) where the file is gone."""
    try:
      if self.entry:
        info = _archive(self.path).getinfo(self.entry)
        return info.file_size, info.CRC
      stat = os.stat(self.path)
      return stat.st_size, stat.st_mtime_ns
    except (KeyError, *_UNREADABLE):
      return -1, -1


class Tree:
  """The files below a folder, on disk or in a zip; hidden ones are left out."""

  def __init__(self, root: str, files: Mapping[str, File], how_to: str, notes: Sequence[str] = ()):
    """Makes a tree of files by path, in any order."""
    self.root = root  # The folder, as messages call it.
    # By their path from the root, with '/' on every machine and in Unicode's composed form, ascending.
    self.files = dict(sorted(files.items()))
    self.how_to = how_to  # How the data set is obtained and laid out; ends the messages.
    self.notes = notes  # What there is to say, in sentences.

  def lacks(self, what: str, hint: str = '') -> UserError:
    """The error that ``what`` is wrong with the tree; it says what lies there instead. ``hint`` is a whole line."""
    return UserError(f'{self.root} {what}; found there: {self.listing()}.\n{hint}{self.how_to}')

  def below(self, folder: str) -> 'Tree':
    """The files in ``folder``, which ends in '/' unless it is ''; there may be none."""
    if not folder:
      return self
    files = {path.removeprefix(folder): file for path, file in self.files.items() if path.startswith(folder)}
    return Tree(f'{self.root}/{folder.rstrip("/")}', files, self.how_to, self.notes)

  def level_of(self, pattern: str) -> 'Tree':
    """The part of the tree in which files match ``pattern``, a regex on paths, perhaps some levels down.

    Raises:
      UserError: there are several such parts.
    """
    found = {path[:match.start()] for path in self.files if (match := re.search(f'(?:^|(?<=/)){pattern}$', path))}
    if len(found) > 1:
      levels = ', '.join(sorted(level or './' for level in found))
      raise UserError(f'{self.root} holds the data set more than once: below {levels}. Keep one.')
    return self.below(found.pop() if found else '')

  def folders(self) -> list[str]:
    """Names of the folders directly below the root, ascending."""
    return sorted({path.partition('/')[0] for path in self.files if '/' in path})

  def images(self) -> dict[str, File]:
    """Those of the files whose names end as those of images do."""
    return {path: file for path, file in self.files.items() if path.lower().endswith(ENDINGS)}

  def others(self) -> list[str]:
    """A sentence that counts the other files, if there are some."""
    paths = [path for path in self.files if not path.lower().endswith(ENDINGS)]
    kinds = collections.Counter(os.path.splitext(path)[1].lower() or 'no ending' for path in paths)
    counts = ', '.join(f'{count:,} {kind}' for kind, count in kinds.most_common(5)) + ' ...' * (len(kinds) > 5)
    return [f'{self.root}: {len(paths):,} file(s) whose names do not end as those of images that are read here were '
            f'ignored ({counts}), e.g. {paths[0]}'] if paths else []

  def listing(self) -> str:
    """What lies directly below the root, in short."""
    names = sorted({path.partition('/')[0] + '/' * ('/' in path) for path in self.files})
    return ', '.join(names[:10]) + (f' and {len(names) - 10} more' if len(names) > 10 else '') or 'nothing'


def open_tree(path: str | None, how_to: str) -> Tree:
  """Lists the files of a folder or a zip.

  Args:
    path: of the folder or the zip.
    how_to: how the data set is obtained and laid out; ends the messages.

  Raises:
    UserError: no path, nothing there, something else there, a file whose name is not UTF-8, or two of one name.
  """
  if not path:
    raise UserError(how_to)
  path = expand(path).rstrip('/') or '/'
  if os.path.isdir(path):
    notes: list[str] = []
    names = _walk(path, notes)
    return Tree(path, _by_name(path, {name: File(os.path.join(path, name)) for name in names}), how_to, notes)
  if not os.path.exists(path):
    raise UserError(f'--source: {path} does not exist.\n{how_to}')
  try:
    names = _archive(path).namelist()
  except _UNREADABLE as e:
    raise UserError(f'--source: {path} is neither a folder nor a zip file, or a damaged one ({e}).\n{how_to}') from e
  files = {name: File(path, name) for name in names if not name.endswith('/') and not _hidden(name)}
  hidden = list(filter(_veiled, names))
  return Tree(path, _by_name(path, files), how_to, [_of_hidden(path, hidden)] if hidden else ())


def composed(text: str) -> str:
  """A name in Unicode's composed form (NFC); macOS writes a letter and its accent as two."""
  return unicodedata.normalize('NFC', text)


def fields_of(line: str, strict: bool = True) -> list[str]:
  """The fields of a line of a csv table; csv.Error where a quote is lost, which so spoils its own line alone."""
  return next(csv.reader([line], strict=strict, skipinitialspace=True), [])


def read_lines(lines: Iterable[tuple[int, str]], read: Callable[[str], Any],
               key: Callable[[Any], str] | None = None) -> tuple[list[tuple[int, Any]], list[str]]:
  """Makes something of every line of a table.

  Args:
    lines: as ``File.lines`` yields them.
    read: makes it of a line; ValueError or csv.Error says what is wrong with it.
    key: a name of what was made; no two lines may have the same.

  Returns:
    The number of each line and what was made of it, None where nothing could be; and why, as 'line 3: ...'.
  """
  made, problems, known = [], [], {}
  for number, line in lines:
    made.append((number, None))
    try:
      one = read(line)
      if key and (before := known.setdefault(key(one), number)) != number:
        raise ValueError(f'{key(one)} is already in line {before}')
      made[-1] = number, one
    except (ValueError, csv.Error) as e:
      problems.append(f'line {number}: {e}')
  return made, problems


def _by_name(root: str, files: Mapping[str, File]) -> dict[str, File]:
  named: dict[str, File] = {}
  for path, file in files.items():
    if (other := named.setdefault(composed(path), file)) != file:
      raise UserError(f'{root}: the names of {str(other)!a} and {str(file)!a} are written alike; rename one.')
  return named


def _walk(root: str, notes: list[str]) -> list[str]:
  """Paths from ``root`` of its files, and of those in folders that links lead to.

  Every folder is read once, those that lie below ``root`` first, and none that holds the link to it: a link is no way
  to a file that has a name already. Links that were not followed, and those to files read already, go to ``notes``.
  """
  paths, folder_links, file_links, seen = [], [], [], set()

  def fail(error: OSError) -> None:
    raise UserError(f'cannot list {error.filename}: {error.strerror}.') from error

  def read(top: str) -> None:
    for folder, folders, names in os.walk(top, onerror=fail):
      real = os.path.realpath(folder)
      if real in seen:
        unread.append(folder)
        folders.clear()
        continue
      seen.add(real)
      hidden.extend(os.path.join(folder, name) for name in sorted(folders) + sorted(names) if _veiled(name, folders))
      folders[:] = sorted(name for name in folders if not _hidden(name))
      below = [os.path.join(folder, name) for name in folders]
      folder_links.extend(filter(os.path.islink, below))
      for name in sorted(names):
        path = os.path.join(folder, name)
        try:
          path.encode()
        except UnicodeEncodeError as e:
          raise UserError(f'the name of {path!a} is not UTF-8 text; rename the file.') from e
        if not _hidden(name):
          paths.append(path)
          file_links.extend([path] if os.path.islink(path) else [])

  unread: list[str] = []
  hidden: list[str] = []
  read(root)
  for link in folder_links:  # It grows while folders are read.
    target, around, folder = os.path.realpath(link), set(), link
    while folder != root:
      folder = os.path.dirname(folder)
      around.add(os.path.realpath(folder))
    if any(f'{one}/'.startswith(target.rstrip('/') + '/') for one in around):
      unread.append(link)
    else:
      read(link)
  if hidden:
    notes.append(_of_hidden(root, hidden))
  if unread:
    notes.append(f'{root}: {len(unread):,} link(s) to folders that are read under another name, or that the links lie '
                 f'in, were not followed, e.g. {unread[0]}')
  if file_links:
    known = {os.path.join(os.path.realpath(folder), name)
             for folder, name in map(os.path.split, set(paths).difference(file_links))}
    twice = [path for path in file_links if (target := os.path.realpath(path)) in known or known.add(target)]
    if twice:
      notes.append(f'{root}: {len(twice):,} file(s) are links to others that are read too, which so count again, e.g. '
                   f'{twice[0]}')
  return [os.path.relpath(path, root).replace(os.sep, '/') for path in paths]


def _of_hidden(root: str, hidden: Sequence[str]) -> str:
  return f"{root}: {len(hidden):,} image(s) or folder(s) whose names begin with '.' were ignored, e.g. {hidden[0]}"


def _veiled(path: str, folders: Sequence[str] = ()) -> bool:
  """Whether what is left out for its name may be an image or hold some; macOS's own companions of files are none."""
  return (_hidden(path) and '__MACOSX' not in path.split('/') and not path.rpartition('/')[2].startswith('._')
          and (path in folders or path.lower().endswith(ENDINGS)))


def _hidden(path: str) -> bool:
  return any(part.startswith('.') or part == '__MACOSX' for part in path.split('/'))


@functools.cache
def _archive(path: str) -> zipfile.ZipFile:
  return zipfile.ZipFile(path)  # One for each process: listing a large one takes a second.
