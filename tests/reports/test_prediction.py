"""The rows and the page of ``predict``: columns, what is kept of many faces, and what the page says of the network."""

import csv
import json
import math
import types

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.reports.prediction import Console, RowsFile, check_paths
from fer_jax.reports.prediction_page import Page
from tests.pages import Page as Parsed
from tests.pages import printed


def answered(file, faces=1, frame=None, reason='', classes=('a', 'score'), abstain=None, score=0.5):
  face = types.SimpleNamespace(
      box=(1.23456, 2, 3, 4), score=score, label=classes[1], entropy=0.5, abstain=abstain, map=np.ones((2, 2)),
      probabilities=dict(zip(classes, (np.float64(0.25), np.float64(0.75)), strict=True)))
  return types.SimpleNamespace(
      picture=types.SimpleNamespace(file=file, frame=frame, seconds=None if frame is None else frame / 25,
                                    reason=reason),
      located=[types.SimpleNamespace(image=np.zeros((8, 8, 1), np.uint8))] * faces, faces=[face] * faces)


def about(tmp_path, **changes):
  return {'workdir': str(tmp_path), 'name': 'net <1>', 'seed': 3, 'step': 12_000, 'commit': 'abc', 'images': 'photos',
          'classes': ('a', 'score'), 'calibration': None, 'map': 'cam', 'detector': 'dlib', **changes}


def test_a_class_that_is_called_as_a_column_has_another_name(tmp_path):
  file = RowsFile(tmp_path / 'new' / 'rows.csv', ('a', 'score'))
  file.add(answered('x,"y".jpg', abstain=True))
  assert not (tmp_path / 'new/rows.csv').exists() and (tmp_path / 'new/rows.csv.part').read_text().count('\n') == 2
  file.add(answered('z\udcff.jpg', faces=0))
  file.finish()
  with open(tmp_path / 'new/rows.csv', newline='') as read:
    first, second = csv.DictReader(read)
  assert list(first) == ['file', 'frame', 'seconds', 'left', 'top', 'right', 'bottom', 'score', 'a',
                         'probability of score', 'class', 'entropy', 'abstain', 'reason']
  assert first['file'] == 'x,"y".jpg' and first['left'] == '1.23' and first['probability of score'] == '0.75'
  assert first['abstain'] == 'true' and second['file'] == r'z\udcff.jpg' and second['reason'] == 'no face'


def test_lines_are_json_without_nan(tmp_path):
  file = RowsFile(tmp_path / 'rows.jsonl', ('a', 'score'))
  file.add(answered('x', score=math.nan, frame=5))
  file.finish()
  row = json.loads((tmp_path / 'rows.jsonl').read_text(), parse_constant=pytest.fail)
  assert row == {'file': 'x', 'frame': 5, 'seconds': 0.2, 'box': [1.23, 2, 3, 4], 'score': None, 'class': 'score',
                 'probabilities': {'a': 0.25, 'score': 0.75}, 'entropy': 0.5, 'abstain': None, 'reason': None}


def test_a_full_disk_is_one_sentence(small_disk):
  file = RowsFile(small_disk / 'rows.csv', ('a', 'score'))
  with pytest.raises(UserError, match='cannot write .*rows.csv: No space left'):
    for _ in range(1000):
      file.add(answered('x' * 100_000))


def test_endings_are_checked():
  for out, page in (('rows.txt', None), ('rows', None), (None, 'page.htm')):
    with pytest.raises(UserError, match='the ending says the form'):
      check_paths(out, page, [])
  check_paths('rows.jsonl', 'page.html', ['a.jpg'])


def test_the_console_has_the_first_rows():
  console = Console()
  for i in range(15):
    console.add(answered(f'f{i}.jpg', faces=2))
  text = printed(console.finish)
  assert 'f9.jpg' in text and 'f10.jpg' not in text and '10 more rows: --out=rows.csv has all.' in text
  assert 'score 0.75, a 0.25' in text and 'abstain' not in text and 'frame' not in text


def test_the_page_keeps_a_bounded_part_at_even_distances(tmp_path):
  page = Page(tmp_path / 'p.html', about(tmp_path), faces=8)
  for i in range(50):
    page.add(answered('talk.mp4', frame=i))
    assert len(page._shown) <= 8
  for i in range(120):
    page.add(answered('talk.mp4' if i < 20 else f'{i}.jpg', faces=0, frame=50 if i < 20 else None,
                      reason='bad <file>' if i == 30 else ''))
  page.finish()
  text = (tmp_path / 'p.html').read_text()
  assert [f'frame {i},' in text for i in range(50)] == [i % 8 == 0 for i in range(50)]
  assert '7 of 50 faces, at even distances; 43 are left out' in ' '.join(text.split())
  parsed = Parsed(text)
  assert parsed.classes.count('person') == 7 and all(one.startswith('data:') for one in parsed.addresses)
  assert '>20, first frame 50 (2.00 s)' in text and 'bad &lt;file&gt;' in text and 'And 1 more pictures.' in text


def test_the_page_says_whose_answers_they_are(tmp_path):
  page = Page(tmp_path / 'p.html', about(tmp_path))
  page.add(answered('in/x.jpg', abstain=True))
  page.finish()
  text = ' '.join((tmp_path / 'p.html').read_text().split())
  for words in ('net &lt;1&gt;', 'step 12,000, seed 3, commit abc', 'Never calibrated', 'Do not pass this page on',
                'not probabilities of being right', 'not evaluated', 'It does not know what anybody feels', 'abstains',
                '0.69 nats', 'map “cam”', 'width: 75.0%'):
    assert words in text, words
  assert 'Untrained' not in text and 'id="without"' not in text
  found = {'temperature': 2.5, 'temperature_interval': None, 'count': 20, 'split': 'valid', 'threshold': 0.3,
           'wanted': {'coverage': 0.9}, 'at_bound': False}
  page = Page(tmp_path / 'q.html', about(tmp_path, calibration=found, step=0, map=''))
  page.finish()
  text = (tmp_path / 'q.html').read_text()
  assert 'Temperature 2.500, fitted on 20 faces of valid' in text
  assert 'Untrained' in text and 'No face was found' in text
