"""PAL: cross-entropy plus the alignment of an attribution map with the face's landmarks (arXiv 2203.12905).

    python -m fer_jax.train --config=configs/pal.py:ferplus --workdir=runs/pal
    python -m fer_jax.train --config=configs/pal.py:ferplus:paper --workdir=runs/pal_paper

The first uses the small recipe of configs/baseline.py. The second follows the paper (ResNet-50, Adam, 224 pixels), as
far as it is known, and wants an accelerator; what it aims at, RAF-DB about 89.5 % and AffectNet-7 about 65.8 %, started
from weights of VGGFace, and these numbers are recalled, not read: check them in the paper. VGGFace2's ResNet-50 is
resnet50_ft_weight.pkl of github.com/cydonia999/VGGFace2-pytorch, VGGFace's own VGG-16 vgg_face_dag.pth of
www.robots.ox.ac.uk/~albanie/pytorch-models.html: --config.init_from=FILE.
"""

from ml_collections import ConfigDict

from configs import baseline, common
from fer_jax.data import augment
from fer_jax.losses.alignment import PRESETS


def get_config(argument: str = 'synthetic_faces') -> ConfigDict:
  """PAL on 'DATASET' with the small recipe, or 'DATASET:accelerator' or 'DATASET:paper' with a larger one."""
  shared, paper = common.parse(argument)
  config = baseline.get_config(shared)
  with config.unlocked():
    config.name = 'pal'
    config.losses.pal = ConfigDict({'loss': 'alignment', 'weight': 1.0, 'mask': 'landmarks', **PRESETS['pal']})
    if paper:
      config.losses.pal.similarity = 'zscore_sum'
      config.model.backbone = ConfigDict({'name': 'resnet', 'depth': 50})
      config.image_size, config.batch_size, config.epochs = 224, 16, 40.0
      config.data.target, config.ema, config.variables = 'label', 0.0, 'trained'
      config.normalise.mean, config.normalise.std = augment.MEAN, augment.STD
      config.augment = ConfigDict({'flip': 0.5, 'rotation': 10.0})
      config.optimizer.update({'name': 'adam', 'learning_rate': 4e-5, 'schedule': 'polynomial', 'power': 5.0,
                               'warmup': 0.0, 'weight_decay': 0.0})
  return config
