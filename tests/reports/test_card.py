"""The model card: the run's own numbers, the mark of a leak, terms of data and weights; and runs that have none."""

import json
import re

import numpy as np
import pytest

from fer_jax import registry
from fer_jax.errors import UserError
from fer_jax.metrics.intervals import wilson
from fer_jax.metrics.summary import summarise, summarise_subsets
from fer_jax.reports.card import INTENDED_USE, card, facts, write_card
from fer_jax.reports.words import interval, percent
from tests import faces

CLASSES = list(faces.CLASSES)


def make_run(folder, *, dataset='ferplus', variant='majority', finished=True, protocol=None, record=None, data=None,
             subset=False, **config):
  """A finished run of made-up answers; returns its evaluation."""
  rng = np.random.default_rng(0)
  label = np.arange(210) % 7
  label[label == 6] = 5  # No face shows fear.
  logits = rng.normal(size=(210, 7)) + 2 * np.eye(7)[label]
  prediction = logits.argmax(axis=1)
  nll = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(210), label]
  result = summarise({'label': label, 'prediction': prediction, 'logits': logits, 'nll': nll}, CLASSES)
  if subset:
    chosen = type('Subset', (), {'mask': np.arange(210) < 50, 'listed': 52, 'duplicates': 1, 'unmatched': 1,
                                 'disagreeing': 0})
    result |= summarise_subsets(label, prediction, 7, {'occlusion': chosen}, np.arange(210) > 3)
  result |= {'name': 'pal', 'seed': 3, 'step': 1234, 'commit': 'abc123', 'hardware': '1 x TPU', 'overrides': [],
             'evaluated': '2026-01-02', 'protocol': {
                 'dataset': dataset, 'variant': variant, 'split': 'test', 'trained_on': 'train+valid', 'select': 'last',
                 'variables': 'ema', 'chosen_by': '', 'leaky': False, 'reasons': [], 'seen_in_training': 0, 'K': 7,
                 'fingerprint': 'f' * 64, 'evaluations': 2, 'n': 210, **(protocol or {})}}
  settings = {'name': 'pal', 'seed': 3, 'epochs': 20.0, 'batch_size': 64, 'image_size': 112, 'init_from': '',
              'model': {'backbone': {'name': 'resnet', 'depth': 18, 'width': 64},
                        'head': {'name': 'linear', 'dropout': 0.1}},
              'losses': {'pal': {'loss': 'alignment', 'weight': 0.5, 'prior': 'landmark'},
                         'off': {'loss': 'triplet', 'weight': 0.0}},
              'regions': {'scheme': 'none'}, 'sources': {}, 'comparisons': {}, **config,
              'data': {'dataset': dataset, 'variant': variant, 'dir': '', 'classes': [], 'train': 'train+valid',
                       'test': 'test', **(data or {})}}
  run = {'command': 'python -m fer_jax.train --config=pal', 'commit': 'abc123', 'started': '2026-01-01', 'seed': 3,
         'channels': 3, 'parameters': 11_180_000, 'hardware': '8 x TPU', 'digest': 'd' * 64, 'fingerprint': 'e' * 64,
         'versions': {'jax': '0.12'}, **({'finished': '2026-01-02'} if finished else {}), 'seen': [
             {'how': 'trained', 'who': 'the network', 'source': '', 'split': 'train+valid', 'classes': [],
              'intervals': [['train', 0, 1000], ['valid', 0, 234]]}], **(record or {})}
  (folder / 'evaluation').mkdir(parents=True)
  for name, content in (('config', settings), ('run', run), ('evaluation/test', result)):
    (folder / f'{name}.json').write_text(json.dumps(content))
  return result


def unescaped(text):
  return re.sub(r'\\(.)', r'\1', text)


def test_the_numbers_are_those_of_the_evaluation(tmp_path):
  result = make_run(tmp_path / 'run', subset=True)
  text = unescaped(card(tmp_path / 'run'))
  for row in (
      f"| accuracy | {percent(result['accuracy'])} | {interval(result['accuracy_interval'])} |",
      f"| mean class accuracy | {percent(result['mean_class_accuracy'])} | {interval(result['mean_class_interval'])} |",
      f"| accuracy without duplicates of training images | {percent(result['without_duplicates']['accuracy'])} |",
      f"| NLL | {result['nll']:.3f} nats |", f"| ECE, 15 bins | {percent(result['ece'])} |",
      f"| Brier | {result['brier']:.3f} |", f"| macro F1 | {percent(result['macro_f1'])} |",
      f"| occlusion | 50 | {percent(result['subsets']['occlusion']['accuracy'])} |"):
    assert row in text, row
  confusion = np.array(result['confusion'])
  for k, name in enumerate(CLASSES[:6]):
    right, count = int(confusion[k, k]), int(confusion[k].sum())
    assert f'| {name} | {percent(right / count)} | {interval(wilson(right, count))} | {count} |' in text
  assert 'No face of the test split is of fear.' in text and 'no list of such faces was scored' not in text
  for words in ('| parameters | 11,180,000 |', '| backbone | resnet 18, width 64 |', '| head | linear, dropout 0.1 |',
                '| input | 112 x 112 pixels, RGB |', '| loss pal | alignment, weight 0.5 (prior landmark) |',
                '| alignment of the faces | as the data set has them |',
                '- train+valid of ferplus (majority), 1,234 faces',
                'the moving average of the parameters after the last step', 'this split was evaluated 2 times',
                '**no leak: 0 of the 210 test images were trained on, and none chose the step**', 'seed 3',
                '| hardware of the training | 8 x TPU |', f"| digest of the prepared data | {'d' * 64} |",
                '| step | 1,234 |', '| commit | abc123 |'):
    assert words in text, words
  assert 'loss off' not in text and '![' not in text


def test_every_percentage_stands_in_the_evaluation_or_is_of_its_confusion(tmp_path):
  result = make_run(tmp_path / 'run', subset=True)
  confusion = np.array(result['confusion'])
  known = [number for key in ('accuracy', 'mean_class_accuracy', 'macro_f1', 'ece') for number in [result[key]]]
  known += [*result['accuracy_interval'], *result['mean_class_interval'], *result['recall'].values()]
  for rates in (result['without_duplicates'], result['subsets']['occlusion'],
                result['subsets']['occlusion']['without_duplicates']):
    known += [rates['accuracy'], rates['mean_class_accuracy'], *rates['accuracy_interval']]
  known += [end for k in range(6) for end in wilson(int(confusion[k, k]), int(confusion[k].sum()))]
  shown = set(re.findall(r'\d+\.\d\d %', card(tmp_path / 'run')))
  assert shown and shown <= {percent(number) for number in known}


def test_tables_are_markdown_with_a_line_around_them_and_headings_in_order(tmp_path):
  make_run(tmp_path / 'run', subset=True)
  text = card(tmp_path / 'run')
  blocks = [block.split('\n') for block in text.split('\n\n') if block.lstrip().startswith('|')]
  assert len(blocks) == 5
  for first, second, *rows in blocks:
    cells = len(re.findall(r'(?<!\\)\|', first))
    assert re.fullmatch(r'\|( --- \|)+', second) and {len(re.findall(r'(?<!\\)\|', row)) for row in rows} == {cells}
  assert re.findall('^(#+) (.*)', text, re.MULTILINE) == [('#', 'pal: model card')] + [('##', name) for name in (
      'What it is', 'Data and protocol', 'Numbers', 'Calibration', 'What was not measured', 'Licences and terms', 'Use',
      'The European AI Act', 'How it was made')]


def test_a_leak_is_marked_wherever_a_number_stands(tmp_path):
  make_run(tmp_path / 'run', subset=True, protocol={
      'leaky': True, 'reasons': ['200 of 210 test images were trained on'], 'seen_in_training': 200})
  text = card(tmp_path / 'run')
  assert '> **Leaky: 200 of 210 test images were trained on. Compare this with no honest result.**' in text
  assert 'Protocol: **LEAKY: 200 of 210 test images were trained on**.' in text and 'no leak' not in text
  for row in ('| accuracy LEAKY |', '| ECE, 15 bins LEAKY |', 'By class LEAKY:', '| occlusion LEAKY |'):
    assert row in text, row
  assert facts(tmp_path / 'run')['protocol'] == 'LEAKY: 200 of 210 test images were trained on'


def test_terms_of_data_sources_teacher_and_weights(tmp_path):
  weights = {'file': 'r18.pth', 'sha256': 'a' * 64, 'family': 'msceleb_resnet18', 'title': 'ResNet-18 (MS-Celeb-1M)',
             'origin': 'github.com/x', 'licence': 'none is known', 'training_data': 'MS-Celeb-1M, identities of faces'}
  start = {'run': 'first', 'workdir': 'w', 'seed': 5, 'step': 99, 'commit': 'c0ffee', 'from': weights}
  make_run(tmp_path / 'run', dataset='rafdb', variant='aligned-similarity112', record={
      'start': start, 'teacher': {'dataset': 'affectnet', 'name': 'big', 'seed': 1, 'trained_on': 'train'}},
           protocol={'start': start}, sources={'more': {'split': 'train', 'dataset': 'faces_folder', 'parts': 2},
                                               'none': {'split': 'train', 'dataset': 'sfew', 'parts': 0}})
  text = unescaped(card(tmp_path / 'run'))
  for words in (
      '- Data, rafdb: for non-commercial research only; no portion may be copied on, published or distributed; its '
      'faces may not be passed on.',
      '- Data, affectnet: for research only, under an agreement that heads of laboratories sign; not to be passed on.',
      '- Data, faces_folder: those of whoever made the faces, who alone knows them.',
      f"- Started from ResNet-18 (MS-Celeb-1M) (r18.pth, sha256 {'a' * 64}; github.com/x): licence none is known; "
      'trained on MS-Celeb-1M, identities of faces.',
      '- Started from the run first (seed 5, step 99, commit c0ffee): the terms of its own data hold as well',
      "- the source 'more', train of faces_folder, supervision none",
      '- a teacher (big, seed 1), trained on train of affectnet',
      '| alignment of the faces | eyes, nose and mouth brought to one place, 112 pixels |'):
    assert words in text, words
  assert 'sfew' not in text and 'No pretrained weights' not in text
  told = facts(tmp_path / 'run')
  assert told['licence'].startswith('rafdb: for non-commercial') and told['intended_use'] == INTENDED_USE
  assert told['training_data'].startswith('train+valid of rafdb') and not any('\n' in words for words in told.values())


def test_every_builder_says_what_its_owners_allow():
  assert all(registry.find('data.builders', name).TERMS for name in registry.names('data.builders'))


def test_drawn_faces_and_no_weights(tmp_path):
  make_run(tmp_path / 'run', dataset='synthetic_faces', variant='default')
  text = card(tmp_path / 'run')
  assert "- Data, synthetic\\_faces: none: the faces are drawn by this code and are nobody's." in text
  assert 'It has met drawn faces only' in text and 'iBUG' not in text and 'No pretrained weights' in text
  assert 'no list of such faces was scored' in text and 'may not be passed on' not in text


def test_law_is_dated_and_no_advice(tmp_path):
  make_run(tmp_path / 'run')
  text = ' '.join(card(tmp_path / 'run').split())
  for words in ('no legal advice', 'made on 30 November 2026', 'since 2 February 2025, Article 5(1)(f)',
                'but for medical or safety reasons', 'since 2 August 2026, Article 50(3)', 'Annex III, point 1(c)',
                '2 December 2027', 'Groups of people', 'Not for judging, ranking, hiring, teaching, policing'):
    assert words in text, words


def test_calibration_before_and_after_or_never(tmp_path):
  make_run(tmp_path / 'run')
  assert 'Never calibrated' in card(tmp_path / 'run')
  found = {'step': 1234, 'temperature': 1.5, 'temperature_interval': [1.4, 1.6], 'at_bound': False, 'split': 'valid',
           'count': 300, 'threshold': 0.5, 'wanted': {'coverage': 0.9}, 'protocol': {'reasons': []},
           'before': {'nll': 1.25, 'ece': 0.125, 'brier': 0.5}, 'after': {'nll': 1.0, 'ece': 0.0625, 'brier': 0.375}}
  path = tmp_path / 'run' / 'calibration.json'
  path.write_text(json.dumps(found))
  text = card(tmp_path / 'run')
  assert 'Never calibrated' not in text and 'temperature 1.500' in text and '300 faces of valid' in text
  assert '| NLL, nats | 1.2500 | 1.0000 |' in text and '| ECE | 0.1250 | 0.0625 |' in text
  path.write_text(json.dumps(found | {'protocol': {'reasons': ['300 of 300 valid images were trained on']}}))
  assert '> **Leaky: 300 of 300 valid images were trained on.' in card(tmp_path / 'run')
  path.write_text(json.dumps(found | {'step': 7}))
  assert 'Never calibrated' in card(tmp_path / 'run')  # That was another network.
  path.write_text('{')
  with pytest.raises(UserError, match='no model card: .* is damaged'):
    card(tmp_path / 'run')


def test_names_are_shown_as_they_are(tmp_path):
  make_run(tmp_path / 'run', record={'command': 'python -m fer_jax.train --config.a=`x`|<b>_*'})
  assert r'--config.a=\`x\`\|\<b\>\_\*' in card(tmp_path / 'run')


def test_it_is_written_beside_the_run_or_elsewhere(tmp_path):
  make_run(tmp_path / 'run')
  path = write_card(tmp_path / 'run')
  assert path == tmp_path / 'run' / 'MODEL_CARD.md' and path.read_text() == card(tmp_path / 'run')
  assert write_card(tmp_path / 'run', tmp_path / 'out' / 'CARD.md').read_text() == path.read_text()


def test_runs_without_a_card(tmp_path):
  with pytest.raises(UserError, match='no model card: .* holds no evaluated run: no config.json'):
    card(tmp_path / 'none')
  make_run(tmp_path / 'begun', finished=False)
  with pytest.raises(UserError, match='no model card: .*this run has not finished'):
    card(tmp_path / 'begun')
  make_run(tmp_path / 'old')
  path = tmp_path / 'old' / 'evaluation' / 'test.json'
  path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != 'confusion'}))
  with pytest.raises(UserError, match="no model card: .*old is damaged or of another version: KeyError: 'confusion'"):
    card(tmp_path / 'old')
  (tmp_path / 'old' / 'run.json').write_text('{')
  with pytest.raises(UserError, match='no model card: .*old is damaged'):
    write_card(tmp_path / 'old')
