"""VGG-16, parameter for parameter torchvision's, with or without its two hidden fully connected layers.

A state dict maps to parameter names by one rule: '.' before a number becomes '_', any other '.' a path level:
``features.28.weight`` is ``features_28/kernel``, ``classifier.3.weight`` is ``classifier_3/kernel`` (fc7; fc8 is the
head's). Simonyan and Zisserman, arXiv 1409.1556.
"""

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from fer_jax.errors import UserError
from fer_jax.models.convnet import ConvNet
from fer_jax.models.pooling import max_pool

STAGES = (2, 2, 3, 3, 3)  # Convolutions between two poolings.


class VGG(ConvNet):
  """A VGG-16.

  Taps: 'stem' and 'stage1' to 'stage4' are conv1_2, conv2_2, conv3_3, conv4_3 and conv5_3, after the ReLU and before
  the pooling: 224, 112, 56, 28 and 14 pixels a side at 224.

  Attributes:
    batch_norm: normalise after every convolution (torchvision's ``vgg16_bn``).
    fully_connected: features are fc7's, (N, 1, 1, 64 width), after the ReLU and without dropout, so that the head
      'linear' completes VGG-16; for images of 224 x 224. Else features are the last convolution's map.
    last_pool: whether that map is pooled (7 x 7 at 224 pixels) or not (14 x 14).
    width: channels of the first convolutions, 64 in torchvision.
  """

  batch_norm: bool = False
  fully_connected: bool = False
  last_pool: bool = True
  width: int = 64

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], None]:
    """Maps normalised images (N, H, W, 3) to features (N, h, w, C), ``{tap: activation}`` and no attention.

    Raises:
      UserError: the images are too small, or not of the size that the fully connected layers take.
    """
    conv, norm, taps, tap = self.parts(train)
    x = images.astype(self.dtype)
    at = 0  # Position in torchvision's ``features``, which counts ReLU and pooling as well.
    for i, convs in enumerate(STAGES):
      for _ in range(convs):
        x = conv(self.width * min(2**i, 8), (3, 3), padding=1, use_bias=True, name=f'features_{at}')(x)
        x = nn.relu(norm(name=f'features_{at + 1}')(x) if self.batch_norm else x)
        at += 3 if self.batch_norm else 2
      at += 1
      x = tap(f'stage{i}' if i else 'stem', checkpoint_name(x, 'block'))
      if i < 4 or self.last_pool or self.fully_connected:
        x = max_pool(x, (2, 2), (2, 2))
    sides = f'images of {images.shape[1]} x {images.shape[2]} pixels'
    if not x.size:
      raise UserError(f"model.backbone 'vgg': {sides} are pooled away; the least is 32 x 32, or 16 x 16 with "
                      'model.backbone.last_pool=False.')
    if self.fully_connected:
      if x.shape[1:3] != (7, 7):
        raise UserError(f'model.backbone.fully_connected=True: fc6 takes a 7 x 7 map and {sides} give {x.shape[1]} x '
                        f'{x.shape[2]}; feed images of 224 x 224 (config.image_size) or set it to False.')
      x = x.transpose(0, 3, 1, 2).reshape(-1, 1, 1, 49 * x.shape[3])  # torchvision flattens channels first.
      for name in ('classifier_0', 'classifier_3'):
        x = nn.relu(nn.Dense(64 * self.width, dtype=self.dtype, name=name,
                             kernel_init=nn.initializers.normal(0.01))(x))
    return x, taps, None
