"""Commands in processes of their own: help, and one clear line for every mistake."""

import json
import re

import cv2
import numpy as np
import pytest

from fer_jax.__main__ import commands
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from tests.processes import TINY, call


@pytest.mark.parametrize('command', commands())
def test_help(command, tmp_path):
  status, out, err = call(command, '--help', data_dir=tmp_path)
  assert status == 0, err
  assert '--' in out and f'fer_jax.{command}' in out


@pytest.mark.parametrize('command, arguments, message', [
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.optimizer.learning_rat=1.0'],
     'learning_rate'),  # The nearest key is named.
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.sources.faces.split=train'],
     "--config.sources.faces.split: the config has no 'faces' there"),
    ('train', ['--config=configs/pal.py:ferpluss', '--workdir={}'], "did you mean 'ferplus'?"),
    ('train', ['--config=configs/pall.py', '--workdir={}'], "configs/pall.py'; did you mean 'pal'?"),
    ('train', ['--config=pal'], '--workdir is missing. See python -m fer_jax.train --help'),
    ('train', ['--config=pal', '--workdr={}'], 'Did you mean: workdir ? See python -m fer_jax.train --help'),
    ('train', ['--config=configs/pal.py:ferplus', '--workdir={}'],
     'python -m fer_jax.prepare --dataset=ferplus'),  # Not prepared: the message is the command to run.
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.losses.pal.similarity=person', *TINY],
     "did you mean 'pearson'"),
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.batch_size=0'], 'batch_size=0'),
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.seed=4294967295'], 'config.seed=4294967295: '),
    ('train', ['--config=configs/pal.py', '--workdir={}', *TINY, '--config.log_every=0'], 'config.log_every=0: give a'),
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.data.train=train[:0]', *TINY], "'train[:0]' of"),
    ('train', ['--config=configs/pal.py', '--workdir=~nobody_here/run', *TINY], "there is no user 'nobody_here'"),
    ('train', ['--config=configs/pal.py', '--workdir={}', '--config.select=best', *TINY], 'best_on_test'),
    ('train', ['configs/pal.py', '--config=configs/pal.py', '--workdir={}'], "unexpected argument 'configs/pal.py'"),
    ('evaluate', ['--workdir={}'], 'holds no run'),
    ('prepare', [], 'python -m fer_jax.prepare --describe=NAME'),
    ('prepare', ['--dataset=ferplus', '--source={}/nothing.zip'], 'nothing.zip'),
    ('bench', ['--configs=configs/pal.py'], 'at least two'),
    ('bench', [], 'give one of --configs, --faces, --workers, --scaling, --host'),
    ('bench', ['--host=quickstart', '--saves=quickstart'], 'give one of --configs'),
    ('bench', ['--workers=1,x'], '--workers=1,x: give numbers of processes'),
    ('bench', ['--peer=torch', '--batches=0'], '--batches=0: give numbers of faces'),
    ('bench', ['--peer=torch', '--set=epochs=1'], '--set: the configs of --peer are its own'),
    ('bench', ['--faces=ferplus'], 'python -m fer_jax.prepare --dataset=ferplus'),
    ('features', ['--workdir={}', '--out={}.npz'], 'give either --images=FOLDER or --dataset=NAME'),
    ('features', ['--workdir={}', '--out={}.npz', '--images=configs', '--dataset=ferplus'],
     'give either --images=FOLDER or --dataset=NAME'),
    ('features', ['--workdir={}', '--out={}.csv', '--images=configs'], 'run.csv: give the path of an .npz file'),
    ('transfer', ['--workdir={}', '--images=configs', '--shots=1,few'], '--shots=1,few: give whole numbers'),
    ('transfer', ['--workdir={}', '--images=configs'], 'holds no run'),
    ('explain', ['--workdir={}'], 'holds no run'),
    ('robustness', ['--workdir={}'], 'holds no run'),
    ('robustness', ['--workdir={}', '--kinds=oclusion'], "did you mean 'occlusion'"),
    ('cross', ['--workdir={}'], 'give either --config=CONFIG or --workdirs=RUNS'),
    ('cross', ['--workdir={}', '--workdirs={}', '--set=epochs=1'], 'runs that are there stay as they are'),
    ('cross', ['--workdir={}', '--workdirs={}'], 'there is no such folder'),
    ('cross', ['--workdir={}', '--config=configs/baseline.py', '--datasets=ferplus,fer2013', '--out=table.html'],
     '--out=table.html: the ending says the form'),
    ('explain', ['--workdir={}', '--faces=0'], '--faces=0: give a number from 1 up'),
])
def test_a_mistake_is_one_clear_message_and_status_2(command, arguments, message, tmp_path):
  arguments = [argument.format(tmp_path / 'run') for argument in arguments]
  status, _, err = call(command, *arguments, data_dir=tmp_path / 'data')
  assert status == 2, err
  errors = [line for line in err.splitlines() if line.startswith('error: ')]
  assert len(errors) == 1 and message in err[err.index('error: '):]
  assert 'Traceback' not in err


def test_evaluate_takes_changes_and_subsets(tmp_path):
  workdir = tmp_path / 'run'
  status, _, err = call('train', '--config=configs/quickstart.py', f'--workdir={workdir}', *TINY,
                        '--config.epochs=0.25', data_dir=tmp_path)
  assert status == 0, err
  (tmp_path / 'hard.txt').write_text('test_000003.png\ntest_000004.png\n')
  status, out, err = call('evaluate', f'--workdir={workdir}', f"--subset={tmp_path / 'hard.txt'}", '--duplicates',
                          data_dir=tmp_path)
  assert status == 0, err
  assert 'no further evaluation' in out and 'hard' in out and 'all faces' in out
  status, out, err = call('evaluate', f'--workdir={workdir}', '--set=eval_order=sorted', '--verbose', data_dir=tmp_path)
  assert status == 0, err
  assert 'most often taken for' in out  # A column of the table of classes.
  assert 'test with eval_order=sorted' in out and (workdir / 'evaluation' / 'test,eval_order=sorted.json').exists()
  assert 'test with eval_order=sorted' in (workdir / 'report.html').read_text()
  status, _, err = call('evaluate', f'--workdir={workdir}', '--set=eval_ordr=sorted', data_dir=tmp_path)
  assert status == 2 and 'error: --set=eval_ordr=sorted: Key "eval_ordr" does not exist' in err


def test_a_teacher_a_student_its_features_and_their_transfer(tmp_path, monkeypatch):
  monkeypatch.setenv('COLUMNS', '160')  # So that no cell of a table is wrapped.

  def run(command, *arguments):
    status, out, err = call(command, *arguments, data_dir=tmp_path / 'data')
    assert status == 0, err
    return ' '.join(out.split())

  def train(role, *more):
    return run('train', f'--config=configs/deepfever.py:{role}', f'--workdir={tmp_path / role}', *TINY,
               '--config.epochs=0.25', '--config.sources.triplets.count=500', *more)

  rng, classes = np.random.default_rng(0), ('anger', 'happiness', 'surprise')
  for split, count in (('train', 4), ('test', 3)):
    for name in classes:
      folder = tmp_path / 'faces' / split / name
      folder.mkdir(parents=True)
      for i in range(count):
        assert cv2.imwrite(str(folder / f'{i}.png'), draw_face(rng, name, 32).image[..., ::-1])
  student, out = tmp_path / 'student', tmp_path / 'features.npz'

  assert 'deepfever/teacher: ' in train('teacher')
  printed = train('student', f'--config.teacher.workdir={tmp_path / "teacher"}')
  assert 'deepfever/student: ' in printed and "triplets 'triplets'" in printed
  assert json.loads((student / 'run.json').read_text())['teacher']['workdir'] == str(tmp_path / 'teacher')

  printed = run('features', f'--workdir={student}', f'--images={tmp_path / "faces"}', f'--out={out}')
  assert f'{out}: 21 faces, pooled 32, embedding 16.' in printed and not list(tmp_path.glob('*.part*'))
  with np.load(out) as file:
    table = dict(file)
  assert list(table['names'][:4]) == [f'test/anger/{i}.png' for i in range(3)] + ['test/happiness/0.png']
  assert table['pooled'].shape == (21, 32) and table['embedding'].shape == (21, 16)
  assert table['logits'].shape == (21, 7) == (len(table['names']), len(table['network_classes']))
  assert (table['label'] == -1).all() and table['network_classes'][1] == 'happiness'
  about = json.loads(str(table['about']))
  assert about['workdir'] == str(student) and about['name'] == 'deepfever/student' and about['step'] == 1

  printed = run('transfer', f'--workdir={student}', f'--images={tmp_path / "faces"}', '--shots=1,2', '--draws=2')
  result = json.loads((student / 'transfer/faces_classes_train_test_pooled.json').read_text())
  assert 'faces (classes), pooled features' in printed
  assert 'Learned from 12 faces of train, tested on 9 of test; 3 classes: anger, happiness, surprise.' in printed
  assert 'trained on all of these classes' in printed and 'LEAKY' not in printed
  for words in ('linear probe', 'k-NN', 'linear SVM', 'untrained network', 'majority class', 'faces of each class',
                '33.33 %'):
    assert words in printed
  assert [row['accuracy'] for row in result['rows'] if row['features'] == 'majority class'] == [3 / 9]
  assert [(point['shots'], point['draws']) for point in result['few_shot']] == [(1, 2), (2, 2)] * 2
  assert f'Report: {student / "report.html"}' in printed
  assert 'untrained network' in (student / 'report.html').read_text()


def test_bench_feeds_a_step_that_does_nothing(tmp_path):
  changes = [argument.replace('--config.', '--set=') for argument in TINY]
  status, out, err = call('bench', '--host=configs/baseline.py', '--rounds=2', *changes, data_dir=tmp_path)
  assert status == 0, err
  decoded, mapped, resident = (float(re.search(rf'{form} \D*([\d,]+)', out)[1].replace(',', '')) for form in (
      'at every use', 'mapped table', 'resident'))
  assert decoded < mapped < resident


def test_bench_prints_ratios(tmp_path):
  changes = [argument.replace('--config.', '--set=') for argument in TINY]
  status, out, err = call('bench', '--configs=configs/baseline.py,configs/pal.py', '--rounds=2', '--steps=1', *changes,
                          data_dir=tmp_path)
  assert status == 0, err
  assert 'FLOPs ratio' in out and 'configs/pal.py' in out and 'Noise' in out
