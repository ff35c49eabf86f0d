"""What a run's training took, from its metrics.jsonl and run.json."""

import itertools
import json

import numpy as np

from fer_jax.reports.runs import Run
from fer_jax.runtime import storage


def cost(run: Run) -> dict[str, float] | None:
  """What a run took; None where its log is missing, cut off or of another version.

  ``images_per_second`` is the median over the lines of metrics.jsonl, so that compiling and pauses do not count;
  ``device_hours`` are devices x time of all steps, with compiling and without evaluations. A step that had to be taken
  again after an interruption counts once.
  """
  try:
    text = storage.read_text(storage.as_path(run.workdir) / 'metrics.jsonl')
    lines = [line for line in map(json.loads, text.splitlines()) if line['kind'] == 'train']
    rates = np.array([line['images_per_second'] for line in lines])
    steps = np.array([after['step'] - before['step'] for before, after in itertools.pairwise([{'step': 0}, *lines])])
    if not len(lines) or lines[-1]['step'] != run.record['steps']:
      return None
    seconds = (steps * run.config['batch_size'] / rates).sum()
    return {'images_per_second': float(np.median(rates)), 'device_hours': float(seconds * run.record['devices'] / 3600)}
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    return None
