"""The command ``ablate``: what it refuses before it starts, what it collects, and workers, one of them killed."""

import csv
import io
import json
import os
import re
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.processes import TINY, call, start
from tests.reports.test_ablation import make
from tests.workdirs import final_state, metrics

CONFIG = '--config=configs/ablations/pal_priors.py:synthetic_faces'


@pytest.mark.parametrize('arguments, message', [
    (['--config=configs/pal.py:ferplus', '--workdir={}'], 'configs/pal.py has no ROWS'),
    (['--config=configs/pall.py:ferplus', '--workdir={}'], "there is no config file 'configs/pall.py'"),
    ([CONFIG, '--workdir={}', '--rows=plian'], "has no row 'plian'; did you mean 'plain'"),
    ([CONFIG, '--workdir={}', '--out=table.html'], '--out=table.html: the ending says the form'),
    ([CONFIG, '--workdir={}', '--workers=0'], 'workers'),
    ([CONFIG, '--workdir={}', '--seeds=0'], '--seeds=0: give a whole number above 0'),
    ([CONFIG, '--workdir=gs://bucket/runs'], '--workdir=gs://bucket/runs: a bucket has no locks'),
    ([CONFIG, '--workdir=s3://bucket/runs'], 's3://bucket/runs: give a local path'),
    ([CONFIG, '--workdir={}', '--collect'], 'there is no such folder; give the one that holds the runs'),
    ([CONFIG, '--workdir={}', '--set=epoch=1'], '--set=epoch=1: Key "epoch" does not exist'),
    ([CONFIG, '--workdir={}', '--set=seed=2'], '--set=seed: every run has its own; --seeds says how many'),
    ([CONFIG, '--workdir={}', '--rows=landmark,plain', '--set=losses.pal.weight=0'],
     "the rows 'landmark' and 'plain' are the same config with --set=losses.pal.weight=0."),
])
def test_mistakes_are_one_line_before_anything_starts(arguments, message, tmp_path):
  status, out, err = call('ablate', *(argument.format(tmp_path / 'runs') for argument in arguments), data_dir=tmp_path)
  assert status == 2 and message in err and err.startswith('error: ') and 'Traceback' not in err
  assert not out and not list(tmp_path.iterdir())


def test_runs_of_other_settings_stop_it_before_it_starts(tmp_path):
  from configs.ablations import pal_priors
  config = pal_priors.get_config('synthetic_faces:plain')
  config.seed = 1
  folder = tmp_path / 'plain-1'
  folder.mkdir()
  (folder / 'config.json').write_text(config.to_json_best_effort())
  before = sorted(tmp_path.rglob('*'))
  arguments = (CONFIG, f'--workdir={tmp_path}', '--rows=landmark,plain', '--seeds=2')
  status, out, err = call('ablate', *arguments, '--set=epochs=7', data_dir=tmp_path)
  assert status == 2 and not out and sorted(tmp_path.rglob('*')) == before
  assert err == (f'error: {folder} holds a run of another config: epochs is 4.0 there, 7.0 here. Choose another '
                 '--workdir, or give the same config to go on.\n')


def test_collect_makes_the_tables_of_what_is_there(tmp_path):
  right = make(tmp_path, 'landmark')
  make(tmp_path, 'landmark', 1)
  make(tmp_path, 'plain', 7)
  arguments = (CONFIG, f'--workdir={tmp_path}', '--rows=landmark,plain', '--seeds=2', '--set=epochs=20', '--collect')
  status, printed, err = call('ablate', *arguments, data_dir=tmp_path)
  assert status == 0 and 'priors: scores' in printed, err
  out = (tmp_path / 'ablation.md').read_text()
  assert out.startswith('## priors: scores\n') and '| landmark | 2 | ' in out and '| plain | 0 of 2 |' in out
  made = (f'python -m fer_jax.ablate {CONFIG} --rows=landmark,plain --seeds=2 --workdir={tmp_path} --set=epochs=20')
  assert f'Made by: {made}'.replace('_', r'\_') in out
  assert f'note: {tmp_path} also holds seed 7 of plain, beyond the 2 wanted.' in err
  assert f'report: {tmp_path}/report.html' in err and 'landmark' in (tmp_path / 'report.html').read_text()
  rows = list(csv.DictReader(io.StringIO((tmp_path / 'ablation.csv').read_text())))
  assert rows[0]['row'] == 'landmark' and rows[0]['seeds'] == '2'
  assert r'\begin{longtable}' in (tmp_path / 'ablation.tex').read_text()
  status, out, err = call('ablate', *arguments, '--seeds=1', f'--out={tmp_path}/t/x.csv',
                          data_dir=tmp_path)
  assert status == 0 and out == f'Written: {tmp_path}/t/x.csv\n', err
  with (tmp_path / 't' / 'x.csv').open(newline='') as file:
    assert next(csv.DictReader(file))['accuracy, %'] == f'{100 * right.mean():.2f}'


def test_primary_comparisons_of_the_config_are_printed_and_stand_on_the_page(tmp_path):
  for row in ('plain', 'pal'):
    make(tmp_path, row)
    make(tmp_path, row, 1)
  config = tmp_path / 'table.py'
  config.write_text("ROWS = dict.fromkeys(['plain', 'pal', 'other'])\nPRIMARY = (('pal', 'plain'), ('other', 'plain'))")
  status, out, err = call('ablate', f'--config={config}:faces', f'--workdir={tmp_path}', '--rows=plain,pal',
                          '--seeds=2', '--collect', data_dir=tmp_path)
  assert status == 0 and 'priors: accuracy, primary comparisons' in out, err
  assert out.index('priors: scores') < out.index('primary comparisons') < out.index('difference to plain')
  assert 'Bonferroni' in (tmp_path / 'ablation.md').read_text()
  page = (tmp_path / 'report.html').read_text()
  shown = page.split('priors: accuracy, primary comparisons</h3>')[1].split('</table>')[0]
  assert '<th>holds</th>' in shown and '97.5 % over faces' in shown and shown.count('<tr') == 2


def test_the_config_says_how_many_seeds_each_row_has_where_the_command_does_not(tmp_path):
  for row, seed in (('plain', 0), ('plain', 1), ('pal', 0), ('pal', 1), ('other', 0)):
    make(tmp_path, row, seed)
  config = tmp_path / 'table.py'
  config.write_text("ROWS = dict.fromkeys(['plain', 'pal', 'other'])\nSEEDS = {'plain': 5, 'pal': 2}")
  arguments = (f'--config={config}:faces', f'--workdir={tmp_path}', '--collect')
  table = lambda: {row['row']: row['seeds'] for row in numbers(tmp_path) if 'scores' in row['table']}
  status, _, err = call('ablate', *arguments, data_dir=tmp_path)
  assert status == 0 and table() == {'plain': '2 of 5', 'pal': '2', 'other': '1 of 3'}, err
  assert f'Made by: python -m fer_jax.ablate --config={config}:faces --workdir={tmp_path}' in (
      tmp_path / 'ablation.md').read_text().replace('\\_', '_')
  status, _, err = call('ablate', *arguments, '--seeds=1', data_dir=tmp_path)
  assert status == 0 and table() == {'plain': '1', 'pal': '1', 'other': '1'}, err
  assert f'note: {tmp_path} also holds seed 1 of pal, beyond the 1 wanted.' in err


RUNS = ('cosine-0', 'constant-0')

# Fast: one loss, one map, and no evaluations before the end.
TABLE = """
from configs import ablations, baseline
ROWS = {'cosine': {}, 'constant': {'optimizer.schedule': 'constant'}}
def get_config(argument='synthetic_faces:cosine'):
  config = ablations.choose(baseline.get_config, ROWS, argument, 'schedules')
  with config.unlocked():
    config.explain = {'attention': config.explain.attention}
    config.data.holdout = ''
  return config
"""


def finish(workers):
  """Waits for workers, and returns what they printed: [(stdout, stderr)]."""
  printed = [worker.communicate(timeout=900) for worker in workers]
  assert [worker.returncode for worker in workers] == [0] * len(workers), printed
  return printed


def children(process):
  """The numbers of the processes that one has started."""
  return [int(number) for number in Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()]


def numbers(workdir):
  """The lines of ablation.csv, without what time and place decide: somebody may commit between two runs."""
  text = (workdir / 'ablation.csv').read_text().replace('differing commits', '')
  return [{name: text for name, text in row.items() if name != 'notes'} for row in csv.DictReader(io.StringIO(text))
          if 'cost' not in row['table']]


def test_two_commands_of_which_one_is_killed_make_the_table_of_two_workers_left_in_peace(tmp_path):
  config = tmp_path / 'configs' / 'schedules.py'
  config.parent.mkdir()
  config.write_text(TABLE)
  changes = [argument.replace('--config.', '--set=') for argument in (*TINY, '--config.epochs=6')]
  work = lambda name, *more: start('ablate', f'--config={config}:synthetic_faces', '--seeds=1', *changes, *more,
                                   f'--workdir={tmp_path}/{name}', data_dir=tmp_path)
  [(out, _)] = finish([work('peace', '--workers=2')])
  assert [line.rpartition('/')[2] for line in out.splitlines()[:2]] == [f'{name}.log' for name in RUNS]
  for name in RUNS:
    assert f'--workdir={tmp_path}/peace/{name}' in (tmp_path / 'peace' / f'{name}.log').read_text().splitlines()[0]
  killed, other = work('shared'), work('shared')
  while not (line := re.search(r'--workdir=(\S+)', killed.printed()[0])):
    assert killed.poll() is None, killed.communicate()
    time.sleep(0.01)
  taken = Path(line[1])
  log = taken / 'metrics.jsonl'
  while not log.exists() or log.read_text().count('\n') < 5:
    assert killed.poll() is None, killed.communicate()
    time.sleep(0.01)
  trainings = children(killed)
  killed.kill()
  for training in trainings:
    os.kill(training, signal.SIGKILL)
  killed.communicate()
  assert len(trainings) == 1 and 'finished' not in json.loads((taken / 'run.json').read_text())
  printed = finish([other, work('shared')])

  commands = [line for out, _ in printed for line in out.splitlines() if '-m fer_jax.train ' in line]
  assert sorted(Path(re.search(r'--workdir=(\S+)', line)[1]).name for line in commands) == sorted(RUNS)
  for name in RUNS:
    peace, shared = tmp_path / 'peace' / name, tmp_path / 'shared' / name
    assert [line['step'] for line in metrics(shared) if line['kind'] == 'train'] == list(range(1, 25))
    assert json.loads((shared / 'run.json').read_text())['evaluations'] == {'test': 1}
    (a, one), (b, two) = final_state(peace), final_state(shared)
    assert a == b == 24
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
      np.testing.assert_array_equal(x, y)
  assert numbers(tmp_path / 'shared') == numbers(tmp_path / 'peace')
  table = numbers(tmp_path / 'peace')
  assert {row['table'] for row in table} == {
      'schedules: scores', 'schedules: accuracy, difference to cosine', 'schedules: alignment of attribution maps'}
  assert [(row['row'], row['seeds']) for row in table[:3]] == [
      ('cosine', '1'), ('constant', '1'), ('constant', '1 and 1')]
  for out, _ in printed:  # Both print the table, with what was computed.
    assert 'schedules: scores' in out
  names = {path.name for path in (tmp_path / 'shared').iterdir()}
  assert names == {*RUNS, 'ablation.lock', 'report.html',
                   *(f'ablation.{form}' for form in ('md', 'tex', 'csv'))}
