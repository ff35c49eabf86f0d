"""RAN: attention over the full face and its crops, with a loss that wants one crop to outweigh the face.

    python -m fer_jax.train --config=configs/ran.py:ferplus --workdir=runs/ran
    python -m fer_jax.train --config=configs/ran.py:ferplus:paper --workdir=runs/ran_paper

arXiv 1905.04075. The first uses the small recipe of configs/baseline.py. The second follows the released code
(ResNet-18, 224 pixels, pixel values in [0, 1], no augmentation; its learning rate of 0.1 lowered to 0.01) and wants an
accelerator; it aims at FERPlus 88.55 %, and 83.63, 82.23 and 80.40 % on the occlusion, pose > 30 and pose > 45 subsets:
best epoch on the test set. The paper starts from a ResNet-18 of MS-Celeb-1M, ijba_res18_naive.pth.tar, which its
authors have from github.com/penincillin/DREAM: --config.init_from=FILE. From scratch expect 83 to 87 %.
"""

from ml_collections import ConfigDict

from configs import baseline, common


def get_config(argument: str = 'synthetic_faces') -> ConfigDict:
  """RAN on 'DATASET' with the small recipe, or 'DATASET:accelerator' or 'DATASET:paper' with a larger one."""
  shared, paper = common.parse(argument)
  config = baseline.get_config(shared)
  with config.unlocked():
    config.name = 'ran'
    config.regions.scheme = 'fixed5'
    config.model.head = ConfigDict({
        'name': 'region_attention', 'form': 'code', 'self_attention': True, 'relation_attention': True})
    config.losses.region_bias = ConfigDict({'loss': 'region_bias', 'weight': 1.0, 'mask': 'all', 'margin': 0.1})
    config.remat = ':' in argument  # Six images a face, where those are large or many.
    if paper:
      config.model.backbone = ConfigDict({'name': 'resnet', 'depth': 18})
      config.image_size, config.batch_size, config.epochs = 224, 128, 60.0
      config.init_decides = ('backbone',)
      config.data.target, config.ema, config.variables = 'label', 0.0, 'trained'
      config.normalise.mean, config.normalise.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
      config.augment = ConfigDict({'flip': 0.0})
      config.optimizer.update({'learning_rate': 0.01, 'nesterov': False, 'weight_decay': 1e-4, 'decay': 'all',
                               'schedule': 'step', 'boundaries': (0.3, 0.5, 0.8), 'factor': 0.1, 'warmup': 0.0})
  return config
