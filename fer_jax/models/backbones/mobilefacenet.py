"""MobileFaceNet with ReLU6 for aligned faces of 112 x 112, parameter for parameter github.com/foamliu/MobileFaceNet's.

A state dict maps to parameter names by one rule: '.' before a number becomes '_', any other '.' a path level:
``features.2.conv.0.0.weight`` is ``features_2/conv_0_0/kernel``, ``dw_conv.bn1.weight`` is ``dw_conv/bn1/scale``.
Chen et al., "MobileFaceNets", arXiv 1804.07573 (whose activations are PReLU).
"""

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from fer_jax.errors import UserError
from fer_jax.models.backbones.mobilenet_v2 import InvertedResidual
from fer_jax.models.convnet import Block, ConvNet

# Expansion, multiple of the width, blocks, stride of the first block, tap at the end.
GROUPS = ((2, 1, 5, 2, 'stage2'), (4, 2, 1, 2, None), (2, 2, 6, 1, 'stage3'), (4, 2, 1, 2, None), (2, 2, 2, 1, None))


class DepthwiseSeparable(Block):
  """Depthwise 3 x 3 and pointwise convolution, each with BatchNorm and, unlike the rest of the net, a plain ReLU."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    y = self.conv(channels, (3, 3), padding=1, feature_group_count=channels, name='depthwise')(x)
    y = self.conv(channels, (1, 1), padding=0, name='pointwise')(nn.relu(self.norm(name='bn1')(y)))
    return checkpoint_name(nn.relu(self.norm(name='bn2')(y)), 'block')


class GlobalDepthwise(Block):
  """A weighted mean of each channel over the whole 7 x 7 map: (N, 7, 7, c) to (N, 1, 1, c)."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = self.conv(x.shape[-1], (7, 7), padding=0, feature_group_count=x.shape[-1], name='depthwise')(x)
    return self.norm(name='bn')(y)


class MobileFaceNet(ConvNet):
  """A MobileFaceNet.

  Taps: 'stem' (the first convolution) and 'stage1', both 56 pixels a side at 112, 'stage2' 28, 'stage3' 14 and
  'stage4' 7: the map before the embedding.

  Attributes:
    width: channels of the first layers, 64 in the published net; all others are multiples.
    embedding: features are the face embedding, (N, 1, 1, 2 width), of images of 112 x 112; else the map before it,
      (N, 7, 7, 8 width) at 112 pixels.
  """

  width: int = 64
  embedding: bool = False

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], None]:
    """Maps normalised images (N, H, W, 3) to features (N, h, w, C), ``{tap: activation}`` and no attention.

    Raises:
      UserError: an embedding is wanted of images that do not give a map of 7 x 7.
    """
    conv, norm, taps, tap = self.parts(train)

    x = conv(self.width, (3, 3), 2, padding=1, name='conv1_0')(images.astype(self.dtype))
    x = tap('stem', nn.relu6(norm(name='conv1_1')(x)))
    x = tap('stage1', DepthwiseSeparable(conv, norm, name='dw_conv')(x))
    i = 0
    for expansion, multiple, blocks, stride, name in GROUPS:
      for j in range(blocks):
        x = InvertedResidual(conv, norm, expansion, multiple * self.width, stride if j == 0 else 1,
                             name=f'features_{i}')(x)
        i += 1
      x = tap(name, x) if name else x
    x = conv(8 * self.width, (1, 1), padding=0, name='conv2_0')(x)
    x = tap('stage4', nn.relu6(norm(name='conv2_1')(x)))
    if self.embedding:
      if x.shape[1:3] != (7, 7):
        raise UserError(f'model.backbone.embedding=True: it takes a 7 x 7 map and images of {images.shape[1]} x '
                        f'{images.shape[2]} pixels give {x.shape[1]} x {x.shape[2]}; feed images of 112 x 112 '
                        '(config.image_size) or set it to False.')
      x = GlobalDepthwise(conv, norm, name='gdconv')(x)
      x = norm(name='bn')(conv(2 * self.width, (1, 1), padding=0, use_bias=True, name='conv3')(x))
    return x, taps, None
