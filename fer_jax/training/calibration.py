"""The temperature that a run's logits are divided by: ``WORKDIR/calibration.json``, which ``calibrate`` writes."""

import os
from typing import Any

from fer_jax.errors import UserError
from fer_jax.runtime import cluster, storage

FILE = 'calibration.json'


def read(workdir: str | os.PathLike[str], step: int) -> dict[str, Any] | None:
  """What ``calibrate`` has found for the network of a run, the content of its calibration.json.

  Args:
    step: of the network. A calibration of another step is told, and is not this network's.

  Returns:
    A dict with at least 'temperature' (float above 0), 'threshold' (float in [0, 1] on the top calibrated probability,
    or None), 'wanted' (what gave the threshold, or None), 'step', 'split', 'count', 'before' and 'after' {nll, ece,
    brier} and 'protocol'; None where there is none of this step.

  Raises:
    UserError: the file is damaged.
  """
  path = storage.as_path(workdir) / FILE
  try:
    found = storage.read_json(path)
    theirs, _ = found['step'], float(found['temperature'])
  except FileNotFoundError:
    return None
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f'{path} is damaged ({type(error).__name__}: {error}); delete it, or calibrate again:\n'
                    f'  python -m fer_jax.calibrate --workdir={workdir}') from error
  if theirs != step:
    cluster.say(f'{path} is of step {theirs:,}, the network of step {step:,}: it is left out; calibrate again.')
    return None
  return found
