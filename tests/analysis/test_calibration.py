"""A run is calibrated on faces that it was not trained on: what is refused, what is written, and what never changes."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import special

from fer_jax import calibrate as command
from fer_jax import command_line
from fer_jax.analysis import calibration
from fer_jax.errors import UserError
from fer_jax.metrics import calibration as metrics
from fer_jax.reports.page import write_report
from fer_jax.reports.table import print_evaluation
from fer_jax.runtime import storage
from fer_jax.training import calibration as kept
from fer_jax.training import evaluation, setup
from fer_jax.training.data import Data
from fer_jax.training.protocol import Seen
from fer_jax.training.workdir import open_workdir, read_config, read_run
from tests import faces, pages

# Where the faces of ``faces.source`` have their bright spot, by class.
SPOTS = [(4 + 3 * (k // 3), 4 + 3 * (k % 3)) for k in range(7)]


@pytest.fixture
def splits(monkeypatch):
  """Splits in memory; a third of the labels are others than the faces show, and one face has none."""
  made = {'train': faces.source(24, seed=0), 'valid': faces.source(90, seed=1), 'test': faces.source(60, seed=2)}
  made['test[:50%]'] = faces.source(60, seed=2)
  made['test[:50%]'].records = made['test[:50%]'].records[:30]
  made['test[:50%]'].intervals = (made['test'].intervals[0]._replace(stop=30),)
  for name, split in made.items():
    split.fingerprint = name
    for row, record in enumerate(split.records):
      record['label'] = (record['label'] + (row % 3 == 0)) % 7
  made['valid'].records[5]['label'] = -1

  def open_split(self, split):
    if split not in made:
      raise UserError(f'there is no {split}')
    return made[split]

  monkeypatch.setattr(Data, 'open', open_split)
  return made


@jax.jit
def see(batch):
  images = batch['image'].astype(jnp.float32)[..., 0]
  logits = jnp.stack([images[:, y - 1:y + 2, x - 1:x + 2].mean((1, 2)) for y, x in SPOTS], axis=1) / 12
  return {'logits': logits, **{name: batch[name] for name in ('label', 'row', 'mask')}}


@pytest.fixture
def seen(splits, monkeypatch):
  """What every run has seen, its training split; every run's network is ``see``."""
  known = [Seen.of(splits['train'], 'train')]
  monkeypatch.setattr(setup, 'make_evaluator', lambda system, mesh: lambda variables, batch: see(batch))

  def load(workdir, mesh, changes=(), data_dir=None):
    config = read_config(workdir)
    return setup.Trained(storage.as_path(workdir), setup.make_protocol(config), read_run(workdir),
                         setup.System(SimpleNamespace(), {}, None, 1), {}, 7, lambda: known)

  monkeypatch.setattr(setup, 'load', load)
  return known


def make_run(workdir, **changes):
  begun = open_workdir(setup.settings(faces.config(**changes)), workdir, [])
  storage.write_json(workdir / 'run.json', begun | {'classes': list(faces.CLASSES), 'steps': 7, 'channels': 1,
                                                    'finished': 'now'})
  return storage.as_path(workdir)


@pytest.fixture
def workdir(seen, tmp_path):
  return make_run(tmp_path / 'run')


def read(path):
  return json.loads(path.read_text())


def left(workdir, split):
  with np.load(workdir / f'evaluation/{split}.npz') as file:
    return dict(file)


def test_the_holdout_is_fitted_and_evaluations_get_the_numbers(workdir, splits):
  before = evaluation.evaluate_run(workdir)
  assert 'calibration' not in before
  answers = left(workdir, 'test')
  found, results = calibration.calibrate(workdir, accuracy=0.5)
  table = left(workdir, 'valid')
  known = splits['valid'].labels >= 0
  fit = metrics.fit_temperature(table['logits'], splits['valid'].labels)
  assert found['temperature'] == fit.value and found['temperature_interval'] == [fit.low, fit.high]
  assert fit.low < fit.value < fit.high and fit.value != pytest.approx(1, abs=0.2) and not found['at_bound']
  assert (found['split'], found['count'], found['step'], found['wanted']) == ('valid', 89, 7, {'accuracy': 0.5})
  assert found['classes'] == list(faces.CLASSES) and found['fingerprint'] == 'valid'
  assert not found['protocol']['leaky'] and found['protocol']['dataset'] == 'synthetic_faces'
  for when, temperature in (('before', 1.0), ('after', fit.value)):
    assert found[when] == metrics.scores(table['logits'], splits['valid'].labels, temperature)
  assert found['after']['nll'] < found['before']['nll'] and found['after']['ece'] < found['before']['ece']
  confidence = special.softmax(table['logits'][known] / fit.value, axis=1).max(axis=1)
  correct = (table['prediction'] == table['label'])[known]
  assert found['threshold'] == metrics.threshold_for(confidence, correct, accuracy=0.5)
  assert found['answered'] == metrics.answered(confidence, correct, found['threshold'])
  assert read(workdir / 'calibration.json') == json.loads(json.dumps(found)) == kept.read(workdir, 7)
  assert read_run(workdir)['evaluations'] == {'test': 1, 'valid': 1}

  # The test split has the numbers at that temperature, from what was left of it; nothing else of it changes.
  after = read(workdir / 'evaluation/test.json')
  scores = after.pop('calibration')
  assert after == json.loads(json.dumps(before)) and after['brier'] > 0
  expected = metrics.scores(answers['logits'], splits['test'].labels, fit.value)
  assert {key: scores[key] for key in expected} == expected and scores['fitted_on'] == 'valid'
  assert (scores['count'], scores['overlap'], scores['temperature']) == (89, 0, fit.value)
  for name, values in left(workdir, 'test').items():
    np.testing.assert_array_equal(values, answers[name])
  assert [result['protocol']['split'] for result in results] == ['test', 'valid']
  assert read(workdir / 'evaluation/valid.json')['calibration']['overlap'] == 89

  # And so has every evaluation from now on, but for those of a changed config.
  again = evaluation.evaluate_run(workdir)
  assert again['calibration'] == scores and again['accuracy'] == before['accuracy']
  assert 'calibration' not in evaluation.evaluate_run(workdir, changes=['eval_order=sorted'])
  found, results = calibration.calibrate(workdir)
  assert len(results) == 2 and found['threshold'] is None and 'answered' not in results[0]['calibration']
  assert 'calibration' not in read(workdir / 'evaluation/test,eval_order=sorted.json')


def test_predictions_that_are_there_are_no_further_evaluation_and_another_fit_replaces_the_first(workdir, capsys):
  evaluation.evaluate_run(workdir, 'valid')
  first, _ = calibration.calibrate(workdir)
  said = capsys.readouterr().out
  assert 'no further evaluation of valid' in said and 'replaced' not in said
  assert read_run(workdir)['evaluations'] == {'valid': 1}
  second, _ = calibration.calibrate(workdir, coverage=0.5)
  assert f"is replaced: it was temperature {first['temperature']:.4f}, fitted on 89 faces of valid at step 7" in (
      capsys.readouterr().out)
  assert second['threshold'] > 0 and second['answered']['coverage'] >= 0.5
  calibration.calibrate(workdir, 'test[:50%]')
  assert f", threshold {second['threshold']:.4f}, fitted on" in capsys.readouterr().out
  # Without its logits, as an earlier version left it, it is evaluated again.
  kept_ = left(workdir, 'valid')
  del kept_['logits']
  np.savez(workdir / 'evaluation/valid.npz', **kept_)
  (workdir / 'calibration.json').write_text('{"cut')
  assert calibration.calibrate(workdir)[0]['temperature'] == first['temperature']
  assert 'is replaced: it was damaged' in capsys.readouterr().out and read_run(workdir)['evaluations']['valid'] == 2


def test_faces_of_the_fit_are_counted_where_they_are_evaluated(workdir, splits):
  calibration.calibrate(workdir, 'test[:50%]', coverage=0.8)
  result = evaluation.evaluate_run(workdir)
  assert result['calibration']['overlap'] == 30 and result['calibration']['fitted_on'] == 'test[:50%]'
  words = ' '.join(pages.printed(print_evaluation, result).split())
  assert 'Note: the temperature was fitted on 30 of these 60 faces: the calibrated numbers are not' in words
  assert 'LEAKY' not in words  # The accuracy is as honest as before.
  assert '30 of these 60 faces' in write_report(workdir).read_text()
  # Other data than then: nobody knows.
  splits['test[:50%]'].fingerprint = 'another'
  result = evaluation.evaluate_run(workdir)
  assert result['calibration']['overlap'] is None
  assert 'whether on these faces is not known' in ' '.join(pages.printed(print_evaluation, result).split())
  del splits['test[:50%]']
  assert evaluation.evaluate_run(workdir)['calibration']['overlap'] is None


def test_evaluations_of_which_nothing_is_left_lose_former_numbers(workdir, splits, capsys):
  evaluation.evaluate_run(workdir)
  calibration.calibrate(workdir)
  path = workdir / 'evaluation/test.json'
  assert 'calibration' in read(path)
  other = read(path) | {'step': 6}
  storage.write_json(workdir / 'evaluation/other.json', other)
  (workdir / 'evaluation/cut.json').write_text('{"cut')
  path.with_suffix('.npz').unlink()
  capsys.readouterr()
  _, results = calibration.calibrate(workdir)
  assert 'test.json has no calibrated numbers' in capsys.readouterr().out
  assert [result['protocol']['split'] for result in results] == ['valid'] and 'calibration' not in read(path)
  assert read(workdir / 'evaluation/other.json') == other  # Of another network.
  del splits['test']
  calibration.calibrate(workdir)
  assert "evaluate --split=test again" in capsys.readouterr().out


def said(workdir, *arguments, **options):
  with pytest.raises(UserError) as error:
    calibration.calibrate(workdir, *arguments, **options)
  assert not (workdir / 'calibration.json').exists()
  return str(error.value)


HOW = "Train with a part held out (--config.data.train=train --config.data.holdout=valid), or give a part"


def test_faces_that_were_trained_on_are_refused_in_the_words_of_the_protocol(workdir, seen, splits, tmp_path):
  words = said(workdir, 'train')
  assert words.startswith('a temperature is fitted on faces that the network was not trained on, but 24 of 24 train '
                          'images were trained on. ' + HOW) and "--split='test[20%:]'" in words
  seen.append(Seen.of(splits['valid'], 'valid', 'unlabelled', source='faces'))
  assert "90 of 90 valid images were seen without their labels in the source 'faces'. " in said(workdir)
  seen[1] = Seen.of(splits['valid'], 'valid', who='its teacher')
  assert '90 of 90 valid images were trained on by its teacher. ' in said(workdir)
  seen[1] = Seen('unknown', 'its teacher')
  assert 'but what its teacher was trained on is not known. ' in said(workdir)
  del seen[1]
  none = make_run(tmp_path / 'none', data__train='train+valid', data__holdout='')
  assert said(none) == (f'the run in {none} has no holdout (config.data.holdout), so there are no faces to calibrate '
                        f"on. {HOW} of the test split, such as --split='test[:20%]', and read test numbers on the rest "
                        "(evaluate --split='test[20%:]').")
  assert 'evaluations' not in read_run(workdir)


def test_a_step_that_was_chosen_on_the_split_is_written_down(workdir, seen, splits):
  seen.append(Seen.of(splits['valid'], 'valid', 'chosen'))
  found, _ = calibration.calibrate(workdir)
  assert found['protocol']['leaky'] and found['protocol']['reasons'] == [
      'the step of the network was chosen by the accuracy on 90 of 90 valid images']
  section = write_report(workdir).read_text().split('id="calibration"')[1].split('</section>')[0]
  assert 'the step of the network was chosen by the accuracy on 90 of 90 valid images' in section


@pytest.mark.filterwarnings('ignore:invalid value')  # Of answers that are not finite.
def test_mistakes_are_one_sentence(workdir, splits, tmp_path, monkeypatch):
  assert said(workdir, accuracy=0.9, coverage=0.9).startswith('give either --accuracy or --coverage')
  assert said(workdir, accuracy=1.0) == '--accuracy=1: give a share above 0 and below 1, such as --accuracy=0.9.'
  assert said(workdir, coverage=80.0) == '--coverage=80: give a share above 0 and up to 1, such as --coverage=0.9.'
  assert 'no threshold reaches an accuracy of 0.99 with its 95 % interval. The best is' in said(workdir, accuracy=0.99)
  assert read_run(workdir)['evaluations'] == {'valid': 1}  # It was looked at, and its predictions are kept.
  assert 'holds no run' in said(tmp_path)
  arm = make_run(tmp_path / 'arm', model__head=ConfigDict({'name': 'arm', 'global_mean': 'batch'}))
  assert "depends on the other faces of its batch" in said(arm) and "train with 'running'" in said(arm)
  splits['valid'].classes = faces.CLASSES[::-1]
  assert 'speaks of the classes' in said(workdir)
  splits['valid'].classes = faces.CLASSES
  labels = [record['label'] for record in splits['valid'].records]
  for record in splits['valid'].records:
    record['label'] = -1
  del splits['valid'].__dict__['_names_and_labels']
  assert said(workdir) == ('valid of synthetic_faces has no labelled faces, so there is nothing to fit to.')
  for record, label in zip(splits['valid'].records, labels, strict=True):
    record['label'] = label
  del splits['valid'].__dict__['_names_and_labels']
  monkeypatch.setattr(setup, 'make_evaluator', lambda system, mesh: lambda variables, batch: (
      see(batch) | {'logits': see(batch)['logits'] * jnp.nan}))
  (workdir / 'evaluation/valid.npz').unlink()
  assert 'answers with numbers that are not finite' in said(workdir)
  record = read_run(workdir)
  del record['finished']
  storage.write_json(workdir / 'run.json', record)
  assert 'has not finished; give its command again' in said(workdir)


def test_a_calibration_of_another_step_or_a_damaged_one(workdir, capsys):
  assert kept.read(workdir, 7) is None
  calibration.calibrate(workdir)
  capsys.readouterr()
  assert kept.read(workdir, 8) is None
  assert 'is of step 7, the network of step 8: it is left out; calibrate again.' in capsys.readouterr().out
  (workdir / 'calibration.json').write_text('{"step": 7}')
  with pytest.raises(UserError, match=r'calibration.json is damaged .*delete it, or calibrate again:\n.*--workdir='):
    kept.read(workdir, 7)
  assert 'calibration' not in evaluation.evaluate_run(workdir)  # That costs the numbers, and not the evaluation.
  assert 'No calibrated numbers: ' in capsys.readouterr().out


def test_the_command_prints_both_sides_and_makes_the_page(workdir, monkeypatch):
  evaluation.evaluate_run(workdir)
  monkeypatch.setattr(command_line, 'start', lambda given: None)
  given = SimpleNamespace(workdir=str(workdir), split=None, accuracy=None, coverage=0.6, data_dir=None)
  text = pages.printed(command.main, given)
  found = read(workdir / 'calibration.json')
  low, high = found['temperature_interval']
  words = ' '.join(text.split())
  for expected in (
      f"temperature {found['temperature']:.3f} (95 %: {low:.3f} to {high:.3f}), fitted on 89 faces of valid; no answer "
      f"changes. Below a probability of {found['threshold']:.4f} it abstains: the answers that are left are those of "
      '60.00 % of these faces or more.', '1. The temperature was fitted on these very faces',
      f"{found['before']['nll']:.3f} → {found['after']['nll']:.3f}", 'report.html'):
    assert expected in words, expected
  section = (workdir / 'report.html').read_text().split('<section id="calibration"')[1].split('</section>')[0]
  assert section.count('<svg') == 4 and f"the threshold {found['threshold']:.4f}" in section
