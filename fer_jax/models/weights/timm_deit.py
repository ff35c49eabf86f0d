"""DeiT, Facebook's file or timm's, trained to name objects.

Names and shapes are those of ``timm_vit``, so a file cannot say that it is this one.
"""

from fer_jax.data.augment import MEAN, STD
from fer_jax.models.weights._family import Family
from fer_jax.models.weights._vit import BESIDE, MARKS, to_grid, vit

TIMM_DEIT = Family(
    title='DeiT (timm)',
    marks=MARKS,
    backbone=vit,
    origin='timm, deit_*_patch16_224.fb_in1k, and github.com/facebookresearch/deit',
    licence="Apache-2.0; ImageNet's terms are for research",
    training_data='ImageNet-1k, objects',
    mean=MEAN, std=STD, size=224,
    recognise=lambda tensors, prefix: False,
    beside=BESIDE,
    fit={'pos_embed': to_grid})
