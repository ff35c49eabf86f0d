"""Vision transformers of timm trained with AugReg, to name objects.

Names and shapes are those of ``timm_deit``; a file says that it is this one only where it tells 21,843 classes apart.
"""

from fer_jax.models.weights._family import Family, rows
from fer_jax.models.weights._vit import BESIDE, MARKS, to_grid, vit

TIMM_VIT = Family(
    title='ViT (timm)',
    marks=MARKS,
    backbone=vit,
    origin='timm, vit_*_patch*.augreg_in21k and .augreg_in21k_ft_in1k',
    licence="Apache-2.0; ImageNet's terms are for research",
    training_data='ImageNet-21k, and ImageNet-1k where the file has 1,000 classes: objects',
    mean=(0.5,) * 3, std=(0.5,) * 3, size=224,
    recognise=rows('head.weight', 21843),
    beside=BESIDE,
    fit={'pos_embed': to_grid})
