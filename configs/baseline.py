"""The plain classifier: cross-entropy alone, with the small recipe that all systems share.

    python -m fer_jax.train --config=configs/baseline.py:ferplus --workdir=runs/baseline

Sized for 48-pixel faces on a CPU: a ResNet-18 of width 16 with the small stem, whose last stage is 6 x 6. On an
accelerator, widen it: --config.model.backbone.width=64 --config.image_size=112
Published plain classifiers on FERPlus: VGG-13 85.1 %, SENet-50 88.8 %, both trained on other labels or more faces.
"""

from ml_collections import ConfigDict

from configs import common
from fer_jax.errors import UserError


def get_config(argument: str = 'synthetic_faces') -> ConfigDict:
  """The plain classifier on a data set; it has no recipe of a paper."""
  dataset, paper = common.parse(argument)
  if paper:
    raise UserError('configs/baseline.py has no recipe of a paper; name the data set alone.')
  config = common.get_config(dataset)
  with config.unlocked():
    config.model.backbone.width = 16
    config.ema = 0.999
    config.variables = 'ema'
    if dataset == 'ferplus':
      config.data.target = 'votes'
      config.image_size = 44
      config.batch_size = 64
      config.optimizer.learning_rate = 0.05
      config.epochs = 12.0
  return config
