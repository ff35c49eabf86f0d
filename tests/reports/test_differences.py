"""Differences between runs against numpy and scipy; what was not tested on the same faces is never compared."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from fer_jax.reports.differences import compare, disagreements
from fer_jax.reports.runs import Run

RNG = np.random.default_rng(0)
LABEL = np.where(np.arange(400) < 390, np.arange(400) % 7, -1)  # Ten faces without a label.


def make_run(folder, rate, seed=0, label=LABEL, fingerprint='f' * 64, **record):
  """A run that is right on ``rate`` of the faces, with its predictions on disk; and on which faces it is right."""
  rng = np.random.default_rng([seed, round(1000 * rate)])
  right = rng.random(len(label)) < rate
  prediction = np.where(right, label, (label + 1) % 7)
  (folder / 'evaluation').mkdir(parents=True)
  np.savez(folder / 'evaluation' / 'test.npz', label=label, prediction=prediction)
  right = right[label >= 0]
  result = {'count': len(right), 'accuracy': float(right.mean()), 'commit': 'abc', 'hardware': '1 x CPU',
            'protocol': {'split': 'test', 'fingerprint': fingerprint, 'trained_on': 'train'}}
  return Run(str(folder), {'seed': seed, 'epochs': 4.0, 'data': {'dir': str(folder)}}, record, result), right


def make_runs(folder, rate, seeds):
  made = [make_run(folder / f'{rate}-{seed}', rate, seed) for seed in range(seeds)]
  return [run for run, _ in made], np.array([right for _, right in made])


def test_single_runs_have_mcnemar_and_an_interval_over_faces(tmp_path):
  (ours, right), (theirs, wrong) = (make_run(tmp_path / name, rate) for name, rate in (('a', 0.9), ('b', 0.8)))
  found = compare([ours], [theirs])
  only, other = (right & ~wrong).sum(), (~right & wrong).sum()
  assert found.mcnemar[:2] == (only, other)
  assert found.mcnemar.p_value == pytest.approx(stats.binomtest(int(only), int(only + other)).pvalue)
  difference = 100 * (right.astype(float) - wrong)
  half = 1.96 * difference.std() / np.sqrt(len(difference))
  assert found.over_faces.value == pytest.approx(difference.mean()) and found.over_faces.n == 390
  assert found.over_faces.low == pytest.approx(difference.mean() - half, abs=0.1 * half)
  assert found.over_faces.high == pytest.approx(difference.mean() + half, abs=0.1 * half)
  assert found.over_seeds == (pytest.approx(difference.mean()), None, None, None) and not found.problem


def test_several_seeds_are_averaged_on_each_face_and_compared_over_seeds(tmp_path):
  ours, right = make_runs(tmp_path, 0.9, 3)
  theirs, wrong = make_runs(tmp_path, 0.8, 2)
  found = compare(ours, theirs)
  shares = 100 * (right.mean(axis=0) - wrong.mean(axis=0))
  half = 1.96 * shares.std() / np.sqrt(len(shares))
  assert (found.over_faces.low, found.over_faces.high) == pytest.approx(
      (shares.mean() - half, shares.mean() + half), abs=0.1 * half)
  expected = stats.ttest_ind(100 * right.mean(axis=1), 100 * wrong.mean(axis=1), equal_var=False)
  assert found.over_seeds.p_value == pytest.approx(expected.pvalue)
  assert found.over_seeds[1:3] == pytest.approx(tuple(expected.confidence_interval(0.95)))
  assert found.over_seeds.difference == pytest.approx(found.over_faces.value)
  assert found.mcnemar is None and not found.problem


def test_other_faces_or_labels_are_never_compared(tmp_path):
  (ours, _), (theirs, _) = make_run(tmp_path / 'a', 0.9), make_run(tmp_path / 'b', 0.9, fingerprint='0' * 64)
  assert compare([ours], [theirs])[:3] == (None, None, None)
  assert compare([ours], [theirs]).problem == (
      'The runs were not tested on the same faces (fingerprints 000000000000, ffffffffffff), so they are not compared.')
  other, _ = make_run(tmp_path / 'c', 0.9, label=np.roll(LABEL, 1))
  found = compare([ours], [other])
  assert found[:3] == (None, None, None) and found.problem.startswith('The labels of the faces are not the same')


@pytest.mark.parametrize('damage, words', [
    (lambda path: path.unlink(), 'there is no {}.'), (lambda path: path.write_text('PK'), '{} is damaged.'),
    (lambda path: np.savez(path, label=LABEL), '{} is damaged.'),
    (lambda path: np.savez(path, label=LABEL, prediction=LABEL), '{} is not of the evaluation beside it.'),
    (lambda path: np.savez(path, label=LABEL[:50], prediction=LABEL[:50]), '{} is not of the evaluation beside it.')])
def test_without_predictions_accuracies_are_compared_alone(damage, words, tmp_path):
  ours, right = make_runs(tmp_path, 0.9, 2)
  theirs, wrong = make_runs(tmp_path, 0.8, 2)
  path = tmp_path / '0.8-1' / 'evaluation' / 'test.npz'
  damage(path)
  found = compare(ours, theirs)
  assert found.problem == f'Not compared face by face: {words.format(path)}'
  assert found.over_faces is found.mcnemar is None
  assert found.over_seeds.difference == pytest.approx(100 * (right.mean() - wrong.mean()))


def test_disagreements_name_what_differs(tmp_path):
  record = {'commit': 'abc', 'hardware': '1 x CPU', 'digest': 'd'}
  one, _ = make_run(tmp_path / 'a', 0.9, **record)
  two, _ = make_run(tmp_path / 'b', 0.8, seed=1, **record)
  assert disagreements([one, two], settings=True) == []  # Seeds and folders of data are no difference.
  change = lambda run, **parts: dataclasses.replace(run, **{
      name: {**getattr(run, name), **values} for name, values in parts.items()})
  assert disagreements([one, change(two, record={'commit': 'b'})]) == ['differing commits']
  assert disagreements([one, change(two, record={'hardware': '2 x CPU'})]) == ['differing hardware']
  assert disagreements([one, change(two, record={'digest': 'e'})]) == ['differing data']
  assert disagreements([one, change(two, config={'epochs': 5.0, 'batch': 1})]) == []
  assert disagreements([one, change(two, config={'epochs': 5.0, 'batch': 1})], settings=True) == [
      'differing settings (batch, epochs)']
