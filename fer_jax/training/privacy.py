"""Which faces a run may keep: those whose terms let them be passed on, or all that its config asks for.

A report is made to be sent round, and the terms of most data sets forbid passing their faces on. Of such a data set the
mean of many faces takes their place.
"""

import numpy as np

from fer_jax.data.reading.splits import Split
from fer_jax.metrics.action_units import evenly
from fer_jax.training.protocol import Protocol

AVERAGED = 200  # Faces in the mean face, evenly spaced over the split.
LEAST = 50  # In the mean of fewer a face might be recognised.


def keeps(protocol: Protocol, faces: Split) -> bool:
  """Whether single faces may be kept beside the results of a run."""
  return faces.shareable or protocol.keeps_faces


def mean_face(faces: Split) -> np.ndarray:
  """What maps are laid over where no face may be kept: uint8 (H, W, C), grey where a split has fewer than ``LEAST``."""
  rows = evenly(len(faces), AVERAGED)
  if len(rows) < LEAST:
    return np.full((faces.size, faces.size, faces.channels), 128, np.uint8)
  total = np.zeros((faces.size, faces.size, faces.channels))
  for row in rows:
    total += faces.example(int(row))['image']
  return np.rint(total / len(rows)).astype(np.uint8)
