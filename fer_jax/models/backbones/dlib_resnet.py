"""dlib's face recognition network of 29 layers, layer for layer ``dlib_face_recognition_resnet_model_v1``.

The source is dlib's file itself. Where that has a scale and a shift after each convolution, this has a BatchNorm.
King, "High quality face recognition with deep metric learning", blog.dlib.net, 2017; after He et al., arXiv 1512.03385.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fer_jax.errors import UserError
from fer_jax.models.convnet import Block, ConvNet
from fer_jax.models.pooling import max_pool

# Multiple of the width, blocks, whether the first halves the map, tap at the end.
GROUPS = ((1, 3, False, 'stage1'), (2, 4, True, 'stage2'), (4, 3, True, 'stage3'), (8, 3, True, None))


class DlibBlock(Block):
  """Two 3 x 3 convolutions and a shortcut without parameters; ``width`` output channels.

  Where it halves the map, the shortcut is a mean of 2 x 2 pixels. Where branch and shortcut differ in a dimension, the
  smaller one is continued by zeros: at the bottom, at the right, and in the last channels.
  """

  width: int
  halves: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    stride, padding = (2, 0) if self.halves else (1, 1)
    if self.halves and min(x.shape[1:3]) < 3:
      raise _small(f'a map of {x.shape[1]} x {x.shape[2]} cannot be halved')
    y = self.conv(self.width, (3, 3), stride, padding=padding, use_bias=True, name='conv1')(x)
    y = nn.relu(self.norm(name='norm1')(y))
    y = self.norm(name='norm2')(self.conv(self.width, (3, 3), 1, padding=1, use_bias=True, name='conv2')(y))
    if self.halves:
      x = nn.avg_pool(x, (2, 2), (2, 2))
    sides = [max(sizes) for sizes in zip(x.shape, y.shape, strict=True)]
    x, y = (jnp.pad(one, [(0, side - own) for side, own in zip(sides, one.shape, strict=True)]) for one in (x, y))
    return checkpoint_name(nn.relu(x + y), 'block')


class DlibResNet(ConvNet):
  """dlib's network for aligned faces of 150 x 150.

  Taps: 'stem' (before the pooling), 'stage1' to 'stage4'; 72, 35, 17, 8 and 2 pixels a side at 150, where 'stage4'
  equals the features.

  Attributes:
    width: channels of the first layers, 32 in the published net; all others are multiples.
    last: whether the last block is there, which halves the map once more; without it 'stage4' has 4 x 4 pixels at 150.
    embedding: features are dlib's face descriptor, (N, 1, 1, 4 width), else the map before it, (N, h, w, 8 width).
  """

  width: int = 32
  last: bool = True
  embedding: bool = False

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], None]:
    """Maps normalised images (N, H, W, 3) to features (N, h, w, C), ``{tap: activation}`` and no attention.

    Raises:
      UserError: the images are too small.
    """
    conv, norm, taps, tap = self.parts(train)
    if min(images.shape[1:3]) < 11:
      raise _small(f'{images.shape[1]} x {images.shape[2]}')
    x = conv(self.width, (7, 7), 2, padding=0, use_bias=True, name='conv1')(images.astype(self.dtype))
    x = tap('stem', nn.relu(norm(name='norm1')(x)))
    x = max_pool(x, (3, 3), (2, 2))
    i = 0
    for multiple, blocks, halves, name in GROUPS:
      for j in range(blocks):
        x = DlibBlock(conv, norm, multiple * self.width, halves and j == 0, name=f'block_{i}')(x)
        i += 1
      x = tap(name, x) if name else x
    if self.last:
      x = DlibBlock(conv, norm, 8 * self.width, True, name=f'block_{i}')(x)
    x = tap('stage4', x)
    if self.embedding:
      x = nn.Dense(4 * self.width, use_bias=False, dtype=self.dtype, name='fc')(x.mean(axis=(1, 2), keepdims=True))
    return x, taps, None


def _small(why: str) -> UserError:
  return UserError(f"model.backbone 'dlib_resnet': the images are too small ({why}); the least is 103 x 103 "
                   '(config.image_size), or 55 x 55 with model.backbone.last=False.')
