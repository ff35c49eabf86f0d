"""Commands in processes of their own: help, and one clear line for every mistake."""

import pytest
from ml_collections import ConfigDict

from fer_jax import commands
from fer_jax.errors import UserError
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


@pytest.fixture
def config():
  values = {'order': 'stored', 'rate': 0.5, 'sizes': (1, 2), 'cache': True, 'head': {'mean': 'running'}}
  return ConfigDict(values).lock()


def test_changes_are_python_literals_or_plain_text(config):
  commands.change_config(config, ['order=sorted', 'rate=1', 'sizes=(3, 4)', 'cache=False', 'head.mean="batch"'])
  assert config.to_dict() == {'order': 'sorted', 'rate': 1.0, 'sizes': (3, 4), 'cache': False,
                              'head': {'mean': 'batch'}}
  commands.change_config(config, ['order=a=b c'])
  assert config.order == 'a=b c'


@pytest.mark.parametrize('change, message', [
    ('ordre=sorted', '--set=ordre=sorted: Key "ordre" does not exist'), ('rate=fast', '--set=rate=fast: Could not'),
    ('head.x.y=1', '--set=head.x.y=1: '), ('order', '--set=order: write --set=KEY=VALUE')])
def test_changes_that_cannot_be(config, change, message):
  with pytest.raises(UserError) as error:
    commands.change_config(config, [change])
  assert str(error.value).startswith(message)


def test_evaluate_takes_changes_and_subsets(tmp_path):
  workdir = tmp_path / 'run'
  status, _, err = call('train', '--config=configs/quickstart.py', f'--workdir={workdir}', *TINY,
                        '--config.epochs=0.25', data_dir=tmp_path)
  assert status == 0, err
  (tmp_path / 'hard.txt').write_text('test_000003.png\ntest_000004.png\n')
  status, out, err = call('evaluate', f'--workdir={workdir}', f"--subset={tmp_path / 'hard.txt'}", '--copies',
                          data_dir=tmp_path)
  assert status == 0, err
  assert 'no further look' in out and 'hard' in out and 'all faces' in out
  status, out, err = call('evaluate', f'--workdir={workdir}', '--set=eval_order=sorted', data_dir=tmp_path)
  assert status == 0, err
  assert 'test with eval_order=sorted' in out and (workdir / 'evaluation' / 'test,eval_order=sorted.json').exists()
  assert 'test with eval_order=sorted' in (workdir / 'report.html').read_text()
  status, _, err = call('evaluate', f'--workdir={workdir}', '--set=eval_ordr=sorted', data_dir=tmp_path)
  assert status == 2 and 'error: --set=eval_ordr=sorted: Key "eval_ordr" does not exist' in err


def test_bench_prints_ratios(tmp_path):
  changes = [argument.replace('--config.', '--set=') for argument in TINY]
  status, out, err = call('bench', '--configs=configs/baseline.py,configs/pal.py', '--rounds=2', '--steps=1', *changes,
                          data_dir=tmp_path)
  assert status == 0, err
  assert 'FLOPs ratio' in out and 'configs/pal.py' in out and 'Noise' in out
