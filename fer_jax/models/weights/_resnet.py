"""What all files of torchvision's ResNets share, whoever trained them."""

import itertools
from typing import Any

from fer_jax.errors import UserError
from fer_jax.models.backbones.resnet import STAGES
from fer_jax.models.weights._family import Tensors

MARKS = ('layer4.0.downsample.0.weight', 'layer1.0.conv1.weight', 'conv1.weight', 'bn1.weight')

_STEMS = {7: 'standard', 3: 'small'}  # By the side of the first kernel.


def resnet(tensors: Tensors) -> dict[str, Any]:
  """The options of the backbone that has these parameters."""
  width, _, side, _ = tensors['conv1.weight'].shape
  blocks = tuple(next(i for i in itertools.count() if f'layer{stage}.{i}.conv1.weight' not in tensors)
                 for stage in (1, 2, 3, 4))
  bottleneck = 'layer1.0.conv3.weight' in tensors
  depth = [depth for depth, theirs in STAGES.items() if theirs == blocks and (depth == 50) == bottleneck]
  if not depth or side not in _STEMS:
    raise UserError(f'is a ResNet with {blocks} blocks of {2 + bottleneck} convolutions and a first kernel of {side} x '
                    f"{side}; the backbone 'resnet' has {STAGES[18]} or {STAGES[34]} of 2, or {STAGES[50]} of 3, and "
                    '7 x 7 or 3 x 3.')
  return {'name': 'resnet', 'depth': depth[0], 'width': width, 'stem': _STEMS[side]}
