"""Triplets, neighbours and transfer, on console and page: only where there are any, and honest about leaks."""

import json
import re

import numpy as np
import pytest

from fer_jax.metrics.summary import summarise
from fer_jax.reports.page import write_report
from fer_jax.reports.table import print_evaluation
from fer_jax.reports.transfer import print_transfer
from tests.pages import printed

CLASSES = ['neutral', 'happiness', 'fear']
SECTIONS = ('triplets', 'neighbours', 'transfer')


def evaluation(**protocol):
  group = lambda count, listed, accuracy, interval: {
      'count': count, 'listed': listed, 'accuracy': accuracy, 'accuracy_interval': interval}
  result = summarise({'label': np.array([0, 0, 1, 2]), 'prediction': np.array([0, 1, 1, 2])}, CLASSES)
  return result | {'protocol': {'dataset': 'drawn', 'split': 'test', **protocol}, 'triplets': {'by [votes]': {
      'truth': 'drawn test: votes on <single> faces, not FEC', 'dim': 16, **group(5900, 6030, 0.7123, [0.69, 0.7345]),
      'types': {'one_class': group(0, 30, None, None), 'two_class': group(0, 0, None, None),
                'three_class': group(5900, 6000, 0.7123, [0.69, 0.7345])}}}}


def transfer(**changes):
  row = lambda features, method, accuracy, **chosen: {
      'features': features, 'method': method, 'accuracy': accuracy, 'mean_class_accuracy': accuracy - 0.1,
      'accuracy_interval': [accuracy - 0.02, accuracy + 0.02], 'chosen': chosen}
  point = lambda features, shots, accuracy, sd, short=0: {
      'features': features, 'shots': shots, 'draws': 1 if sd is None else 5, 'accuracy': accuracy, 'sd': sd,
      'accuracies': [accuracy], 'short_classes': short}
  return {
      'target': {'dataset': 'rafdb', 'variant': 'aligned', 'train': 'learn', 'test': 'exam', 'train_count': 12271,
                 'test_count': 3068, 'classes': CLASSES},
      'layer': 'pooled', 'dim': 2048, 'step': 70, 'name': 'student', 'commit': '0123abc', 'seed': 3,
      'hardware': 'two cores', 'evaluated': '2026-01-01T00:00:00', 'seen_in_training': ['happiness'], 'leaks': [],
      'rows': [row('this network', 'linear probe', 0.7, C=0.1, converged=True),
               row('this network', 'linear SVM', 0.6, C=0.01, converged=False),
               row('untrained network', 'linear probe', 0.45, C=1), row('majority class', '-', 0.36),
               row('fine-tuned end to end', '-', 0.8, epochs=4.0, learning_rate=0.0003 / 10)],
      'few_shot': [point('this network', 1, 0.41, 0.05), point('this network', 20, 0.55, 0.01, short=2),
                   point('untrained network', 20, 0.31, None)], **changes}


@pytest.fixture
def workdir(tmp_path):
  for folder in ('evaluation', 'transfer'):
    (tmp_path / folder).mkdir()
  (tmp_path / 'evaluation/test.json').write_text(json.dumps(evaluation()))
  (tmp_path / 'transfer/rafdb_exam.json').write_text(json.dumps(transfer()))
  rng = np.random.default_rng(0)
  np.savez_compressed(tmp_path / 'neighbours.npz', images=rng.integers(0, 256, (2, 4, 16, 16, 1), np.uint8),
                      labels=np.array([[0, 0, 2, -1], [1, 0, 1, 1]]), distances=rng.random((2, 4), np.float32))
  return tmp_path


def page(workdir):
  return write_report(workdir).read_text(encoding='utf-8')


def section(text, name):
  return text.split(f'<section id="{name}"')[1].split('</section>')[0]


def row_of(text, start):
  return re.search(f'<tr[^>]*><td>{start}.*?</tr>', text, re.DOTALL).group()


def line_of(text, *words):
  return next(line for line in text.splitlines() if all(word in line for word in words))


def test_triplets_are_printed_with_their_truth_and_coverage_beside_chance():
  text = printed(print_evaluation, evaluation(), verbose=True)
  assert 'drawn test: votes on <single> faces, not FEC' in text and 'by [votes]' in text and '16 numbers' in text
  for words in ('5,900 of 6,030', '71.23 %', '69.00 % to 73.45 %'):
    assert words in line_of(text, '  all ')
  assert line_of(text, 'of one class', '0 of 30').count('–') == 2 and 'two classes' not in text
  assert '33.33 %' in line_of(text, 'chance') and 'LEAKY' not in text
  assert 'triplets' not in printed(print_evaluation, {**evaluation(), 'triplets': {}}, verbose=True)


def test_triplets_have_a_section_that_names_the_truth(workdir):
  text = section(page(workdir), 'triplets')
  assert '<li>Truth: drawn test: votes on &lt;single&gt; faces, not FEC' in text and 'two classes' not in text
  for words in ('5,900 of 6,030', '71.23 %', '69.00 % to 73.45 %'):
    assert words in row_of(text, 'all')
  assert 'class="trivial"' in row_of(text, 'chance') and '33.33 %' in row_of(text, 'chance')
  assert 'leaky-mark' not in text


def test_triplets_of_a_leaky_evaluation_are_marked_and_chance_is_not(workdir):
  result = evaluation(leaky=True)
  text = printed(print_evaluation, result, verbose=True)
  assert 'LEAKY' in line_of(text, '  all ', '71.23 %') and 'LEAKY' not in line_of(text, 'chance')
  (workdir / 'evaluation/test.json').write_text(json.dumps(result))
  text = page(workdir)
  assert section(text, 'triplets').count('leaky-mark') == 3 and 'leaky-mark' not in row_of(text, 'chance')
  assert section(text, 'neighbours').count('leaky-mark') == 1 and 'leaky-mark' not in section(text, 'transfer')


def test_triplets_of_several_evaluations_are_told_apart(workdir):
  assert '<h3>by [votes]</h3>' in page(workdir)
  changed = evaluation() | {'overrides': ['select=ema']}
  (workdir / 'evaluation/test,select=ema.json').write_text(json.dumps(changed))
  text = section(page(workdir), 'triplets')
  assert '<h3>by [votes], test</h3>' in text and '<h3>by [votes], test with select=ema</h3>' in text


def test_neighbours_stand_beside_their_query_with_class_and_mark(workdir):
  text = section(page(workdir), 'neighbours')
  assert text.count('<img src="data:image/jpeg') == 8
  captions = [' '.join(re.sub('<[^>]*>', '', caption).split()) for caption in
              re.findall('<figcaption>(.*?)</figcaption>', text, re.DOTALL)]
  assert captions == ['neutral', '✓ neutral', '✗ fear', 'no label',
                      'happiness', '✗ neutral', '✓ happiness', '✓ happiness']


def test_transfer_is_printed_with_what_the_network_had_seen():
  text = printed(print_transfer, transfer())
  words = ' '.join(text.split())
  for said in ('rafdb (aligned), pooled features', '12,271 faces of learn', '3,068 of exam', '2,048 numbers', 'step 70',
               '3 classes: neutral, happiness, fear', 'trained on these of the classes: happiness',
               'At 20 faces, 2 of the classes have fewer'):
    assert said in words, said
  for said in ('70.00 %', '68.00 % to 72.00 %', '60.00 %', 'C 0.1 '):
    assert said in line_of(text, 'this network', 'linear probe')
  assert 'not converged' in line_of(text, 'linear SVM') and text.count('converged') == 1
  assert 'epochs 4, learning rate 3e-05' in line_of(text, 'fine-tuned')
  assert '41.00 ± 5.00 %' in line_of(text, '  1  ') and '–' in line_of(text, '  1  ')
  assert '55.00 ± 1.00 %' in line_of(text, '  20  ') and ' 31.00 %' in line_of(text, '  20  ')
  assert 'LEAKY' not in text


@pytest.mark.parametrize('seen, words', [([], 'on none of these classes'), (CLASSES, 'on all of these classes')])
def test_transfer_says_whether_the_classes_are_new(seen, words):
  assert words in ' '.join(printed(print_transfer, transfer(seen_in_training=seen)).split())


def test_leaky_transfer_says_why(workdir):
  result = transfer(leaks=['the network was trained on these images', 'so were [others]'])
  text = printed(print_transfer, result)
  assert 'trained on these images; so were [others]. Compare' in text and 'LEAKY' in line_of(text, 'linear SVM')
  (workdir / 'transfer/rafdb_exam.json').write_text(json.dumps(result))
  text = page(workdir)
  assert 'Here the network was trained on these images; so were [others].' in section(text, 'transfer')
  assert section(text, 'transfer').count('leaky-mark') == 1 + 5 and 'leaky-mark' not in section(text, 'triplets')


def test_transfer_has_a_table_and_a_curve_for_each_file(workdir):
  text = section(page(workdir), 'transfer')
  for words in ('rafdb (aligned), pooled features', '70.00 %', '68.00 % to 72.00 %', 'not converged', '41.00 ± 5.00 %',
                'At 20 faces, 2 of the classes have fewer', 'linear probe, all 12,271 faces', 'two cores', 'seed 3'):
    assert words in text, words
  trivial = re.findall('<tr class="trivial"><td>(.*?)</td>', text)
  assert trivial == ['untrained network', 'majority class'] and text.count('<svg') == 1
  (workdir / 'transfer/other.json').write_text(json.dumps(transfer(few_shot=[])))
  text = section(page(workdir), 'transfer')
  assert text.count('<h3>') == 2 and text.count('<svg') == 1
  assert '±' not in printed(print_transfer, transfer(few_shot=[]))


def test_two_curves_on_a_page_share_no_ids(workdir):
  (workdir / 'transfer/other.json').write_text(json.dumps(transfer()))
  ids = re.findall(r'\bid="([^"]*)"', page(workdir))
  assert len(ids) == len(set(ids))


@pytest.mark.parametrize('absent, name', [('transfer/rafdb_exam.json', 'transfer'), ('neighbours.npz', 'neighbours'),
                                          ('evaluation/test.json', 'triplets')])
@pytest.mark.parametrize('damaged', [False, True])
def test_sections_are_there_only_with_their_data(workdir, absent, name, damaged):
  path = workdir / absent
  whole = path.read_bytes()
  path.unlink()
  if damaged:
    path.write_bytes(whole[:60])
  text = page(workdir)
  assert [s for s in SECTIONS if f'id="{s}"' in text] == [s for s in SECTIONS if s != name]
  assert (f'<code>{absent}</code> is damaged' in text) == damaged


def test_a_damaged_picture_inside_the_file_is_found_too(workdir):
  path = workdir / 'neighbours.npz'
  whole = bytearray(path.read_bytes())
  whole[200:260] = bytes(60)
  path.write_bytes(whole)
  assert '<code>neighbours.npz</code> is damaged' in page(workdir)
