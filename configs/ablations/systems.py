"""The systems side by side, at a size that two CPU cores train: one recipe, one net, what differs is the system alone.

    python -m fer_jax.train --config=configs/ablations/systems.py:ferplus:ran --workdir=runs/systems/ran-0

A ResNet-10 of width 16 with 6 x 6 maps at 48 pixels (0.3 million parameters), 4 epochs. The level is low on purpose;
the comparison is fair. fer_jax/reports/README.md has the table that it made.
"""

from ml_collections import ConfigDict

from configs import ablations, arm, au_cues, baseline, pal, ran

SYSTEMS = {'baseline': baseline, 'pal': pal, 'au_cues': au_cues, 'ran': ran, 'arm': arm}

SIZE = {'image_size': 48, 'batch_size': 64, 'epochs': 4.0, 'model.backbone.depth': 10,
         'model.backbone.stem': 'standard', 'model.backbone.large_maps': True, 'data.duplicates': True}
ROWS = dict.fromkeys(SYSTEMS, SIZE)


def get_config(argument: str = 'synthetic_faces:baseline') -> ConfigDict:
  """The config of 'DATASET:SYSTEM'."""
  system = SYSTEMS.get(argument.rpartition(':')[2], baseline)
  return ablations.choose(system.get_config, ROWS, argument, 'systems')
