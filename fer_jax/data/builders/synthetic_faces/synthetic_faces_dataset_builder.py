"""TFDS builder of synthetic faces: nothing to download, every face a function of (seed, split, index)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data import face
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.preparing.builder import FaceBuilder
from fer_jax.data.preparing.records import Listed, Reason
from fer_jax.errors import UserError

CLASSES = face.EXPRESSIONS[:7]
_SPLITS = ('train', 'valid', 'test')


@dataclasses.dataclass(eq=False, kw_only=True)
class SyntheticFacesConfig(tfds.core.BuilderConfig):
  """What to draw. TFDS stores data under ``name``, so another choice needs another name."""

  train: int = 8000
  valid: int = 1000
  test: int = 1000
  image_size: int = 64  # Side of the images in pixels.
  seed: int = 0  # Faces of two seeds have nothing in common.

  def __post_init__(self):
    if min(self.train, self.valid, self.test) < 1 or self.image_size < 16 or self.seed < 0:
      raise UserError(f"synthetic_faces config '{self.name}': train, valid and test need at least 1 face each, "
                      f'image_size at least 16 and seed at least 0; got {self.train}, {self.valid}, {self.test}, '
                      f'{self.image_size}, {self.seed}.')


def draw_record(listed: Listed, *, seed: int, image_size: int) -> dict[str, Any]:
  """Draws the record of a face as the builder lists it."""
  expression = CLASSES[listed.label]
  drawn = draw_face(np.random.default_rng([seed, *listed.file]), expression, image_size)
  causal_mask = cv2.resize(drawn.causal_mask, (face.MAP_SIZE, face.MAP_SIZE), interpolation=cv2.INTER_AREA)
  return face.record(image=face.png(drawn.image), name=listed.name, label=listed.label, expression=expression,
                     size=drawn.image.shape[:2], landmarks=drawn.landmarks, source='exact',
                     causal_mask=face.png(causal_mask), intensity=drawn.intensity)


class _Drawing(NamedTuple):
  """A face that is yet to be drawn, in the place of a file."""

  split: int
  index: int

  def stamp(self) -> tuple[int, ...]:
    return ()


class Builder(FaceBuilder):
  """Parametric faces with seven expressions driven by action units; see README.md beside this file."""

  RELEASE_NOTES = {'1.0.0': 'First faces.'}
  BUILDER_CONFIGS = [
      SyntheticFacesConfig(name='default', description='10,000 faces of 64 px.'),
      SyntheticFacesConfig(name='tiny', description='128 faces of 32 px, for tests.', train=64, valid=32, test=32,
                           image_size=32),
  ]
  CLASSES = CLASSES
  TERMS = "none: the faces are drawn by this code and are nobody's"
  SHAREABLE = True  # Of nobody.
  EXTRA = {
      'causal_mask': tfds.features.Image(shape=(face.MAP_SIZE, face.MAP_SIZE, 1), encoding_format='png'),
      'intensity': tfds.features.Scalar(dtype=np.float32),
  }
  ALIGNABLE = False

  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the faces to be drawn; there is no ``path``."""
    if path:
      raise UserError('synthetic_faces are drawn; they have no --source.')
    return {split: [Listed(f'{split}_{i:06d}.png', _Drawing(k, i), i % len(CLASSES))
                    for i in range(getattr(self.builder_config, split))] for k, split in enumerate(_SPLITS)}

  def maker(self) -> Callable[[Listed], dict[str, Any] | Reason]:
    """The function that draws a record."""
    config = self.builder_config
    return functools.partial(draw_record, seed=config.seed, image_size=config.image_size)
