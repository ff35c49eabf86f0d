"""RAN's ablations: regions, attention, loss, margin, and where paper and code disagree (arXiv 1905.04075).

    python -m fer_jax.train --config=configs/ablations/ran.py:ferplus:no_loss --workdir=runs/ran_no_loss

'paper_form' with its margin of 0.02 follows the paper, which is recalled; the default follows the released code.
Margins do not carry over between the forms. The published table's numbers are not known here.
"""

from ml_collections import ConfigDict

from configs import ablations, ran

ROWS = {
    'ran': {},
    # Regions.
    'affectnet7': {'regions.scheme': 'affectnet7'},
    'random': {'regions.scheme': 'random'},
    'landmark': {'regions.scheme': 'landmark'},
    # Attention.
    'no_relation': {'model.head.relation_attention': False},
    'no_attention': {'model.head.self_attention': False, 'model.head.relation_attention': False,
                     'losses.region_bias.weight': 0.0},
    'paper_form': {'model.head.form': 'paper', 'losses.region_bias.margin': 0.02},
    # Loss and margin.
    'no_loss': {'losses.region_bias.weight': 0.0},
    'margin_0.02': {'losses.region_bias.margin': 0.02},
    'margin_0.03': {'losses.region_bias.margin': 0.03},
    'margin_0.2': {'losses.region_bias.margin': 0.2},
    # How it is trained.
    'folded_norm': {'model.region_norm': 'folded'},
    'oversample': {'data.order': 'oversample', 'losses.region_bias.margin': 0.02},
    'raw_input': {'normalise.mean': (0.0, 0.0, 0.0), 'normalise.std': (1.0, 1.0, 1.0), 'augment.flip': 0.0,
                  'augment.rotation': 0.0, 'augment.scale': (1.0, 1.0), 'augment.brightness': 0.0,
                  'augment.contrast': 0.0},
}


def get_config(argument: str = 'synthetic_faces:ran') -> ConfigDict:
  """The config of 'DATASET:ROW'."""
  return ablations.choose(ran.get_config, ROWS, argument, 'ran')
