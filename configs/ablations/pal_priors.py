"""PAL's question at a size that two CPU cores train: is it the landmarks, or would any picture do?

    python -m fer_jax.ablate --config=configs/ablations/pal_priors.py:ferplus --workdir=runs/pal_priors

Three priors on the mean map, and the landmarks on all channels; net and recipe are those of
configs/ablations/systems.py. A centred Gaussian knows no face, 'shuffled' is the landmarks of another face of the
batch, 'plain' is the same net without the loss. README.md and BUILD_NOTES.md have the table that it made.
"""

from ml_collections import ConfigDict

from configs import ablations, pal
from configs.ablations.systems import SIZE

_TERM = 'losses.pal.'

ROWS = {
    'landmark': SIZE,
    'plain': {**SIZE, _TERM + 'weight': 0.0},
    'centred_gaussian': {**SIZE, _TERM + 'prior': 'centred_gaussian'},
    'shuffled': {**SIZE, _TERM + 'prior': 'shuffled'},
    'landmark_all': {**SIZE, _TERM + 'channels': 'all'},
}


def get_config(argument: str = 'synthetic_faces:landmark') -> ConfigDict:
  """The config of 'DATASET:ROW'."""
  return ablations.choose(pal.get_config, ROWS, argument, 'pal_priors')
