"""Runs under drawn corruptions: clean means the evaluation, and a level that of faces corrupted beforehand."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import ran
from fer_jax.analysis import corruptions, robustness
from fer_jax.data import face
from fer_jax.errors import UserError
from fer_jax.metrics.intervals import wilson
from fer_jax.reports.page import write_report
from fer_jax.reports.robustness import CAVEAT, print_robustness
from fer_jax.reports.runs import Run, by_config
from fer_jax.runtime import cluster, storage
from fer_jax.training import checkpoint, evaluation, setup
from fer_jax.training.data import Data
from fer_jax.training.workdir import open_workdir, read_config, read_run
from tests import faces, pages

KINDS = ('occlusion', 'rotation')

# Where the faces of ``faces.source`` have their bright spot, by class.
SPOTS = [(4 + 3 * (k // 3), 4 + 3 * (k % 3)) for k in range(7)]


@pytest.fixture
def test_split(monkeypatch):
  """17 faces in memory, the test split of every run here."""
  made = faces.source(17, seed=2)
  monkeypatch.setattr(Data, 'open', lambda self, split: made)
  return made


@jax.jit
def see_batch(batch):
  return {'logits': see(batch['image'], jnp), **{name: batch[name] for name in ('label', 'row', 'mask')}}


def see(images, module=np):
  """Logits of a network that looks where the spots are, and at a bit more: images (b, 16, 16, 1) uint8."""
  images = module.asarray(images, module.float32)[..., 0]
  return module.stack([images[:, y - 1:y + 2, x - 1:x + 2].mean((1, 2)) - images[:, y, :].mean(1) / 4
                       for y, x in SPOTS], axis=1)


@pytest.fixture
def seen(test_split, monkeypatch):
  """Every run's network is ``see``; the list grows with the number of rows of every batch it has been shown."""
  shown = []

  def make_evaluator(system, mesh):
    del system, mesh

    def evaluator(variables, batch):
      shown.append(len(batch['image']))
      return see_batch(batch)

    return evaluator

  monkeypatch.setattr(setup, 'make_evaluator', make_evaluator)

  def load(workdir, mesh, changes=(), data_dir=None):
    config = read_config(workdir)
    recipe = SimpleNamespace(augment=config.augment.to_dict())
    return setup.Trained(workdir, setup.make_protocol(config), read_run(workdir),
                         setup.System(recipe, {}, None, 1), {}, 1, lambda: [])

  monkeypatch.setattr(setup, 'load', load)
  return shown


def make_run(workdir, config, **record):
  """The folder of a finished run, without parameters."""
  begun = open_workdir(setup.settings(config), workdir, [])
  storage.write_json(workdir / 'run.json', begun | {'classes': list(faces.CLASSES), 'steps': 1, 'channels': 1,
                                                    'finished': 'now', **record})
  return workdir


def with_parameters(workdir, config):
  """A finished run whose parameters tell faces apart."""
  make_run(workdir, config)
  state, rng = setup.make_system(config, faces.CLASSES, 1).initial(), np.random.default_rng(0)
  state = state.replace(params=jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape), state.params))
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', write=True)
  checkpoints.save(1, state.replace(ema=state.ema and state.variables()))
  checkpoints.close()
  return workdir


@pytest.fixture
def workdir(seen, tmp_path):
  return make_run(tmp_path / 'run', faces.config())


def beforehand(kind, severity, data, seed=0):
  """A batch of all the faces, corrupted."""
  batch = {name: np.stack([data.example(row)[name] for row in range(len(data))]) for name in ('image', 'landmarks')}
  batch['row'] = np.arange(len(data), dtype=np.int32)
  return jax.device_get(jax.jit(corruptions.corrupt, static_argnames='kind')(batch, kind, severity, seed))


@pytest.mark.parametrize('seed', [0, 3])
def test_levels_are_rates_of_faces_that_were_corrupted_beforehand(workdir, test_split, seed):
  result = robustness.measure(workdir, kinds=KINDS, seed=seed)
  assert json.loads((workdir / 'robustness/test.json').read_text()) == json.loads(json.dumps(result))
  label, found = test_split.labels, []
  clean = (see(beforehand('noise', 0.0, test_split)['image']).argmax(1) == label).mean()
  assert result['clean']['accuracy'] == pytest.approx(clean) and clean > 0.9
  for kind in KINDS:
    levels = result['kinds'][kind]['levels']
    for level, severity in zip(levels, corruptions.KINDS[kind].severities, strict=True):
      hits = label == see(beforehand(kind, severity, test_split, seed)['image']).argmax(1)
      assert level['severity'] == severity and level['count'] == 17
      assert level['accuracy'] == pytest.approx(hits.mean())
      assert level['accuracy_interval'] == pytest.approx(wilson(int(hits.sum()), 17))
      assert level['mean_class_accuracy'] == pytest.approx(np.mean([hits[label == k].mean() for k in range(7)]))
      assert level['relative_drop'] == pytest.approx((clean - hits.mean()) / clean)
      found.append(hits.sum())
  assert len(set(found)) > 4
  assert result['majority'] == {'class': 'neutral', 'share': pytest.approx(3 / 17)}


def test_neither_the_batch_nor_the_order_matters(seen, tmp_path):
  found = []
  for i, changes in enumerate(({}, {'eval_batch_size': 24}, {'eval_order': 'shuffled'})):
    workdir = make_run(tmp_path / str(i), faces.config(**changes))
    found.append(robustness.measure(workdir, kinds=['occlusion', 'noise'])['kinds'])
  assert found[0] == found[1] == found[2] and set(seen) == {8, 24}


@pytest.fixture
def tables(monkeypatch):
  """The tables of outputs of everything that is evaluated."""
  made, outputs_of = [], evaluation.outputs_of
  monkeypatch.setattr(evaluation, 'outputs_of', lambda *inputs: made.append(outputs_of(*inputs)) or made[-1])
  return made


def test_a_networks_clean_level_is_its_evaluation_exactly_and_regions_are_cut_from_the_corrupted_face(
    test_split, tables, monkeypatch, tmp_path):
  turned = dataclasses.replace(corruptions.KINDS['rotation'], severities=(30.0,))
  monkeypatch.setitem(corruptions.KINDS, 'rotation', turned)
  config = faces.shrink(ran.get_config('synthetic_faces'), regions__scheme='landmark', explain=ConfigDict())
  workdir = with_parameters(tmp_path / 'ran', config)
  evaluated = evaluation.evaluate_run(workdir)
  result = robustness.measure(workdir, kinds=['rotation'])
  assert result['differs'] == 0 and result['clean'] == {name: evaluated[name] for name in result['clean']}
  evaluation_table, clean, level = tables
  np.testing.assert_array_equal(clean['logits'], evaluation_table['logits'])
  # Their landmarks turn with them, so that regions are of the same parts of the face.
  changed = beforehand('rotation', 30.0, test_split)
  records = [record | {'image': face.png(image[..., 0]).getvalue(), 'landmarks': points * 16}
             for record, image, points in zip(test_split.records, changed['image'], changed['landmarks'], strict=True)]
  mesh = cluster.make_mesh()
  trained = setup.load(workdir, mesh)
  source = dataclasses.replace(test_split, records=records)
  theirs = evaluation.outputs_of(setup.make_evaluator(trained.system, mesh), trained.variables, source, 8, mesh)
  np.testing.assert_allclose(level['logits'], theirs['logits'], rtol=1e-4, atol=1e-5)
  assert np.abs(level['logits'] - clean['logits']).max() > 1e-3


def test_what_is_there_is_kept_and_further_kinds_are_added(workdir, seen, capsys):
  first = robustness.measure(workdir, kinds=['gamma'])
  assert len(seen) == 3 * 7
  both = robustness.measure(workdir, kinds=['gamma', 'blur'])
  assert len(seen) == 2 * 3 * 7 and list(both['kinds']) == ['blur', 'gamma']
  assert both['kinds']['gamma'] == json.loads(json.dumps(first['kinds']['gamma']))
  assert read_run(workdir)['evaluations'] == {'test': 2}
  assert robustness.measure(workdir, kinds=['blur']) == json.loads(json.dumps(both))
  assert 'no further evaluation of test' in capsys.readouterr().out and read_run(workdir)['evaluations'] == {'test': 2}
  assert len(seen) == 2 * 3 * 7
  again = robustness.measure(workdir, kinds=['blur'], seed=1)  # Other draws are other measurements.
  assert list(again['kinds']) == ['blur'] and again['drawn_with_seed'] == 1
  (workdir / 'robustness/test.json').write_text('{"cut')
  assert list(robustness.measure(workdir, kinds=['blur'])['kinds']) == ['blur']


def test_clean_answers_that_are_not_those_of_the_evaluation_are_counted(workdir):
  assert robustness.measure(workdir, kinds=['gamma'])['differs'] is None
  evaluation.evaluate_run(workdir)
  path = workdir / 'evaluation/test.npz'
  with np.load(path) as file:
    left = dict(file)
  left['prediction'][[2, 5]] = (left['prediction'][[2, 5]] + 1) % 7
  np.savez(path, **left)
  assert robustness.measure(workdir, kinds=['blur'])['differs'] == 2


def test_a_mistake_is_one_sentence(workdir, test_split, tmp_path):
  def said(**options):
    with pytest.raises(UserError) as error:
      robustness.measure(workdir, **options)
    return str(error.value)

  with pytest.raises(UserError, match='holds no run'):
    robustness.measure(tmp_path / 'nothing')
  assert "there is no corruption 'blurr'; did you mean 'blur'" in said(kinds=['blurr'])
  test_split.classes = faces.CLASSES[::-1]
  assert 'speaks of the classes neutral, ' in said()
  test_split.classes = faces.CLASSES
  for record in test_split.records:
    record['label'] = -1
  assert 'test of synthetic_faces has no labelled faces' in said()
  record = read_run(workdir)
  del record['finished']
  storage.write_json(workdir / 'run.json', record)
  assert 'has not finished; give its command again' in said()


def printed(workdirs, kinds=()):
  runs = [Run(str(workdir), read_config(workdir).to_dict(), read_run(workdir),
              storage.read_json(workdir / 'robustness/test.json')) for workdir in workdirs]
  return pages.printed(print_robustness, {name: [one.result for one in row] for name, row in by_config(runs).items()},
                       kinds)


def line_of(text, *words):
  return next(line for line in text.splitlines() if all(word in line for word in words))


def test_a_run_is_printed_with_intervals_beside_the_largest_class(workdir):
  result = robustness.measure(workdir, kinds=KINDS)
  text = printed([workdir])
  clean, (first, *_) = result['clean'], result['kinds']['rotation']['levels']
  low, high = clean['accuracy_interval']
  for words in (f"{100 * clean['accuracy']:.2f} %", f'{100 * low:.2f} % to {100 * high:.2f} %'):
    assert words in line_of(text, 'none', 'clean')
  assert f"{100 * first['accuracy']:.2f} %" in line_of(text, 'rotation', '5°')
  assert f"{100 * first['relative_drop']:.2f} %" in line_of(text, 'rotation', '5°')
  assert '17.65 %' in line_of(text, 'largest class', 'neutral') and '14.29 %' in line_of(text, 'largest class')
  assert CAVEAT in ' '.join(text.split()) and 'LEAKY' not in text and 'Note' not in text
  assert 'rotation: degrees to the left or right.' in text and 'run' not in line_of(text, 'corruption', 'severity')
  fewer = printed([workdir], ['rotation'])
  assert 'rotation' in fewer and '  occlusion' not in fewer and 'occlusion: ' not in fewer


def test_seeds_of_a_config_are_one_row(seen, monkeypatch, tmp_path):
  runs = [make_run(tmp_path / f'{name}-{seed}', faces.config(seed=seed, **changes)) for name, changes in (
      ('pal', {}), ('plain', {'losses__pal__weight': 0.0})) for seed in (0, 1, 2)][:5]
  # The same network everywhere, so other draws have to make the difference.
  results = [robustness.measure(workdir, kinds=['occlusion'], seed=i) for i, workdir in enumerate(runs)]
  text = printed(runs)
  for name, held in (('weight=1.0', results[:3]), ('weight=0.0', results[3:])):
    for i in (0, 5):
      levels = [result['kinds']['occlusion']['levels'][i] for result in held]
      lines = text.splitlines()
      start = next(n for n, line in enumerate(lines) if f' {10 * (i + 1)} % ' in line)
      line = next(line for line in lines[start:] if name in line)
      accuracies = [level['accuracy'] for level in levels]
      assert f'{100 * np.mean(accuracies):.2f} %' in line and f'± {100 * np.std(accuracies, ddof=1):.2f} %' in line
      assert f"{100 * np.mean([level['relative_drop'] for level in levels]):.2f} %" in line
  assert 'mean of 3 seeds (0, 1, 2)' in text and 'mean of 2 seeds (0, 1)' in text
  with pytest.raises(UserError, match='copy repeats seed 1 of .*pal-1; name one of the two'):
    one = Run(str(runs[1]), read_config(runs[1]).to_dict(), {}, results[1])
    by_config([one, dataclasses.replace(one, workdir='copy')])


def test_the_page_has_a_section_with_curves_and_the_caveat(workdir, tmp_path):
  assert 'id="robustness"' not in write_report(workdir).read_text()
  robustness.measure(workdir, kinds=KINDS)
  text = write_report(workdir).read_text(encoding='utf-8')
  section = text.split('<section id="robustness"')[1].split('</section>')[0]
  words = ' '.join(section.replace('&#39;', "'").split())
  assert CAVEAT in words and section.count('<svg') == 2 and 'leaky-mark' not in section
  assert 'rotation 10' in words and 'scale 0.85 to 1.05' in words and 'erasing' not in words  # Seen in training.
  assert '17.65 %' in words and 'side of a grey square' in words and section.count('<tr') == 3 + 2 * 6
  assert 'aria-label="robustness test rotation"' in section


def test_a_batch_mean_and_other_answers_are_marked(seen, tmp_path):
  head = ConfigDict({'name': 'arm', 'global_mean': 'batch'})
  workdir = make_run(tmp_path / 'arm', faces.config(model__head=head))
  robustness.measure(workdir, kinds=['brightness'])
  text = printed([workdir])
  assert text.count('LEAKY') == 1 + 6 and 'depends on the other images of its batch' in ' '.join(text.split())
  path = workdir / 'robustness/test.json'
  result = json.loads(path.read_text())
  assert result['protocol']['leaky'] and result['protocol']['eval_order'] == 'stored'
  path.write_text(json.dumps(result | {'differs': 2, 'step': 0}))
  words = ' '.join(printed([workdir]).split())
  assert '2 of 17 answers are not those of the evaluation' in words and 'the network is untrained' in words
  page = write_report(workdir).read_text(encoding='utf-8').split('<section id="robustness"')[1].split('</section>')[0]
  assert page.count('leaky-mark') == 1 + 1 + 1 + 6 and 'Compare' not in page and 'class="banner"' in page
  assert '2 of 17 answers' in page
