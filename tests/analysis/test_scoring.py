"""Predictions from elsewhere: the numbers of a run's own are the run's, and what is missing counts as wrong."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sklearn_metrics

from fer_jax.analysis.scoring import score
from fer_jax.data.reading import splits
from fer_jax.errors import UserError
from fer_jax.metrics.intervals import bootstrap, wilson
from fer_jax.reports.runs import Run, collect_scores
from fer_jax.reports.table import print_evaluation
from fer_jax.runtime import cluster, storage
from fer_jax.training import evaluation, setup
from fer_jax.training.data import Data
from fer_jax.training.workdir import open_workdir
from tests import faces, pages, trees
from tests.processes import call

COUNT = 40
WORDS = 'trained on their train split, last epoch'


@pytest.fixture
def opened(monkeypatch):
  """Two splits in memory, of which test has eight images that train has too."""
  made = {'train': faces.source(40, seed=1, fingerprint='t' * 64), 'test': faces.source(COUNT, fingerprint='f' * 64)}
  for row in range(8):
    made['train'].records[row]['image'] = made['test'].records[row]['image']
  for row in range(COUNT):
    made['test'].records[row]['name'] = f'faces/{row}.png'
  made['test'].records[5]['label'] = -1
  monkeypatch.setattr(Data, 'open', lambda self, split: made[split])
  monkeypatch.setattr(splits, 'open_split', lambda name, variant, split, folder, classes=(): made[split])
  return made


def logits_of(source, seed=0):
  rng = np.random.default_rng(seed)
  hot = np.eye(7)[np.maximum(source.labels, 0)]
  return (rng.normal(0, 1.5, (len(source), 7)) + 2 * hot).astype(np.float32)


def make_run(folder, opened, seed=0, **changes):
  """A run that was evaluated on test; returns its result."""
  config = faces.config(seed=seed, **changes)
  record = open_workdir(setup.settings(config), folder, []) | {'classes': list(faces.CLASSES)}
  storage.write_json(folder / 'run.json', record)
  trained = setup.Trained(folder, setup.make_protocol(config), record, SimpleNamespace(explain={}), {}, 3, lambda: [])
  answers = logits_of(opened['test'], seed)
  evaluator = lambda variables, batch: {'logits': answers[np.asarray(batch['row'])],
                                        **{key: batch[key] for key in ('label', 'row', 'mask')}}
  return evaluation.evaluate_split(trained, evaluator, opened['test'], 'test', cluster.make_mesh())


def scored(path, **options):
  return score(path, 'synthetic_faces', 'test', **options)


def write_csv(path, rows, columns=faces.CLASSES, first='name'):
  path.write_text('\n'.join([','.join([first, *columns]), *(','.join(map(str, row)) for row in rows)]))
  return path


def test_the_saved_predictions_of_a_run_have_its_numbers_to_the_last_digit(opened, tmp_path):
  (tmp_path / 'odd.txt').write_text('\n'.join(f'{row}.png' for row in range(1, COUNT, 2)))
  own = make_run(tmp_path / 'run', opened, data__subsets=(f'{tmp_path}/odd.txt',), data__duplicates=True)
  found = scored(tmp_path / 'run' / 'evaluation' / 'test.npz', subset_lists=[tmp_path / 'odd.txt'], duplicates='train')
  about = {'name', 'protocol', 'commit', 'evaluated'}
  shared = own.keys() & found.keys() - about
  assert {'accuracy', 'mean_class_interval', 'recall', 'confusion', 'macro_f1', 'nll', 'ece', 'brier', 'subsets',
          'without_duplicates'} <= shared and own.keys() - found.keys() <= {'step', 'seed', 'overrides', 'hardware'}
  for key in shared:
    assert json.dumps(found[key]) == json.dumps(own[key]), key
  assert found['count'] == COUNT - 1 and found['without_duplicates']['count'] == COUNT - 1 - 7  # One has no label.
  assert found['predictions']['answered'] == COUNT - 1 and found['name'] == 'run'
  assert found['protocol']['fingerprint'] == own['protocol']['fingerprint'] and found['protocol']['declared'] == ''


def test_probabilities_in_a_file_have_the_numbers_of_their_logits(opened, tmp_path):
  own = make_run(tmp_path / 'run', opened)
  shares = special.softmax(logits_of(opened['test']).astype(np.float64), axis=1)
  order = np.random.default_rng(0).permutation(7)
  rows = [[f'/data/set/faces/{row}.jpg', *shares[row, order]] for row in np.random.default_rng(1).permutation(COUNT)]
  found = scored(write_csv(tmp_path / 'theirs.csv', rows, [faces.CLASSES[k] for k in order], 'file'))
  exact = ('count', 'accuracy', 'mean_class_accuracy', 'recall', 'confusion', 'macro_f1', 'classes')
  assert {key: found[key] for key in exact} == {key: own[key] for key in exact}
  for key in ('nll', 'ece', 'brier'):
    assert found[key] == pytest.approx(own[key], rel=1e-9)
  assert found['name'] == 'theirs' and found['protocol']['variant'] == 'default'
  named = scored(write_csv(tmp_path / 'named.csv', [[f'{row}.png', faces.CLASSES[shares[row].argmax()]]
                                                    for row in range(COUNT)], ['class']))
  assert {key: named[key] for key in exact} == {key: own[key] for key in exact} and 'nll' not in named


def test_what_has_no_answer_counts_as_wrong_and_is_told(opened, tmp_path):
  label, shares = opened['test'].labels, special.softmax(logits_of(opened['test']).astype(np.float64), axis=1)
  rows = [[f'{row}.png', *np.pad(shares[row], (0, 1)), ''] for row in range(COUNT) if row not in (3, 4, 5)]
  rows[0][1:] = [''] * 9  # Face 0 has a row and no answer.
  rows[1][1:9] = [0.0] * 7 + [1.0]  # Face 1 is answered with an expression that the data have not.
  rows[2][9] = 0.9
  rows += [['2.png', *np.roll(np.eye(8)[label[2]], 1), 0.95], ['other.png', *np.eye(8)[0], '']]
  path = write_csv(tmp_path / 'theirs.csv', rows, [*faces.CLASSES, 'contempt', 'score'])
  found = scored(path, protocol=WORDS)
  prediction = shares.argmax(axis=1)
  prediction[[0, 1, 3, 4]], prediction[2] = 7, (label[2] + 1) % 7
  known = label >= 0
  assert found['count'] == known.sum() == COUNT - 1
  right = int((prediction == label)[known].sum())
  assert found['accuracy'] == right / (COUNT - 1) and found['accuracy_interval'] == list(wilson(right, COUNT - 1))
  recall = [(prediction == label)[label == k].mean() for k in range(7)]
  np.testing.assert_allclose(list(found['recall'].values()), recall)
  assert found['mean_class_accuracy'] == pytest.approx(np.mean(recall))
  np.testing.assert_array_equal(found['confusion'], sklearn_metrics.confusion_matrix(
      label[known], prediction[known], labels=range(8))[:7])
  f1 = sklearn_metrics.f1_score(label[known], prediction[known], labels=range(7), average='macro')
  assert found['macro_f1'] == pytest.approx(f1)
  answered = known.copy()
  answered[[0, 3, 4]] = False
  eight = np.pad(shares, ((0, 0), (0, 1)))
  eight[1], eight[2] = np.eye(8)[7], np.roll(np.eye(8)[label[2]], 1)
  assert found['nll'] is None  # Infinite: faces 1 and 2 were sure of another class.
  assert found['brier'] == pytest.approx(np.square(eight - np.eye(8)[label])[answered].sum(axis=1).mean())
  about = found['predictions']
  assert about == about | {
      'answered': COUNT - 4, 'missing': 2, 'first_missing': ['faces/3.png', 'faces/4.png'], 'empty': 1, 'others': 1,
      'other_classes': ['contempt'], 'absent': [], 'unknown': 1, 'first_unknown': ['other.png'], 'several': 1}
  text = ' '.join(pages.printed(print_evaluation, found).split())
  for words in (
      f'protocol declared: {WORDS}; what this network has seen is not known here, so there is no verdict on it.',
      '3 of 39 faces have no answer and count as wrong: 2 missing (faces/3.png, faces/4.png) and 1 with a row that has '
      'no answer; NLL, ECE and Brier score are of the others.',
      'answers that are none of these classes (contempt): 1; they count as wrong.',
      'rows with a name that no face of this split has (other.png): 1; they are left out.',
      "faces with several rows: 1; that of the detector's highest score counts.",
      f'accuracy {100 * right / 39:.2f} %', '%) DECLARED', 'NLL –'):
    assert words in text, words
  verbose = pages.printed(print_evaluation, {**found, 'protocol': found['protocol'] | {'declared': ''}}, verbose=True)
  assert 'classes NOT DECLARED' in verbose and 'protocol not declared;' in verbose


def test_nll_is_of_the_faces_that_were_answered(opened, tmp_path):
  label, logits = opened['test'].labels, logits_of(opened['test']).astype(np.float64)
  shares = special.softmax(logits, axis=1)
  found = scored(write_csv(tmp_path / 'theirs.csv', [[f'{row}.png', *shares[row]] for row in range(10, 30)]))
  assert found['count'] == 39 and found['predictions']['answered'] == 20
  rows = np.arange(10, 30)
  assert found['nll'] == pytest.approx(-np.log(shares[rows, label[rows]]).mean())
  few = scored(write_csv(tmp_path / 'few.csv', [[f'{row}.png', 0.5, 0.5] for row in range(COUNT)],
                         ['happy', 'neutral']))
  assert few['predictions']['absent'] == list(faces.CLASSES[2:]) and few['nll'] is None
  assert 'surprise, sadness, anger, disgust, fear never got a probability above 0' in ' '.join(
      pages.printed(print_evaluation, few).split())


def test_beside_a_run_face_by_face(opened, tmp_path):
  theirs, ours = make_run(tmp_path / 'a', opened, 1), make_run(tmp_path / 'b', opened, 2)
  found = scored(tmp_path / 'b' / 'evaluation' / 'test.npz', against=str(tmp_path / 'a'))
  label = opened['test'].labels
  right = [(logits_of(opened['test'], seed).argmax(axis=1) == label)[label >= 0] for seed in (1, 2)]
  beside = found['against']
  assert (beside['ours_only'], beside['theirs_only']) == ((right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum())
  estimate = bootstrap(right[1].astype(float) - right[0])
  assert beside['difference'] == {'value': estimate.value, 'low': estimate.low, 'high': estimate.high}
  assert estimate.value == pytest.approx(ours['accuracy'] - theirs['accuracy'])
  assert beside['accuracy'] == theirs['accuracy'] and beside['seed'] == 1
  assert f"against {tmp_path / 'a'} ({theirs['name']}, seed 1)" in pages.printed(print_evaluation, found, width=400)
  leaky = {**found, 'against': beside | {'protocol': beside['protocol'] | {'reasons': ['all were trained on']}}}
  assert 'LEAKY (all were trained on)' in pages.printed(print_evaluation, leaky, width=400)


def test_bad_runs_and_files(opened, tmp_path):
  make_run(tmp_path / 'run', opened)
  path = tmp_path / 'run' / 'evaluation' / 'test.npz'
  with pytest.raises(UserError, match=r'it has no evaluation of test\. Make one:\n.*fer_jax.evaluate'):
    scored(path, against=str(tmp_path / 'none'))
  with pytest.raises(UserError, match=r'there is no file .*none.npz; evaluate the run first'):
    scored(tmp_path / 'run' / 'evaluation' / 'none.npz')
  (tmp_path / 'bad.npz').write_bytes(b'no archive')
  with pytest.raises(UserError, match='bad.npz is damaged, or holds no predictions of a run'):
    scored(tmp_path / 'bad.npz')
  with pytest.raises(UserError, match="none of its 1 names is of the split's faces; its first is 'x.png', the split's "
                                      "'faces/0.png'"):
    scored(write_csv(tmp_path / 'theirs.csv', [['x.png', 'happy']], ['class']))
  with pytest.raises(UserError, match=r"the lines 2 and 3 are of one face \('0.png'\)"):
    scored(write_csv(tmp_path / 'theirs.csv', [['0.png', 'happy'], ['faces/0.png', 'sad']], ['class']))
  opened['test'].fingerprint = 'g' * 64
  with pytest.raises(UserError, match='and not on these very faces'):
    scored(path, against=str(tmp_path / 'run'))
  opened['test'] = faces.source(COUNT - 1)
  with pytest.raises(UserError, match='is not of these faces: its labels are not those of the split'):
    scored(path)
  opened['train'].records[:] = [record | {'label': -1} for record in opened['train'].records]  # Nobody has read them.
  with pytest.raises(UserError, match='train of synthetic_faces has no labelled faces'):
    score(path, 'synthetic_faces', 'train')


def test_the_command_scores_a_prepared_data_set_and_report_reads_its_file(tmp_path):
  spot = faces.source(7)
  files = {f'test/{faces.CLASSES[k]}/{i}.png': spot.records[k]['image'] for k in (1, 3) for i in range(3)}
  trees.build('faces_folder', tmp_path, files, 'mine', classes=('happiness', 'sadness'))
  rows = [['/else/where/test/happiness/0.png', 'happy'], ['test/happiness/1.png', 'sad'], ['sadness/2.png', 'sad']]
  path = write_csv(tmp_path / 'theirs.csv', rows, ['class'])
  arguments = ('score', f'--predictions={path}', '--dataset=faces_folder', '--variant=mine')
  status, out, err = call(*arguments, f'--protocol={WORDS}', f'--out={tmp_path}/theirs.json',
                          data_dir=tmp_path / 'data')
  assert status == 0 and not err, err
  assert 'accuracy 33.33 %' in out and 'DECLARED' in out and f'Written: {tmp_path}/theirs.json' in out
  runs, problems = collect_scores([f'{tmp_path}/*.json'])
  assert not problems and isinstance(runs[0], Run) and runs[0].result['predictions']['missing'] == 3
  # A run that knows one of the classes is scored on the faces of that one.
  saved = tmp_path / 'run' / 'evaluation' / 'test.npz'
  storage.write_npz(saved, label=np.zeros(3, int), prediction=np.zeros(3, int), logits=np.zeros((3, 1), np.float32),
                    classes=np.array(['sadness']))
  part = score(saved, 'faces_folder', 'test', variant='mine', data_dir=str(tmp_path / 'data'), duplicates='test')
  assert (part['accuracy'], part['count'], part['protocol']['classes']) == (1.0, 3, ['sadness'])
  assert part['without_duplicates']['count'] == 0
  for flag, message in ((f'--out={tmp_path}/theirs.csv', 'give the path of a .json file'),
                        ('--split=train', "bad split 'train'")):
    status, _, err = call(*arguments, flag, data_dir=tmp_path / 'data')
    assert status == 2 and err.startswith('error: ') and message in err and 'Traceback' not in err
