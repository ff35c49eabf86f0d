"""ResNet-18/34/50, parameter for parameter torchvision's, with taps at the end of every stage.

Parameter names follow torchvision with '.' between a stage and its block written '_': ``layer2.0.conv1.weight`` is
``layer2_0/conv1/kernel``, so a state dict maps one to one. He et al., "Deep Residual Learning", arXiv 1512.03385;
the stride of a bottleneck sits on its 3 x 3 convolution, as in torchvision.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fer_jax.errors import UserError
from fer_jax.models.convnet import Block, ConvNet

STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class BasicBlock(Block):
  """Two 3 x 3 convolutions and a shortcut; ``width`` output channels."""

  width: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = self.conv(self.width, (3, 3), self.stride, padding=1, name='conv1')(x)
    y = nn.relu(self.norm(name='bn1')(y))
    y = self.conv(self.width, (3, 3), 1, padding=1, name='conv2')(y)
    y = self.norm(name='bn2')(y)
    return nn.relu(y + _shortcut(self, x, y.shape))


class Bottleneck(Block):
  """1 x 1, 3 x 3 (with the stride), 1 x 1; ``4 * width`` output channels."""

  width: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = nn.relu(self.norm(name='bn1')(self.conv(self.width, (1, 1), 1, padding=0, name='conv1')(x)))
    y = nn.relu(self.norm(name='bn2')(self.conv(self.width, (3, 3), self.stride, padding=1, name='conv2')(y)))
    y = self.norm(name='bn3')(self.conv(4 * self.width, (1, 1), 1, padding=0, name='conv3')(y))
    return nn.relu(y + _shortcut(self, x, y.shape))


def _shortcut(block: BasicBlock | Bottleneck, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  if x.shape == shape:
    return x
  x = block.conv(shape[-1], (1, 1), block.stride, padding=0, name='downsample_0')(x)
  return block.norm(name='downsample_1')(x)


class ResNet(ConvNet):
  """The network; see ``resnet`` for the options."""

  stages: tuple[int, ...]
  block: type[nn.Module]
  width: int
  stem: str
  strides: tuple[int, ...]

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], None]:
    """Maps normalised images (N, H, W, 3) to features (N, h, w, C), ``{tap: activation}`` and no attention."""
    conv, norm, taps, tap = self.parts(train)

    kernel, stride = ((7, 7), 2) if self.stem == 'standard' else ((3, 3), 1)
    x = conv(self.width, kernel, stride, padding=kernel[0] // 2, name='conv1')(images.astype(self.dtype))
    x = tap('stem', nn.relu(norm(name='bn1')(x)))
    if self.stem == 'standard':
      x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    for i, blocks in enumerate(self.stages):
      for j in range(blocks):
        stride = self.strides[i] if j == 0 else 1
        x = self.block(conv, norm, self.width * 2**i, stride, name=f'layer{i + 1}_{j}')(x)
        x = checkpoint_name(x, 'block')
      x = tap(f'stage{i + 1}', x)
    return x, taps, None


def resnet(depth: int = 18, width: int = 64, stem: str = 'standard', large_maps: bool = False,
           dtype: Any = jnp.float32, axis_name: str | None = None, regions: int = 1) -> ResNet:
  """Builds a ResNet.

  Args:
    depth: 18, 34 or 50; 10 (one block a stage) is not in torchvision, for small images and quick tests.
    width: channels of the stem and first stage; 64 is torchvision's.
    stem: 'standard' (7 x 7 stride 2, max-pool: the first stage works at a quarter of the image side) or 'small'
      (3 x 3 stride 1, no pooling: for images of 32 to 64 pixels).
    large_maps: stages 3 and 4 keep the resolution of stage 2 (stride 1, no dilation: 28 x 28 at 224 pixels; AU cues,
      arXiv 2402.00281). Parameters are the same.
    dtype, axis_name, regions: see ``models.convnet.ConvNet``.

  Taps: 'stem' (before the pooling) and 'stage1' to 'stage4', after the ReLU.
  """
  if depth not in STAGES:
    raise UserError(f'model.backbone.depth={depth}: a resnet has depth {sorted(STAGES)}.')
  if stem not in ('standard', 'small'):
    raise UserError(f"model.backbone.stem='{stem}': choose 'standard' or 'small'.")
  strides = (1, 2, 1, 1) if large_maps else (1, 2, 2, 2)
  block = Bottleneck if depth == 50 else BasicBlock
  return ResNet(dtype, axis_name, regions, STAGES[depth], block, width, stem, strides)
