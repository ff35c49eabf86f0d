"""How the faces of a run lie in its images: where a face from elsewhere is to be brought before the network sees it.

Aligned data say it by their variant. Of all others it is measured: where five points of the faces lie on average.
"""

from typing import Any

import numpy as np

from fer_jax.data.face import LANDMARK_SOURCES
from fer_jax.data.preparing.builder import parse_variant
from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError
from fer_jax.landmarks import align
from fer_jax.metrics.action_units import evenly
from fer_jax.training.setup import Trained

# Faces that are looked at, evenly spaced over the training split. On FERPlus a point lies 0.11 of the side from its
# mean: of a thousand faces the mean is known to 0.004.
_LOOKED_AT = 1_000
_FEWEST = 20  # With known landmarks; of fewer the mean is anybody's.


def framing(faces: Split, variant: str) -> dict[str, Any]:
  """What run.json says of the way that faces lie in the images of a training split.

  Args:
    variant: its data set's.

  Returns:
    'size', the side of a batch's images in pixels; 'align_size', that of aligned images, 0 where they are not aligned;
    'frame', None where they are aligned or too few landmarks are trusted, else
      points: (5, 2) means of ``align.five_points`` in fractions of the squared image, at the mean size of a face, which
        the mean of faces that turn this way and that falls short of;
      spread: how far a point lies from its mean, root of the mean square, in the same unit;
      count: faces that were measured.

  Raises:
    UserError: a face cannot be decoded.
  """
  align_size = parse_variant(variant)[1]
  return {'size': faces.size, 'align_size': align_size, 'frame': None if align_size else _measured(faces)}


def recalled(trained: Trained) -> dict[str, Any]:
  """``framing`` of a run's training split: from its record, or from its data where an earlier version trained it.

  Where those are not here any more, 'frame' is None.
  """
  record, data = trained.record, trained.protocol.data
  if 'align_size' in record:
    return {name: record[name] for name in ('size', 'align_size', 'frame')}
  try:
    return framing(data.open(data.train), data.variant)
  except UserError:
    align_size = parse_variant(data.variant)[1]
    return {'size': data.size or align_size or trained.system.recipe.image_size, 'align_size': align_size,
            'frame': None}


def _measured(faces: Split) -> dict[str, Any] | None:
  """The mean frame of the faces whose landmarks are trusted."""
  found = faces.take(evenly(len(faces), _LOOKED_AT), ('landmarks', 'landmark_source'))
  trusted = found['landmarks'][found['landmark_source'] >= LANDMARK_SOURCES.index('detector')]
  points = np.array([align.five_points(landmarks) for landmarks in trusted if np.isfinite(landmarks).all()], np.float64)
  if len(points) < _FEWEST:
    return None
  mean, size = points.mean(axis=0), lambda shape: np.sqrt(np.square(shape - shape.mean(axis=0)).sum())
  grown = mean.mean(axis=0) + (mean - mean.mean(axis=0)) * np.mean([size(one) for one in points]) / size(mean)
  return {'points': grown.round(4).tolist(), 'count': len(points),
          'spread': round(float(np.sqrt(np.square(points - mean).sum(axis=-1).mean())), 4)}
