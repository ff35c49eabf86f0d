"""How long a run is: ``config.length`` in steps, faces, epochs or minutes."""

import math

from etils import epath

from fer_jax.errors import UserError, nearest
from fer_jax.training.workdir import read_run

UNITS = ('steps', 'faces', 'epochs', 'minutes')


def parse(length: str) -> tuple[float, str]:
  """The amount and the unit, one of ``UNITS``, of a length such as '2e6 faces'.

  Raises:
    UserError: it is no amount above 0 and a unit.
  """
  amount, _, unit = length.strip().partition(' ')
  try:
    number = float(amount)
  except ValueError:
    number = math.nan
  if not 0 < number < math.inf:
    raise UserError(f"config.length='{length}': give a number above 0 and a unit, such as '5000 steps', '2e6 faces', "
                    "'30 epochs' or '45 minutes'; or '' for config.epochs.")
  unit = unit.strip()
  if unit not in UNITS and f'{unit}s' not in UNITS:  # One of them has no s.
    raise UserError(f"config.length='{length}': unknown unit '{unit}'{nearest(unit, UNITS)}")
  return number, unit if unit in UNITS else f'{unit}s'


def in_minutes(length: str) -> bool:
  """Whether the number of steps of this length, or of '', depends on how long a step takes."""
  return bool(length) and parse(length)[1] == 'minutes'


def steps(length: str, epochs: float, faces: int, batch_size: int, seconds: float = math.nan) -> int:
  """Steps of a run, at least one.

  Args:
    length: ``config.length``; '' for ``epochs``.
    epochs: ``config.epochs``.
    faces: rows of the training split, one epoch.
    batch_size: rows of a step, over all devices.
    seconds: of a step; a length in minutes needs it.

  Raises:
    UserError: a length that is none.
  """
  amount, unit = parse(length) if length else (epochs, 'epochs')
  total = {'steps': amount, 'faces': amount / batch_size, 'epochs': amount * faces / batch_size,
           'minutes': 60 * amount / seconds}[unit]
  return max(1, round(total))


def begun(workdir: epath.Path) -> int | None:
  """Steps of the run in a workdir; None where none has begun."""
  return read_run(workdir).get('steps') if (workdir / 'run.json').exists() else None
