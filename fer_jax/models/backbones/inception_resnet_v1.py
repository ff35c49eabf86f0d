"""Inception-ResNet-v1, FaceNet's network, parameter for parameter facenet-pytorch's ``InceptionResnetV1``.

A state dict maps to parameter names by one rule: '.' before a number becomes '_', any other '.' a path level:
``repeat_1.0.branch1.1.conv.weight`` is ``repeat_1_0/branch1_1/conv/kernel``. Szegedy et al., arXiv 1602.07261; Schroff
et al., "FaceNet", arXiv 1503.03832; github.com/davidsandberg/facenet and timesler/facenet-pytorch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fer_jax.errors import UserError
from fer_jax.models.convnet import Block, ConvNet
from fer_jax.models.pooling import max_pool

SMALLEST = 75  # Side of the images that leave one pixel.

# A convolution: share of the width, kernel, stride, padding. A branch: several.
Branch = tuple[tuple[float, tuple[int, int], int, str], ...]

_POINT = ((1, 1), 1, 'VALID')
_SQUARE = ((3, 3), 1, 'SAME')
_HALVES = ((3, 3), 2, 'VALID')

# Branches of the residual blocks, and what they are multiplied by before they are added.
RESIDUAL: dict[str, tuple[tuple[Branch, ...], float]] = {
    'repeat_1': ((((32, *_POINT),), ((32, *_POINT), (32, *_SQUARE)), ((32, *_POINT), (32, *_SQUARE), (32, *_SQUARE))),
                 0.17),
    'repeat_2': ((((128, *_POINT),), ((128, *_POINT), (128, (1, 7), 1, 'SAME'), (128, (7, 1), 1, 'SAME'))), 0.10),
    'repeat_3': ((((192, *_POINT),), ((192, *_POINT), (192, (1, 3), 1, 'SAME'), (192, (3, 1), 1, 'SAME'))), 0.20),
}
REPEATS = {'repeat_1': 5, 'repeat_2': 10, 'repeat_3': 5}

# Branches of the blocks that halve the map; a max-pool is one more.
REDUCTION: dict[str, tuple[Branch, ...]] = {
    'mixed_6a': (((384, *_HALVES),), ((192, *_POINT), (192, *_SQUARE), (256, *_HALVES))),
    'mixed_7a': (((256, *_POINT), (384, *_HALVES)), ((256, *_POINT), (256, *_HALVES)),
                 ((256, *_POINT), (256, *_SQUARE), (256, *_HALVES))),
}


class Conv(Block):
  """A convolution without bias, BatchNorm and ReLU."""

  width: int
  kernel: tuple[int, int]
  stride: int
  padding: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = self.conv(self.width, self.kernel, self.stride, padding=self.padding, name='conv')(x)
    return nn.relu(self.norm(name='bn')(x))


class Branches(Block):
  """Several branches of convolutions side by side: their channels one after the other."""

  branches: tuple[Branch, ...]
  thin: float

  def side_by_side(self, x: jax.Array) -> list[jax.Array]:
    """The output of every branch."""
    outputs = []
    for i, branch in enumerate(self.branches):
      y = x
      for j, (width, *form) in enumerate(branch):
        name = f'branch{i}' if len(branch) == 1 else f'branch{i}_{j}'
        y = Conv(self.conv, self.norm, round(width * self.thin), *form, name=name)(y)
      outputs.append(y)
    return outputs


class Residual(Branches):
  """Adds a linear map of the branches to the input, times ``scale``; ReLU unless it is the ``last``."""

  scale: float
  last: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = jnp.concatenate(self.side_by_side(x), axis=-1)
    y = self.conv(x.shape[-1], (1, 1), padding=0, use_bias=True, name='conv2d')(y)
    y = y * self.scale + x
    return checkpoint_name(y if self.last else nn.relu(y), 'block')


class Reduction(Branches):
  """Halves the map, by each branch and by a max-pool."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = jnp.concatenate([*self.side_by_side(x), max_pool(x, (3, 3), (2, 2))], axis=-1)
    return checkpoint_name(y, 'block')


class InceptionResNetV1(ConvNet):
  """An Inception-ResNet-v1.

  Taps: 'stem' (before the first pooling), 'stage1' (before the first block), and 'stage2', 'stage3' and 'stage4' after
  the last block of each size: 64, 192, 256, 896 and 1792 channels, 77, 36, 17, 8 and 3 pixels a side at 160.

  Attributes:
    width: channels of the first layer, 32 in the published net; all others keep their proportion to it.
    embedding: features are the face embedding, (N, 1, 1, 16 width), which FaceNet divides by its length; else the map
      before it, 'stage4'.
    dropout: probability, before the embedding's dense layer.
  """

  width: int = 32
  embedding: bool = False
  dropout: float = 0.6
  epsilon = 1e-3

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], None]:
    """Maps normalised images (N, H, W, 3) to features (N, h, w, C), ``{tap: activation}`` and no attention.

    Raises:
      UserError: the images are too small.
    """
    if min(images.shape[1:3]) < SMALLEST:
      raise UserError(f"model.backbone 'inception_resnet_v1': images of {images.shape[1]} x {images.shape[2]} are too "
                      f'small; the least is {SMALLEST} x {SMALLEST} (config.image_size).')
    conv, norm, taps, tap = self.parts(train)
    thin = self.width / 32

    def layer(x: jax.Array, name: str, width: int, *form) -> jax.Array:
      return Conv(conv, norm, round(width * thin), *form, name=name)(x)

    def repeated(x: jax.Array, name: str) -> jax.Array:
      branches, scale = RESIDUAL[name]
      for i in range(REPEATS[name]):
        x = Residual(conv, norm, branches, thin, scale, name=f'{name}_{i}')(x)
      return x

    x = layer(images.astype(self.dtype), 'conv2d_1a', 32, *_HALVES)
    x = layer(x, 'conv2d_2a', 32, (3, 3), 1, 'VALID')
    x = tap('stem', layer(x, 'conv2d_2b', 64, *_SQUARE))
    x = max_pool(x, (3, 3), (2, 2))
    x = layer(x, 'conv2d_3b', 80, *_POINT)
    x = tap('stage1', layer(x, 'conv2d_4a', 192, (3, 3), 1, 'VALID'))
    x = layer(x, 'conv2d_4b', 256, *_HALVES)
    x = tap('stage2', repeated(x, 'repeat_1'))
    x = Reduction(conv, norm, REDUCTION['mixed_6a'], thin, name='mixed_6a')(x)
    x = tap('stage3', repeated(x, 'repeat_2'))
    x = Reduction(conv, norm, REDUCTION['mixed_7a'], thin, name='mixed_7a')(x)
    x = repeated(x, 'repeat_3')
    x = tap('stage4', Residual(conv, norm, RESIDUAL['repeat_3'][0], thin, 1.0, last=True, name='block8')(x))
    if self.embedding:
      x = nn.Dropout(self.dropout, deterministic=not train)(x.mean(axis=(1, 2), keepdims=True))
      x = nn.Dense(16 * self.width, use_bias=False, dtype=self.dtype, name='last_linear')(x)
      x = norm(name='last_bn')(x)
    return x, taps, None
