"""PAL: cross-entropy plus the alignment of an attribution map with the face's landmarks (arXiv 2203.12905).

    python -m fer_jax.train --config=configs/pal.py:ferplus --workdir=runs/pal

Sized for 48-pixel faces on a CPU: a ResNet-18 of width 16 with the small stem, whose last stage is 6 x 6. On an
accelerator, widen it: --config.model.backbone.width=64 --config.image_size=112
The paper's own recipe (ResNet-50, face-recognition weights, Adam, 224 pixels) needs weights that are not public here.
"""

from ml_collections import ConfigDict

from configs import common
from fer_jax.losses.alignment import PRESETS


def get_config(dataset: str = 'synthetic_faces') -> ConfigDict:
  """PAL on ``dataset``."""
  config = common.get_config(dataset)
  with config.unlocked():
    config.name = 'pal'
    config.model.backbone.width = 16
    config.losses.pal = ConfigDict({'loss': 'alignment', 'weight': 1.0, 'mask': 'landmarks', **PRESETS['pal']})
    config.ema = 0.999
    config.select = 'ema'
    if dataset == 'ferplus':
      config.data.target = 'votes'
      config.image_size = 44
      config.batch_size = 64
      config.optimizer.learning_rate = 0.05
      config.epochs = 12.0
  return config
