"""TFDS builder of RAF-DB's basic set: the aligned faces, or the original photos cut to the face."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data.builder import FaceBuilder
from fer_jax.data.builders.rafdb import source
from fer_jax.data.making import Listed

_COUNTS = {'train': (1290, 281, 717, 4772, 1982, 705, 2524), 'test': (329, 74, 160, 1185, 478, 162, 680)}


class Builder(FaceBuilder):
  """RAF-DB with 12,271 / 3,068 faces in train / test.

  Names are ``<stem>_aligned.jpg`` in both variants, as lists of faces have them. Extra features: ``gender``, ``race``
  and ``age``, int32 codes of the README, -1 where unknown.
  """

  BUILDER_CONFIGS = [
      tfds.core.BuilderConfig(name='aligned', description='The aligned 100 x 100 faces as distributed.'),
      tfds.core.BuilderConfig(name='original', description='The original photos, cut to the box of the face.'),
  ]
  CLASSES = source.CLASSES
  EXTRA = {name: tfds.features.Scalar(dtype=np.int32) for name in ('gender', 'race', 'age')}
  COUNTS = dict.fromkeys(source.VARIANTS, _COUNTS)
  HOMEPAGE = 'http://www.whdeng.cn/RAF/model1.html'
  HOW_TO = source.HOW_TO

  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the faces of the variant."""
    found = source.open_source(path, self.variant)
    self.leave_out(found.problems, f'{found.table}: lines that cannot be used')
    for note in found.notes:
      self.note(note)
    return {split: [self._listed(row) for row in found.rows if row.stem.startswith(f'{split}_')]
            for split in source.SPLITS}

  def _listed(self, row: source.Row) -> Listed:
    points, *codes = row.attributes
    return Listed(f'{row.stem}_aligned.jpg', row.image, row.label, box=row.box,
                  points=points if self.variant == 'original' else None,  # Released points are of the original photos.
                  extra=dict(zip(self.EXTRA, codes, strict=True)))
