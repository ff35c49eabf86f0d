"""The main job in miniature: PAL on synthetic faces, on one CPU, with nothing to download.

    python -m fer_jax.train --config=configs/quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict

from configs import pal


def get_config() -> ConfigDict:
  """PAL on the synthetic faces."""
  config = pal.get_config('synthetic_faces')
  with config.unlocked():
    config.name = 'quickstart'
    config.image_size = 40
    config.model.backbone.depth = 10
    config.batch_size = 64
    config.epochs = 4.0
  return config
