"""FEC: the reading of its csv files and index, what is kept of them, and what must fail; on drawn faces."""

import collections
import csv
import pathlib
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow_datasets as tfds

from fer_jax.data import face, triplets
from fer_jax.data.builders.fec import fec
from fer_jax.data.builders.fec import files as reader
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.preparing.files import File
from fer_jax.errors import UserError
from tests import trees

SAMPLES = pathlib.Path(__file__).resolve().parents[4] / 'shared' / 'data' / 'formats' / 'fec'
TRAIN, TEST = reader.FILES['train'], reader.FILES['test']

# Faces by a name of this test's: URL, box as the csv files write it, file. The first three are in one photo.
GROUP = 'http://photos.example.org/1,2/é_漢_"b".jpg'
FACES = {
    'a': (GROUP, '0.1,0.3,0.2,0.6', 'faces/a.png'),
    'b': (GROUP, '0.123456,0.345678,0.2,0.6', 'faces/b.png'),
    'c': (GROUP, '0.123456,0.345679,0.2,0.6', 'faces/é 漢, "c".png'),
    'd': ('http://photos.example.org/d.jpg', '0,1,0,1', 'faces/d.png'),
    'e': ('http://photos.example.org/e.jpg', '-0.01,0.4,0.5,1.02', 'deeper/folder/e.png'),
    'f': ('http://photos.example.org/f.jpg', '0.1,0.3,0.2,0.6', 'f.png'),
    'late': ('http://photos.example.org/late.jpg', '0.1,0.3,0.2,0.6', 'faces/late.png'),
    'lonely': ('http://photos.example.org/lonely.jpg', '0.1,0.3,0.2,0.6', 'faces/lonely.png'),
    'corrupt': ('http://photos.example.org/corrupt.jpg', '0.1,0.3,0.2,0.6', 'faces/corrupt.png'),
    'lost': ('http://photos.example.org/lost.jpg', '0.1,0.3,0.2,0.6', 'faces/lost.png'),  # No such file.
    'gone': ('http://photos.example.org/gone.jpg', '0.1,0.3,0.2,0.6', None),  # Not in the index.
    'x': ('http://photos.example.org/x.jpg', '0.1,0.3,0.2,0.6', 'faces/x.png'),
    'y': ('http://photos.example.org/x.jpg', '0.2,0.3,0.2,0.6', 'faces/y.png'),
}

# Triplets: three faces, type, annotations.
ROWS = {
    TRAIN: [
        ('abc', 'ONE', '111121'),
        ('ade', 'TWO', '332333'),
        ('fba', 'THREE', '12321322'),  # Eight raters, four for b.
        ('abd', 'TWO', '222111'),  # Tie.
        ('cde', 'THREE', '112233'),  # Tie of three.
        (('a', 'b', 'gone'), 'ONE', '111111'),
        (('gone', 'b', 'lost'), 'ONE', '121212'),  # A tie first of all.
        (('lost', 'b', 'a'), 'THREE', '333333'),
        (('c', 'corrupt', 'late'), 'TWO', '111111'),  # 'late' is kept for a later triplet, 'lonely' for none.
        (('lonely', 'a', 'corrupt'), 'THREE', '111111'),
        (('late', 'b', 'c'), 'THREE', '332'),
        ('abc', 'ONE', '3'),
    ],
    TEST: [('xya', 'ONE', '222222'), ('yxf', 'THREE', '331331')],  # a and f are in both files.
}
KINDS = {'ONE': 'one_class', 'TWO': 'two_class', 'THREE': 'three_class'}
MALFORMED = '"http://photos.example.org/short.jpg",0.1,0.3'


def quoted(text):
  return '"' + text.replace('"', '""') + '"'


def line(faces, kind, annotations):
  """A line of a csv file in the form of the official ones: strings quoted, numbers not."""
  faces = [f'{quoted(FACES[name][0])},{FACES[name][1]}' for name in faces]
  raters = [f'"{100000000 + i}",{annotation}' for i, annotation in enumerate(annotations)]
  return ','.join([*faces, f'"{kind}_CLASS_TRIPLET"', *raters])


def index_line(name):
  url, box, file = FACES[name]
  # Other digits of the same numbers.
  return f'{quoted(url)},{",".join(f"{float(number):.8f}" for number in box.split(","))},{quoted(file)}'


HEADER = 'url,left,right,top,bottom,file'
INDEX = [HEADER, *(index_line(name) for name in FACES if FACES[name][2])]


def picture(name):
  return face.png(draw_face(np.random.default_rng(list(FACES).index(name)), 'neutral', 48).image).getvalue()


def tree():
  """File names and contents of a tiny FEC."""
  lines = {file: [line(*row) for row in rows] for file, rows in ROWS.items()}
  lines[TRAIN].insert(2, MALFORMED)
  files = {file: '\n'.join(lines[file]) + '\n' for file in lines} | {'index.csv': '\r\n'.join(INDEX)}
  files = {file: text.encode() for file, text in files.items()}
  files |= {FACES[name][2]: picture(name) for name in FACES if name not in ('lost', 'gone')}
  files[FACES['corrupt'][2]] = picture('corrupt')[:1000]
  return files


def write(path, files, inner=''):
  for name, content in files.items():
    file = path / (inner * name.startswith('faceexp')) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
  return str(path)


def build(tmp_path, files, **options):
  builder = fec(data_dir=tmp_path / 'data', file_format='array_record', source=write(tmp_path / 'source', files),
                **{'workers': 0, 'strict': False} | options)
  builder.download_and_prepare(download_dir=tmp_path / 'downloads')
  return builder


def records(builder, split):
  skip = dict.fromkeys(('image', 'landmark_heatmap', 'action_unit_map'), tfds.decode.SkipDecoding())
  return list(builder.as_data_source(split, decoders=skip))


# The lines.


def fields(faces='abc', kind='ONE', annotations='111121'):
  return next(csv.reader([line(faces, kind, annotations)]))


def test_a_line_in_the_official_form():
  triplet = reader.read_row(fields())
  assert triplet.faces[1] == reader.Face(GROUP, left=.123456, right=.345678, top=.2, bottom=.6)
  assert triplet == (triplet.faces, 'one_class', (5, 1, 0)) and triplet.odd == 0


def test_faces_are_a_url_and_a_box():
  a, b, c = reader.read_row(fields()).faces
  assert len({a, b, c}) == 3  # In one photo; the last two differ by a millionth.
  changed = fields()
  changed[1] = '0.10000000001'
  assert reader.read_row(changed).faces[0] == a


@hypothesis.given(st.lists(st.sampled_from('123'), min_size=1, max_size=12), st.permutations('abc'))
@hypothesis.settings(max_examples=100, deadline=None)
def test_the_odd_one_is_the_majority_or_nothing(annotations, order):
  triplet = reader.read_row(fields(order, 'TWO', annotations))
  ranked = collections.Counter(annotations).most_common()
  tie = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
  assert triplet.odd == (None if tie else int(ranked[0][0]) - 1)
  assert sum(triplet.votes) == len(annotations) and max(triplet.votes) == ranked[0][1]
  assert [FACES[name][0] for name in order] == [member.url for member in triplet.faces]


def changed(**columns):
  row = fields()
  for column, value in columns.items():
    row[int(column[1:])] = value
  return row


@pytest.mark.parametrize('row, expected', [
    (fields()[:3], 'expected 16 fields .* found 3 fields'),
    (fields()[:-1], 'a pair .rater, annotation. for each rater, found 27 fields'),
    (fields()[:16], 'found 16 fields'),
    (changed(_15='FOUR_CLASS_TRIPLET'), "THREE_CLASS_TRIPLET, found 'FOUR_CLASS_TRIPLET'"),
    (changed(_17='4'), "1, 2 or 3, found '4'"),
    (changed(_19='0', _21=''), "found '0', ''"),
    (changed(_1='left'), "left < right, .* 'left'"),
    (changed(_1='nan'), "'nan'"),
    (changed(_2='0.05'), "found .*'0.1', '0.05', '0.2', '0.6'"),
    (changed(_3='0.6', _4='0.6'), 'top < bottom'),
    (changed(_2='112', _4='112'), 'as fractions of the photo'),
    (changed(_0=''), "found '', '0.1'"),
    # The usual order of a box is not FEC's.
    (changed(_1='0.5', _2='0.1', _3='0.9', _4='0.4'), 'left < right'),
    (fields('aba'), 'the same face occurs twice'),
])
def test_bad_lines(row, expected):
  with pytest.raises(ValueError, match=expected):
    reader.read_row(row)


@pytest.mark.parametrize('file, listed', [(TRAIN, 4), (TEST, 2)])
def test_the_samples_of_the_official_form(file, listed):
  if not SAMPLES.exists():
    pytest.skip(f'the samples are not at {SAMPLES}')
  table = reader.Split(File(str(SAMPLES / file)), {}, {})
  assert len(table.faces) == 3 * listed and not table.malformed
  rows = [reader.read_row(row) for row in csv.reader((SAMPLES / file).read_text().splitlines())]
  assert [(row.odd, sum(row.votes)) for row in rows] == ([(0, 6), (2, 6), (1, 8), (None, 6)] if file == TRAIN else
                                                         [(1, 6), (2, 6)])


# Whole trees.


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  return build(tmp_path_factory.mktemp('built'), tree())


def slow_outcome(members, annotations):
  counts = sorted(annotations.count(k) for k in '123')
  if counts[2] == counts[1]:
    return 'tie'
  if 'gone' in members or 'lost' in members:
    return 'missing image'
  return 'unreadable image' if 'corrupt' in members else 'kept'


@pytest.mark.parametrize('split, file', [('train', TRAIN), ('test', TEST)])
def test_triplets(built, split, file):
  expected, whole = [], []
  for members, kind, annotations in ROWS[file]:
    outcome = slow_outcome(members, annotations)
    if outcome != 'tie':
      votes = max(annotations.count(k) for k in '123')
      odd = [annotations.count(k) for k in '123'].index(votes)
      spelt = lambda url, box, _: ' '.join([url, *(str(float(edge)) for edge in box.split(','))])
      names = [spelt(*FACES[name]) if name in ('gone', 'lost') else FACES[name][2] for name in members]
      expected.append([*names[:odd], *names[odd + 1:], names[odd], KINDS[kind], str(votes), str(len(annotations))])
      whole += [expected[-1]] if outcome == 'kept' else []
  path = built.data_path / f'triplets_{split}.csv'
  with open(path, encoding='utf-8', newline='') as table:
    assert list(csv.reader(table)) == [['first', 'second', 'odd', 'type', 'votes', 'raters'], *expected]

  names = [record['name'].decode() for record in records(built, split)]
  read = triplets.read(path, names, 'majority')
  assert [[names[row] for row in rows] for rows in read.rows] == [row[:3] for row in whole]
  assert sum(read.listed) == len(expected) and sum(read.listed) - len(read) == len(expected) - len(whole)
  spare = {FACES['lonely'][2]} if split == 'train' else set()  # Its triplet has a corrupt image.
  assert {names[row] for row in set(read.rows.ravel())} == set(names) - spare
  assert len(triplets.read(path, names)) == (len(whole) - 1 if split == 'train' else len(whole))


def test_records(built):
  train = {record['name'].decode(): record for record in records(built, 'train')}
  # Each once; not those without an image.
  assert sorted(train) == sorted(FACES[name][2] for name in ('a', 'b', 'c', 'd', 'e', 'f', 'late', 'lonely'))
  assert len(records(built, 'train')) == 8
  assert {record['name'].decode() for record in records(built, 'test')} == {FACES[name][2] for name in 'xyaf'}
  for name in 'ace':
    record = train[FACES[name][2]]
    assert record['image'] == picture(name)  # The file byte for byte.
    assert record['label'] == -1
    assert record['landmarks'].shape == (68, 2) and np.isfinite(record['landmarks']).all()
    assert face.LANDMARK_SOURCES[record['landmark_source']] in ('detector', 'image_box')
  decoded = built.as_data_source('train')[0]
  assert decoded['image'].shape == (48, 48, 3) and decoded['landmark_heatmap'].shape == (56, 56, 1)
  assert built.info.features['label'].names == list(face.EXPRESSIONS)
  assert 'tensorflow' not in sys.modules


def test_coverage(built):
  text = (built.data_path / 'coverage.txt').read_text()
  assert text.split() == ' '.join([
      'Triplets of train: one_class two_class three_class total',
      'listed 4 3 5 13', 'malformed - - - 1', 'tie 1 1 1 3', 'missing image 1 0 1 2', 'unreadable image 0 1 1 2',
      'kept 2 1 2 5',
      '8 faces; of the 11 listed, 2 are listed in the other split too.',
      'Triplets of test: one_class two_class three_class total',
      'listed 1 0 1 2', 'malformed - - - 0', 'tie 0 0 0 0', 'missing image 0 0 0 0', 'unreadable image 0 0 0 0',
      'kept 1 0 1 2',
      '4 faces; of the 4 listed, 2 are listed in the other split too.']).split()
  # The same, counted row by row.
  for part, rows in zip(text.split('Triplets of ')[1:], ROWS.values(), strict=True):
    for outcome in reader.OUTCOMES:
      counts = [sum(slow_outcome(members, annotations) == outcome and kind == wanted
                    for members, kind, annotations in rows) for wanted in KINDS]
      assert f'{outcome:<18}' + ''.join(f'{n:>13}' for n in (*counts, sum(counts))) in part.splitlines()


def test_what_was_skipped_is_listed(built):
  malformed, corrupt = (built.data_path / 'skipped.txt').read_text().splitlines()
  assert malformed.startswith(f'{TRAIN}, line 3: expected 16 fields') and malformed.endswith('found 3 fields')
  assert 'source/faces/corrupt.png: ' in corrupt and 'truncated' in corrupt


@pytest.mark.parametrize('strict, expected', [
    (True, ['faces/corrupt.png: ', 'truncated', '--strict=false']),
    (False, [TEST, 'no triplet is left of 2 in ', ': 0 malformed, 0 tie, 1 missing image, 1 unreadable image.']),
])
def test_bad_images_can_be_fatal_and_leave_nothing(tmp_path, strict, expected):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  lines = [line(('x', 'y', 'corrupt'), 'ONE', '1'), line(('x', 'y', 'gone'), 'ONE', '1')]
  with pytest.raises(UserError) as e:
    build(tmp_path, tree() | {TRAIN: line('abc', 'ONE', '1'), TEST: '\n'.join(lines)}, strict=strict)
  for text in expected:
    assert text in str(e.value)
  assert not list((tmp_path / 'data').glob('fec/default/*.0'))


def test_strict_makes_malformed_lines_fatal(tmp_path):
  with pytest.raises(UserError, match=f'{TRAIN} .1.:\n  {TRAIN}, line 3: expected 16 fields') as e:
    build(tmp_path, tree(), strict=True)
  assert '--strict=false' in str(e.value)
  lines = '\n'.join(['x'] * 25 + [line('abc', 'ONE', '1')])
  with pytest.raises(UserError) as e:
    build(tmp_path, tree() | {TRAIN: lines}, strict=True)
  assert ' (25):' in str(e.value) and 'line 20:' in str(e.value) and 'line 21:' not in str(e.value)
  assert '... and 5 more' in str(e.value)


def test_where_nothing_is_left_the_reasons_are_told_before_images_are_read(tmp_path):
  lines = [MALFORMED, line('abc', 'ONE', '12'), line('abd', 'ONE', '123'), line(('a', 'b', 'gone'), 'ONE', '1')]
  with pytest.raises(UserError) as e:
    build(tmp_path, tree() | {TRAIN: '\n'.join(lines)}, landmark_model='/none')
  for text in ('no triplet is left of 4 in ', TRAIN, ': 1 malformed, 2 tie, 1 missing image, 0 unreadable image.',
               f'The first malformed one: {TRAIN}, line 1: expected 16', 'index.csv has URLs and boxes as they are'):
    assert text in str(e.value)


@pytest.mark.parametrize('inner', ['', 'FEC_dataset', None])
def test_accepted_layouts(tmp_path, inner):
  zipped = inner is None
  splits = reader.open_files(trees.write(tmp_path / 'fec.zip', tree()) if zipped else write(tmp_path, tree(), inner))
  assert list(splits) == ['train', 'test']
  assert [len(split.kept()) for split in splits.values()] == [7, 2]  # The corrupt image is not yet known to be so.
  assert [len(split.malformed) for split in splits.values()] == [1, 0]
  test = splits['test']
  assert test.images[test.files[test.faces[0]]].read() == picture('x')


def test_a_lost_quote_spoils_its_own_line_only(tmp_path):
  good = line('abc', 'ONE', '1')
  lines = ['', good, good.replace('"ONE', 'ONE').replace('"10', '"1"0'), good[:-3], '\ufeff' + good, '', good]
  splits = reader.open_files(write(tmp_path, tree() | {TRAIN: '\ufeff' + '\r\n'.join(lines)}))
  assert len(splits['train'].kept()) == 2
  assert [problem.split(': ')[0] for problem in splits['train'].malformed] == [f'{TRAIN}, line {n}' for n in (3, 4, 5)]


def test_wrong_paths(tmp_path):
  (tmp_path / 'fec.zip').write_text('zip')
  for path, expected in ((None, 'Google'), (tmp_path / 'none', 'none does not exist'),
                         (tmp_path / 'fec.zip', 'fec.zip is neither a folder nor a zip file')):
    with pytest.raises(UserError, match=expected) as e:
      reader.open_files(path and str(path))
    assert reader.HOW_TO in str(e.value)
  builder = fec(data_dir=tmp_path, file_format='array_record')
  with pytest.raises(UserError, match='To obtain it'):
    builder.download_and_prepare()
  assert not builder.data_path.exists()


def index(*lines):
  return {'index.csv': '\n'.join([HEADER, *lines])}


@pytest.mark.parametrize('changes, expected', [
    ({TRAIN: None}, [f'has no {TRAIN}; found there: deeper/, f.png', 'To obtain it']),
    ({TEST: None, 'index.csv': None}, [f'has no {TEST} and no index.csv']),
    ({TRAIN: b'\n \n'}, [f'{TRAIN} is empty']),
    ({TEST: b'"caf\xe9"'}, [f'{TEST} cannot be read as UTF-8 text']),
    ({'index.csv': b''}, ['index.csv is empty']),
    ({'index.csv': INDEX[1]}, ['index.csv, line 1: the header should be url,left,right,top,bottom,file, found ']),
    ({'index.csv': 'url,left,top,right,bottom,file'}, ["found 'url,left,top,right,bottom,file'"]),
    (index(INDEX[1], 'u,0,1,0,1'), ['bad lines in', 'index.csv (1)', 'line 3: expected 6 fields', 'found 5']),
    (index('u,1,0,0,1,f.png'), ['line 2: a face should be', "found 'u', '1', '0', '0', '1'"]),
    (index('u,0,1,0,1,../f.png'), ["within it, found '../f.png'"]),
    (index('u,0,1,0,1,/etc/f.png'), ["found '/etc/f.png'"]),
    (index('u,0,1,0,1,'), ["found ''"]),
    (index('"u,0,1,0,1,f.png'), ['line 2: unexpected end of data']),
    (index('u,0,1,0,1,f.png', 'v,0,1,0,1,x.png', 'u,0.0,1.0,0,1,g.png'),
     ['line 4: this face is already in line 2, with another file: f.png']),
    (index('u,0,1,0,1,f.png', 'v,0,1,0,1,./f.png'), ['line 3: f.png is already in line 2, for another face']),
])
def test_broken_sources_are_told_with_file_and_line(tmp_path, changes, expected):
  files = {name: content for name, content in (tree() | changes).items() if content is not None}
  with pytest.raises(UserError) as e:
    reader.open_files(write(tmp_path, files))
  for text in (*expected, str(tmp_path)):
    assert text in str(e.value)


def test_a_face_may_be_in_the_index_twice_with_one_file(tmp_path):
  splits = reader.open_files(write(tmp_path, tree() | {'index.csv': '\n'.join(INDEX + INDEX[1:])}))
  assert splits['train'].files[splits['train'].faces[0]] == 'faces/a.png'
