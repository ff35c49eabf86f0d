"""ARM's ablations: feature arrangement, de-albino, sharing affinity, and its global mean (arXiv 2103.10189).

    python -m fer_jax.train --config=configs/ablations/arm.py:ferplus:no_affinity --workdir=runs/arm_no_affinity

Published for RAF-DB: de-albino alone 87.32 %, all three 90.42 % (leaky, see configs/arm.py). Without arrangement the
kernel is 3 x 3 with stride 1 on the features' own h x w planes, which is ours. 'batch' depends on the test batch and is
marked leaky wherever its number is shown.
"""

from ml_collections import ConfigDict

from configs import ablations, arm

_HEAD = 'model.head.'
_NO_ARRANGEMENT = {_HEAD + 'arrangement': False, _HEAD + 'kernel': 3, _HEAD + 'stride': 1}

ROWS = {
    'arm': {},
    'no_arrangement': _NO_ARRANGEMENT,
    'no_de_albino': {_HEAD + 'de_albino': False},
    'no_affinity': {_HEAD + 'global_mean': 'none'},
    'de_albino_alone': {**_NO_ARRANGEMENT, _HEAD + 'global_mean': 'none'},
    'arrangement_alone': {_HEAD + 'de_albino': False, _HEAD + 'global_mean': 'none'},
    'affinity_alone': {**_NO_ARRANGEMENT, _HEAD + 'de_albino': False},
    'batch': {_HEAD + 'global_mean': 'batch'},
    'batch_sorted': {_HEAD + 'global_mean': 'batch', 'eval_order': 'sorted'},
    'batch_shuffled': {_HEAD + 'global_mean': 'batch', 'eval_order': 'shuffled'},
    'balanced': {'data.order': 'balanced'},
}


def get_config(argument: str = 'synthetic_faces:arm') -> ConfigDict:
  """The config of 'DATASET:ROW'."""
  return ablations.choose(arm.get_config, ROWS, argument, 'arm')
