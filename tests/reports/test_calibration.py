"""Calibrated numbers on the console and the page: before and after, what abstaining leaves, and nothing where there are
none."""

import json
import re

import numpy as np
import pytest

from fer_jax.metrics import calibration as metrics
from fer_jax.metrics.summary import summarise
from fer_jax.reports import calibration
from fer_jax.reports.page import write_report
from fer_jax.reports.table import print_evaluation
from fer_jax.training.calibration import describe
from tests import pages
from tests.pages import Page

CLASSES = ['neutral', 'happiness', 'fear']


def result(split='test', overlap=0, threshold=0.6, **protocol):
  rng = np.random.default_rng(len(split))
  logits = 2 * rng.normal(size=(80, 3))
  label = (logits / 3 + rng.gumbel(size=logits.shape)).argmax(axis=1)
  found = {'temperature': 2.5, 'threshold': threshold, 'wanted': None if threshold is None else {'accuracy': 0.75}}
  return summarise({'label': label, 'prediction': logits.argmax(axis=1), 'logits': logits,
                    'nll': np.full(80, metrics.nll(logits, label))}, CLASSES) | {
      'protocol': {'dataset': 'drawn', 'split': split, 'select': 'last', 'leaky': False, 'evaluations': 1} | protocol,
      'step': 5, 'name': 'tiny', 'seed': 0,
      'calibration': describe(found, logits, label) | {'fitted_on': 'valid', 'count': 1234, 'overlap': overlap}}


def found(**changes):
  return {'temperature': 2.5, 'temperature_interval': [2.25, 2.75], 'at_bound': False, 'threshold': 0.6,
          'wanted': {'accuracy': 0.75}, 'split': 'valid', 'count': 1234, 'step': 5, 'protocol': {'leaky': False},
          **changes}


def line_of(text, *words):
  return next(line for line in text.splitlines() if all(word in line for word in words))


def test_the_console_has_both_sides_of_every_evaluation():
  test, valid = result(), result('valid', overlap=80, leaky=True, reasons=['the step was chosen by it'])
  text = pages.printed(calibration.print_calibration, found(), [test, valid], width=200)
  words = ' '.join(text.split())
  assert ('temperature 2.500 (95 %: 2.250 to 2.750), fitted on 1,234 faces of valid; no answer changes. Below a '
          'probability of 0.6000 it abstains: the answers that are left are right in 75.00 % of cases or more, by the '
          'lower end of the 95 % interval on these faces.') in words
  after = test['calibration']
  for expected in (f"{test['nll']:.3f} → {after['nll']:.3f}", f"{100 * test['ece']:.2f} % → {100 * after['ece']:.2f} %",
                   f"{test['brier']:.3f} → {after['brier']:.3f}"):
    assert expected in line_of(text, '  test ', '→')
  answered = after['answered']
  low, high = answered['accuracy_interval']
  for expected in ('0.6000', f"{100 * answered['coverage']:.2f} %", f"{100 * answered['accuracy']:.2f} %",
                   f'{100 * low:.2f} % to {100 * high:.2f} %', f"{100 * test['accuracy']:.2f} %"):
    assert expected in line_of(text, '  test ', '0.6000')
  assert 'valid LEAKY' in text and '1. The temperature was fitted on these very faces' in text
  assert 'Note' not in text and 'Leaky: ' not in text  # Of the fit itself.


@pytest.mark.parametrize('changes, words', [
    ({'temperature_interval': None, 'at_bound': True}, 'temperature 2.500, fitted on 1,234'),
    ({'at_bound': True}, 'Note: the search ended at an end of what it looks through, 0.01 to 100'),
    ({'wanted': {'coverage': 0.8}}, 'the answers that are left are those of 80.00 % of these faces or more.'),
    ({'protocol': {'leaky': True, 'reasons': ['the step was chosen on it']}}, 'Leaky: the step was chosen on it.')])
def test_what_else_to_know_of_a_fit(changes, words):
  assert words in ' '.join(pages.printed(calibration.print_calibration, found(**changes), []).split())


def test_without_a_threshold_nothing_is_said_of_abstaining():
  plain = result(threshold=None)
  text = pages.printed(calibration.print_calibration, found(wanted=None, threshold=None), [plain])
  assert 'abstain' not in text and 'get an answer' not in text and '→' in text
  assert len(calibration.line(plain)) == 1


def test_an_evaluation_says_it_in_a_line_and_an_older_one_does_not():
  one = result(overlap=9)
  words = ' '.join(pages.printed(print_evaluation, one).split())
  after = one['calibration']
  assert (f"at temperature 2.500, fitted on 1,234 faces of valid: NLL, nats {after['nll']:.3f} ECE, 15 bins "
          f"{100 * after['ece']:.2f} % Brier {after['brier']:.3f}") in words
  assert f"from a probability of 0.6000 on {100 * after['answered']['coverage']:.2f} % of the faces" in words
  assert 'Note: the temperature was fitted on 9 of these 80 faces: the calibrated numbers are not' in words
  del one['calibration'], one['brier']
  text = pages.printed(print_evaluation, one)
  assert 'temperature' not in text and 'Brier' not in text and 'ECE' in text


def write(folder, stem, content):
  (folder / 'evaluation').mkdir(exist_ok=True)
  (folder / f'{stem}.json').write_text(json.dumps(content))


def test_the_page_has_pictures_and_one_without_calibration_has_no_section(tmp_path):
  test = result()
  older = {key: value for key, value in test.items() if key not in ('calibration', 'brier')}
  write(tmp_path, 'evaluation/test', older)
  text = write_report(tmp_path).read_text()
  assert 'id="calibration"' not in text and 'Calibrated: ' not in text
  write(tmp_path, 'evaluation/test', test)
  write(tmp_path, 'evaluation/valid', result('valid', overlap=80))
  write(tmp_path, 'calibration', found())
  text = write_report(tmp_path).read_text()
  Page(text)
  section = text.split('<section id="calibration"')[1].split('</section>')[0]
  words = ' '.join(section.split())
  assert section.count('<svg') == 4 and section.index('<h3>test</h3>') < section.index('<h3>valid</h3>')
  assert 'Note: the temperature was fitted on these very faces' in section.split('<h3>valid</h3>')[1]
  assert 'The temperature' not in section.split('<h3>test</h3>')[1].split('<h3>valid</h3>')[0]
  assert 'temperature 2.500 (95 %: 2.250 to 2.750)' in words and 'the threshold 0.6000' in words
  assert f"area {test['calibration']['aurc']:.4f}" in words
  summary = text.split('id="summary"')[1].split('<section')[0]
  assert f"Calibrated: {test['calibration']['nll']:.3f} nats." in summary
  write(tmp_path, 'evaluation/test', result(overlap=9))
  assert 'Calibrated (fitted on 9 of these faces): ' in write_report(tmp_path).read_text()
  (tmp_path / 'calibration.json').write_text('{"cut')  # The evaluations have what is shown.
  text = write_report(tmp_path).read_text()
  assert '<code>calibration.json</code> is damaged' in text and text.count('<section id="calibration"') == 1


def test_pictures_show_every_bin_and_mark_the_threshold():
  scores = result()['calibration']
  drawn = calibration.reliability('r', scores['reliability'])
  for when, colour in (('before', 'warm'), ('after', 'accent')):
    assert len(re.findall(rf'fill: var\(--{colour}\)', drawn)) == len(scores['reliability'][when]) > 5
  for one in ('before', 'after'):  # A single bin.
    scores['reliability'][one] = scores['reliability'][one][:1]
  assert calibration.reliability('s', scores['reliability']).startswith('<svg')
  drawn = calibration.risk_coverage('t', scores)
  del scores['answered']
  assert drawn.count('stroke-dasharray') == 1 > calibration.risk_coverage('u', scores).count('stroke-dasharray')
