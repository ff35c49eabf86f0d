"""What a training took, from a log worked out by hand."""

import json

import pytest

from fer_jax.reports.cost import cost
from fer_jax.reports.runs import Run

# Steps 1 to 2 at 10 images/s, which compiles; 3 to 6 at 40; 7 at 20: of 8 images each 1.6 s, 0.8 s and 0.4 s.
LINES = [(2, 'train', 10.0), (2, 'valid', None), (6, 'train', 40.0), (7, 'train', 20.0)]


def make_run(folder, lines=LINES, **record):
  log = [{'step': step, 'kind': kind, **({'images_per_second': rate} if rate else {})} for step, kind, rate in lines]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in log))
  return Run(str(folder), {'batch_size': 8, 'seed': 3}, {'steps': 7, 'devices': 2, **record}, {})


def test_time_is_that_of_all_steps_on_all_devices(tmp_path):
  found = cost(make_run(tmp_path))
  assert found['images_per_second'] == 20
  assert found['device_hours'] == pytest.approx(2 * (1.6 + 0.8 + 0.4) / 3600)


def test_what_is_not_known_is_not_invented(tmp_path):
  assert cost(make_run(tmp_path, LINES[:3])) is None  # Cut off before the last step.
  assert cost(make_run(tmp_path, [])) is None
  run = make_run(tmp_path)
  (tmp_path / 'metrics.jsonl').write_text('{"step": 7, "kind": "train"}\n')
  assert cost(run) is None
  (tmp_path / 'metrics.jsonl').write_text('{"st')
  assert cost(run) is None
  (tmp_path / 'metrics.jsonl').unlink()
  assert cost(run) is None
