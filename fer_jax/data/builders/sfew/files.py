"""Reads the folders of SFEW 2.0 as distributed, and says precisely what is wrong with them."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from fer_jax.data import face
from fer_jax.data.image_file import decode
from fer_jax.data.preparing.files import File, Tree, how_to, open_tree
from fer_jax.data.preparing.records import Listed
from fer_jax.errors import UserError, raise_if

CLASSES = ('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')  # The folders, sorted.
SPLITS = {'train': 'Train', 'valid': 'Val', 'test': 'Test'}  # How names of folders begin.

HOW_TO = how_to(__file__)

_FRAME = (576, 720)  # Height and width of a whole frame.


class Found(NamedTuple):
  """What was read."""

  splits: dict[str, list[Listed]]  # The test split may be empty.
  notes: list[str]


_Folders = Mapping[str, Mapping[str, File]]  # Images by name, by the path of their folder.


def open_files(path: str | None) -> Found:
  """Finds the images of SFEW at ``path``, a zip or a folder.

  Raises:
    UserError: no such path, something else lies there, images of a split lie in several places, a class is missing,
      or a folder is no class.
  """
  tree = open_tree(path, HOW_TO)
  found: dict[str, dict[str, dict[str, File]]] = {split: {} for split in SPLITS}
  outside = []
  for image, file in tree.images().items():
    folder, _, name = image.rpartition('/')
    if split := _split(folder):
      found[split].setdefault(folder, {})[name] = file
    else:
      outside.append(image)
  splits, notes = {}, []
  if outside:
    notes.append(f'{len(outside):,} image(s) in no folder Train..., Val... or Test... were ignored, e.g. {outside[0]}')
  for split, folders in found.items():
    aligned = {folder: images for folder, images in folders.items() if 'aligned' in folder.lower()}
    if folders and not aligned:
      _check_no_frames(tree, split, folders)
      notes.append(f'No folder of {split} has Aligned in its name; its images are taken for aligned faces.')
    folders = aligned or folders
    splits[split] = _read_test(tree, folders) if split == 'test' else _read_split(tree, split, folders)
  return Found(splits, notes)


def _split(folder: str) -> str | None:
  """The split that the innermost folder of such a name belongs to."""
  for part in reversed(folder.lower().split('/')):
    for split, begin in SPLITS.items():
      if part.startswith(begin.lower()):
        return split
  return None


def _check_no_frames(tree: Tree, split: str, folders: _Folders) -> None:
  file = next(file for images in folders.values() for file in images.values())
  try:
    size = decode(file.read()).shape[:2]
  except ValueError:  # Told with all that cannot be used.
    return
  if size == _FRAME:
    raise UserError(f'{file}: the images of {split} are whole frames of 720 x 576 pixels; the aligned faces are wanted.'
                    f'\n{_packed(tree)}{HOW_TO}')


def _read_split(tree: Tree, split: str, folders: _Folders) -> list[Listed]:
  if not folders:
    raise tree.lacks(f'has no images in a folder {SPLITS[split]}...', _packed(tree))
  labels = {folder: _label(folder) for folder in folders}
  raise_if([f'{tree.root}/{folder}: {len(folders[folder]):,} image(s)' for folder in folders if labels[folder] is None],
           f'images of {split} lie in folders Angry, Disgust, Fear, Happy, Neutral, Sad and Surprise, unlike these')
  place = _one_place(tree, split, {folder.rpartition('/')[0] for folder in folders})
  if missing := [name for i, name in enumerate(CLASSES) if i not in labels.values()]:
    raise UserError(f'{place} has no images of {", ".join(missing)}; found there: '
                    f'{", ".join(folder.rpartition("/")[2] for folder in folders)}.\n{HOW_TO}')
  return [Listed(f'{folder.rpartition("/")[2]}/{name}', file, labels[folder])
          for folder, images in folders.items() for name, file in images.items()]


def _read_test(tree: Tree, folders: _Folders) -> list[Listed]:
  raise_if([f'{tree.root}/{folder}: {len(folders[folder]):,} image(s)' for folder in folders
            if _label(folder) is not None], 'test images have no labels and lie in one folder, unlike these')
  _one_place(tree, 'test', folders)
  return [Listed(name, file, -1) for images in folders.values() for name, file in images.items()]


def _one_place(tree: Tree, split: str, places: Collection[str]) -> str:
  if len(places) > 1:
    raise UserError(f'{tree.root} holds images of {split} more than once: in {", ".join(sorted(places))}. Keep one.')
  return '/'.join((tree.root, *places))


def _label(folder: str) -> int | None:
  """The class that a folder is called by; None if it is called otherwise."""
  expression = face.canonical(folder.rpartition('/')[2])
  return CLASSES.index(expression) if expression in CLASSES else None


def _packed(tree: Tree) -> str:
  zips = [path for path in tree.files if path.lower().endswith('.zip')]
  return f'Still packed: {", ".join(zips)}.\n' if zips else ''
