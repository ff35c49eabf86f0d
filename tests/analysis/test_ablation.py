"""The rows of an ablation config and the jobs they make."""

import sys

import pytest

from fer_jax.analysis import ablation
from fer_jax.errors import UserError


def test_jobs_go_seed_by_seed():
  jobs = ablation.list_jobs('t.py:faces', ['a', 'b'], 2, 'runs/x/', ['--config.epochs=1'])
  assert [(job.row, job.seed, job.workdir, str(job.lock)) for job in jobs] == [
      (row, seed, f'runs/x/{row}-{seed}', f'runs/x/{row}-{seed}/lock') for seed in (0, 1) for row in 'ab']
  assert jobs[1].command == (sys.executable, '-m', 'fer_jax.train', '--config=t.py:faces:b', '--config.seed=0',
                             '--workdir=runs/x/b-0', '--config.epochs=1')
  with pytest.raises(UserError, match='--seeds=0: give a whole number above 0'):
    ablation.list_jobs('t.py:faces', ['a'], 0, 'runs')


def test_rows_are_those_of_the_config(tmp_path):
  config = tmp_path / 'table.py'
  config.write_text("ROWS = {'plain': {}, 'shuffled': {}, 'uniform': {}}")
  assert ablation.choose_rows(f'{config}:faces') == ['plain', 'shuffled', 'uniform']
  assert ablation.choose_rows(f'{config}:faces', ['uniform', 'plain', 'uniform']) == ['uniform', 'plain']
  with pytest.raises(UserError, match="--rows: .*table.py has no row 'unifrom'; did you mean 'uniform'"):
    ablation.choose_rows(f'{config}:faces', ['plain', 'unifrom'])
  with pytest.raises(UserError, match='give an ablation config and its data set, such as'):
    ablation.choose_rows(str(config))
  with pytest.raises(UserError, match="there is no config file '.*table.pyx'"):
    ablation.choose_rows(f'{config}x:faces')
  assert ablation.choose_rows('ablations/arm:ferplus')[0] == 'arm'
  config.write_text('')
  with pytest.raises(UserError, match='table.py has no ROWS; the configs with rows are in configs/ablations'):
    ablation.choose_rows(f'{config}:faces')


@pytest.mark.parametrize('primary, message', [
    ("(('plain', 'uniform'), ('shufled', 'plain'))",
     "table.py: PRIMARY names the row 'shufled', which is not in ROWS; did you mean 'shuffled'"),
    ("('plain', 'uniform')", r"PRIMARY has 'plain'; write pairs of two rows: PRIMARY = \(\('row', 'against'\),\)"),
    ("(('plain', 'plain'),)", r"PRIMARY has \('plain', 'plain'\); write pairs"),
    ("(('plain', 'uniform'), ('uniform', 'plain'))", 'PRIMARY has a pair twice')])
def test_primary_comparisons_are_of_rows_of_the_config(primary, message, tmp_path):
  config = tmp_path / 'table.py'
  rows = "ROWS = {'plain': {}, 'shuffled': {}, 'uniform': {}}\nPRIMARY = "
  config.write_text(rows + primary)
  for choose in (ablation.choose_primary, ablation.choose_rows):  # Before anything is trained.
    with pytest.raises(UserError, match=message):
      choose(f'{config}:faces')
  config.write_text(rows + "(['shuffled', 'plain'], ('uniform', 'plain'))")
  assert ablation.choose_primary(f'{config}:faces') == [('shuffled', 'plain'), ('uniform', 'plain')]
  config.write_text(rows + '()')
  assert ablation.choose_primary(f'{config}:faces') == []
  assert ablation.choose_primary('ablations/arm:ferplus') == []
