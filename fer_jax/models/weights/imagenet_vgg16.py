"""VGG-16 with and without BatchNorm of torchvision, and timm's, trained to name objects."""

from typing import Any

from fer_jax.data.augment import MEAN, STD
from fer_jax.errors import UserError
from fer_jax.models.backbones.vgg import STAGES
from fer_jax.models.weights._family import Family, Tensors, rows


def _vgg(tensors: Tensors) -> dict[str, Any]:
  convolutions = sum(value.ndim == 4 for name, value in tensors.items() if name.startswith('features.'))
  if convolutions != sum(STAGES):
    raise UserError(f"is a VGG with {convolutions} convolutions, and the backbone 'vgg' is VGG-16, with {sum(STAGES)}.")
  return {'name': 'vgg', 'width': tensors['features.0.weight'].shape[0],
          'batch_norm': 'features.1.running_mean' in tensors}


def _of_1000(tensors: Tensors, prefix: str) -> bool:
  return any(rows(name, 1000)(tensors, prefix) for name in ('classifier.6.weight', 'head.fc.weight'))


IMAGENET_VGG16 = Family(
    title='VGG-16 (torchvision, timm)',
    marks=('features.0.weight', 'features.0.bias', 'features.14.weight', 'features.28.weight'),
    backbone=_vgg,
    origin='torchvision (vgg16-*.pth, vgg16_bn-*.pth) or timm (model.safetensors)',
    licence="BSD-3-Clause (torchvision), Apache-2.0 (timm); ImageNet's terms are for research",
    training_data='ImageNet-1k, objects',
    mean=MEAN, std=STD, size=224,
    recognise=_of_1000,
    beside=r'(classifier|pre_logits|head)\.')
