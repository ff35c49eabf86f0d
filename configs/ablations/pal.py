"""PAL's ablations: attribution, target, channels, layer, prior, similarity, weight (arXiv 2203.12905).

    python -m fer_jax.train --config=configs/ablations/pal.py:ferplus:centred_gaussian --workdir=runs/pal_gaussian

The paper's own table compares channel strategies and layers; its numbers are not known here (gains of 1 to 2 points
with VGG-16, less with ResNet-50, recalled). The control priors are ours: what a prior that knows no face gains as well
is not due to anatomy. 'plain' is the same net and recipe without the loss.
"""

from ml_collections import ConfigDict

from configs import ablations, pal

_TERM = 'losses.pal.'

ROWS = {
    'pal': {},
    'plain': {_TERM + 'weight': 0.0},
    # Attribution and the scalar it explains.
    'grad': {_TERM + 'attribution': 'grad', _TERM + 'taps': ('stage3',)},  # Flat in space at the last stage.
    'integrated_gradients': {_TERM + 'attribution': 'integrated_gradients'},
    'true_class': {_TERM + 'target': 'true_class'},
    'predicted': {_TERM + 'target': 'predicted'},
    'cross_entropy': {_TERM + 'target': 'cross_entropy'},
    # How much of the tensor is constrained.
    'all_channels': {_TERM + 'channels': 'all'},
    'all_channels_apart': {_TERM + 'channels': 'all', _TERM + 'stats': 'channel'},
    'half_mean': {_TERM + 'channels': 'half_mean'},
    # Layer.
    'stage3': {_TERM + 'taps': ('stage3',)},
    'stage3_and_4': {_TERM + 'taps': ('stage3', 'stage4')},
    # Prior: anatomical ones, controls, and how the landmarks are drawn.
    'action_unit': {_TERM + 'prior': 'action_unit', _TERM + 'mask': 'action_units'},
    'action_unit_generic': {_TERM + 'prior': 'action_unit_generic', 'data.maps.action_unit_generic_map': True},
    'centred_gaussian': {_TERM + 'prior': 'centred_gaussian'},
    'uniform': {_TERM + 'prior': 'uniform', _TERM + 'similarity': 'cosine'},  # A constant has no correlation.
    'shuffled': {_TERM + 'prior': 'shuffled'},
    'all_points': {'data.maps.landmark_heatmap.points': 'all'},
    'eyes_brows_mouth': {'data.maps.landmark_heatmap.points': 'eyes_brows_mouth'},
    'wide_maximum': {'data.maps.landmark_heatmap.sigma': 8 / 224, 'data.maps.landmark_heatmap.combine': 'max'},
    'plain_resize': {_TERM + 'resize': 'plain'},
    # Similarity and weight.
    'zscore_sum': {_TERM + 'similarity': 'zscore_sum'},
    'cosine': {_TERM + 'similarity': 'cosine'},
    'weight_0.1': {_TERM + 'weight': 0.1},
    'weight_0.3': {_TERM + 'weight': 0.3},
    'weight_3': {_TERM + 'weight': 3.0},
}


def get_config(argument: str = 'synthetic_faces:pal') -> ConfigDict:
  """The config of 'DATASET:ROW'."""
  return ablations.choose(pal.get_config, ROWS, argument, 'pal')
