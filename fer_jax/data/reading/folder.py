"""A folder of images, read as it is: nothing is prepared, and no landmarks are looked for."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.face import EXPRESSIONS
from fer_jax.data.preparing import files
from fer_jax.errors import UserError


class Folder:
  """Records (``data/face.py``, without maps) of the images in a folder and the folders in it, ordered by path."""

  def __init__(self, path: str | Path, labelled: bool = False):
    """Lists the images; hidden files and other files are ignored.

    Args:
      labelled: the folders directly in ``path`` are classes, sorted by name, or as numbers where all are; without,
        every label is -1.

    Raises:
      UserError: no such folder, no image in it, or an image outside of the folders of the classes.
    """
    self._path = Path(path).expanduser()
    if not self._path.is_dir():
      raise UserError(f'there is no folder {self._path}; give the path of a folder of images.')
    self._names = list(files.open_tree(str(self._path), '').images())
    if not self._names:
      raise UserError(f"{self._path} has no image: looked for {', '.join(files.IMAGES)} in it and in its folders.")
    # Names of the classes in the order of the labels.
    self.classes, self._labels = EXPRESSIONS, np.full(len(self._names), -1)
    if labelled:
      folders = [name.partition('/')[0] if '/' in name else None for name in self._names]
      if None in folders:
        raise UserError(f"{self._path / self._names[folders.index(None)]} is in no class: each image belongs in "
                        f"{self._path}/CLASS/, where CLASS is its expression.")
      numbers = all(folder.isdecimal() for folder in folders)
      self.classes = tuple(sorted(set(folders), key=lambda name: (int(name) if numbers else 0, name)))
      self._labels = np.array([self.classes.index(folder) for folder in folders])
    digest = hashlib.sha256()
    for name in self._names:
      digest.update(f'{name} {(self._path / name).stat().st_size}\n'.encode())
    self.fingerprint = digest.hexdigest()  # Of the paths and the sizes of the files.

  def __len__(self) -> int:
    return len(self._names)

  def __getitem__(self, row: int) -> Mapping[str, Any]:
    name = self._names[row]
    return {'image': (self._path / name).read_bytes(), 'name': name, 'label': int(self._labels[row]),
            'landmarks': np.full((68, 2), np.nan, np.float32), 'landmark_source': 0}
