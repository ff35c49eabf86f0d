"""A run that is killed and stopped again and again, in the middle of saving too, ends with the bits of one in peace."""

import json
import re
import signal
import time

import jax
import numpy as np
import pytest

from fer_jax.training import metrics_log
from tests.processes import TINY, finish, start
from tests.workdirs import final_state, metrics

# A checkpoint every other step, so that many kills fall into saving one. A student has everything that a run can have:
# three sources and a teacher.
RUN = ('--config=configs/deepfever.py:student', *TINY, '--config.checkpoint_every=0.5', '--config.evaluate_every=8.0',
       '--config.select=holdout', '--config.sources.triplets.count=500', '--config.comparisons.triplets.count=500')


def alone(processes):
  """Of two trainings started at once in one workdir, the one that goes on; the other is told so."""
  while all(process.poll() is None for process in processes):
    time.sleep(0.01)
  [(_, said)] = finish([process for process in processes if process.poll() is not None], status=2)
  assert re.fullmatch(r'error: .* is in use by another training \(in training, .*\): wait for its end, .*\n', said)
  return next(process for process in processes if process.poll() is None)


@pytest.mark.parametrize('kills, breaks', [(3, 2), pytest.param(20, 10, marks=pytest.mark.nightly)])
def test_kills_and_ctrl_c_at_random_moments_change_no_bit(kills, breaks, chance, tmp_path):
  total = 12 * kills
  finish([start('train', '--config=configs/deepfever.py:teacher', *TINY, '--config.epochs=0.5',
                f'--workdir={tmp_path}/teacher', data_dir=tmp_path)])
  run = lambda name: start('train', *RUN, f'--config.teacher.workdir={tmp_path}/teacher',
                           f'--config.epochs={total / 4}', f'--workdir={tmp_path / name}', data_dir=tmp_path)
  finish([run('peace')])
  workdir = tmp_path / 'troubled'
  log = workdir / 'metrics.jsonl'
  lines = lambda: log.read_text().count('\n') if log.exists() else 0
  in_a_save = before_a_step = 0
  process = alone([run('troubled'), run('troubled')])
  for stopped in chance.sample([signal.SIGINT] * breaks + [signal.SIGKILL] * kills, breaks + kills):
    process = process or run('troubled')
    before = None
    if stopped == signal.SIGINT or chance.random() < 0.8:  # Some steps further; else anywhere in the start as well.
      for _ in range(chance.randrange(1, total // (breaks + kills))):
        seen = lines()
        while lines() == seen:
          assert process.poll() is None, process.communicate()
          time.sleep(0.001)
      time.sleep(chance.uniform(0, 0.1))
    else:
      before, end = lines(), time.monotonic() + chance.uniform(0, 6)
      while lines() == before and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(stopped)
    if stopped == signal.SIGINT:
      [(out, err)] = finish([process], status=130)
      [step] = re.findall(r'^Ctrl-C: step (\d+) is saved; the same command goes on from here\.$', out, re.MULTILINE)
      assert 'Traceback' not in err and (workdir / 'checkpoints' / step).exists()
    else:
      process.communicate()
      in_a_save += bool([*workdir.glob('*/*.orbax-checkpoint-tmp*')])
      before_a_step += before is not None and lines() <= before
    process = None
  saved = [path.name for path in workdir.glob('checkpoints/*') if path.name.isdigit()]
  out = finish([run('troubled')])[0][0]
  print(f'{kills} kills, {in_a_save} inside a save, {before_a_step} before a step was taken, {breaks} times Ctrl-C. '
        f'The last start: {out}')
  assert not saved or 'Going on' in out or 'nothing to do' in out
  assert in_a_save > 0 or kills < 20  # Of a few kills none may be.
  (a, one), (b, two) = final_state(tmp_path / 'peace'), final_state(workdir)
  assert a == b == total
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_array_equal(x, y)
  # Nothing else differs either: every step was logged once, and the test split was looked at once.
  results = [json.loads((tmp_path / name / 'evaluation/test.json').read_text()) for name in ('peace', 'troubled')]
  when = {'evaluated': '', 'commit': ''}
  assert results[0] | when == results[1] | when
  logs = [metrics(tmp_path / name) for name in ('peace', 'troubled')]
  timing = dict.fromkeys(metrics_log.TIMING)
  assert [line | timing for line in logs[0]] == [line | timing for line in logs[1]]
  assert not list(workdir.rglob('*.part'))
