"""TFDS builder of AffectNet: either release, with its expressions, valence, arousal and landmarks."""

import collections
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data.builders.affectnet import files
from fer_jax.data.preparing.builder import FaceBuilder, variants
from fer_jax.data.preparing.records import Listed
from fer_jax.errors import UserError


class Builder(FaceBuilder):
  """AffectNet with 287,651 / 4,000 faces in train / valid, or 283,901 / 3,500 without contempt.

  Extra features: ``valence`` and ``arousal`` float32 in [-1, 1], NaN where there is none.
  """

  BUILDER_CONFIGS, COUNTS = variants(__file__)
  CLASSES = files.CLASSES
  EXTRA = {name: tfds.features.Scalar(dtype=np.float32) for name in ('valence', 'arousal')}
  HOMEPAGE = 'http://mohammadmahoor.com/affectnet/'
  HOW_TO = files.HOW_TO
  TERMS = 'for research only, under an agreement that heads of laboratories sign; not to be passed on'

  def __init__(self, *, first_release: str | None = None, **kwargs: Any):
    """Makes a builder.

    Args:
      first_release: validation.csv of the first release, from which the npy variants take the names of validation
        images; None: they are called by their numbers.
      **kwargs: see ``FaceBuilder``.

    Raises:
      UserError: there is no such variant.
    """
    self._first_release = first_release
    super().__init__(**kwargs)

  def classes(self) -> tuple[str, ...]:
    """All eight, or all but contempt, which is the last."""
    return self.CLASSES[:int(self.variant[3:])]

  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the faces of the variant's release and classes."""
    release = self.variant[:3]
    if self._first_release and release == 'csv':
      raise UserError(f'--first_release is for the variants npy8 and npy7; {self.variant} has the names anyway.')
    splits = files.open_files(path, release, len(self.classes()))
    for name, split in splits.items():
      self.leave_out(split.problems, f'{split.where}: lines or annotations that cannot be used')
      self.leave_out(split.missing, f'{split.where}: an image or its annotation is missing')
      if split.dropped:
        dropped = ', '.join(f'{count:,} of {expression}' for expression, count in split.dropped.items())
        self.note(f'Faces of {name} whose expression is no class of {self.variant} were dropped: {dropped}')
      if split.extra:
        self.note(f'{len(split.extra):,} image(s) have no usable line in the csv files and were ignored, e.g. '
                  f'{split.extra[0]}')
    names = self._names_csv(splits) if release == 'csv' else self._names_npy(splits)
    return {split: [Listed(names[split][one.path], images[one.path], one.label, one.box, one.landmarks,
                           extra={'valence': np.float32(one.valence), 'arousal': np.float32(one.arousal)})
                    for one in faces]
            for split, faces, images in ((name, split.faces, split.images) for name, split in splits.items())}

  def _names_csv(self, splits: Mapping[str, files.Split]) -> dict[str, dict[str, str]]:
    """File names, or paths where several images have the same name."""
    paths = {split: [PurePosixPath(face.path) for face in splits[split].faces] for split in splits}
    count = collections.Counter(path.stem for split in paths for path in paths[split])
    return {split: {str(path): path.name if count[path.stem] == 1 else str(path) for path in paths[split]}
            for split in splits}

  def _names_npy(self, splits: Mapping[str, files.Split]) -> dict[str, dict[str, str]]:
    """Numbers, which start anew in each split; with the first release at hand, its names for validation images."""
    train, valid = splits['train'].faces, splits['valid'].faces
    names = {'train': {face.path: f'train_set/{face.path}' for face in train}}
    if self._first_release:
      return names | {'valid': files.names_in_first_release(self._first_release, valid)}
    self.note("Images of valid are called by their numbers, so RAN's lists do not match them; give the first release's "
              'validation.csv as --first_release if you want that.')
    return names | {'valid': {face.path: face.path for face in valid}}
