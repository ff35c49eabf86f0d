"""ResNet-18 of DREAM, trained on MS-Celeb-1M: ``ijba_res18_naive.pth.tar``, where RAN and SCN start.

It has an embedding of 256 numbers, ``feature``, and sees pixels in [0, 1] as they are.
"""

from fer_jax.models.weights._family import Family
from fer_jax.models.weights._resnet import MARKS, resnet

DREAM_RESNET18 = Family(
    title='ResNet-18 (DREAM, MS-Celeb-1M)',
    marks=(*MARKS, 'feature.weight'),
    backbone=resnet,
    origin='github.com/penincillin/DREAM, ijba_res18_naive.pth.tar',
    licence='BSD (the repository); MS-Celeb-1M was withdrawn by its publisher: for research only',
    training_data='MS-Celeb-1M, identities of faces',
    mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=224,
    beside=r'(feature|fc|fc1|fc2)\.')
