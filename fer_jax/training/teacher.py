"""A frozen network whose answers a loss may look at; its forward pass is part of the student's step."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fer_jax.data import augment
from fer_jax.models.classifier import Classifier, Outputs

VIEWS = ('clean', 'student')


@dataclasses.dataclass(frozen=True)
class Teacher:
  """What a teacher is besides its variables, which the step is given as an argument.

  Attributes:
    image_size: side in pixels of what it sees, whatever the student sees.
    normalise, regions: its keyword arguments of ``augment.normalise`` and of ``regions.region_boxes``, or None.
    columns: which of its logits belong to the student's classes, in the student's order.
    view: 'clean', the faces as they are; or 'student', augmented by the same flip, crop, colours as the student's.
  """

  model: Classifier
  image_size: int
  normalise: Mapping[str, Any]
  regions: Mapping[str, Any] | None
  columns: tuple[int, ...]
  view: str = 'clean'

  def __call__(self, variables: Mapping[str, Any], batch: Mapping[str, Any], keys: jax.Array,
               augmentation: Mapping[str, Any]) -> Outputs:
    """Its outputs for a host batch, with the student's classes; no gradient reaches ``variables``.

    Args:
      variables: {'params', 'batch_stats'}.
      batch: as the student's step gets it, before augmentation.
      keys: (B,) the keys of the student's augmentation.
      augmentation: the student's keyword arguments of ``augment.augment``.
    """
    if self.view == 'student':
      seen = augment.augment(batch, keys, image_size=self.image_size, regions=self.regions, **augmentation)
    else:
      seen = augment.resize(batch, self.image_size, self.regions)
    images = augment.normalise(seen['image'], **self.normalise)
    outputs = self.model.apply(jax.lax.stop_gradient(variables), images, False)
    return jax.lax.stop_gradient(outputs.replace(logits=outputs.logits[:, jnp.array(self.columns)]))
