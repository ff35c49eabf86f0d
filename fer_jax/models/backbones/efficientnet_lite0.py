"""EfficientNet-Lite0: EfficientNet without squeeze-and-excitation, with ReLU6, and TensorFlow's padding.

A state dict of the PyTorch port maps to parameter names by one rule: '.' before a number becomes '_', any other '.' a
path level: ``_blocks.3._expand_conv.weight`` is ``_blocks_3/_expand_conv/kernel``. Tan and Le, arXiv 1905.11946;
TensorFlow's ``efficientnet/lite``.
"""

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from fer_jax.models.convnet import Block, ConvNet

# Kernel, stride of the first block, expansion, channels, blocks, tap at the end.
GROUPS = ((3, 1, 1, 16, 1, None), (3, 2, 6, 24, 2, 'stage1'), (5, 2, 6, 40, 2, 'stage2'), (3, 2, 6, 80, 3, None),
          (5, 1, 6, 112, 3, 'stage3'), (5, 2, 6, 192, 4, None), (3, 1, 6, 320, 1, None))


class InvertedResidual(Block):
  """1 x 1 to ``expansion`` times the channels, a depthwise convolution with the stride, linear 1 x 1 to ``width``."""

  kernel: int
  stride: int
  expansion: int
  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y, hidden = x, x.shape[-1] * self.expansion
    if self.expansion > 1:
      y = nn.relu6(self.norm(name='_bn0')(self.conv(hidden, (1, 1), padding=0, name='_expand_conv')(y)))
    y = self.conv(hidden, (self.kernel, self.kernel), self.stride, padding='SAME', feature_group_count=hidden,
                  name='_depthwise_conv')(y)
    y = nn.relu6(self.norm(name='_bn1')(y))
    y = self.norm(name='_bn2')(self.conv(self.width, (1, 1), padding=0, name='_project_conv')(y))
    return checkpoint_name(x + y if x.shape == y.shape else y, 'block')


class EfficientNetLite0(ConvNet):
  """An EfficientNet-Lite0.

  Taps: 'stem' (the first convolution) and 'stage1' to 'stage4', the 24, 40, 112 and 1280 channels at an image side of
  1/4, 1/8, 1/16 and 1/32, rounded up; 'stage4' equals the features.
  """

  epsilon = 1e-3

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], None]:
    """Maps normalised images (N, H, W, 3) to features (N, h, w, C), ``{tap: activation}`` and no attention."""
    conv, norm, taps, tap = self.parts(train)

    x = conv(32, (3, 3), 2, padding='SAME', name='_conv_stem')(images.astype(self.dtype))
    x = tap('stem', nn.relu6(norm(name='_bn0')(x)))
    i = 0
    for kernel, stride, expansion, channels, blocks, name in GROUPS:
      for j in range(blocks):
        x = InvertedResidual(conv, norm, kernel, stride if j == 0 else 1, expansion, channels, name=f'_blocks_{i}')(x)
        i += 1
      x = tap(name, x) if name else x
    x = nn.relu6(norm(name='_bn1')(conv(1280, (1, 1), padding=0, name='_conv_head')(x)))
    return tap('stage4', x), taps, None
