"""AU cues' layer and weight at a size that two CPU cores train, with the prior that knows no face as a control.

    python -m fer_jax.ablate --config=configs/ablations/au_cues_layers.py:ferplus --workdir=runs/au_cues_layers

The net and recipe of configs/ablations/systems.py; 'stage4' has the weight of RAF-DB, 4.
fer_jax/reports/README.md has the table that it made.
"""

from ml_collections import ConfigDict

from configs import ablations, au_cues
from configs.ablations.systems import SIZE

_TERM = 'losses.au_cues.'

ROWS = {
    'stage4': SIZE,
    'plain': {**SIZE, _TERM + 'weight': 0.0},
    'stage3': {**SIZE, _TERM + 'taps': ('stage3',)},
    'weight_0.1': {**SIZE, _TERM + 'weight': 0.1},
    'centred_gaussian': {**SIZE, _TERM + 'prior': 'centred_gaussian'},
}


def get_config(argument: str = 'synthetic_faces:stage4') -> ConfigDict:
  """The config of 'DATASET:ROW'."""
  return ablations.choose(au_cues.get_config, ROWS, argument, 'au_cues_layers')
