"""ResNet-18/34/50, parameter for parameter torchvision's, with taps at the end of every stage.

Parameter names follow torchvision with '.' between a stage and its block written '_': ``layer2.0.conv1.weight`` is
``layer2_0/conv1/kernel``, so a state dict maps one to one. He et al., "Deep Residual Learning", arXiv 1512.03385.
"""

import functools

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from fer_jax.errors import UserError
from fer_jax.models.convnet import Block, ConvNet
from fer_jax.models.pooling import max_pool

STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class BasicBlock(Block):
  """Two 3 x 3 convolutions and a shortcut; ``width`` output channels."""

  width: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = nn.relu(self.norm(name='bn1')(self.conv(self.width, (3, 3), self.stride, padding=1, name='conv1')(x)))
    return _joined(self, x, self.norm(name='bn2')(self.conv(self.width, (3, 3), 1, padding=1, name='conv2')(y)))


class Bottleneck(Block):
  """1 x 1, 3 x 3 (with the stride, unless that is ``early``: of the first 1 x 1), 1 x 1; ``4 * width`` channels."""

  width: int
  stride: int
  early: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    first, second = (self.stride, 1) if self.early else (1, self.stride)
    y = nn.relu(self.norm(name='bn1')(self.conv(self.width, (1, 1), first, padding=0, name='conv1')(x)))
    y = nn.relu(self.norm(name='bn2')(self.conv(self.width, (3, 3), second, padding=1, name='conv2')(y)))
    return _joined(self, x, self.norm(name='bn3')(self.conv(4 * self.width, (1, 1), 1, padding=0, name='conv3')(y)))


def _joined(block: BasicBlock | Bottleneck, x: jax.Array, y: jax.Array) -> jax.Array:
  """The end of a block: the ReLU of its branch y and its shortcut from x."""
  if x.shape != y.shape:
    x = block.conv(y.shape[-1], (1, 1), block.stride, padding=0, name='downsample_0')(x)
    x = block.norm(name='downsample_1')(x)
  return checkpoint_name(nn.relu(y + x), 'block')


class ResNet(ConvNet):
  """A ResNet. Taps: 'stem' (before the pooling) and 'stage1' to 'stage4', after the ReLU.

  Attributes:
    depth: 18, 34 or 50; 10 (one block a stage) is not in torchvision, for small images and quick tests.
    width: channels of the stem and first stage; 64 is torchvision's.
    stem: 'standard' (7 x 7 stride 2, max-pool: the first stage works at a quarter of the image side) or 'small'
      (3 x 3 stride 1, no pooling: for images of 32 to 64 pixels).
    large_maps: stages 3 and 4 keep the resolution of stage 2 (stride 1, no dilation: 28 x 28 at 224 pixels; AU cues,
      arXiv 2402.00281). Parameters are the same.
    form: 'torchvision', or 'caffe' of a ResNet-50 of Caffe's, such as VGGFace2's: the stride of a bottleneck is that of
      its first convolution, not its second, and the max-pool pads at the bottom and at the right alone. Parameters are
      the same.
  """

  depth: int = 18
  width: int = 64
  stem: str = 'standard'
  large_maps: bool = False
  form: str = 'torchvision'

  def __post_init__(self):
    if self.depth not in STAGES:
      raise UserError(f'model.backbone.depth={self.depth}: a resnet has depth {sorted(STAGES)}.')
    if self.stem not in ('standard', 'small'):
      raise UserError(f"model.backbone.stem='{self.stem}': choose 'standard' or 'small'.")
    if self.form not in ('torchvision', 'caffe'):
      raise UserError(f"model.backbone.form='{self.form}': choose 'torchvision' or 'caffe'.")
    if self.form == 'caffe' and self.depth != 50:
      raise UserError(f"model.backbone.form='caffe' is that of depth 50, and model.backbone.depth is {self.depth}.")
    super().__post_init__()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], None]:
    """Maps normalised images (N, H, W, 3) to features (N, h, w, C), ``{tap: activation}`` and no attention."""
    conv, norm, taps, tap = self.parts(train)

    kernel, stride = ((7, 7), 2) if self.stem == 'standard' else ((3, 3), 1)
    x = conv(self.width, kernel, stride, padding=kernel[0] // 2, name='conv1')(images.astype(self.dtype))
    x = tap('stem', nn.relu(norm(name='bn1')(x)))
    if self.stem == 'standard':
      padding = ((1, 1), (1, 1))
      if self.form == 'caffe':  # Windows go on until they cover the map.
        padding = tuple((0, max(3 - side, (side - 3) % 2)) for side in x.shape[1:3])
      x = max_pool(x, (3, 3), (2, 2), padding=padding)
    block = functools.partial(Bottleneck, early=self.form == 'caffe') if self.depth == 50 else BasicBlock
    strides = (1, 2, 1, 1) if self.large_maps else (1, 2, 2, 2)
    for i, blocks in enumerate(STAGES[self.depth]):
      for j in range(blocks):
        x = block(conv, norm, self.width * 2**i, strides[i] if j == 0 else 1, name=f'layer{i + 1}_{j}')(x)
      x = tap(f'stage{i + 1}', x)
    return x, taps, None
