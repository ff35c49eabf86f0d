"""Files of predictions: every form that is read, and every mistake with its line."""

import numpy as np
import pytest

from fer_jax.data.reading.predictions import Row, read, repeated
from fer_jax.errors import UserError

CLASSES = ('neutral', 'happiness', 'smirk')


def write(path, text):
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


@pytest.mark.parametrize('text', [
    'name,class\na.png,Happy\nb.png,\n',
    '\ufefffile,seconds,prediction\r\na.png,0,joy\r\n\r\nb.png,0,\r\n',
    ' name , class \n"a.png", HAPPINESS \nb.png,',
    '{"name": "a.png", "class": "happy"}\n\n{"name": "b.png", "class": null}\n',
])
def test_names_and_classes(text, tmp_path):
  found = read(write(tmp_path / 'a.csv', text), CLASSES)
  assert found.classes == CLASSES and not found.columns
  assert [(row.name, row.answer, row.probabilities, row.score) for row in found.rows] == [
      ('a.png', 1, None, None), ('b.png', None, None, None)]


@pytest.mark.parametrize('text', [
    'Smirk,name,happy,neutral,entropy\n0.25,a.png,0.5,0.25,1.04\n,b.png,,,\n0,C:\\f\\c.png,0,1,0\n',
    'score,file,probability of smirk,happy,neutral\n,a.png,0.25,0.5,0.25\n,b.png,,,\n0.9,C:/f/c.png,0,0,1\n',
    '{"name": "a.png", "probabilities": {"happy": 0.5, "smirk": 0.25, "neutral": 0.25}}\n'
    '{"name": "b.png", "probabilities": null, "reason": "no face"}\n'
    '{"name": "C:\\\\f\\\\c.png", "happy": 0, "smirk": 0, "neutral": 1.0}\n',
])
def test_probabilities_in_any_order(text, tmp_path):
  found = read(write(tmp_path / 'a.csv', text), CLASSES)
  assert found.columns == 3 and [row.name for row in found.rows] == ['a.png', 'b.png', 'C:/f/c.png']
  assert [row.answer for row in found.rows] == [1, None, 0] and found.rows[1].probabilities is None
  np.testing.assert_array_equal(found.rows[0].probabilities, [0.25, 0.5, 0.25])


def test_other_expressions_stand_behind_the_classes_and_rounded_shares_sum_up_to_one(tmp_path):
  found = read(write(tmp_path / 'a.csv', 'name,fear,smirk,happy,score\na,0.33,0.33,0.335,0.5\nb,1,0,0,\n'), CLASSES)
  assert found.classes == (*CLASSES, 'fear') and [row.answer for row in found.rows] == [1, 3]
  np.testing.assert_allclose(found.rows[0].probabilities, np.array([0, 0.335, 0.33, 0.33]) / 0.995)
  assert [row.score for row in found.rows] == [0.5, None]
  named = read(write(tmp_path / 'b.csv', 'name,class\na,afraid\nb,smirk\nc,fear\n'), CLASSES)
  assert named.classes == (*CLASSES, 'fear') and [row.answer for row in named.rows] == [3, 2, 3]


@pytest.mark.parametrize('text, message', [
    ('', 'holds no predictions'),
    ('name,class\n', 'holds no predictions'),
    (b'\xff\xfe\x00', 'is no text in UTF-8'),
    ('face,class\na,happy\n', "no column is called 'name' or 'file'; its columns are face, class"),
    ('name,class,class\na,happy,sad\n', "the column 'class' is there twice"),
    ('name,top\na,happy\n', "neither a column 'class' nor one for each class"),
    ('name,happy,joy\na,0.5,0.5\n', "'joy' is a second column for the class happiness"),
    ('name,class\na,happy\nb,smile\n', "line 3: there is no class 'smile'; did you mean 'smirk'?"),
    ('name,class\na,happy\n,happy\n', "line 3: the column 'name' is empty"),
    ('name,class\na,happy\nb\n', 'line 3: 1 cells, but the header has 2'),
    ('name,class\na,"hap\n', 'line 2: unexpected end of data'),
    ('name,happy,neutral\na,0.5,\n', "line 2: no probability of 'neutral'"),
    ('name,happy,neutral\na,1,0\nb,nan,0\n', "line 3: 'happy' is 'nan', which is no finite number"),
    ('name,happy,neutral\na,1,x\n', "line 2: 'neutral' is 'x', which is no finite number"),
    ('name,happy,neutral,score\na,1,0,high\n', "line 2: 'score' is 'high'"),
    ('name,happy,neutral\na,1,0\nb,3.1,-2\n', 'line 3: the probabilities sum up to 1.1 .* if these are logits'),
    ('name,happy,neutral\na,80,20\n', 'line 2: the probabilities sum up to 100 .* divide them by 100'),
    ('name,happy,neutral\na,0.5,0.4\n', 'line 2: the probabilities sum up to 0.9 .* of all classes of the network'),
    ('{"name": "a", "class": "happy"}\n{"name": \n', 'line 2: no JSON'),
    ('["a", "happy"]\n', 'line 1: a list; write one object a line'),
])
def test_mistakes_are_one_sentence_with_the_line(text, message, tmp_path):
  with pytest.raises(UserError, match=message) as error:
    read(write(tmp_path / 'a.csv', text), CLASSES)
  assert str(tmp_path / 'a.csv') in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(UserError, match=r'there is no file .*a\.csv'):
    read(tmp_path / 'a.csv', CLASSES)


def test_the_highest_score_counts_of_several_faces():
  rows = [Row(2, 'a', 0, None, 0.3), Row(3, 'a', 1, None, 0.9), Row(4, 'a', 2, None, 0.5)]
  assert repeated(rows, 'f.csv') is rows[1] and repeated(rows[:1], 'f.csv') is rows[0]
  with pytest.raises(UserError, match=r"f.csv: the lines 2 and 3 are of one face \('a'\)"):
    repeated([rows[0], rows[1]._replace(score=None)], 'f.csv')
