"""MobileNetV2 of torchvision, trained to name objects; also with the names of torchvision before 0.10."""

import re
from typing import Any

from fer_jax.data.augment import MEAN, STD
from fer_jax.models.weights._family import Family, Tensors, rows

# Today's numbers of a block's layers by the old ones: of a block, and of the first one, which has no expansion.
_LAYERS = {'0': '0.0', '1': '0.1', '3': '1.0', '4': '1.1', '6': '2', '7': '3'}
_FIRST = {'0': '0.0', '1': '0.1', '3': '1', '4': '2'}


def _today(tensors: Tensors) -> Tensors:
  if 'features.1.conv.0.weight' not in tensors:
    return tensors

  def renamed(name: str) -> str:
    old = re.fullmatch(r'features\.(\d+)\.conv\.(\d)\.(\w+)', name)
    layers = _FIRST if old and old[1] == '1' else _LAYERS
    return f'features.{old[1]}.conv.{layers[old[2]]}.{old[3]}' if old and old[2] in layers else name

  return {renamed(name): value for name, value in tensors.items()}


def _mobilenet_v2(tensors: Tensors) -> dict[str, Any]:
  return {'name': 'mobilenet_v2', 'width': tensors['features.17.conv.2.weight'].shape[0] / 320}


IMAGENET_MOBILENET_V2 = Family(
    title='MobileNetV2 (torchvision)',
    marks=('features.18.0.weight', 'features.0.0.weight', 'features.1.conv.1.weight'),
    backbone=_mobilenet_v2,
    origin='torchvision, mobilenet_v2-*.pth',
    licence="BSD-3-Clause; ImageNet's terms are for research",
    training_data='ImageNet-1k, objects',
    mean=MEAN, std=STD, size=224,
    recognise=rows('classifier.1.weight', 1000),
    adapt=_today,
    beside=r'classifier\.')
