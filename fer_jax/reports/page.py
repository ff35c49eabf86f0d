"""Writes a run's report: one HTML page with everything in it, made from whatever the workdir holds by now."""

import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from etils import epath

from fer_jax.reports import alignment, calibration, faithfulness, figures, pictures, robustness, template, transfer
from fer_jax.reports.table import subset_table, triplet_table
from fer_jax.reports.words import (
  brief,
  chosen,
  comparisons,
  evaluations,
  leaks,
  measures,
  named,
  other_data,
  started,
  title,
)
from fer_jax.runtime import storage

# Curves in the order in which they are shown; 'loss/...' stands for the terms, and what is not listed comes last.
_CURVES = ('loss', 'loss/...', 'accuracy', 'mean_class_accuracy', 'learning_rate', 'grad_norm', 'images_per_second',
           'data_wait')


def write_report(workdir: str | os.PathLike[str]) -> epath.Path:
  """Writes ``workdir/report.html`` and returns its path; what is missing or unreadable becomes a sentence on the page.

  Read are config.json, run.json, calibration.json, metrics.jsonl, panel.npz, neighbours.npz, and what lies in
  evaluation, transfer, robustness and explanations. Raises a UserError where the page cannot be written.
  """
  workdir = storage.as_path(workdir)
  return template.write(workdir / 'report.html', 'page.html', lambda: _contents(workdir))


def _contents(workdir: epath.Path) -> dict[str, Any]:
  """Reads the workdir into the template's variables."""
  unreadable: list[str] = []

  def read(path: epath.Path, reader: Callable[[epath.Path], dict[str, Any]] = storage.read_json) -> dict[str, Any]:
    try:
      return reader(path)
    except FileNotFoundError:
      return {}
    except ValueError:
      unreadable.append(str(path.relative_to(workdir)))
      return {}

  def read_folder(name: str) -> dict[str, dict[str, Any]]:
    paths = (workdir / name).iterdir() if (workdir / name).exists() else ()
    found = {path.stem: read(path) for path in sorted(paths) if path.suffix == '.json'}
    return {stem: result for stem, result in found.items() if result}

  config, run = read(workdir / 'config.json'), read(workdir / 'run.json')
  found = [_described(result, stem) for stem, result in read_folder('evaluation').items() if 'confusion' in result]
  # The run as it is comes before changed configs, and the test split, which it is about, before others.
  found.sort(key=lambda result: (bool(result.get('overrides')), result['stem'] != 'test'))
  main = found[0] if found else None
  scalars = _scalars(workdir / 'metrics.jsonl')
  panel, neighbours = (read(workdir / f'{name}.npz', storage.read_npz) for name in ('panel', 'neighbours'))
  classes = (main or run).get('classes', [])
  return {
      'name': str(run.get('name') or (main or {}).get('name') or storage.absolute(workdir).name),
      'words': main['words'] if main else '',
      'unreadable': unreadable,
      'run': run,
      'main': main,
      'evaluations': found,
      'took': _took(run),
      'faces': pictures.faces(panel, classes) if {'images', 'mean_face'} & panel.keys() else [],
      'averaged': 'mean_face' in panel,
      'restricted': ('images' in panel or 'images' in neighbours) and pictures.restricted(config, run),
      'confusion': figures.confusion_matrix(main['confusion'], main['classes']) if main else '',
      'recall': figures.class_recall(main['confusion'], main['classes']) if main else '',
      'calibration': calibration.section(read(workdir / 'calibration.json'), found),
      'alignment': alignment.alignment_tables(main or {}),
      'by_class': alignment.by_class(main or {}),
      'neighbours': pictures.neighbours(neighbours, classes) if neighbours else [],
      'transfers': transfer.sections(read_folder('transfer')),
      'robustness': robustness.sections(read_folder('robustness')),
      'robustness_caveat': robustness.CAVEAT,
      'faithfulness': faithfulness.sections(read_folder('explanations')),
      'curves_caveat': faithfulness.CURVES_CAVEAT,
      'random_caveat': faithfulness.RANDOM_CAVEAT,
      'curves': [(key, figures.curve(key, *scalars[key])) for key in _ordered(scalars)],
      'losses': [(name, term, storage.flat(term), scalars.get(f'loss/{name}', [([], [])])[0][1])
                 for name, term in config.get('losses', {}).items()],
      'config': storage.flat(config),
      'run_rows': storage.flat(run),
  }


def _described(result: dict[str, Any], stem: str) -> dict[str, Any]:
  """Adds to an evaluation, from the file ``stem``.json, what the page says of it."""
  protocol, reasons = result.get('protocol') or {}, leaks(result)
  words = [f"{result['count']:,} faces of {len(result['classes'])} classes"]
  if protocol.get('dataset'):
    words.append(f"from the {protocol.get('split', '')} split of {named(protocol)}")
  if protocol.get('trained_on'):
    words.append(f"after training on “{brief(protocol['trained_on'])}”")
  if start := started(protocol):
    words.append(f'started from {start}')
  if 'select' in protocol:
    words.append(f'with {chosen(protocol)}')
  if overrides := result.get('overrides'):
    words.append(f"changed for this evaluation: {', '.join(overrides)}")
  if changed := other_data(result):
    words.append(f'but {changed}')
  return {'mean_class_interval': None, **result} | {
      'stem': stem, 'title': title(result, stem), 'leaky': bool(reasons), 'leaks': reasons,
      'measures': measures(result), 'subsets': subset_table(result, title(result, stem)),
      'untrained': result.get('step') == 0,
      'comparisons': [triplet_table(name, scores) for name, scores in comparisons(result).items()],
      'evaluated_times': evaluations(result), 'words': ', '.join(words) + '.'}


def _scalars(path: epath.Path) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
  """Reads metrics.jsonl into {key: (train, valid)}, each (steps, values); broken lines and non-numbers are skipped."""
  scalars: dict[str, tuple] = {}
  for line in storage.read_text(path).splitlines() if path.exists() else ():
    try:
      row = json.loads(line)
      step, kind = float(row.pop('step')), row.pop('kind')
    except (ValueError, KeyError, AttributeError, TypeError):  # The last line of a killed run may be cut.
      continue
    for key, value in row.items():
      if isinstance(value, int | float) and np.isfinite(value):
        steps, values = scalars.setdefault(key, (([], []), ([], [])))[kind != 'train']
        steps.append(step)
        values.append(value)
  return scalars


def _ordered(scalars: Mapping[str, Any]) -> list[str]:
  """Keys in the order of the page, without those that never got a second point."""
  group = lambda key: 'loss/...' if key.startswith('loss/') else key
  drawn = [key for key, series in scalars.items() if max(len(steps) for steps, _ in series) > 1]
  return sorted(drawn, key=lambda key: (*_CURVES, group(key)).index(group(key)))


def _took(run: Mapping[str, Any]) -> str:
  """Wall-clock time between the run's ISO times ``started`` and ``finished``; empty where unknown."""
  try:
    seconds = int((datetime.fromisoformat(run['finished']) - datetime.fromisoformat(run['started'])).total_seconds())
  except (KeyError, TypeError, ValueError):
    return ''
  hours, minutes = seconds // 3600, seconds // 60 % 60
  return f'{hours} h {minutes} min' if hours else f'{minutes} min {seconds % 60} s'
