"""TFDS builder of RAF-DB's basic set: the aligned faces, or the original photos cut to the face."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data.builders.rafdb import files
from fer_jax.data.preparing.builder import FaceBuilder, variants
from fer_jax.data.preparing.records import Listed


class Builder(FaceBuilder):
  """RAF-DB with 12,271 / 3,068 faces in train / test.

  Names are ``<stem>_aligned.jpg`` in both variants, as lists of faces have them. Extra features: ``gender``, ``race``
  and ``age``, int32 codes of the README, -1 where unknown.
  """

  BUILDER_CONFIGS, COUNTS = variants(__file__)
  CLASSES = files.CLASSES
  EXTRA = {name: tfds.features.Scalar(dtype=np.int32) for name in files.CODES}
  HOMEPAGE = 'http://www.whdeng.cn/RAF/model1.html'
  HOW_TO = files.HOW_TO
  TERMS = 'for non-commercial research only; no portion may be copied on, published or distributed'

  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the faces of the variant."""
    found = files.open_files(path, self.variant)
    self.leave_out(found.problems, f'{found.table}: lines that cannot be used')
    self.note(*found.notes)
    return {split: [face for face in found.faces if face.name.startswith(f'{split}_')] for split in files.SPLITS}
