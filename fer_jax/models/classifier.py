"""A classifier is a backbone and a head; its outputs are all that losses, attributions and metrics look at."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from fer_jax import registry
from fer_jax.errors import UserError


@flax.struct.dataclass
class Outputs:
  """What one forward pass yields.

  Attributes:
    logits: (B, K) float32.
    embedding: (B, D) float32, the features the head classifies.
    taps: {name: (B, h, w, c)} activations; each is a linen ``perturb`` point of the backbone.
    region_weights: (B, R) float32 with region 0 the full face, or None where the head has no regions.
  """

  logits: jax.Array
  embedding: jax.Array
  taps: dict[str, jax.Array]
  region_weights: jax.Array | None = None


class Classifier(nn.Module):
  """A backbone ``images, train -> features, taps`` and a head ``features, train -> logits, embedding, weights``."""

  backbone: nn.Module
  head: nn.Module

  def __call__(self, images: jax.Array, train: bool) -> Outputs:
    """Classifies normalised images (B, H, W, 3) float32."""
    features, taps = self.backbone(images, train)
    logits, embedding, region_weights = self.head(features, train)
    return Outputs(logits, embedding, taps, region_weights)


def make_classifier(options: Mapping[str, Any], classes: int, axis_name: str | None = None) -> Classifier:
  """Builds the classifier that ``config.model`` describes.

  Args:
    options: {'backbone': {'name', ...}, 'head': {'name', ...}, 'dtype': 'float32' | 'bfloat16'}.
    classes: number of classes K.
    axis_name: mapped axis for BatchNorm, or None under ``jax.jit``.

  Raises:
    UserError: unknown component, option or dtype.
  """
  if options['dtype'] not in ('float32', 'bfloat16'):
    raise UserError(f"model.dtype='{options['dtype']}': choose 'float32' or 'bfloat16'.")
  parts = {}
  given = {
      'backbone': {'dtype': jnp.dtype(options['dtype']), 'axis_name': axis_name},
      'head': {'classes': classes},
  }
  for part, fixed in given.items():
    chosen = {k: v for k, v in options[part].items() if k != 'name'}
    make = registry.find(f'models.{part}s', options[part]['name'])
    registry.check_options(f"model.{part} '{options[part]['name']}'", make, {**chosen, **fixed})
    parts[part] = make(**chosen, **fixed)
  return Classifier(**parts)
