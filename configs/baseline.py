"""The plain classifier: cross-entropy alone.

    python -m fer_jax.train --config=configs/baseline.py:ferplus --workdir=runs/baseline
"""

from ml_collections import ConfigDict

from configs import pal


def get_config(dataset: str = 'synthetic_faces') -> ConfigDict:
  """PAL's recipe without PAL's term, so that the two differ in nothing else."""
  config = pal.get_config(dataset)
  with config.unlocked():
    config.name = 'baseline'
    del config.losses.pal
  return config
