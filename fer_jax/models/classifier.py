"""A classifier is a backbone and a head; its outputs are all that losses, attributions and metrics look at."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from fer_jax import registry
from fer_jax.errors import UserError, nearest

DTYPES = ('auto', 'bfloat16', 'float32')


@flax.struct.dataclass
class Outputs:
  """What one forward pass yields.

  Attributes:
    logits: (B, K) float32.
    embedding: (B, D) float32, the head's: the features it classifies, or those beside its logits ('embedding').
    pooled: (B, C) float32, the mean of the backbone's last features over space, of the full face.
    taps: {name: (B, h, w, c)} activations, of the full face where a face has regions; each is a linen ``perturb`` point
      of the backbone.
    region_weights: (B, R) float32 with region 0 the full face, or None where the head has no regions.
    attention: (B, L, 1 + h w, 1 + h w) float32, a transformer's attention in each of L blocks from tokens (rows) to
      tokens, averaged over heads, token 0 the class token; of the full face; None for other backbones.
  """

  logits: jax.Array
  embedding: jax.Array
  pooled: jax.Array
  taps: dict[str, jax.Array]
  region_weights: jax.Array | None = None
  attention: jax.Array | None = None


class Classifier(nn.Module):
  """A backbone ``images, train -> features, taps, attention`` and a head ``features, train, mask -> logits, embedding,
  region_weights``."""

  backbone: nn.Module
  head: nn.Module

  def __call__(self, images: jax.Array, train: bool, mask: jax.Array | None = None) -> Outputs:
    """Classifies normalised images.

    Args:
      images: (B, H, W, 3) float32; or (B, R, H, W, 3), R regions of each face with region 0 the full face: the backbone
        sees B x R images in one batch, the head features (B, R, h, w, C).
      train: normalise by the batch, drop out.
      mask: (B,) bool, False for rows that are padding; None: none is. Only heads that mix rows look at it.
    """
    if images.ndim == 4:
      features, taps, attention = self.backbone(images, train)
      whole = features
    else:
      faces = images.shape[:2]
      features, taps, attention = self.backbone(images.reshape(-1, *images.shape[2:]), train)
      full_face = lambda x: x.reshape(*faces, *x.shape[1:])[:, 0]
      whole, taps, attention = jax.tree.map(full_face, (features, taps, attention))
      features = features.reshape(*faces, *features.shape[1:])
    with jax.default_matmul_precision('highest'):  # Accelerators would round the factors of the logits, too.
      logits, embedding, region_weights = self.head(features, train, mask)
    pooled = whole.astype(jnp.promote_types(whole.dtype, jnp.float32)).mean(axis=(1, 2))
    return Outputs(logits, embedding, pooled, taps, region_weights, attention)


def computing_dtype(name: str, backend: str | None = None) -> str:
  """The dtype that ``config.model.dtype`` means on a backend of JAX (default: the one here), 'float32' or 'bfloat16'.

  Raises:
    UserError: it is none of ``DTYPES``.
  """
  if name not in DTYPES:
    raise UserError(f"model.dtype='{name}' is unknown{nearest(str(name), DTYPES)}")
  if name == 'auto':
    return 'bfloat16' if (backend or jax.default_backend()) in ('gpu', 'tpu') else 'float32'
  return name


def make_classifier(options: Mapping[str, Any], classes: int, axis_name: str | None = None, regions: int = 1,
                    devices: int = 1) -> Classifier:
  """Builds the classifier that ``config.model`` describes.

  Args:
    options: {'backbone': {'name', ...}, 'head': {'name', ...}, 'dtype': see ``computing_dtype``, 'region_norm':
      'separate' | 'folded', 'norm_scope': 'global' | 'device'}. 'separate' normalises every region by its own
      statistics in training, 'folded' all of them together; 'device' every device's rows by their own.
    axis_name: mapped axis for statistics of the batch, or None under ``jax.jit``.
    regions: R, images per face; 1 where a face is one image.
    devices: over how many a batch is split.

  Raises:
    UserError: unknown component, option or dtype; or a head that does not go with that many regions.
  """
  options = {'norm_scope': 'global', **options}
  for key, choices in (('region_norm', ('separate', 'folded')), ('norm_scope', ('global', 'device'))):
    if options[key] not in choices:
      raise UserError(f"model.{key}='{options[key]}': choose '{choices[0]}' or '{choices[1]}'.")
  parts = {}
  where = {'axis_name': axis_name, 'devices': devices if options['norm_scope'] == 'device' else 1}
  given = {
      'backbone': {'dtype': jnp.dtype(computing_dtype(options['dtype'])), **where,
                   'regions': regions if options['region_norm'] == 'separate' else 1},
      'head': {'classes': classes, **where},
  }
  for part, fixed in given.items():
    chosen = {k: v for k, v in options[part].items() if k != 'name'}
    make = registry.find(f'models.{part}s', options[part]['name'])
    # A part whose rows are independent takes neither axis nor regions.
    chosen |= {k: v for k, v in fixed.items() if k in inspect.signature(make).parameters}
    registry.check_options(f"model.{part} '{options[part]['name']}'", make, chosen)
    parts[part] = make(**chosen)
  if parts['head'].takes_regions != (regions > 1):
    wanted = 'several regions of a face' if parts['head'].takes_regions else 'the face as one image'
    raise UserError(f"model.head '{options['head']['name']}' wants {wanted}, but config.regions.scheme gives {regions} "
                    "image(s) per face; RAN's schemes go with the head 'region_attention', 'none' with the others.")
  return Classifier(**parts)
