"""TFDS builder of FER2013: images from a csv of pixels or from folders, with the votes of FERPlus if wanted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data import face
from fer_jax.data.builders.faces_folder import files as faces_folder
from fer_jax.data.builders.fer2013 import files
from fer_jax.data.preparing.builder import FaceBuilder, variants
from fer_jax.data.preparing.records import Listed


class Builder(FaceBuilder):
  """FER2013 with 28,709 / 3,589 / 3,589 faces in train / valid / test.

  Extra feature of the variant 'votes': ``votes`` int32 (10,) in the order of ``files.VOTES``, the seven classes first.
  """

  BUILDER_CONFIGS, COUNTS = variants(__file__)
  CLASSES = files.CLASSES
  HOMEPAGE = 'https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge'
  HOW_TO = files.HOW_TO
  TERMS = ('the images carry no licence of their own and are for research only, under the rules of the '
           'contest')

  @property
  def EXTRA(self) -> Mapping[str, Any]:
    """The votes, where the variant has them."""
    if self.variant != 'votes':
      return {}
    return {'votes': tfds.features.Tensor(shape=(len(files.VOTES),), dtype=np.int32)}

  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the faces of all rows, or of all images in the folders."""
    return self._in_folders(path) if self.variant == 'folder' else self._in_table(path)

  def _in_table(self, path: str | None) -> dict[str, list[Listed]]:
    rows, problems = files.open_table(path, votes=self.variant == 'votes')
    self.leave_out(problems, f'{self.name}: bad lines in {path}')
    splits = {split: [row for row in rows if row.usage == usage] for usage, split in files.SPLITS.items()}
    if self.variant == 'votes':
      for split, held in splits.items():
        agree, count = files.agreement(held)
        self.note(f'{split}: the label has the most of the ten votes for {agree:,} of {count:,} images; images with a '
                  'tie are not counted')
    return {split: [Listed(row.name, row.image, row.label,
                           extra={'votes': np.array(row.votes, np.int32)} if row.votes else {}) for row in held]
            for split, held in splits.items()}

  def _in_folders(self, path: str | None) -> dict[str, list[Listed]]:
    faces = files.open_folders(path)
    if 'valid' in faces.splits:
      self.COUNTS = {'folder': self.COUNTS['default']}
    else:
      self.note('test is PublicTest and PrivateTest together: the names of the files do not tell them apart')
    self.note(*faces.notes)
    names = {folder: face.canonical(folder) for folders in faces.splits.values() for folder in folders}
    labels = {folder: self.CLASSES.index(name) for folder, name in names.items() if name in self.CLASSES}
    return faces_folder.listed(faces, labels, f'The classes are {", ".join(self.CLASSES)}.')
