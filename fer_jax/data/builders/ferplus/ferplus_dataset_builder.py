"""TFDS builder of FERPlus: labels by one of four rules, votes kept, landmarks by dlib."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data.builders.ferplus import files, labels
from fer_jax.data.preparing.builder import FaceBuilder
from fer_jax.data.preparing.records import Listed

_DESCRIPTIONS = {
    'majority': 'One class has more than half of the votes; other images are dropped. The default of the literature.',
    'crossentropy': 'Training targets are distributions over up to three classes; valid and test by majority.',
    'probability': 'As crossentropy, but training draws one class from the target; valid and test by majority.',
    'argmax': 'The class with the most votes, in every split; not an official rule.',
    'unlabelled': 'The images that majority drops (no majority, unknown, not a face), without a label.',
}


class Builder(FaceBuilder):
  """FERPlus with 25,045 / 3,191 / 3,137 faces in train / valid / test under the majority rule.

  RAN's protocol is ``split='train+valid'``. Extra features: ``votes`` int32 (10,) as given, in the order of
  ``labels.VOTES``, and ``target`` float32 (8,), the class distribution of the rule.
  """

  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=rule, description=text)
                     for rule, text in _DESCRIPTIONS.items()]
  CLASSES = labels.CLASSES
  EXTRA = {
      'votes': tfds.features.Tensor(shape=(len(labels.VOTES),), dtype=np.int32),
      'target': tfds.features.Tensor(shape=(len(labels.CLASSES),), dtype=np.float32),
  }
  COUNTS = labels.COUNTS
  HOMEPAGE = 'https://github.com/microsoft/FERPlus'
  HOW_TO = files.HOW_TO

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
