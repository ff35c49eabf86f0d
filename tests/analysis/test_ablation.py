"""The rows of an ablation config and the jobs they make."""

import json
import sys
from pathlib import Path

import pytest

from fer_jax.analysis import ablation
from fer_jax.errors import UserError
from fer_jax.training import config_files


def test_jobs_go_seed_by_seed(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Path('t.py').write_text("ROWS = {'a': {}, 'b': {}}")
  jobs = ablation.list_jobs('t.py:faces', {'a': 2, 'b': 2}, 'runs/x/', ['--config.epochs=1'])
  assert [(job.row, job.seed, job.workdir, str(job.lock)) for job in jobs] == [
      (row, seed, f'runs/x/{row}-{seed}', f'runs/x/{row}-{seed}/lock') for seed in (0, 1) for row in 'ab']
  assert jobs[1].command == (sys.executable, '-m', 'fer_jax.train', '--config=t.py:faces:b', '--config.seed=0',
                             '--workdir=runs/x/b-0', '--config.epochs=1')


def test_rows_have_the_seeds_that_the_config_says_or_the_command(tmp_path):
  config = tmp_path / 't.py'
  config.write_text("ROWS = {'a': {}, 'b': {}, 'c': {}}; SEEDS = {'b': 4, 'c': 1}")
  choose = lambda *given: ablation.choose_seeds(f'{config}:faces', *given)
  assert choose(['a', 'b', 'c']) == {'a': 3, 'b': 4, 'c': 1} and choose(['c', 'a']) == {'c': 1, 'a': 3}
  jobs = ablation.list_jobs(f'{config}:faces', choose(['a', 'b', 'c']), 'w')
  assert [Path(job.workdir).name for job in jobs] == ['a-0', 'b-0', 'c-0', 'a-1', 'b-1', 'a-2', 'b-2', 'b-3']
  assert choose(['a', 'b', 'c'], 2) == {'a': 2, 'b': 2, 'c': 2}
  for given in (0, -1):
    with pytest.raises(UserError, match=f'--seeds={given}: give a whole number above 0'):
      choose(['a'], given)
  config.write_text("ROWS = {'a': {}}")
  assert choose(['a']) == {'a': 3}


@pytest.mark.parametrize('seeds, message', [
    ({'frist': 5}, "t.py: SEEDS names 'frist', which is not in ROWS; did you mean 'first'"),
    ({'second': 0}, "t.py: SEEDS of 'second' is 0: give a whole number above 0"),
    ({'second': 2.5}, "t.py: SEEDS of 'second' is 2.5: give a whole number above 0"),
    (5, r"t.py: SEEDS is 5; write rows and their numbers: SEEDS = \{'row': 5\}"),
])
def test_seeds_that_cannot_be_are_named(seeds, message, tmp_path):
  (tmp_path / 't.py').write_text(f"ROWS = {{'first': {{}}, 'second': {{}}}}; SEEDS = {seeds}")
  for given in (None, 3):
    with pytest.raises(UserError, match=message):
      ablation.choose_seeds(f'{tmp_path}/t.py:faces', ['first'], given)


def test_a_student_needs_a_teacher_with_as_many_seeds(tmp_path):
  (tmp_path / 't.py').write_text("ROWS = {'a': {}, 'b': {}}; TEACHERS = {'a': 'b'}")
  with pytest.raises(UserError, match="from 'b', of which w/b-1 holds no finished run: .*with as many seeds"):
    ablation.list_jobs(f'{tmp_path}/t.py:faces', {'a': 2, 'b': 1}, 'w')
  assert len(ablation.list_jobs(f'{tmp_path}/t.py:faces', {'a': 1, 'b': 2}, 'w')) == 3


def test_students_get_the_run_of_their_teacher_with_their_seed(tmp_path):
  config, more = tmp_path / 't.py', ['--config.epochs=1']
  config.write_text("ROWS = {'a': {}, 'b': {}, 'c': {}}; TEACHERS = {'a': 'b'}")
  list_jobs = lambda rows, more=(): ablation.list_jobs(f'{config}:faces', dict.fromkeys(rows, 2), f'{tmp_path}/w/',
                                                       more)
  jobs = list_jobs(['a', 'b'], more)
  assert [(Path(job.workdir).name, job.after) for job in jobs] == [
      ('a-0', f'{tmp_path}/w/b-0'), ('b-0', ''), ('a-1', f'{tmp_path}/w/b-1'), ('b-1', '')]
  assert jobs[2].command[-3:] == (f'--workdir={tmp_path}/w/a-1', f'--config.teacher.workdir={tmp_path}/w/b-1', *more)
  assert not any('teacher' in word for word in jobs[1].command)
  for run in ('b-0', 'a-1'):  # Of what is finished nothing more is needed.
    with pytest.raises(UserError, match="--rows: 'a' learns from 'b', of which .*/w/b-. holds no finished run: name"):
      list_jobs(['c', 'a'])
    (tmp_path / 'w' / run).mkdir(parents=True)
    (tmp_path / 'w' / run / 'run.json').write_text('{"finished": "now"}')
  assert [job.row for job in list_jobs(['c', 'a'])] == ['c', 'a'] * 2
  with pytest.raises(UserError, match="^teacher.workdir: 'a' learns from 'b', .*t.py:faces; leave this change out"):
    list_jobs(['a', 'b'], ['--config.teacher.workdir=x'])
  assert list_jobs(['b', 'c'], ['--config.teacher.workdir=x'])[0].command[-1] == '--config.teacher.workdir=x'


@pytest.mark.parametrize('teachers, message', [
    ({'first': 'secnd'}, "t.py: TEACHERS names 'secnd', which is not in ROWS; did you mean 'second'"),
    ({'frist': 'second'}, "TEACHERS names 'frist', which is not in ROWS; did you mean 'first'"),
    ({'first': 'first'}, "TEACHERS lets 'first' learn from itself"),
    ({'third': 'first', 'first': 'second', 'second': 'first'}, "TEACHERS lets 'first' learn from itself"),
])
def test_teachers_that_cannot_be_are_named(teachers, message, tmp_path):
  (tmp_path / 't.py').write_text(f"ROWS = {{'first': {{}}, 'second': {{}}, 'third': {{}}}}; TEACHERS = {teachers}")
  with pytest.raises(UserError, match=message):
    ablation.list_jobs(f'{tmp_path}/t.py:faces', {'second': 1}, 'runs')


# Students with one config and two teachers.
PUPILS = """
from configs import ablations, baseline
ROWS = {'one': {}, 'two': {'epochs': 3.0}, 'pupil': {'epochs': 5.0}, 'other_pupil': {'epochs': 5.0}}
TEACHERS = {'pupil': 'one', 'other_pupil': 'two'}
get_config = lambda argument: ablations.choose(baseline.get_config, ROWS, argument, 'pupils')
"""


def test_claims_are_compared_with_the_teacher_which_need_not_be_there(tmp_path):
  from fer_jax.training import setup, workdir
  path = tmp_path / 'pupils.py'
  path.write_text(PUPILS)
  seeds = dict.fromkeys(('pupil', 'other_pupil', 'one', 'two'), 2)
  check = lambda *changes: ablation.check_jobs(f'{path}:synthetic_faces', seeds, str(tmp_path / 'w'), changes)
  assert [job.after for job in check()[4:]] == [f'{tmp_path}/w/one-1', f'{tmp_path}/w/two-1', '', '']
  assert [made.name for made in tmp_path.iterdir()] == ['pupils.py']
  config = config_files.load_config(f'{path}:synthetic_faces:pupil', [f'teacher.workdir={tmp_path}/w/one-1', 'seed=1'])
  workdir.open_workdir(setup.settings(config), tmp_path / 'w' / 'pupil-1', ())
  assert len(check()) == 8
  with pytest.raises(UserError, match='w/pupil-1 holds a run of another config: batch_size is .* there, 7 here'):
    check('batch_size=7')
  with pytest.raises(UserError, match="teacher.workdir: 'pupil' learns from 'one'"):
    check('teacher.workdir=x')
  (tmp_path / 'w' / 'pupil-1' / 'config.json').write_text(json.dumps(
      setup.settings(config) | {'teacher': config.teacher.to_dict() | {'workdir': 'x'}}))
  with pytest.raises(UserError, match='another config: teacher.workdir is "x" there, ".*/w/one-1" here'):
    check()
  path.write_text(PUPILS.replace("'other_pupil': 'two'", "'other_pupil': 'one'"))
  with pytest.raises(UserError, match="the rows 'pupil' and 'other_pupil' are the same config"):
    check()


def test_the_table_of_deepfever_names_its_teachers():
  rows = ablation.choose_rows('ablations/deepfever:ferplus')
  jobs = ablation.list_jobs('ablations/deepfever:ferplus', dict.fromkeys(rows, 1), 'w')
  assert {job.row: job.after for job in jobs if job.after} == {
      row: 'w/teacher-0' for row in ('student', 'student_labelled')}


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
