"""The command ``report``: what it prints, writes and refuses, in a process as a user starts it."""

import csv
import subprocess
import sys

import pytest

from tests.processes import ROOT, call
from tests.reports.test_benchmark import write_run

# What a model card needs of an evaluation.
COUNTED = {'classes': ['neutral', 'fear'], 'confusion': [[2000, 100], [371, 666]], 'config': {
    'batch_size': 64, 'model': {'backbone': {'name': 'resnet', 'depth': 18}, 'head': {'name': 'linear'}}}}


def test_writes_a_table_and_names_what_it_left_out(tmp_path):
  for seed, accuracy in enumerate((0.84, 0.86)):
    write_run(tmp_path / 'runs' / f'ran-{seed}', seed=seed, accuracy=accuracy)
  (tmp_path / 'runs' / 'other').mkdir()
  out = tmp_path / 'tables' / 'ferplus.csv'
  status, printed, err = call('report', f'--workdirs={tmp_path}/runs/*', '--table=ferplus', f'--out={out}',
                              data_dir=tmp_path)
  assert status == 0, err
  assert f'Written: {out}' in printed and f'{tmp_path}/runs/other holds no evaluated run: no config.json.' in err
  with out.open(newline='') as file:
    ours = [row for row in csv.DictReader(file) if row['ours']]
  assert [(row['row'], row['metric'], row['ours'], row['seeds']) for row in ours] == [
      ('ran', 'accuracy', '85.00', '2'), ('ran', 'mean class accuracy', '65.00', '2')]


def test_prints_the_table_or_writes_it_as_markdown(tmp_path):
  write_run(tmp_path / 'run', **COUNTED)
  arguments = ('report', f'--workdirs={tmp_path}/run', '--table=ferplus')
  status, printed, err = call(*arguments, data_dir=tmp_path)
  assert status == 0 and not err, err
  assert printed.split()[0] == 'FERPlus' and '85.00' in printed
  status, printed, err = call(*arguments, f'--out={tmp_path}/table.md', data_dir=tmp_path)
  assert status == 0 and not err, err
  written = (tmp_path / 'table.md').read_text()
  assert written.startswith('## FERPlus\n') and '| ran | accuracy | 85.00 |' in written
  assert '| accuracy | 85.00 % |' in (tmp_path / 'run' / 'MODEL_CARD.md').read_text()


@pytest.mark.parametrize('arguments, message', [
    ([], "--workdirs: name the folders of training runs, such as --workdirs='runs/*'."),
    (['--workdirs={}/none'], 'there is no such folder'),
    (['--workdirs={}', '--table=affectnet'], "there is no table 'affectnet'; did you mean 'affectnet"),
    (['--workdirs={}', '--out=table.html'], '--out=table.html: the ending says the form'),
])
def test_mistakes_are_one_line(arguments, message, tmp_path):
  status, _, err = call('report', *(argument.format(tmp_path) for argument in arguments), data_dir=tmp_path)
  assert status == 2 and message in err
  assert err.startswith('error: ') and 'Traceback' not in err


def test_help_needs_no_jax():
  code = 'import sys, fer_jax.report; assert "jax" not in sys.modules'
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
