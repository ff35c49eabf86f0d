"""ResNet-18 trained on MS-Celeb-1M in torchvision's form, ``resnet18_msceleb.pth``: where many FER systems start.

Its names and shapes are those of a ResNet-18 for ImageNet, with a classifier of 1,000 rows that it was not trained
with. So a file cannot say that it is this one.
"""

from fer_jax.data.augment import MEAN, STD
from fer_jax.models.weights._family import Family
from fer_jax.models.weights._resnet import MARKS, resnet

MSCELEB_RESNET18 = Family(
    title='ResNet-18 (MS-Celeb-1M)',
    marks=MARKS,
    backbone=resnet,
    origin='github.com/yaoing/DAN and others, resnet18_msceleb.pth',
    licence='none is known; MS-Celeb-1M was withdrawn by its publisher: for research only',
    training_data='MS-Celeb-1M, identities of faces',
    mean=MEAN, std=STD, size=224,  # As the systems that start from it use it.
    recognise=lambda tensors, prefix: False,
    beside=r'fc\.')
