"""ResNet-18, 34 and 50 of torchvision, and timm's of the same names, trained to name objects."""

from fer_jax.data.augment import MEAN, STD
from fer_jax.models.weights._family import Family, rows
from fer_jax.models.weights._resnet import MARKS, resnet

IMAGENET_RESNET = Family(
    title='ResNet (torchvision, timm)',
    marks=MARKS,
    backbone=resnet,
    origin='torchvision (resnet18-*.pth, ...) or timm (model.safetensors)',
    licence="BSD-3-Clause (torchvision), Apache-2.0 (timm); ImageNet's terms are for research",
    training_data="ImageNet-1k, objects; some of timm's first on more: see their model card",
    mean=MEAN, std=STD, size=224,
    # Their owners' files have no prefix; the MS-Celeb-1M file with 1,000 rows has one.
    recognise=lambda tensors, prefix: not prefix and rows('fc.weight', 1000)(tensors, prefix),
    beside=r'fc\.')
