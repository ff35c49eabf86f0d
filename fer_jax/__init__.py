"""fer_jax: train, ablate, explain and honestly evaluate facial-expression-recognition models in JAX.

``load(WORKDIR)`` gives what was trained, as a function from pictures to faces with named probabilities.

As a library, for a training loop of one's own: attribution maps of any network (``attribution_map``), the alignment
loss that makes PAL and AU cues of them, what maps are compared with (``landmark_heatmap``, ``action_unit_map``), RAN's
regions, head and loss, ARM's head, DeepFEVER's triplet loss, and intervals for accuracies. A name loads what it needs
when it is first used: ``import fer_jax`` loads nothing.
"""

import importlib

__version__ = '0.1.0'

_HOMES = {
    'Arm': 'models.heads.arm',
    'RegionAttention': 'models.heads.region_attention',
    'UserError': 'errors',
    'action_unit_map': 'landmarks.action_units',
    'alignment_loss': 'losses.alignment',
    'attribution_map': 'attribution.maps',
    'bootstrap': 'metrics.intervals',
    'landmark_heatmap': 'landmarks.heatmap',
    'load': 'analysis.prediction',
    'mcnemar': 'metrics.comparison',
    'rank_loss': 'losses.region_bias',
    'region_boxes': 'landmarks.regions',
    'triplet_loss': 'losses.triplet',
    'wilson': 'metrics.intervals',
}
__all__ = [*_HOMES]


def __getattr__(name: str):
  if name not in _HOMES:
    raise AttributeError(f"module 'fer_jax' has no attribute '{name}'")
  return getattr(importlib.import_module(f'fer_jax.{_HOMES[name]}'), name)


def __dir__() -> list[str]:
  return [*globals(), *__all__]
