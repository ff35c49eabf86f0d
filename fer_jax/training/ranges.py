"""Which numbers a config may hold: one table, looked at before anything is computed."""

import fnmatch
import math
from collections.abc import Iterable, Mapping
from typing import Any

from fer_jax.errors import UserError

_WHOLE, _POSITIVE, _SHARE = (1, math.inf), ('above', 0), (0, 1)

# (lowest, highest), both allowed; ('above', x): anything greater; ('below', low, x): from low on, less than x. Where a
# config has several numbers, as in scale, it holds for each. What is not here may be any number that is finite.
_RANGES = {
    'seed': (0, 2**31 - 1),  # JAX's keys take 32 bits with a sign, and others would be the keys of smaller numbers.
    'data.seed': (-1, 2**31 - 1),
    'data.size': _WHOLE, 'data.parts': (0, math.inf), 'data.threads': (0, math.inf), 'data.maps.*.sigma': _POSITIVE,
    'data.resident_steps': (0, math.inf),
    'image_size': _WHOLE,
    'batch_size': _WHOLE, 'eval_batch_size': _WHOLE, 'log_every': _WHOLE,
    'epochs': _POSITIVE, 'evaluate_every': _POSITIVE, 'checkpoint_every': _POSITIVE,
    'checkpoint_minutes': (0, math.inf),
    'sources.*.parts': (0, math.inf), 'sources.*.count': _WHOLE, 'comparisons.*.count': _WHOLE,
    'regions.count': _WHOLE, 'regions.side': _SHARE, 'regions.landmark_side': _SHARE,
    'augment.flip': _SHARE, 'augment.erasing': _SHARE, 'augment.erasing_area': _SHARE, 'augment.rotation': (0, 180),
    'augment.scale': _POSITIVE, 'augment.brightness': _SHARE, 'augment.contrast': _SHARE,
    'augment.noise': (0, math.inf), 'normalise.std': _POSITIVE,
    'model.backbone.width': _POSITIVE, 'model.backbone.depth': _WHOLE, 'model.*.dropout': ('below', 0, 1),
    'losses.*.smoothing': ('below', 0, 1), 'losses.*.temperature': _POSITIVE, 'losses.*.margin': (0, math.inf),
    'optimizer.learning_rate': (0, math.inf), 'optimizer.warmup': _SHARE, 'optimizer.momentum': ('below', 0, 1),
    'optimizer.weight_decay': (0, math.inf), 'optimizer.clip_norm': (0, math.inf), 'optimizer.accumulate': _WHOLE,
    'ema': ('below', 0, 1),
}


def check(values: Mapping[str, Any]) -> None:
  """Raises UserError where a number of a config, {dotted key: value}, is not finite or out of its range."""
  for key, value in values.items():
    limits = next((limits for name, limits in _RANGES.items() if fnmatch.fnmatchcase(key, name)), ())
    for number in _numbers(value):
      if not math.isfinite(number):
        raise UserError(f'config.{key}={number}: give a finite number.')
      if limits and not _allowed(number, *limits):
        raise UserError(f'config.{key}={number}: give {_words(*limits)}.')


def _numbers(value: Any) -> Iterable[int | float]:
  if isinstance(value, list | tuple):
    for item in value:
      yield from _numbers(item)
  elif isinstance(value, int | float) and not isinstance(value, bool):
    yield value


def _allowed(number: float, first: Any, *rest: Any) -> bool:
  if first == 'above':
    return number > rest[0]
  return rest[0] <= number < rest[1] if first == 'below' else first <= number <= rest[0]


def _words(first: Any, *rest: Any) -> str:
  if first == 'above':
    return f'a number above {rest[0]}'
  if first == 'below':
    return f'a number from {rest[0]} on, below {rest[1]}'
  return f'a number from {first} ' + ('up' if rest[0] == math.inf else f'to {rest[0]}')
