"""Commands in processes of their own: help, and one clear line for every mistake."""

import pytest

from tests.processes import TINY, call


@pytest.mark.parametrize('command', ['train', 'evaluate', 'prepare', 'bench'])
def test_help(command, tmp_path):
  status, out, err = call(command, '--help', data_dir=tmp_path)
  assert status == 0, err
  assert '--' in out and f'fer_jax.{command}' in out


@pytest.mark.parametrize('command, arguments, message', [
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.optimizer.learning_rat=1.0'],
     'learning_rate'),  # The nearest key is named.
    ('train', ['--config=configs/pal.py:ferpluss', '--workdir={}'], "did you mean 'ferplus'?"),
    ('train', ['--config=configs/pall.py', '--workdir={}'], 'configs/pall.py'),
    ('train', ['--config=configs/pal.py'], '--workdir'),
    ('train', ['--config=configs/pal.py:ferplus', '--workdir={}'],
     'python -m fer_jax.prepare --dataset=ferplus'),  # Not prepared: the message is the command to run.
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.losses.pal.similarity=person', *TINY],
     "did you mean 'pearson'"),
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.batch_size=0'], 'batch_size=0'),
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.select=best'], 'best_on_test'),
    ('train', ['configs/pal.py', '--config=configs/pal.py', '--workdir={}'], "unexpected argument 'configs/pal.py'"),
    ('evaluate', ['--workdir={}'], 'holds no run'),
    ('prepare', ['--dataset=ferplus', '--source={}/nothing.zip'], 'nothing.zip'),
    ('bench', ['--configs=configs/pal.py'], 'at least two'),
])
def test_a_mistake_is_one_clear_message_and_status_2(command, arguments, message, tmp_path):
  arguments = [argument.format(tmp_path / 'run') for argument in arguments]
  status, _, err = call(command, *arguments, data_dir=tmp_path / 'data')
  assert status == 2, err
  errors = [line for line in err.splitlines() if line.startswith('error: ')]
  assert len(errors) == 1 and message in err[err.index('error: '):]
  assert 'Traceback' not in err


def test_bench_prints_ratios(tmp_path):
  changes = [argument.replace('--config.', '--set=') for argument in TINY]
  changes = [change.replace('=tiny', "='tiny'") for change in changes]
  status, out, err = call('bench', '--configs=configs/baseline.py,configs/pal.py', '--rounds=2', '--steps=1', *changes,
                          data_dir=tmp_path)
  assert status == 0, err
  assert 'FLOPs ratio' in out and 'configs/pal.py' in out and 'Noise' in out
