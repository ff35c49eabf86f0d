"""The plain classifier: cross-entropy alone, with the small recipe that all systems share.

    python -m fer_jax.train --config=configs/baseline.py:ferplus --workdir=runs/baseline

    python -m fer_jax.train --config=configs/baseline.py:ferplus:accelerator --workdir=runs/baseline_large

The first is sized for 48-pixel faces on a CPU: a ResNet-18 of width 16 with the small stem, whose last stage is 6 x 6.
The second is its large form, which all systems share too: width 64, batches of 1,024, five times the epochs, and faces
that lie on the device where they fit. No accelerator was at hand, so it was never run.
Published plain classifiers on FERPlus: VGG-13 85.1 %, SENet-50 88.8 %, both trained on other labels or more faces.
"""

from ml_collections import ConfigDict

from configs import common
from fer_jax.errors import UserError


def get_config(argument: str = 'synthetic_faces') -> ConfigDict:
  """The plain classifier on 'DATASET' with the small recipe, or on 'DATASET:accelerator' with its large form."""
  shared, paper = common.parse(argument)
  if paper:
    raise UserError('configs/baseline.py has no recipe of a paper; name the data set alone.')
  dataset, _, large = shared.partition(':')
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
    if large:
      times = 1024 / config.batch_size
      config.model.backbone.width, config.image_size = 64, config.data.size
      config.batch_size = config.eval_batch_size = 1024
      config.epochs *= 5
      # In proportion to the batch after 5 epochs of rise (Goyal et al., arXiv 1706.02677, section 2), and an average
      # over as many faces as before (Busbridge et al., arXiv 2307.13813).
      config.optimizer.learning_rate *= times
      config.optimizer.warmup = 5 / config.epochs
      config.ema **= times
  return config
