"""ARM: an amending head (feature arrangement, de-albino, sharing affinity) in place of pooling.

    python -m fer_jax.train --config=configs/arm.py:ferplus --workdir=runs/arm
    python -m fer_jax.train --config=configs/arm.py:ferplus:paper --workdir=runs/arm_paper

arXiv 2103.10189. The first uses the small recipe of configs/baseline.py, with the head scaled to 128 channels. The
second is the released code's for RAF-DB (ResNet-18, 224 pixels, Adam) with the mean of affinity frozen at test time,
and wants an accelerator. The published RAF-DB 90.42 to 92.05 % and AffectNet-7 65.2 % are *leaky*: computed with the
mean of the test batch in an order whose labels lie in blocks, best epoch on the test set, from weights of ImageNet
(torchvision's resnet18-*.pth: --config.init_from=FILE). With a frozen mean expect 86 to 87 %. 'batch' shows the leak,
and is marked so.
"""

from ml_collections import ConfigDict

from configs import baseline, common
from fer_jax.data import augment


def get_config(argument: str = 'synthetic_faces') -> ConfigDict:
  """ARM on 'DATASET' with the small recipe, or 'DATASET:accelerator' or 'DATASET:paper' with a larger one."""
  shared, paper = common.parse(argument)
  config = baseline.get_config(shared)
  with config.unlocked():
    config.name = 'arm'
    config.model.head = ConfigDict({
        'name': 'arm', 'block': 8, 'kernel': 16, 'stride': 4, 'arrangement': True, 'de_albino': True,
        'global_mean': 'running', 'decay': 0.99})
    if ':' in argument:  # A backbone of 512 channels.
      config.model.head.update({'block': 16, 'kernel': 32, 'stride': 8})
    if paper:
      config.model.backbone = ConfigDict({'name': 'resnet', 'depth': 18})
      config.image_size, config.batch_size, config.eval_batch_size, config.epochs = 224, 256, 64, 70.0
      config.data.target, config.ema, config.variables = 'label', 0.0, 'trained'
      config.normalise.mean, config.normalise.std = augment.MEAN, augment.STD
      config.augment = ConfigDict({'flip': 0.5, 'noise': 30**0.5 / 255, 'noise_probability': 0.5, 'erasing': 0.5,
                                   'erasing_area': (0.02, 0.1), 'erasing_fill': (0.0, 0.0, 0.0)})
      config.optimizer.update({'name': 'adam', 'learning_rate': 1e-3, 'weight_decay': 1e-4, 'decay': 'all',
                               'schedule': 'exponential', 'factor': 0.9, 'period': 1 / 70, 'warmup': 0.0})
  return config
