"""AU cues' ablations: layer, weight, geometry of the maps (arXiv 2402.00281).

    python -m fer_jax.train --config=configs/ablations/au_cues.py:ferplus:stage3 --workdir=runs/au_cues_stage3

Published on RAF-DB, accuracy / CAM-COS of the layers (ours are stem, stage1 ... stage4 for the paper's 1 ... 5): none
88.20/.55; 1 88.52/.58; 2 88.26/.57; 3 88.39/.56; 4 88.62/.61; 5 88.95/.70; 5+4 and 5+4+3 88.78/.67; 5..2 88.55/.67;
5..1 88.46/.67. Weights, read off a figure, accuracy / attention cosine: .01 88.11/.66; .1 88.33/.75; 1 88.44/.83; 4
88.95/.86; 9 88.56/.88; 20 88.17/.88. Single runs that were selected on the test set; differences are of the size of the
seed's.
"""

from ml_collections import ConfigDict

from configs import ablations, au_cues

_TERM = 'losses.au_cues.'
_LAYERS = ('stage4', 'stage3', 'stage2', 'stage1', 'stem')

ROWS = {
    'au_cues': {},
    'plain': {_TERM + 'weight': 0.0},
    'stem': {_TERM + 'taps': ('stem',)},
    'stage1': {_TERM + 'taps': ('stage1',)},
    'stage2': {_TERM + 'taps': ('stage2',)},
    'stage3': {_TERM + 'taps': ('stage3',)},
    'stage4_to_3': {_TERM + 'taps': _LAYERS[:2]},
    'stage4_to_2': {_TERM + 'taps': _LAYERS[:3]},
    'stage4_to_1': {_TERM + 'taps': _LAYERS[:4]},
    'stage4_to_stem': {_TERM + 'taps': _LAYERS},
    **{f'weight_{weight:g}': {_TERM + 'weight': weight} for weight in (0.01, 0.1, 1.0, 9.0, 20.0)},
    'wildcat': {'model.head': ConfigDict({'name': 'wildcat', 'modalities': 5, 'share': 0.5})},  # RAF-DB 88.26 to 88.85.
    # The maps.
    'generic': {_TERM + 'prior': 'action_unit_generic', 'data.maps.action_unit_generic_map': True},
    'random_class': {_TERM + 'prior': 'action_unit_random', 'data.maps.action_unit_random_map': True},
    'intended_geometry': {'data.maps.action_unit_map.geometry': 'intended'},
    'disgust_au10': {'data.maps.action_unit_map.disgust': 'au10'},
    'landmark_prior': {_TERM + 'prior': 'landmark', _TERM + 'mask': 'landmarks',
                       'data.maps.landmark_heatmap.sigma': 8 / 224, 'data.maps.landmark_heatmap.combine': 'max'},
    'centred_gaussian': {_TERM + 'prior': 'centred_gaussian'},
    'torch_ac_aa': {_TERM + 'resize': 'torch_ac_aa'},
    'pearson': {_TERM + 'similarity': 'pearson'},
}


def get_config(argument: str = 'synthetic_faces:au_cues') -> ConfigDict:
  """The config of 'DATASET:ROW'."""
  return ablations.choose(au_cues.get_config, ROWS, argument, 'au_cues')
