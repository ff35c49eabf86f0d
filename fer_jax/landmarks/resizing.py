"""Bilinear resizing along one axis, in the forms that the sources use: weights that priors, maps and metrics share."""

import functools

import numpy as np

# Forms of bilinear resizing, as PyTorch's two switches: align_corners, antialias.
RESIZES = {'antialias': (False, True), 'plain': (False, False), 'torch_ac_aa': (True, True)}


@functools.lru_cache(maxsize=64)
def mixing(n_in: int, n_out: int, resize: str) -> np.ndarray:
  """Weights (n_out, n_in) float64 of a resize, a key of ``RESIZES``: triangles around the places, each of sum 1.

  'antialias' widens the triangles when shrinking, 'plain' does not. 'torch_ac_aa' is what the code of AU cues (arXiv
  2402.00281) does by ``align_corners`` and ``antialias`` together: then PyTorch samples at s (i + 0.5) - 0.5 with s =
  (n_in - 1) / (n_out - 1), which is too far right and down when shrinking, and too far left and up when enlarging.
  """
  # Not jax.image.scale_and_translate: it gives 0 for the places beyond the last pixel that PyTorch's form samples.
  corners, antialias = RESIZES[resize]
  if corners:
    step = (n_in - 1) / (n_out - 1) if n_out > 1 else 0.0
  else:
    step = n_in / n_out
  places = step * (np.arange(n_out) + 0.5) - 0.5
  distance = np.abs(places[:, None] - np.arange(n_in))
  weights = np.maximum(1 - distance / (max(step, 1) if antialias else 1), 0)
  weights /= weights.sum(axis=1, keepdims=True)
  weights.flags.writeable = False
  return weights
