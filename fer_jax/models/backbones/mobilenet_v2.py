"""MobileNetV2, parameter for parameter torchvision's.

A state dict maps to parameter names by one rule: '.' before a number becomes '_', any other '.' a path level:
``features.2.conv.0.0.weight`` is ``features_2/conv_0_0/kernel``. Sandler et al., "Inverted Residuals and Linear
Bottlenecks", arXiv 1801.04381.
"""

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from fer_jax.errors import UserError
from fer_jax.models.convnet import Block, ConvNet

# Expansion, channels, blocks, stride of the first block.
GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
TAPPED = {24: 'stage1', 32: 'stage2', 96: 'stage3'}  # The last channels at strides 4, 8 and 16.


class InvertedResidual(Block):
  """1 x 1 to ``expansion`` times the channels, depthwise 3 x 3 (with the stride), linear 1 x 1 to ``width``."""

  expansion: int
  width: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y, hidden, i = x, x.shape[-1] * self.expansion, 0
    if self.expansion > 1:
      y, i = nn.relu6(self.norm(name='conv_0_1')(self.conv(hidden, (1, 1), padding=0, name='conv_0_0')(y))), 1
    y = self.conv(hidden, (3, 3), self.stride, padding=1, feature_group_count=hidden, name=f'conv_{i}_0')(y)
    y = nn.relu6(self.norm(name=f'conv_{i}_1')(y))
    y = self.norm(name=f'conv_{i + 2}')(self.conv(self.width, (1, 1), padding=0, name=f'conv_{i + 1}')(y))
    return checkpoint_name(x + y if self.stride == 1 and x.shape == y.shape else y, 'block')


class MobileNetV2(ConvNet):
  """A MobileNetV2.

  Taps: 'stem' (the first convolution) and 'stage1' to 'stage4', the 24, 32, 96 and 1280 channels at an image side of
  1/4, 1/8, 1/16 and 1/32; 'stage4' equals the features.

  Attributes:
    width: multiplier of all channels, rounded to multiples of 8; the last layer keeps at least 1280.
  """

  width: float = 1.0

  def __post_init__(self):
    if not 0 < self.width <= 4:
      raise UserError(f'model.backbone.width={self.width}: it multiplies all channels; choose e.g. 1.0 or 0.5.')
    super().__post_init__()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], None]:
    """Maps normalised images (N, H, W, 3) to features (N, h, w, C), ``{tap: activation}`` and no attention."""
    conv, norm, taps, tap = self.parts(train)

    x = conv(_scaled(32, self.width), (3, 3), 2, padding=1, name='features_0_0')(images.astype(self.dtype))
    x = tap('stem', nn.relu6(norm(name='features_0_1')(x)))
    i = 1
    for expansion, channels, blocks, stride in GROUPS:
      for j in range(blocks):
        x = InvertedResidual(conv, norm, expansion, _scaled(channels, self.width), stride if j == 0 else 1,
                             name=f'features_{i}')(x)
        i += 1
      if channels in TAPPED:
        x = tap(TAPPED[channels], x)
    x = conv(_scaled(1280, max(self.width, 1.0)), (1, 1), padding=0, name='features_18_0')(x)
    x = tap('stage4', nn.relu6(norm(name='features_18_1')(x)))
    return x, taps, None


def _scaled(channels: int, width: float) -> int:
  """Channels times width, to the nearest multiple of 8 that is not below nine tenths of it (TensorFlow's rule)."""
  nearest = max(8, int(channels * width + 4) // 8 * 8)
  return nearest + 8 if nearest < 0.9 * channels * width else nearest
