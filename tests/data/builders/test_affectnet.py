"""AffectNet: both releases in every layout, the names that join them, and what must fail; on drawn faces."""

import functools
import io
import math
import pathlib
import re
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from fer_jax.data import face
from fer_jax.data.builders.affectnet import affectnet
from fer_jax.data.builders.affectnet import files as reader
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.preparing.files import File
from fer_jax.data.preparing.preparation import make_builder, summary
from fer_jax.data.reading import subsets
from fer_jax.errors import UserError
from tests import trees
from tests.trees import records, write

FORMATS = pathlib.Path(__file__).resolve().parents[4] / 'shared' / 'data' / 'formats'
IMAGES, LISTS = f'{reader.IMAGES}/', f'{reader.LISTS}/'
HEADER = ','.join(reader.COLUMNS)
TRAINING, VALIDATION = f'{LISTS}training.csv', f'{LISTS}validation.csv'


def stem(seed):
  return np.random.default_rng(seed).bytes(28).hex()


def picture(seed):
  return face.jpeg(draw_face(np.random.default_rng(seed), 'neutral', 48).image).getvalue()


def points(seed):
  return np.random.default_rng(seed).uniform(0, 48, (68, 2)).round(2).astype(np.float32)


# Faces by seed: expression, valence, arousal. Validation starts at 100; its first face is not in the second release.
TRAIN = [(0, -.25, .5), (1, 1, 0), (2, -1, -.5), (3, .1, .2), (4, 0, 0), (5, 0, 0), (6, 0, 0), (7, -.1, .1),
         (9, -2, -2)]
VALID = [(7, -.5, .5), (3, .125, .25), (10, -2, -2), (0, -2, -2), (7, 0, .1), (8, 0, 0), (6, -.5, .75)]
KEPT = {'train': range(8), 'valid': (100, 101, 103, 104, 106)}  # Seeds of the faces that have a class.


def line(seed, expression, valence, arousal, box='4,6,40,30'):
  landmarks = ';'.join(f'{x:.2f}' for x in points(seed).ravel())
  return f'{seed % 3}/{stem(seed)}.jpg,{box},{landmarks},{expression},{valence},{arousal}'


TRAIN_LINES = [line(i, *row) for i, row in enumerate(TRAIN)]
VALID_LINES = [line(100 + i, *row) for i, row in enumerate(VALID)]


def first(level='', **changes):
  """File names and contents of a tiny first release."""
  files = {TRAINING: '\n'.join([HEADER, *TRAIN_LINES]), VALIDATION: '\r\n'.join(VALID_LINES) + '\r\n'}
  files |= {f'{level}{IMAGES}{text.partition(",")[0]}': picture(seed) for seeds, lines in (
      (range(9), TRAIN_LINES), (range(100, 107), VALID_LINES)) for seed, text in zip(seeds, lines, strict=True)}
  return files


def npy(value):
  file = io.BytesIO()
  np.save(file, value)
  return file.getvalue()


def annotation(folder, id_, seed, expression, valence, arousal, as_text=True):
  convert = str if as_text else float
  home = f'{folder}/annotations/{id_}_'
  return {f'{home}exp.npy': npy(str(expression) if as_text else expression), f'{home}val.npy': npy(convert(valence)),
          f'{home}aro.npy': npy(convert(arousal)),
          f'{home}lnd.npy': npy(points(seed).ravel() if as_text else points(seed)),
          f'{folder}/images/{id_}.jpg': picture(seed)}


def second():
  """File names and contents of a tiny second release: the faces of the first."""
  files = {}
  for i, row in enumerate(TRAIN):
    if row[0] < 8:
      files |= annotation('train_set', 2 * i, i, *row, as_text=i % 2)
  for i, row in enumerate(VALID[1:]):
    if row[0] < 8:
      files |= annotation('val_set', i, 101 + i, *row)
  return files


def without(files, *parts):
  return {name: content for name, content in files.items() if not any(part in name for part in parts)}


def listed(tmp_path, files, config, kind='source', level='', **options):
  """What a builder lists of files; and the builder."""
  path = write(tmp_path / kind, files, level)
  builder = affectnet(data_dir=tmp_path / 'data', config=config, file_format='array_record', **options)
  return builder.faces(path), builder


build = functools.partial(trees.build, 'affectnet')


def names(faces):
  return {split: [one.name for one in faces[split]] for split in faces}


# Lines of the csv files.


def test_a_line_in_the_official_form():
  found = reader.read_line(TRAIN_LINES[0])
  assert found[:4] == (f'0/{stem(0)}.jpg', 0, -.25, .5)
  assert found.box == (4, 6, 44, 36)  # Left, top, right, bottom, from x, y, width, height.
  np.testing.assert_array_equal(found.landmarks, points(0))
  assert found.landmarks.dtype == np.float32


@pytest.mark.parametrize('text', ['-2', '', '-2.0', 'nan'])
def test_valence_and_arousal_may_be_missing(text):
  found = reader.read_line(line(0, 3, text, .5))
  assert math.isnan(found.valence) and found.arousal == .5
  assert math.isnan(reader.read_line(line(0, 3, .5, text)).arousal)


rows = st.tuples(
    st.text(st.characters(codec='utf-8', exclude_characters='\r\n\0'), min_size=1).map(
        lambda name: f'12/{name}.jpg').filter(lambda name: name == name.strip()),
    st.tuples(*[st.integers(-50, 4000)] * 2, *[st.integers(1, 4000)] * 2),
    st.none() | st.lists(st.floats(-100, 4000, width=32), min_size=136, max_size=136),
    st.integers(0, 7), st.just(-2) | st.floats(-1, 1), st.just(-2) | st.floats(-1, 1))


def csv_line(path, box, landmarks, expression, valence, arousal):
  path = '"' + path.replace('"', '""') + '"'
  return ','.join([path, *map(str, box), ';'.join(map(repr, landmarks or ())), str(expression), repr(valence),
                   repr(arousal)])


def split_of(text):
  """What becomes of a line that is the second of a csv file."""
  encoded = f'{TRAIN_LINES[0]}\n{text}\n'.encode()

  class Table(File):
    def read(self):
      return encoded

  images = {f'0/{stem(0)}.jpg': File('image')}
  return reader._read_table(Table('lists/training.csv'), images, dict(images), 8)


@hypothesis.given(rows)
@hypothesis.settings(max_examples=100, deadline=None)
def test_lines_come_back_as_they_were_written(row):
  path, (x, y, width, height), landmarks, expression, valence, arousal = row
  found = reader.read_line(csv_line(*row))
  assert found.path == path and found.label == expression
  assert found.box == (x, y, x + width, y + height)
  for value, expected in ((found.valence, valence), (found.arousal, arousal)):
    assert math.isnan(value) if expected == -2 else value == expected
  if landmarks is None:
    assert found.landmarks is None
  else:
    np.testing.assert_array_equal(found.landmarks, np.float32(landmarks).reshape(68, 2))


WRONG = {
    1: ('x', '', '1e999', 'nan'), 3: ('0', '-4', 'wide', '0.0'), 4: ('0', '-1', '', '-0.5'),
    5: ('1;2', '0.5', 'no;landmarks', ';'.join(['1'] * 137), ';'.join(['x'] * 136), ';'.join(['inf'] * 136)),
    6: ('11', '-1', 'happy', '', '1.5', 'nan'), 7: ('1.01', '-3', 'high', 'inf'), 8: ('-1.5', '2', 'low')}


@hypothesis.given(st.sampled_from([(column, text) for column in WRONG for text in WRONG[column]]))
@hypothesis.settings(max_examples=100, deadline=None)
def test_a_corrupted_field_is_told_with_the_line(wrong):
  column, text = wrong
  fields = TRAIN_LINES[1].split(',')
  fields[column] = text
  split = split_of(','.join(fields))
  assert len(split.faces) == 1 and not split.missing
  problem, = split.problems
  assert problem.startswith('training.csv, line 2: ')
  assert {5: 'x' if text.startswith('x') else 'landmarks', 6: 'expression', 7: 'valence', 8: 'arousal'}.get(
      column, 'face box') in problem


@hypothesis.given(st.lists(st.text(max_size=8), max_size=14))
@hypothesis.settings(max_examples=100, deadline=None)
def test_any_text_is_either_a_blank_line_or_told(fields):
  text = ','.join(fields)
  split = split_of(text)
  assert len(split.faces) + len(split.problems) + len(split.missing) == 1 + sum(
      bool(part.strip()) for part in re.split('\r\n|\r|\n', text))
  assert all('line ' in problem for problem in split.problems)


@pytest.mark.parametrize('text, expected', [
    ('a,b', 'expected 9 fields (subDirectory_filePath, face_x'),
    (TRAIN_LINES[1] + ',1', 'found 10'),
    (TRAIN_LINES[0], f'{stem(0)}.jpg is already in line 1'),
    ('"' + 'x' * 200000, 'field limit'),
])
def test_bad_lines(text, expected):
  problem, = split_of(text).problems
  assert problem.startswith('training.csv, line 2: ') and expected in problem


# Listing.


@pytest.mark.parametrize('kind, level', [('f.zip', ''), ('folder', ''), ('folder', 'AffectNet/')])
@pytest.mark.parametrize('images', ['', 'Manually_Annotated/'])
def test_layouts_of_the_first_release(tmp_path, kind, level, images):
  faces, builder = listed(tmp_path, first(images), 'csv8', kind, level)
  assert names(faces) == {split: [f'{stem(seed)}.jpg' for seed in KEPT[split]] for split in KEPT}
  assert [one.label for one in faces['train']] == list(range(8))
  assert faces['valid'][1].file.read() == picture(101)
  assert not builder._lines


@pytest.mark.parametrize('kind, level', [('f.zip', ''), ('folder', ''), ('folder', 'AffectNet/')])
def test_layouts_of_the_second_release(tmp_path, kind, level):
  faces, builder = listed(tmp_path, second(), 'npy8', kind, level)
  assert names(faces) == {'train': [f'train_set/{i}.jpg' for i in range(0, 16, 2)],  # Not in the order of text.
                          'valid': ['0.jpg', '2.jpg', '3.jpg', '5.jpg']}
  assert [one.label for one in faces['train']] == list(range(8))
  assert faces['valid'][1].file.read() == picture(103)
  for seed in range(8):  # Text or numbers, (136,) or (68, 2).
    one = faces['train'][seed]
    np.testing.assert_array_equal(one.landmarks, points(seed))
    assert one.box is None and one.extra['valence'] == np.float32(TRAIN[seed][1])
  assert math.isnan(faces['valid'][1].extra['valence'])
  assert "RAN's lists" in ''.join(builder._notes)


@pytest.mark.parametrize('training, validation', [(True, True), (False, False)])
def test_headers_are_optional(tmp_path, training, validation):
  files = first()
  for name, lines, header in ((TRAINING, TRAIN_LINES, training), (VALIDATION, VALID_LINES, validation)):
    files[name] = '\n'.join([*[f'\ufeff{HEADER}'] * header, *lines])
  faces, _ = listed(tmp_path, files, 'csv8')
  assert {split: len(faces[split]) for split in faces} == {'train': 8, 'valid': 5}


@pytest.mark.parametrize('config, files', [('csv7', first()), ('npy7', second())])
def test_seven_classes_are_those_without_contempt(tmp_path, config, files):
  faces, builder = listed(tmp_path, files, config)
  assert builder.classes() == tuple(builder.info.features['label'].names) == reader.CLASSES[:7]
  assert sorted({one.label for split in faces.values() for one in split}) == list(range(7))
  assert any('of train' in note and '1 of contempt' in note for note in builder._notes)


def test_official_counts():
  assert [sum(affectnet.COUNTS[v][s]) for v in ('csv8', 'npy8', 'csv7', 'npy7') for s in ('train', 'valid')] == [
      287651, 4000, 287651, 3999, 283901, 3500, 283901, 3500]
  assert list(affectnet.builder_configs) == ['csv8', 'csv7', 'npy8', 'npy7']


def test_other_expressions_and_unlisted_images_are_noted(tmp_path):
  _, builder = listed(tmp_path, first() | {f'{IMAGES}7/漢 é.jpg': picture(1)}, 'csv8')
  notes = '\n'.join(builder._notes)
  assert 'train' in notes and '1 of uncertain' in notes and '1 of no-face, 1 of none' in notes
  assert '1 image(s) have no usable line' in notes and '7/漢 é.jpg' in notes


def test_a_repeated_file_name_is_told_apart_by_its_folder(tmp_path):
  files = first()
  files[TRAINING] += '\n' + line(0, 1, 0, 0).replace('0/', '77/', 1)
  files[VALIDATION] += line(1, 1, 0, 0).replace('1/', '5/', 1)
  files |= {f'{IMAGES}77/{stem(0)}.jpg': picture(0), f'{IMAGES}5/{stem(1)}.jpg': picture(1)}
  faces, _ = listed(tmp_path, files, 'csv8')
  found = names(faces)
  assert found['train'] == [f'0/{stem(0)}.jpg', f'1/{stem(1)}.jpg', *(f'{stem(i)}.jpg' for i in range(2, 8)),
                            f'77/{stem(0)}.jpg']
  assert found['valid'][-1] == f'5/{stem(1)}.jpg'


# What must fail.

COPY = {f'{split}/{i}/image{i}.jpg': b'' for split in ('train', 'val') for i in range(8)}


@pytest.mark.parametrize('config, files, expected', [
    ('csv8', second(), ['second release', '--variant=npy8']),
    ('csv7-similarity32', second(), ['second release', '--variant=npy7']),
    ('npy7', first(), ['first release', '--variant=csv7']),
    ('npy8', first('Manually_Annotated/'), ['first release', '--variant=csv8']),
    ('csv8', COPY, ['copy of AffectNet', '--dataset=faces_folder --classes=0:neutral,1:happiness,2:sadness,3:surprise,'
                    '4:fear,5:disgust,6:anger,7:contempt']),
    ('npy8', COPY, ['--dataset=faces_folder']),
    ('csv8', {'fer2013.csv': b''}, ['not AffectNet', 'found there: fer2013.csv', 'mohammadmahoor.com']),
    ('csv8', without(first(), IMAGES), [f'no images in a folder {reader.IMAGES}', f'found there: {LISTS}']),
    ('csv8', without(first(), LISTS), ['training.csv is missing', 'found there: nothing']),
    ('csv8', without(first(), VALIDATION), ['validation.csv is missing', 'found there: training.csv']),
    ('csv8', first() | {VALIDATION: HEADER}, ['validation.csv is empty']),
    ('csv8', first() | {VALIDATION: b'\xff\xfe\0'}, ['validation.csv cannot be read as UTF-8 text']),
    ('csv8', first() | {f'copy/{IMAGES}1/a.jpg': b''}, ['more than once', f'copy/{IMAGES}'.partition('/')[0]]),
    ('npy8', without(second(), 'val_set'), ['val_set has no annotations', 'found there: nothing', 'second release']),
    ('npy8', without(second(), 'train_set/images'), ['train_set has no images', 'found there: annotations/']),
    ('npy8', without(second(), 'train_set/annotations'), ['train_set has no annotations', 'found there: images/']),
])
def test_other_layouts(tmp_path, config, files, expected):
  with pytest.raises(UserError) as e:
    listed(tmp_path, files, config)
  for text in expected:
    assert text in str(e.value)


def test_both_releases_may_lie_side_by_side(tmp_path):
  files = {f'first/{name}': content for name, content in first().items()} | {
      f'second/{name}': content for name, content in second().items()}
  assert len(listed(tmp_path, files, 'csv8')[0]['valid']) == 5
  assert len(listed(tmp_path, files, 'npy8')[0]['valid']) == 4


# Files, what is told when strict, and how many faces of train and valid are left when not.
FLAWS = {
    'image missing': ('csv8', without(first(), stem(101)), ['an image or its annotation is missing (1)',
                                                            f'validation.csv, line 2: 2/{stem(101)}.jpg'], (8, 4)),
    'negative width': ('csv8', first() | {TRAINING: '\n'.join([HEADER, line(0, *TRAIN[0], box='1,1,-3,4'),
                                                               *TRAIN_LINES[1:]])},
                       ['training.csv: lines or annotations that cannot be used (1)', 'training.csv, line 2: ',
                        "found '1', '1', '-3', '4'"], (7, 5)),
    'listed twice': ('csv8', first() | {TRAINING: '\n'.join([*TRAIN_LINES, TRAIN_LINES[3]])},
                     [f'training.csv, line 10: 0/{stem(3)}.jpg is already in line 4'], (8, 5)),
    'number of fields': ('csv8', first() | {VALIDATION: '\n'.join([*VALID_LINES, 'x,y'])},
                         ['validation.csv, line 8: expected 9 fields', 'found 2'], (8, 5)),
    'npy image missing': ('npy8', without(second(), 'val_set/images/2.jpg'), ['images/2.jpg: not there'], (8, 3)),
    'no annotation': ('npy8', second() | {'val_set/images/77 é.jpg': picture(0)},
                      ['images/77 é.jpg has no annotation'], (8, 4)),
    'part missing': ('npy8', without(second(), 'val_set/annotations/2_lnd'),
                     ['annotations/2_lnd.npy: not there'], (8, 3)),
    'two images': ('npy8', second() | {'train_set/images/4.png': picture(0)}, ['images/4.png', '4.jpg'], (8, 4)),
    'unknown label': ('npy8', second() | {'val_set/annotations/0_exp.npy': npy('8')},
                      ['val_set/annotations/0_exp.npy: the expression should be 0..7', "found '8'"], (8, 3)),
    'landmarks': ('npy8', second() | {'val_set/annotations/0_lnd.npy': npy(np.zeros((5, 2)))},
                  ['0_lnd.npy: the landmarks should be 136 numbers, found 10'], (8, 3)),
    'pickled': ('npy8', second() | {'train_set/annotations/0_val.npy': npy(np.array([None]))},
                ['0_val.npy', 'allow_pickle=False'], (7, 4)),
    'truncated': ('npy8', second() | {'train_set/annotations/0_aro.npy': npy('0.5')[:50]}, ['0_aro.npy'], (7, 4)),
    'zero bytes': ('npy8', second() | {'train_set/annotations/0_aro.npy': b''}, ['0_aro.npy'], (7, 4)),
    'valence': ('npy8', second() | {'train_set/annotations/0_val.npy': npy('1.5')},
                ['0_val.npy: the valence should be from -1 to 1', "found '1.5'"], (7, 4)),
}


@pytest.mark.parametrize('flaw', FLAWS)
def test_flaws_are_told_or_left_out(tmp_path, flaw):
  config, files, expected, left = FLAWS[flaw]
  with pytest.raises(UserError) as e:
    listed(tmp_path, files, config)
  for text in (*expected, '--strict=false'):
    assert text in str(e.value)
  faces, builder = listed(tmp_path, files, config, strict=False)
  assert (len(faces['train']), len(faces['valid'])) == left
  assert len(builder._lines) == 1 and expected[-1].split(', ')[-1] in builder._lines[0]


@hypothesis.given(st.sampled_from(reader.PARTS), st.data())
@hypothesis.settings(max_examples=100, deadline=None)
def test_a_damaged_array_is_told(part, data):
  files = {name[-7:-4]: content for name, content in annotation('train_set', 0, 0, *TRAIN[0]).items()}
  content = bytearray(files[part])
  for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
    content[at] = data.draw(st.integers(0, 255))
  files[part] = bytes(content)

  class Part(File):
    def read(self):
      return files[self.path]

  try:
    found = reader._read_annotation('0.jpg', {name: Part(name) for name in reader.PARTS}, 8)
    assert found.label in range(8) and found.landmarks.shape == (68, 2)
  except ValueError as e:
    assert str(e).startswith(f'{part}: ')


def test_many_problems_are_told_at_once_but_not_all(tmp_path):
  with pytest.raises(UserError) as e:
    listed(tmp_path, first() | {VALIDATION: 'x\n' * 50}, 'csv8')
  assert 'line 20:' in str(e.value) and 'line 21:' not in str(e.value) and '30 more' in str(e.value)


def test_wrong_paths(tmp_path):
  path = pathlib.Path(write(tmp_path / 'f.zip', first()))
  path.write_bytes(path.read_bytes()[:-40])
  for wrong, expected in ((None, 'mohammadmahoor.com'), (tmp_path / 'none', 'does not exist'), (path, 'damaged')):
    with pytest.raises(UserError, match=expected):
      reader.open_files(wrong and str(wrong), 'csv', 8)


def test_counts_are_checked(tmp_path):
  with pytest.raises(UserError) as e:
    build(tmp_path, second(), 'npy7', check_counts=True)
  for text in ('train: found 7, expected 283,901', 'neutral 1 for 74,874', '--nocheck_counts'):
    assert text in str(e.value)
  assert not list((tmp_path / 'data').glob('affectnet/npy7/*'))


def test_a_face_in_both_splits_is_an_error(tmp_path):
  files = first()
  files[VALIDATION] += TRAIN_LINES[0]
  with pytest.raises(UserError, match=f'{stem(0)}.jpg: in train and in valid'):
    build(tmp_path, files, 'csv8')


# Names of the first release for the second.


@pytest.mark.parametrize('header', [False, True])
def test_names_of_the_first_release(tmp_path, header):
  table = tmp_path / 'validation.csv'
  table.write_text('\n'.join([*[HEADER] * header, *VALID_LINES]))
  faces, builder = listed(tmp_path, second(), 'npy8', first_release=str(table))
  assert names(faces)['valid'] == [f'{stem(seed)}.jpg' for seed in (101, 103, 104, 106)]
  assert names(faces)['train'][1] == 'train_set/2.jpg'
  assert not any('RAN' in note for note in builder._notes)


@pytest.mark.parametrize('lines, expected', [
    (VALID_LINES[1:], ['0.jpg: surprise, but no-face in line 2']),  # As if its first line were lost.
    (VALID_LINES[:6], ['5.jpg: there is no such line, the file has 6 faces']),
    ([*VALID_LINES[:3], 'x', *VALID_LINES[4:]], ['2.jpg: expected 9 fields', 'found 1']),
    ([], ['is empty']),
])
def test_another_first_release_is_told(tmp_path, lines, expected):
  table = tmp_path / 'validation.csv'
  table.write_text('\n'.join(lines))
  with pytest.raises(UserError) as e:
    listed(tmp_path, second(), 'npy8', first_release=str(table), strict=False)
  for text in (*expected, str(table)):
    assert text in str(e.value)


def test_first_release_needs_a_file_and_the_second_release(tmp_path):
  with pytest.raises(UserError, match='nothing.csv cannot be read'):
    listed(tmp_path, second(), 'npy8', first_release=str(tmp_path / 'nothing.csv'))
  with pytest.raises(UserError, match='npy8 and npy7'):
    listed(tmp_path / 'csv', first(), 'csv8', first_release=str(tmp_path / 'nothing.csv'))
  assert make_builder('affectnet', 'npy7', str(tmp_path), first_release='x').variant == 'npy7'


# From end to end.


@pytest.fixture(scope='module')
def built_csv(tmp_path_factory):
  return build(tmp_path_factory.mktemp('csv'), first(), 'csv8', 'f.zip')


@pytest.fixture(scope='module')
def built_npy(tmp_path_factory):
  home = tmp_path_factory.mktemp('npy 漢é')
  (home / 'validation.csv').write_text('\n'.join(VALID_LINES))
  return build(home, second(), 'npy7', first_release=str(home / 'validation.csv'))


def test_records_of_the_first_release(built_csv):
  assert {split: info.num_examples for split, info in built_csv.info.splits.items()} == {'train': 8, 'valid': 5}
  train = records(built_csv, 'train')
  assert {name: record['label'] for name, record in train.items()} == {f'{stem(i)}.jpg': i for i in range(8)}
  one = train[f'{stem(2)}.jpg']
  assert (one['valence'], one['arousal']) == (-1, -.5)
  # Cut to the face box, landmarks with it.
  assert face.LANDMARK_SOURCES[one['landmark_source']] == 'released'
  np.testing.assert_allclose(one['landmarks'], points(2) - np.float32([4, 6]), atol=1e-5)
  assert built_csv.as_data_source('train')[0]['image'].shape == (30, 40, 3)
  assert math.isnan(records(built_csv, 'valid')[f'{stem(103)}.jpg']['arousal'])
  assert '1 of uncertain' in summary(built_csv)
  assert not (built_csv.data_path / 'skipped.txt').exists()
  assert 'tensorflow' not in sys.modules


def test_records_of_the_second_release(built_npy):
  assert {split: info.num_examples for split, info in built_npy.info.splits.items()} == {'train': 7, 'valid': 3}
  valid = records(built_npy, 'valid')
  assert {name: record['label'] for name, record in valid.items()} == {
      f'{stem(101)}.jpg': 3, f'{stem(103)}.jpg': 0, f'{stem(106)}.jpg': 6}
  one = valid[f'{stem(101)}.jpg']
  assert one['image'] == picture(101)  # The file as distributed, byte for byte.
  np.testing.assert_array_equal(one['landmarks'], points(101))
  assert (one['valence'], one['arousal']) == (.125, .25)
  assert math.isnan(valid[f'{stem(103)}.jpg']['valence'])
  assert built_npy.contents()['classes'] == list(reader.CLASSES[:7])


@pytest.mark.parametrize('form', ['val/{label}/{stem}/', '{label}/{stem}.jpg', '{label}/{stem}/8.jpg'])
def test_lists_of_ran_match_both_releases(tmp_path, built_csv, built_npy, form):
  seeds = {101: 3, 106: 6, 105: 1}  # The last has no class.
  path = tmp_path / 'list.txt'
  path.write_text('\n'.join(form.format(label=label, stem=stem(seed)) for seed, label in seeds.items()))
  for builder in (built_csv, built_npy):
    valid = records(builder, 'valid')
    subset = subsets.match(subsets.read_list(path), list(valid), np.array([r['label'] for r in valid.values()]))
    assert {name for name, inside in zip(valid, subset.mask, strict=True) if inside} == {
        f'{stem(101)}.jpg', f'{stem(106)}.jpg'}
    assert subset.unmatched == 1 and not subset.disagreeing


def test_aligned(tmp_path):
  builder = build(tmp_path, first(), 'csv7-similarity32')
  record = builder.as_data_source('valid')[0]
  assert record['image'].shape == (32, 32, 3) and builder.classes() == reader.CLASSES[:7]


def test_landmarks_that_are_not_released_are_detected(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  files = first()
  fields = VALID_LINES[1].split(',')
  fields[5] = ''
  files[VALIDATION] = '\n'.join([VALID_LINES[0], ','.join(fields), *VALID_LINES[2:]])
  valid = records(build(tmp_path, files, 'csv8'), 'valid')
  found = {name: face.LANDMARK_SOURCES[record['landmark_source']] for name, record in valid.items()}
  assert found.pop(f'{stem(101)}.jpg') in ('detector', 'image_box') and set(found.values()) == {'released'}


HURT = {'truncated': picture(103)[:600], 'empty': b'', 'text': b'this is no picture'}


@pytest.mark.parametrize('hurt, reason', [
    ('truncated', 'truncated'), ('empty', 'empty file'), ('text', 'not an image')])
def test_bad_images_fail_or_are_left_out(tmp_path, hurt, reason):
  files = second() | {'val_set/images/2.jpg': HURT[hurt]}
  with pytest.raises(UserError, match=f'val_set/images/2.jpg: .*{reason}'):
    build(tmp_path, files, 'npy8')
  assert {path.name for path in (tmp_path / 'data' / 'affectnet' / 'npy8').iterdir()} == {'parts'}  # To go on from.
  builder = build(tmp_path, files, 'npy8', strict=False)
  assert set(records(builder, 'valid')) == {'0.jpg', '3.jpg', '5.jpg'}
  line, = (builder.data_path / 'skipped.txt').read_text().splitlines()
  assert 'val_set/images/2.jpg: ' in line and reason in line and builder.contents()['skipped'] == 1


def test_lines_that_were_left_out_are_listed(tmp_path):
  files = first() | {VALIDATION: '\n'.join([*VALID_LINES, 'x,y'])}
  del files[f'{IMAGES}0/{stem(3)}.jpg']
  builder = build(tmp_path, files, 'csv8', strict=False)
  assert (len(records(builder, 'train')), len(records(builder, 'valid'))) == (7, 5)
  lines = (builder.data_path / 'skipped.txt').read_text().splitlines()
  assert [text.partition(':')[0] for text in lines] == ['training.csv, line 5', 'validation.csv, line 8']


def test_a_face_box_outside_the_image_leaves_it_out(tmp_path):
  files = first() | {VALIDATION: '\n'.join([*VALID_LINES[:-1], line(106, *VALID[6], box='500,500,9,9')])}
  with pytest.raises(UserError, match='not within the 48 x 48 image'):
    build(tmp_path, files, 'csv8')


def test_names_need_not_be_ascii(tmp_path):
  files = first()
  files[VALIDATION] = files[VALIDATION].replace(f'2/{stem(101)}', '2/漢 é')
  files[f'{IMAGES}2/漢 é.jpg'] = files.pop(f'{IMAGES}2/{stem(101)}.jpg')
  valid = records(build(tmp_path, files, 'csv8', 'quelle é漢'), 'valid')
  assert valid['漢 é.jpg']['label'] == 3


# Samples of the official format.


@pytest.mark.parametrize('sample', ['affectnet_csv', 'affectnet_npy'])
def test_samples(tmp_path, sample):
  if not (FORMATS / sample).is_dir():
    pytest.skip(f'the samples are not at {FORMATS / sample}')
  files = {path.relative_to(FORMATS / sample).as_posix(): path.read_bytes()
           for path in (FORMATS / sample).rglob('*') if path.is_file()}
  if sample == 'affectnet_csv':
    listed_lines = [text for content in list(files.values()) for text in content.decode().splitlines()]
    files |= {f'{IMAGES}{text.partition(",")[0]}': b'' for text in listed_lines if not text.startswith(HEADER[:9])}
  else:
    files |= {name.replace('annotations', 'images').replace('_exp.npy', '.jpg'): b'' for name in list(files)
              if name.endswith('_exp.npy')}
  splits = reader.open_files(write(tmp_path / 'source', files), sample[-3:], 8)
  for split in splits.values():
    assert split.faces and not split.problems and not split.missing
    for one in split.faces:
      assert one.landmarks.shape == (68, 2) and one.landmarks.std() > 1
      assert abs(one.valence) <= 1 and abs(one.arousal) <= 1
  if sample == 'affectnet_npy':
    assert [[one.label for one in split.faces] for split in splits.values()] == [[0, 1, 7], [0, 2]]
