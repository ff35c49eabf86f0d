"""What all files of timm's vision transformers share, whoever trained them."""

import math
from typing import Any

import jax
import numpy as np

from fer_jax.models.backbones.vit import SIZES
from fer_jax.models.weights._family import Tensors

MARKS = ('patch_embed.proj.weight', 'blocks.0.attn.qkv.weight', 'cls_token', 'pos_embed', 'norm.weight')
BESIDE = r'(head|head_dist|pre_logits)\.'

_HEAD = 64  # Channels of a head, in all of timm's.


def vit(tensors: Tensors) -> dict[str, Any]:
  """The options of the backbone that has these parameters."""
  width, _, patch, _ = tensors['patch_embed.proj.weight'].shape
  depth = sum(name.startswith('blocks.') and name.endswith('.attn.qkv.weight') for name in tensors)
  size = [size for size, own in SIZES.items() if own == (width, width // _HEAD)]
  if not size:
    return {'name': 'vit', 'patch': patch, 'depth': depth, 'width': width, 'heads': max(width // _HEAD, 1)}
  return {'name': 'vit', 'size': size[0], 'patch': patch, 'depth': depth}


def to_grid(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """A position embedding (1, 1 + h h, c) for another grid of patches: (1, 1 + g g, c), the class token's as it is.

  Bicubic and antialiased, as timm's ``resample_abs_pos_embed`` does it; anything else is returned as it is.
  """
  old, new = (math.isqrt(max(one[1] - 1, 0)) if len(one) == 3 else 0 for one in (value.shape, shape))
  if not old or not new or (old**2, new**2) != (value.shape[1] - 1, shape[1] - 1):
    return value
  patches = value[0, 1:].reshape(old, old, -1)
  patches = np.asarray(jax.image.resize(patches, (new, new, patches.shape[-1]), 'cubic', antialias=True))
  return np.concatenate([value[:, :1], patches.reshape(1, new**2, -1)], axis=1)
