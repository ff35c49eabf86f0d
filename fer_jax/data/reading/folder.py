"""A folder of images, read as it is: nothing is prepared, and no landmarks are looked for."""

import collections
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data import image_file
from fer_jax.data.face import EXPRESSIONS
from fer_jax.data.preparing import files
from fer_jax.errors import UserError, raise_if
from fer_jax.runtime.paths import expand


class Folder:
  """Records (``data/face.py``, without maps) of the images in a folder and the folders in it, ordered by path.

  Reading one raises UserError where its file is no image that can be used.
  """

  def __init__(self, path: str | Path, labelled: bool = False):
    """Lists the images; hidden files and other files are ignored.

    Args:
      labelled: the folders directly in ``path`` are classes, sorted by name, or as numbers where all are; without,
        every label is -1.

    Raises:
      UserError: no such folder, no image in it, files that cannot be read, or an image outside of the folders of the
        classes.
    """
    path = Path(expand(path))
    if not os.path.isdir(path):  # Path.is_dir raises where it may not look.
      raise UserError(f'there is no folder {path}; give the path of a folder of images.')
    tree = files.open_tree(str(path), '')
    images = tree.images()
    self.notes = [*tree.notes, *tree.others()]  # What there is to say, in sentences.
    if not images:
      raise UserError(f"{path} has no image: looked for {', '.join(image_file.ENDINGS)} in it and in its folders.")
    sizes = {name: file.stamp()[0] for name, file in images.items()}
    raise_if([f'{images[name]}: {_reason(images[name])}'
              for name, size in sizes.items() if size <= 0], f'{path} has images that cannot be used',
             '\nReplace them, or take them away.')
    self.path, self._names, self._files = path, list(images), list(images.values())
    # Names of the classes in the order of the labels.
    self.classes, self._labels = EXPRESSIONS, np.full(len(self._names), -1)
    if labelled:
      folders = [name.partition('/')[0] if '/' in name else None for name in self._names]
      if None in folders:
        raise UserError(f'{self._files[folders.index(None)]} is in no class: each image belongs in {path}/CLASS/, '
                        'where CLASS is its expression.')
      numbers = all(folder.isdecimal() for folder in folders)
      self.classes = tuple(sorted(set(folders), key=lambda name: (int(name) if numbers else 0, name)))
      self._labels = np.array([self.classes.index(folder) for folder in folders])
    digest = hashlib.sha256()
    for name, size in sizes.items():
      digest.update(f'{name} {size}\n'.encode())
    self.fingerprint = digest.hexdigest()  # Of the paths and the sizes of the files.

  def __len__(self) -> int:
    return len(self._names)

  def channels(self) -> dict[int, int]:
    """How many images have 1 channel, and how many 3; reads the heads of all files."""
    return collections.Counter(image_file.channels(file.path) for file in self._files)

  @property
  def names_and_labels(self) -> list[tuple[str, int]]:
    """Those of all records, without their images."""
    return list(zip(self._names, self._labels.tolist(), strict=True))

  def __getitem__(self, row: int) -> Mapping[str, Any]:
    try:
      image = image_file.stored(self._files[row].read())
    except ValueError as e:
      raise UserError(f'{self._files[row]}: {e}. Replace it, or take it away.') from e
    return {'image': image, 'name': self._names[row], 'label': int(self._labels[row]),
            'landmarks': np.full((68, 2), np.nan, np.float32), 'landmark_source': 0}


def _reason(file: files.File) -> str:
  """Why a file without a size cannot be used."""
  try:
    return 'empty file' if not file.read() else 'its size cannot be told'
  except ValueError as e:
    return f'{e}'
