"""IR-50, the improved ResNet of face recognition, parameter for parameter face.evoLVe's ``IR_50`` (also 100 and 152).

A state dict maps to parameter names by one rule: '.' before a number becomes '_', any other '.' a path level:
``body.3.res_layer.1.weight`` is ``body_3/res_layer_1/kernel``; the weight of a PReLU is its ``negative_slope``. Deng et
al., "ArcFace", arXiv 1801.07698; github.com/ZhaoJ9014/face.evoLVe, ``backbone/model_irse.py``.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fer_jax.errors import UserError
from fer_jax.models.convnet import Block, ConvNet

UNITS = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 152: (3, 8, 36, 3)}


class PReLU(nn.Module):
  """A ReLU with a learnt slope for each channel; linen's has one for all."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    slope = self.param('negative_slope', nn.initializers.constant(0.25), (x.shape[-1],))
    return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class Unit(Block):
  """BatchNorm, 3 x 3, PReLU, 3 x 3 with the stride, BatchNorm; nothing follows the sum with the shortcut."""

  width: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = self.conv(self.width, (3, 3), 1, padding=1, name='res_layer_1')(self.norm(name='res_layer_0')(x))
    y = self.conv(self.width, (3, 3), self.stride, padding=1, name='res_layer_3')(PReLU(name='res_layer_2')(y))
    y = self.norm(name='res_layer_4')(y)
    if x.shape[-1] == self.width:
      x = x[:, ::self.stride, ::self.stride]
    else:
      x = self.conv(self.width, (1, 1), self.stride, padding=0, name='shortcut_layer_0')(x)
      x = self.norm(name='shortcut_layer_1')(x)
    return checkpoint_name(y + x, 'block')


class IR(ConvNet):
  """An IR net. Taps: 'stem' at the side of the images, 'stage1' to 'stage4' each at half the side of the one before.

  Attributes:
    depth: 50, 100 or 152.
    width: channels of the stem and first stage, 64 in the published nets.
    embedding: features are the face embedding, (N, 1, 1, 8 width), for the image size at initialisation (112 x 112 in
      the published nets); else the map before it, (N, 7, 7, 8 width) at 112 pixels.
    dropout: probability, before the embedding's dense layer.
  """

  depth: int = 50
  width: int = 64
  embedding: bool = False
  dropout: float = 0.5

  def __post_init__(self):
    if self.depth not in UNITS:
      raise UserError(f'model.backbone.depth={self.depth}: an ir net has depth {sorted(UNITS)}.')
    super().__post_init__()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], None]:
    """Maps normalised images (N, H, W, 3) to features (N, h, w, C), ``{tap: activation}`` and no attention."""
    conv, norm, taps, tap = self.parts(train)

    x = conv(self.width, (3, 3), 1, padding=1, name='input_layer_0')(images.astype(self.dtype))
    x = tap('stem', PReLU(name='input_layer_2')(norm(name='input_layer_1')(x)))
    units = UNITS[self.depth]
    for i, count in enumerate(units):
      for j in range(count):
        x = Unit(conv, norm, self.width * 2**i, 2 if j == 0 else 1, name=f'body_{sum(units[:i]) + j}')(x)
      x = tap(f'stage{i + 1}', x)
    if self.embedding:
      x = nn.Dropout(self.dropout, deterministic=not train)(norm(name='output_layer_0')(x))
      x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], 1, 1, -1)  # The published net flattens channels first.
      x = norm(name='output_layer_4')(nn.Dense(8 * self.width, dtype=self.dtype, name='output_layer_3')(x))
    return x, taps, None
