"""Whole runs: what they write, that they resume bit for bit, and how they stop."""

import collections
import contextlib
import json
import os
import re
import signal

import jax
import numpy as np
import pytest

from fer_jax.data.reading import streams
from fer_jax.errors import UserError
from fer_jax.runtime import cluster, lock, storage
from fer_jax.training import checkpoint, evaluation, feeding, loop, metrics_log, setup, step
from fer_jax.training.data import Data
from fer_jax.training.workdir import open_workdir, read_run
from tests import faces
from tests.workdirs import final_state


def _patch(patch):
  """Makes every split a handful of faces in memory."""
  splits = {'train': faces.source(64, seed=0), 'valid': faces.source(17, seed=1), 'test': faces.source(20, seed=2)}
  patch.setattr(Data, 'open', lambda self, split: splits[split])


@pytest.fixture(autouse=True)
def splits(monkeypatch):
  _patch(monkeypatch)


@pytest.fixture
def planned_once(monkeypatch):
  """The same config has the same plan in every call of a test: tracing it again takes seconds."""
  real, plans = loop.make_plan, {}

  def make_plan(config, mesh, steps):
    if (key := config.to_json_best_effort()) not in plans:
      plans[key] = real(config, mesh, steps)
    return plans[key]

  monkeypatch.setattr(loop, 'make_plan', make_plan)


TRACES = collections.Counter()


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run of 16 steps and its result; the other tests compare with it. TRACES counts how often a step was traced."""
  workdir = tmp_path_factory.mktemp('run') / 'pal'

  def counted(name, function):
    def traced(*arguments):
      TRACES[name] += 1
      return function(*arguments)
    return traced

  with pytest.MonkeyPatch.context() as patch:
    _patch(patch)
    for name in ('train_step', 'evaluation_step'):
      patch.setattr(step, name, counted(name, getattr(step, name)))
    result = loop.train(faces.config(epochs=2.0), workdir, ['--config.epochs=2.0'], profile=range(2, 4))
  return workdir, result


def test_a_run_leaves_its_whole_record(finished):
  workdir, result = finished
  record = json.loads((workdir / 'run.json').read_text())
  assert record['overrides'] == ['--config.epochs=2.0'] and record['steps'] == 16 and record['finished']
  assert {'jax', 'flax', 'optax'} <= record['versions'].keys() and record['commit'] and record['hardware']
  assert (record['size'], record['align_size']) == (16, 0) and record['frame']['count'] > 20
  assert json.loads((workdir / 'config.json').read_text())['losses']['pal']['loss'] == 'alignment'
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  train = [line for line in lines if line['kind'] == 'train']
  assert {'loss', 'loss/pal', 'loss/cross_entropy', 'gradient_norm', 'learning_rate', 'images_per_second',
          'data_wait'} <= train[0].keys()
  assert [line['step'] for line in lines if line['kind'] == 'valid'] == [8, 16]
  assert (workdir / 'parameters.txt').read_text().splitlines()[-1].split() == ['total', f"{record['parameters']:,}"]
  assert '<html' in (workdir / 'report.html').read_text()
  on_disk = json.loads((workdir / 'evaluation' / 'test.json').read_text())
  assert on_disk == json.loads(json.dumps(result))
  assert on_disk['count'] == 20 and np.sum(on_disk['confusion']) == 20 and on_disk['protocol']['evaluations'] == 1
  assert set(on_disk['alignment']) >= {'logit_sum', 'predicted', 'uniform', 'centred_gaussian'}
  assert not list(workdir.rglob('*.part*'))


def test_planning_and_running_trace_each_step_once(finished):
  assert TRACES == {'train_step': 1, 'evaluation_step': 2}  # With maps, and without for the holdout split.


def test_a_finished_run_is_not_evaluated_again(finished, capsys):
  again = loop.train(faces.config(epochs=2.0), finished[0])
  assert again == json.loads(json.dumps(finished[1])) and again['protocol']['evaluations'] == 1
  assert 'nothing to do' in capsys.readouterr().out


def undated(page):
  """A page without the minute in which it was written."""
  text, count = re.subn(r'Written by fer_jax on [^.]*', '', page.read_text())
  assert count == 1
  return text


def test_what_a_finished_run_lacks_is_made_without_another_evaluation(finished, capsys, monkeypatch, planned_once):
  workdir, result = finished
  page, table, config = workdir / 'report.html', workdir / 'evaluation/test.json', faces.config(epochs=2.0)
  whole, record = undated(page), (workdir / 'run.json').read_text()
  monkeypatch.setattr(evaluation, 'collect', None)

  def again():
    assert loop.train(config, workdir) == json.loads(json.dumps(result))
    return capsys.readouterr().out

  for lost in (page.unlink, lambda: page.write_text('<html>of a run in training</html>'),
               lambda: page.write_bytes(b'\xff')):
    lost()
    assert 'its report is made now, without another evaluation' in again() and undated(page) == whole
    assert 'nothing to do' in again()

  # Killed behind its result, before the record said so.
  begun = {key: value for key, value in json.loads(record).items() if key not in ('finished', 'evaluations')}
  storage.write_json(workdir / 'run.json', begun)
  again()
  ended = read_run(workdir)
  assert ended == begun | {'evaluations': {'test': 1}, 'finished': ended['finished']}
  (workdir / 'run.json').write_text(record)

  def full(*_):
    raise UserError('cannot write report.html: No space left on device.')

  page.unlink()
  with monkeypatch.context() as patch:
    patch.setattr(loop, 'write_report', full)
    with pytest.raises(UserError, match='No space left'):
      loop.train(config, workdir)
  assert 'made now' in again() and (workdir / 'run.json').read_text() == record
  scores = table.read_bytes()
  for content, what in ((scores[:200], 'damaged .'), (b'', 'damaged .'), (None, 'gone')):
    table.write_bytes(content) if content is not None else table.unlink()
    with pytest.raises(UserError, match=f'has finished, but {table} is {what}.*; put it back'):
      loop.train(config, workdir)
  table.write_bytes(scores)


def test_a_workdir_is_held_by_one_training(finished, tmp_path, planned_once):
  (tmp_path / 'link').symlink_to(finished[0])
  with lock.alone(finished[0]):
    for name in (finished[0], tmp_path / 'link'):
      with pytest.raises(UserError, match=f'^{name} is in use by another training'):
        loop.train(faces.config(epochs=2.0), name)
  (tmp_path / 'holiday').mkdir()
  (tmp_path / 'holiday/photo.txt').write_text('')
  with pytest.raises(UserError, match='not empty and holds no run'):
    loop.train(faces.config(epochs=2.0), tmp_path / 'holiday')
  assert [path.name for path in (tmp_path / 'holiday').iterdir()] == ['photo.txt']  # No lock in a foreign folder.


def test_sigterm_saves_and_exits_75_and_the_same_call_ends_bit_equal(finished, tmp_path, monkeypatch, planned_once):
  real = streams.training_batches

  def interrupted(*arguments, **options):
    for i, batch in enumerate(real(*arguments, **options)):
      if i == 5:
        os.kill(os.getpid(), signal.SIGTERM)
      yield batch

  config = faces.config(epochs=2.0)
  monkeypatch.setattr(streams, 'training_batches', interrupted)
  with pytest.raises(SystemExit) as stop:
    loop.train(config, tmp_path / 'pal')
  assert stop.value.code == cluster.PREEMPTED == 75
  assert final_state(tmp_path / 'pal')[0] == 6 - feeding.AHEAD
  monkeypatch.setattr(streams, 'training_batches', real)
  loop.train(config, tmp_path / 'pal')
  (a, one), (b, two) = final_state(finished[0]), final_state(tmp_path / 'pal')
  assert a == b == 16
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_array_equal(x, y)
  steps = [json.loads(line)['step'] for line in (tmp_path / 'pal/metrics.jsonl').read_text().splitlines()]
  assert steps == sorted(steps)


def test_sigterm_before_the_first_step_and_ctrl_c_after_the_last(finished, tmp_path, monkeypatch, capsys):
  config = faces.config(epochs=2.0)
  for module, name, number, status, said in (
      (setup, 'make_system', signal.SIGTERM, 75, 'SIGTERM before the first step; the same command starts again.'),
      (evaluation, 'draw_panel', signal.SIGINT, 130, 'Ctrl-C: training is saved; the same command goes on from')):
    real = getattr(module, name)

    def told(*arguments, real=real, number=number, **options):
      os.kill(os.getpid(), number)
      return real(*arguments, **options)

    with monkeypatch.context() as patch:
      patch.setattr(module, name, told)
      patch.setattr(signal, 'getsignal', lambda _: signal.SIG_DFL)  # Tests in the background of a shell ignore Ctrl-C.
      with pytest.raises(SystemExit) as stop:
        loop.train(config, tmp_path / 'pal')
    assert stop.value.code == status and said in capsys.readouterr().out
    assert 'finished' not in read_run(tmp_path / 'pal')
  result = loop.train(config, tmp_path / 'pal')
  assert result['protocol']['evaluations'] == 1 and result['confusion'] == finished[1]['confusion']
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_trace_of_some_steps(finished, tmp_path, capsys):
  traces = lambda workdir: [*(workdir / 'profile').rglob('*.xplane.pb')]
  assert traces(finished[0])
  loop.train(faces.config(), tmp_path / 'a', profile=range(6, 100))  # Training ends first.
  assert traces(tmp_path / 'a') and f'Trace: {tmp_path}/a/profile' in capsys.readouterr().out


def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_room(small_disk, finished, monkeypatch, planned_once):
  config = faces.config(epochs=2.0, checkpoint_every=0.25)
  real = checkpoint.Checkpoints.save

  def filling(self, step, *arguments):
    if step >= 6:
      self.wait()
      with contextlib.suppress(OSError):  # Now it is full.
        (small_disk / 'other').write_bytes(bytes(10_000_000))
    real(self, step, *arguments)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(checkpoint.Checkpoints, 'save', filling)
    with pytest.raises(UserError, match='(?s)cannot (save|write) .*No space left on device.*What was saved before is'):
      loop.train(config, small_disk / 'pal')
  assert final_state(small_disk / 'pal')[0] in (2, 4)  # The one before may have been on its way still.
  (small_disk / 'other').unlink()
  write_report = loop.write_report

  def fill(workdir):
    with contextlib.suppress(OSError):
      (small_disk / 'other').write_bytes(bytes(10_000_000))
    return write_report(workdir)

  for _ in range(2):  # Full again when the page is written, and still when the same command wants to make it.
    monkeypatch.setattr(loop, 'write_report', fill)
    with pytest.raises(UserError, match='cannot write .*/report.html: No space left on device.*make room'):
      loop.train(config, small_disk / 'pal')
  (small_disk / 'other').unlink()
  monkeypatch.setattr(loop, 'write_report', write_report)
  assert loop.train(config, small_disk / 'pal')['protocol']['evaluations'] == 1
  assert '<html' in (small_disk / 'pal/report.html').read_text()
  (a, one), (b, two) = final_state(finished[0]), final_state(small_disk / 'pal')
  assert a == b == 16
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('devices', [1, 2, 8])
def test_a_state_saved_on_eight_devices_comes_back_on_any_number(finished, devices):
  config = faces.config(epochs=2.0)
  system = setup.make_system(config, faces.CLASSES, 16)
  mesh = cluster.make_mesh(jax.devices()[:devices])
  trained = setup.selected(setup.make_protocol(config), system, finished[0], mesh)
  assert trained.step == 16
  leaf = jax.tree.leaves(trained.variables['params'])[0]
  assert leaf.sharding.device_set == set(mesh.devices.flat)


def test_holdout_selection_restores_the_best_and_counts_a_second_evaluation(tmp_path):
  config = faces.config(epochs=2.0, select='holdout')
  result = loop.train(config, tmp_path / 'a')
  lines = [json.loads(line) for line in (tmp_path / 'a/metrics.jsonl').read_text().splitlines()]
  scores = {line['step']: line['accuracy'] for line in lines if line['kind'] == 'valid'}
  assert scores[result['step']] == max(scores.values())
  assert not result['protocol']['leaky']
  mesh = cluster.make_mesh()
  trained = setup.load(tmp_path / 'a', mesh)
  evaluator, test = setup.make_evaluator(trained.system, mesh), faces.source(20, seed=2)
  again = evaluation.evaluate_split(trained, evaluator, test, 'test', mesh)
  assert again['protocol']['evaluations'] == 2 and again['accuracy'] == result['accuracy']


def test_selecting_on_the_test_split_is_marked(tmp_path, capsys):
  result = loop.train(faces.config(select='best_on_test', variables='ema'), tmp_path / 'a')
  why = 'the step of the network was chosen by the accuracy on 20 of 20 test images'
  assert result['protocol']['leaky'] and result['protocol']['reasons'] == [why]
  assert f'The result on test will be marked as leaky: {why}.' in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tmp_path):
  with pytest.raises(UserError, match='cross_entropy.* became (nan|inf).*learning_rate'):
    loop.train(faces.config(optimizer__learning_rate=1e30, optimizer__warmup=0.0), tmp_path / 'a')
  with pytest.raises(UserError, match=r'^pal became nan between steps 3 and 4'):
    metrics_log.check_finite({'loss': float('nan'), 'loss/pal': float('nan'), 'loss/cross_entropy': 1.0}, 2, 4)


def test_a_workdir_of_another_config_is_refused_with_the_difference(finished):
  with pytest.raises(UserError, match='holds a run of another config: optimizer.learning_rate is 0.1 there, 0.2 here'):
    loop.train(faces.config(epochs=2.0, optimizer__learning_rate=0.2), finished[0])


@pytest.mark.parametrize('then, message', [
    ({'fingerprint': 'a' * 64, 'digest': 'd' * 64}, f"no longer the one this run began with.* digest is {'d' * 64}"),
    ({'channels': 3}, r'began with images of 3 channel\(s\), and its training split now needs 1')])
def test_a_run_does_not_go_on_with_other_data(tmp_path, then, message):
  config = faces.config(epochs=2.0)
  workdir = tmp_path / 'run'
  storage.write_json(workdir / 'run.json', open_workdir(setup.settings(config), workdir, []) | {
      'classes': list(faces.CLASSES), **then})
  with pytest.raises(UserError, match=message):
    loop.train(config, workdir)


def test_a_checkpoint_of_another_model_is_refused(finished):
  config = faces.config(epochs=2.0, model__backbone__width=8)
  system = setup.make_system(config, faces.CLASSES, 16)
  with pytest.raises(UserError, match='cannot restore step 16'):
    setup.selected(setup.make_protocol(config), system, finished[0], cluster.make_mesh())


@pytest.mark.parametrize('change, message', [
    ({'augment__flip': 0.5, 'select': 'best'}, 'holdout'), ({'variables': 'ema', 'ema': 0.0}, 'needs config.ema'),
    ({'select': 'holdout', 'data__holdout': ''}, 'needs config.data.holdout'), ({'batch_size': 12}, '8 devices'),
    ({'parallel': 'pjit'}, "choose 'jit' or 'pmap'"), ({'data__target': 'label', 'model__dtype': 'half'}, 'bfloat16')])
def test_bad_choices(change, message, tmp_path):
  with pytest.raises(UserError, match=message):
    loop.train(faces.config(**change), tmp_path / 'a')
