"""TFDS builder of FEC: faces with landmarks by dlib as records, and beside them the triplets that compare them."""

import csv
import io
from collections.abc import Mapping, Sequence

import tensorflow_datasets as tfds

from fer_jax.data import face, triplets
from fer_jax.data.builders.fec import files
from fer_jax.data.preparing.builder import FaceBuilder
from fer_jax.data.preparing.records import Listed, Reason


class Builder(FaceBuilder):
  """The faces of FEC that are in triplets, in the splits train and test; what they show is unknown, so labels are -1.

  Beside the data lie ``triplets_train.csv`` and ``triplets_test.csv``, for ``fer_jax.data.triplets.read``, and
  ``coverage.txt``, which says what became of the triplets that were listed. A missing image is no failure, strict or
  not: no copy of FEC is complete.
  """

  BUILDER_CONFIGS = [
      tfds.core.BuilderConfig(name='default', description='Every triplet that has a majority and its three images.'),
  ]
  CLASSES = face.EXPRESSIONS
  DISJOINT = False
  HOMEPAGE = 'https://research.google/tools/datasets/google-facial-expression/'
  HOW_TO = files.HOW_TO
  TERMS = 'the photos carry licences of their own; Google gives out their addresses by a form'

  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the faces of the triplets that have a majority and three images; a face in both splits is in both."""
    self._splits = files.open_files(path)
    for split in self._splits.values():
      self.leave_out(split.malformed, f'bad lines in {split.table}')
    return {name: self._listed(split) for name, split in self._splits.items()}

  def _listed(self, split: files.Split) -> list[Listed]:
    members = dict.fromkeys(member for triplet in split.kept() for member in triplet.faces)
    return [Listed(split.files[member], split.images[split.files[member]], -1) for member in members]

  def finish(self, skipped: Mapping[str, Reason], stored: Mapping[str, int]) -> None:
    """Writes the triplets and what became of them."""
    shared = len(set(self._splits['train'].faces) & set(self._splits['test'].faces))
    text = ''
    for name, split in self._splits.items():
      split.unreadable = {member for member, file in split.files.items() if str(split.images[file]) in skipped}
      split.kept()  # Fails where unreadable images have left nothing.
      (self.data_path / f'triplets_{name}.csv').write_text(_table(split))
      text += (f'Triplets of {name}:\n{split.coverage()}{stored[name]:,} faces; of the {len(split.faces):,} listed, '
               f'{shared:,} are listed in the other split too.\n\n')
    (self.data_path / 'coverage.txt').write_text(text)


def _table(split: files.Split) -> str:
  """What ``triplets.read`` reads: all triplets with a majority; it says how many have a face that is not stored."""
  text = io.StringIO()
  table = csv.writer(text, lineterminator='\n')
  table.writerow(triplets.COLUMNS)
  for triplet in split.decided():
    names = [split.name(member) for member in triplet.faces]
    odd = names.pop(triplet.odd)
    table.writerow((*names, odd, triplet.type, max(triplet.votes), sum(triplet.votes)))
  return text.getvalue()
