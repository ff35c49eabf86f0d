"""A run that is killed again and again, in the middle of saving too, ends with the bits of one left in peace."""

import json
import time

import jax
import numpy as np
import pytest

from tests.processes import TINY, finish, start
from tests.workdirs import final_state, metrics

# A checkpoint every other step, so that many kills fall into saving one. A student has everything that a run can have:
# three sources and a teacher.
RUN = ('--config=configs/deepfever.py:student', *TINY, '--config.checkpoint_every=0.5', '--config.evaluate_every=8.0',
       '--config.select=holdout', '--config.sources.triplets.count=500', '--config.comparisons.triplets.count=500')


@pytest.mark.parametrize('kills', [5, pytest.param(20, marks=pytest.mark.nightly)])
def test_kills_at_random_moments_change_no_bit(kills, chance, tmp_path):
  finish([start('train', '--config=configs/deepfever.py:teacher', *TINY, '--config.epochs=0.5',
                f'--workdir={tmp_path}/teacher', data_dir=tmp_path)])
  run = lambda name: start('train', *RUN, f'--config.teacher.workdir={tmp_path}/teacher',
                           f'--config.epochs={3 * kills}.0', f'--workdir={tmp_path / name}', data_dir=tmp_path)
  finish([run('peace')])
  workdir = tmp_path / 'killed'
  log = workdir / 'metrics.jsonl'
  lines = lambda: log.read_text().count('\n') if log.exists() else 0
  in_a_save = before_a_step = 0
  for _ in range(kills):
    process = run('killed')
    before = None
    if chance.random() < 0.8:  # Some steps further; else anywhere in the start as well.
      for _ in range(chance.randrange(1, 8)):  # Of twelve steps for each kill.
        seen = lines()
        while lines() == seen:
          assert process.poll() is None, process.communicate()
          time.sleep(0.001)
      time.sleep(chance.uniform(0, 0.1))
    else:
      before, end = lines(), time.monotonic() + chance.uniform(0, 6)
      while lines() == before and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    in_a_save += bool([*workdir.glob('*/*.orbax-checkpoint-tmp*')])
    before_a_step += before is not None and lines() <= before
  saved = [path.name for path in workdir.glob('checkpoints/*') if path.name.isdigit()]
  out = finish([run('killed')])[0][0]
  print(f'{kills} kills, {in_a_save} inside a save, {before_a_step} before a step was taken. The last start: {out}')
  assert not saved or 'Going on' in out or 'nothing to do' in out
  assert in_a_save > 0 or kills < 20  # Of a few kills none may be.
  (a, one), (b, two) = final_state(tmp_path / 'peace'), final_state(workdir)
  assert a == b == 12 * kills
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_array_equal(x, y)
  # Nothing else differs either: every step was logged once, and the test split was looked at once.
  results = [json.loads((tmp_path / name / 'evaluation/test.json').read_text()) for name in ('peace', 'killed')]
  when = {'evaluated': '', 'commit': ''}
  assert results[0] | when == results[1] | when
  logs = [metrics(tmp_path / name) for name in ('peace', 'killed')]
  timing = {'images_per_second': 0, 'data_wait': 0}
  assert [line | timing for line in logs[0]] == [line | timing for line in logs[1]]
  assert not list(workdir.rglob('*.part'))
