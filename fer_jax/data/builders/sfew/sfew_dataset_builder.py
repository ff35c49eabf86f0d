"""TFDS builder of SFEW 2.0: the aligned faces."""

from collections.abc import Mapping, Sequence

from fer_jax.data.builders.sfew import files
from fer_jax.data.preparing.builder import FaceBuilder, variants
from fer_jax.data.preparing.records import Listed


class Builder(FaceBuilder):
  """SFEW 2.0 with about 891 / 431 / 372 aligned faces in train / valid / test; those of test have no label.

  Names are ``<class folder>/<file>``, because file names may come twice; in test ``<file>``.
  """

  BUILDER_CONFIGS, COUNTS = variants(__file__)
  CLASSES = files.CLASSES
  RECALLED = True
  HOMEPAGE = 'https://cs.anu.edu.au/few/AFEW.html'
  HOW_TO = files.HOW_TO
  TERMS = 'for research only, under the licence that comes with the data set'

  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the images of every split that is there."""
    found = files.open_files(path)
    self.note(*found.notes)
    return found.splits
