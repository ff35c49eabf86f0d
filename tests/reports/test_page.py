"""The page: one file with every section, honest about leaks and about what is missing."""

import json

import numpy as np
import pytest

from fer_jax.metrics.summary import summarise
from fer_jax.reports import pictures
from fer_jax.reports.page import write_report
from tests.pages import Page

CLASSES = ['neutral', 'happiness', 'fear']
SECTIONS = {'summary', 'faces', 'alignment', 'confusion', 'curves', 'losses', 'how', 'ethics', 'config', 'run'}


def evaluation(**protocol):
  rng = np.random.default_rng(0)
  masks = np.zeros((30, 56, 56), np.uint8)
  masks[:, 30:40, 20:36] = 255
  result = summarise({
      'label': rng.integers(0, 3, 30), 'prediction': rng.integers(0, 3, 30), 'landmarks_valid': np.ones(30, bool),
      'nll': np.full(30, 1.23456), 'logits': np.log([[0.5, 0.3, 0.2]] * 30),
      'prior': rng.integers(0, 256, (30, 56, 56), np.uint8), 'causal_mask': masks,
      'maps': {'logit_sum': rng.normal(size=(30, 4, 4))}}, CLASSES)
  protocol = {'dataset': 'drawn', 'split': 'test', 'trained_on': 'train+valid', 'select': 'last', 'leaky': False,
              'evaluations': 1, **protocol}
  return result | {'protocol': protocol, 'step': 5, 'name': 'tiny', 'hardware': 'two cores', 'seed': 3}


@pytest.fixture
def workdir(tmp_path):
  rng = np.random.default_rng(1)
  (tmp_path / 'evaluation').mkdir()
  (tmp_path / 'evaluation/test.json').write_text(json.dumps(evaluation()))
  (tmp_path / 'config.json').write_text(json.dumps({
      'batch_size': 8,
      'losses': {'cross_entropy': {'weight': 1.0}, 'pal': {'weight': [[0, 1], [0.5, 0]], 'channels': 'mean'}}}))
  (tmp_path / 'run.json').write_text(json.dumps({
      'name': 'a <b>bold</b> name', 'commit': '0123456789abcdef', 'hardware': 'two cores', 'parameters': 123456,
      'shareable': True, 'started': '2026-01-01T00:00:00', 'finished': '2026-01-01T00:02:05'}))
  (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(
      {'step': s, 'kind': kind, 'loss': 1 / (s + 1), 'loss/pal': -s, 'accuracy': s / 5, 'x': None}) + '\n'
      for s in range(5) for kind in ('train', 'valid')) + '{"step": 6, "ki')
  np.savez(tmp_path / 'panel.npz', images=rng.integers(0, 256, (2, 16, 16, 1), np.uint8),
           priors=rng.integers(0, 256, (2, 56, 56), np.uint8), labels=np.array([0, 1]), predictions=np.array([0, 2]),
           causal_masks=np.zeros((2, 56, 56), np.uint8), names=np.array(['a', 'b']),
           **{f'{when}/logit_sum': rng.normal(size=(2, 4, 4)) for when in ('before', 'after')})
  return tmp_path


def render(workdir):
  path = write_report(workdir)
  text = path.read_text(encoding='utf-8')
  assert path == workdir / 'report.html'
  return text, Page(text)


def test_every_section_in_one_self_contained_file(workdir):
  text, page = render(workdir)
  assert SECTIONS <= set(page.ids) and len(page.ids) == len(set(page.ids))
  assert all(address.startswith(('data:', '#')) for address in page.addresses)
  assert 'http://' not in text and 'https://' not in text and '<script' not in text and '@import' not in text
  assert sum(a.startswith('data:image') for a in page.addresses) == 2 * 5  # Photo, prior, before, after, causal mask.
  assert not list(workdir.glob('.report*')), 'the half-written file is gone'


def change_json(path, **changes):
  path.write_text(json.dumps({key: value for key, value in (json.loads(path.read_text()) | changes).items()
                              if value is not None}))


FORBIDDEN = 'Do not pass this page on.'


@pytest.mark.parametrize('shareable, dataset, forbidden', [
    (False, 'rafdb', True), (True, 'rafdb', False),  # The record decides;
    (None, 'rafdb', True), (None, 'synthetic_faces', False), (None, 'gone', True)])  # in earlier ones there is none.
def test_a_page_with_faces_that_are_not_to_be_passed_on_says_so_on_top(workdir, shareable, dataset, forbidden):
  change_json(workdir / 'run.json', shareable=shareable)
  change_json(workdir / 'config.json', data={'dataset': dataset})
  text, _ = render(workdir)
  assert text.count(FORBIDDEN) == forbidden
  assert not forbidden or text.index(FORBIDDEN) < text.index('id="summary"')


def test_without_faces_maps_lie_on_the_mean_face(workdir):
  change_json(workdir / 'run.json', shareable=False)
  panel = dict(np.load(workdir / 'panel.npz'))
  mean = panel.pop('images')[0] // 2
  np.savez(workdir / 'panel.npz', mean_face=mean, **panel)
  np.savez(workdir / 'neighbours.npz', labels=np.array([[0, 0, 1]]), distances=np.array([[0, 0.25, 3]]))
  text, page = render(workdir)
  assert FORBIDDEN not in text and 'laid over the mean of many test faces' in text and '>photo<' not in text
  assert sum(a.startswith('data:image') for a in page.addresses) == 2 * 4  # Prior, before, after, causal mask.
  assert pictures.data_uri(pictures.overlay(mean, panel['priors'][1])) in text
  assert 'Their pictures were not kept: the numbers are distances' in text and '<br>0.25</figcaption>' in text


def test_shows_the_numbers_and_escapes_names(workdir):
  text, page = render(workdir)
  result = evaluation()
  for absent in ('There is no', 'No faces were kept', 'No training metrics', 'is damaged'):
    assert absent not in text
  for words in (f"{100 * result['accuracy']:.2f} %", f"{100 * result['accuracy_interval'][0]:.2f} %", '2 min 5 s',
                '123,456', '0123456789ab', 'after training on “train+valid”', 'two cores', 'loss: pal',
                'centred gaussian', 'taken for fear', '0 → -4',
                f"{result['alignment']['logit_sum']['pearson']:.3f}", 'a &lt;b&gt;bold', 'batch_size',
                'channels = mean', '(0, 1), (0.5, 0)'):
    assert words in text, words
  assert 'splits' not in page.ids and not {'banner', 'watermark', 'leaky-mark'} & set(page.classes)


@pytest.mark.parametrize('protocol', [{'leaky': True}, {'leaky': True, 'reasons': ['the step was chosen']}])
def test_leaky_numbers_are_watermarked_wherever_they_stand(workdir, protocol):
  (workdir / 'evaluation/test.json').write_text(json.dumps(evaluation(**protocol)))
  _, page = render(workdir)
  assert page.classes.count('watermark') == 2 and 'banner' in page.classes
  # Rates and calibration, rows of the alignment table, confusions and recall.
  assert page.classes.count('leaky-mark') == 6 + 3 + 2


def test_calibration_stands_in_the_summary_as_far_as_the_file_has_it(workdir):
  result = evaluation()
  summary = lambda: render(workdir)[0].split('id="summary"')[1].split('<section')[0]
  for words in ('Macro F1', f"{100 * result['macro_f1']:.2f} %", 'NLL', '1.235 nats', 'ECE, 15 bins',
                f"{100 * abs(0.5 - result['accuracy']):.2f} %", 'Brier', f"{result['brier']:.3f}"):
    assert words in summary(), words
  for key in ('macro_f1', 'nll', 'ece', 'brier'):  # As older versions wrote it.
    del result[key]
  (workdir / 'evaluation/test.json').write_text(json.dumps(result))
  text = summary()
  assert f"{100 * result['accuracy']:.2f} %" in text and not any(w in text for w in ('Macro F1', 'NLL', 'ECE', 'Brier'))


def test_only_the_leaky_split_is_marked(workdir):
  (workdir / 'evaluation/valid.json').write_text(json.dumps(evaluation(leaky=True, split='valid')))
  text, page = render(workdir)
  assert 'Leaky: valid.' in text and 'Leaky: test.' not in text and 'watermark' not in page.classes
  assert page.classes.count('leaky-mark') == 1 and 'splits' in page.ids


def test_a_changed_evaluation_is_an_entry_of_its_own_after_the_plain_one(workdir):
  changed = evaluation(leaky=True, reasons=['here 64 in sorted order'])
  changed |= {'accuracy': 0.98765, 'overrides': ['model.head.global_mean=batch', 'eval_order=sorted']}
  (workdir / 'evaluation/test,model.head.global_mean=batch,eval_order=sorted.json').write_text(json.dumps(changed))
  text, page = render(workdir)
  name = 'test with model.head.global_mean=batch, eval_order=sorted'
  assert f'Leaky: {name}.' in text and 'here 64 in sorted order' in text and 'Leaky: test.' not in text
  assert 'watermark' not in page.classes and page.classes.count('leaky-mark') == 1
  table = text.split('id="splits"')[1].split('</table>')[0]
  assert table.index('<td class="title">test</td>') < table.index(f'<td class="title">{name}')
  assert '98.77 %' in table and '98.77 %' not in text.split('id="splits"')[0]
  # Alone, it is better than nothing.
  (workdir / 'evaluation/test.json').unlink()
  assert f'Accuracy, {name}' in render(workdir)[0]


def test_subsets_and_duplicates_have_a_table(workdir):
  assert 'subsets' not in render(workdir)[1].ids
  result = evaluation()
  rates = {'count': 1203, 'accuracy': 0.81234, 'accuracy_interval': [0.71, 0.87], 'mean_class_accuracy': 0.5}
  alone = {**rates, 'count': 1100, 'accuracy': 0.7777}
  result |= {'without_duplicates': alone, 'subsets': {
      'pose<30': {**rates, 'listed': 1205, 'duplicates': 0, 'unmatched': 2, 'disagreeing': 0}}}
  (workdir / 'evaluation/test.json').write_text(json.dumps(result))
  text, page = render(workdir)
  assert page.ids.count('subsets') == 1
  table = text.split('id="subsets"')[1].split('</section>')[0]
  for words in ('pose&lt;30', '1,203', '81.23 %', '71.00 % to 87.00 %', '50.00 %', 'of 1,205 lines 2 not in this split',
                'all faces', '77.77 %', '(1,100 faces)'):
    assert words in table, words
  # Several evaluations are told apart, and a leak is marked here too.
  (workdir / 'evaluation/valid.json').write_text(json.dumps(result | {'protocol': {'split': 'valid', 'leaky': True}}))
  table = render(workdir)[0].split('id="subsets"')[1].split('</section>')[0]
  assert '<h3>test</h3>' in table and '<h3>valid</h3>' in table and table.count('leaky-mark') == 2


def test_untrained_and_repeated_evaluations_are_said(workdir):
  (workdir / 'evaluation/test.json').write_text(json.dumps(evaluation(evaluations=3) | {'step': 0}))
  text, _ = render(workdir)
  assert 'Untrained.' in text and 'evaluated 3 times' in text


@pytest.mark.parametrize('missing, sentence', [
    ('evaluation/test.json', 'There is no evaluation yet'), ('panel.npz', 'No faces were kept'),
    ('metrics.jsonl', 'No training metrics'), ('config.json', 'There is no <code>config.json'),
    ('run.json', 'There is no <code>run.json')])
def test_missing_parts_become_a_sentence(workdir, missing, sentence):
  (workdir / missing).unlink()
  text, page = render(workdir)
  assert sentence in text and SECTIONS <= set(page.ids)


@pytest.mark.parametrize('damaged', ['evaluation/test.json', 'panel.npz', 'config.json', 'run.json'])
def test_damaged_files_are_named(workdir, damaged):
  path = workdir / damaged
  path.write_bytes(path.read_bytes()[:40])
  text, _ = render(workdir)
  assert f'<code>{damaged}</code> is damaged' in text


def test_an_empty_workdir_has_a_page(tmp_path):
  text, page = render(tmp_path)
  assert SECTIONS <= set(page.ids) and tmp_path.name in text


def test_action_units_have_columns_and_a_table_by_expression(workdir):
  text, page = render(workdir)
  assert 'colspan="2">landmarks, 30 faces' in text and 'colspan="3">causal mask, 30 faces' in text
  assert 'action units, ' not in text and 'by expression' not in text  # Not in this file.
  result = evaluation()
  units = {'action_unit_cosine': 0.4, 'action_unit_contrast': -0.02, 'action_unit_count': 20,
           'action_unit_predicted_left_out': 4, 'action_unit_cosine_by_class': {'happiness': 0.5, 'fear': 0.3}}
  for row in result['alignment'].values():
    row |= units
  result['alignment']['logit_sum']['action_unit_cosine'] = 0.61234
  result['alignment']['class_free'] = {**result['alignment']['uniform'], 'action_unit_cosine': 0.8}
  (workdir / 'evaluation/test.json').write_text(json.dumps(result))
  text, page = render(workdir)
  section = text.split('id="alignment"')[1].split('</section>')[0]
  for words in ('colspan="2">action units, 20 faces', '0.612 <span class="right"', '-0.020', 'class free', 'CAM-COS',
                'without 4 faces predicted as', 'by expression', '<th>happiness</th>', '0.300'):
    assert words in section, words
  assert '0.800 <span' not in section  # Landmarks are no map of the network.


def test_pearson_below_the_best_constant_picture_is_marked(workdir):
  result = evaluation()
  result['alignment']['logit_sum'] |= {'cosine': 0.99, 'pearson': -0.5}
  (workdir / 'evaluation/test.json').write_text(json.dumps(result))
  row = render(workdir)[0].split('<td>logit sum')[1].split('</tr>')[0]
  assert row.index('0.990') < row.index('▲') < row.index('-0.500') < row.index('▽')
