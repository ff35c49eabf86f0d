"""MobileNetV1 as Keras has it: TensorFlow's padding (more at the bottom and at the right), ReLU6.

Names follow Keras with '_' between a layer and its number: ``conv_dw_3`` is the third depthwise convolution, with the
normalisation ``conv_dw_3_bn``, and ``conv_pw_3`` the pointwise one after it. Howard et al., "MobileNets",
arXiv 1704.04861; HSE-asavchenko's HSE_FaceRec_tf trained it to tell faces apart.
"""

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from fer_jax.models.convnet import ConvNet

# Multiple of the width, stride, tap at the end.
LAYERS = ((2, 1, None), (4, 2, None), (4, 1, 'stage1'), (8, 2, None), (8, 1, 'stage2'), (16, 2, None), (16, 1, None),
          (16, 1, None), (16, 1, None), (16, 1, None), (16, 1, 'stage3'), (32, 2, None), (32, 1, 'stage4'))


class MobileNetV1(ConvNet):
  """A MobileNetV1.

  Taps: 'stem' (the first convolution), and 'stage1' to 'stage4' at the end of each resolution: 32, 128, 256, 512 and
  1024 channels, 112, 56, 28, 14 and 7 pixels a side at 224; 'stage4' equals the features. Sides are rounded up.

  Attributes:
    width: channels of the first layer, 32 in the published net; all others are multiples.
  """

  width: int = 32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], None]:
    """Maps normalised images (N, H, W, 3) to features (N, h, w, C), ``{tap: activation}`` and no attention."""
    conv, norm, taps, tap = self.parts(train)

    def layer(x: jax.Array, name: str, *args, **kwargs) -> jax.Array:
      return nn.relu6(norm(name=f'{name}_bn')(conv(*args, padding='SAME', name=name, **kwargs)(x)))

    x = tap('stem', layer(images.astype(self.dtype), 'conv1', self.width, (3, 3), 2))
    for i, (multiple, stride, name) in enumerate(LAYERS, 1):
      x = layer(x, f'conv_dw_{i}', x.shape[-1], (3, 3), stride, feature_group_count=x.shape[-1])
      x = checkpoint_name(layer(x, f'conv_pw_{i}', multiple * self.width, (1, 1)), 'block')
      x = tap(name, x) if name else x
    return x, taps, None
