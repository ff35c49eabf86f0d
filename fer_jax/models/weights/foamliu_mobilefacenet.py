"""MobileFaceNet of github.com/foamliu/MobileFaceNet, trained to tell faces apart."""

from fer_jax.data.augment import MEAN, STD
from fer_jax.models.weights._family import Family

FOAMLIU_MOBILEFACENET = Family(
    title='MobileFaceNet (foamliu)',
    marks=('dw_conv.depthwise.weight', 'features.14.conv.3.weight', 'gdconv.depthwise.weight'),
    backbone=lambda tensors: {'name': 'mobilefacenet', 'width': tensors['conv1.0.weight'].shape[0]},
    origin='github.com/foamliu/MobileFaceNet, weights/mobilefacenet.pt',
    licence='Apache-2.0 (the repository); MS-Celeb-1M was withdrawn by its publisher: for research only',
    training_data='MS-Celeb-1M, identities of faces',
    mean=MEAN, std=STD, size=112,
    beside=r'gdconv\.|conv3\.|bn\.')
