"""TFDS builder of SFEW 2.0: the aligned faces."""

from collections.abc import Mapping, Sequence

import tensorflow_datasets as tfds

from fer_jax.data.builders.sfew import files
from fer_jax.data.preparing.builder import FaceBuilder
from fer_jax.data.preparing.records import Listed


class Builder(FaceBuilder):
  """SFEW 2.0 with about 891 / 431 / 372 aligned faces in train / valid / test; those of test have no label.

  Names are ``<class folder>/<file>``, because file names may come twice; in test ``<file>``.
  """

  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='aligned', description='The aligned faces as distributed.')]
  CLASSES = files.CLASSES
  COUNTS = {'aligned': {'train': (891,), 'valid': (431,), 'test': (372,)}}
  RECALLED = True
  HOMEPAGE = 'https://cs.anu.edu.au/few/AFEW.html'
  HOW_TO = files.HOW_TO

  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the images of every split that is there."""
    found = files.open_files(path)
    self.note(*found.notes)
    return found.splits
