"""TFDS builder of FERPlus: labels by one of four rules, votes kept, landmarks by dlib."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data.builders.ferplus import files, labels
from fer_jax.data.preparing.builder import FaceBuilder, variants
from fer_jax.data.preparing.records import Listed


class Builder(FaceBuilder):
  """FERPlus with 25,045 / 3,191 / 3,137 faces in train / valid / test under the majority rule.

  RAN's protocol is ``split='train+valid'``. Extra features: ``votes`` int32 (10,) as given, in the order of
  ``labels.VOTES``, and ``target`` float32 (8,), the class distribution of the rule.
  """

  BUILDER_CONFIGS, COUNTS = variants(__file__)
  CLASSES = labels.CLASSES
  EXTRA = {
      'votes': tfds.features.Tensor(shape=(len(labels.VOTES),), dtype=np.int32),
      'target': tfds.features.Tensor(shape=(len(labels.CLASSES),), dtype=np.float32),
  }
  HOMEPAGE = 'https://github.com/microsoft/FERPlus'
  HOW_TO = files.HOW_TO
  TERMS = ('the labels are under the MIT licence (Microsoft); the images are those of FER2013, carry no '
           'licence of their own and are for research only')

  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the faces that the variant's rule keeps, or all that 'majority' drops."""
    splits = files.open_files(path)
    for split, (_, extra) in splits.items():
      if extra:
        self.note(f'{len(extra):,} image(s) of {split} have no line in label.csv and were ignored, e.g. {extra[0]}')
    return {split: [face for row in rows if (face := self._listed(row, split))] for split, (rows, _) in splits.items()}

  def _listed(self, row: files.Row, split: str) -> Listed | None:
    unlabelled = self.variant == labels.UNLABELLED
    rule = 'majority' if unlabelled else labels.rule_of_split(self.variant, split)
    target = labels.target(row.votes, rule)
    if (target is None) != unlabelled:
      return None
    extra = {'votes': np.array(row.votes, np.int32),
             'target': np.zeros(len(labels.CLASSES), np.float32) if unlabelled else target}
    return Listed(row.name, row.image, -1 if unlabelled else int(np.argmax(target)), extra=extra)
