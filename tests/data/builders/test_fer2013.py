"""FER2013: the csv files, the votes of FERPlus beside them, the folders of images, and what must fail."""

import functools
import io
import pathlib
import pickle
import re
import zipfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest

from fer_jax.data import face
from fer_jax.data.builders.fer2013 import fer2013
from fer_jax.data.builders.fer2013 import files as reader
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.preparing import preparation
from fer_jax.data.reading import splits
from fer_jax.errors import UserError
from tests import trees
from tests.trees import records, write

DATA = pathlib.Path(__file__).resolve().parents[4] / 'shared' / 'data'
SAMPLES, REAL = DATA / 'formats' / 'fer2013', DATA / 'ferplus.zip'

# Emotion and usage of each row; the number of the row is the seed of its image.
ROWS = [(0, 'Training'), (1, 'Training'), (2, 'Training'), (3, 'Training'), (6, 'Training'), (4, 'PublicTest'),
        (5, 'PublicTest'), (6, 'PrivateTest')]
FERPLUS = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt', 'unknown', 'NF')
# Names and votes in the order of FERPlus, row by row; numbers in names are no row numbers.
VOTES = [('fer0000000.png', (0, 0, 0, 0, 8, 2, 0, 0, 0, 0)), ('', (0, 0, 0, 0, 0, 0, 0, 0, 0, 10)),
         ('fer0000001.png', (1, 0, 2, 0, 0, 0, 7, 0, 0, 0)), ('fer0000001.png', (0, 5, 0, 5, 0, 0, 0, 0, 0, 0)),
         ('fer0000004.png', (2, 0, 0, 0, 0, 0, 0, 8, 0, 0)), ('fer0000005.png', (0, 0, 1, 9, 0, 0, 0, 0, 0, 0)),
         ('fer0000006.png', (0, 0, 9, 0, 0, 0, 0, 0, 1, 0)), ('fer0000007.png', (9, 0, 0, 1, 0, 0, 0, 0, 0, 0))]


def grey(seed):
  image = draw_face(np.random.default_rng(seed), 'neutral', 48).image
  return image.mean(-1).astype(np.uint8)


GREYS = [grey(seed) for seed in range(len(ROWS))]


def pixels(seed):
  return ' '.join(map(str, GREYS[seed].ravel()))


def table(header='emotion,pixels,Usage', end='\n', **changes):
  """fer2013.csv; ``line3='text'`` replaces a line, counted from 1."""
  lines = [header]
  for seed, (emotion, usage) in enumerate(ROWS):
    fields = {'emotion': str(emotion), 'pixels': pixels(seed), 'Usage': usage}
    lines.append(','.join(fields[name.strip()] for name in header.split(',')))
  for line, text in changes.items():
    lines[int(line.removeprefix('line')) - 1] = text
  return (end.join(lines) + end).encode()


def votes(**changes):
  """fer2013new.csv; changes as in ``table``."""
  lines = ['Usage,Image name,' + ','.join(FERPLUS)]
  lines += [f'{usage},{name},{",".join(map(str, given))}'
            for (_, usage), (name, given) in zip(ROWS, VOTES, strict=True)]
  for line, text in changes.items():
    lines[int(line.removeprefix('line')) - 1] = text
  return ('\n'.join(lines) + '\n').encode()


FOLDERS = {'anger': 'angry', 'disgust': 'disgust', 'fear': 'fear', 'happiness': 'happy', 'sadness': 'sad',
           'surprise': 'surprise', 'neutral': 'neutral'}


def jpeg(seed):
  return face.jpeg(GREYS[seed % len(GREYS)]).getvalue()


def tree(prefixes=('PublicTest_', 'PrivateTest_')):
  """A copy in folders: an image of each class in train, and one of each class and prefix in test."""
  files = {}
  for i, folder in enumerate(FOLDERS.values()):
    files[f'train/{folder}/Training_{i}.jpg'] = jpeg(i)
    files |= {f'test/{folder}/{prefix}{i}.jpg': jpeg(i + k) for k, prefix in enumerate(prefixes, 1)}
  return files


build = functools.partial(trees.build, 'fer2013')


def decoded(record):
  return np.asarray(PIL.Image.open(io.BytesIO(record['image'])))


ICML = 'emotion, Usage, pixels'


@pytest.mark.parametrize('path, files', [
    ('folder/fer2013.csv', {'fer2013.csv': table()}),
    ('folder/renamed.CSV', {'renamed.CSV': table()}),
    ('folder', {'fer2013.csv': table()}),
    ('folder', {'fer2013/fer2013.csv': table(), 'icml_face_data.csv': b'', 'train.csv': b''}),
    ('folder', {'icml_face_data.csv': table(ICML)}),
    ('folder', {'fer2013.csv': b'\xef\xbb\xbf' + table(end='\r\n') + b'\r\n'}),
    ('f.zip', {'icml_face_data.csv': table(ICML), 'test.csv': b''}),
    ('Bücher und Gesichter/fer2013.csv', {'fer2013.csv': table()}),
])
def test_accepted_tables(tmp_path, path, files):
  write(tmp_path / path.partition('/')[0], files)
  rows, problems = reader.open_table(str(tmp_path / path))
  assert not problems
  assert [(row.label, row.usage) for row in rows] == ROWS
  assert [row.name for row in rows] == [f'fer2013_{i:05d}.png' for i in range(len(ROWS))]
  for row, image in zip(rows, GREYS, strict=True):
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(row.image.read()))), image)
    assert not row.votes


def test_images_know_their_line_and_travel_to_other_processes(tmp_path):
  write(tmp_path, {'fer2013.csv': table(line3='\n' + table().decode().splitlines()[2])})
  image = reader.open_table(str(tmp_path))[0][1].image
  assert str(image) == f'{tmp_path}/fer2013.csv, line 4'
  assert pickle.loads(pickle.dumps(image)) == image and image.stamp() == ()


@hypothesis.given(st.binary(min_size=2304, max_size=2304))
@hypothesis.settings(max_examples=50, deadline=None)
def test_pixels_come_back_as_they_were(values):
  usage, label, found = reader._row('3', ' '.join(map(str, values)), 'Training')
  assert (usage, label, found) == ('Training', 3, values)
  assert np.asarray(PIL.Image.open(io.BytesIO(reader.Pixels('t', 2, found).read()))).tobytes() == values


@hypothesis.given(st.integers(0, 2303), st.sampled_from(['256', '-1', '1.5', 'x', '1000000', '9' * 5000, '²', '0x10']))
@hypothesis.settings(max_examples=50, deadline=None)
def test_a_bad_pixel_is_found_wherever_it_is(place, bad):
  values = ['0'] * 2304
  values[place] = bad
  with pytest.raises(ValueError, match=re.escape(f'from 0 to 255, found {bad!r}')):
    reader._row('3', ' '.join(values), 'Training')


BAD_LINES = [
    (f'7,{pixels(0)},Training', "the emotion should be a whole number from 0 to 6, found '7'"),
    (f'-1,{pixels(0)},Training', "found '-1'"),
    (f',{pixels(0)},Training', "found ''"),
    (f'angry,{pixels(0)},Training', "found 'angry'"),
    (f'0,{pixels(0)},Test', "the usage should be one of Training, PublicTest, PrivateTest, found 'Test'"),
    (f'0,{pixels(0)} 1,Training', 'expected 2,304 pixels, found 2,305'),
    ('0,1 2 3,Training', 'expected 2,304 pixels, found 3'),
    ('0,,Training', 'expected 2,304 pixels, found 0'),
    (f'0,{pixels(0).replace(" ", " 300 ", 1).rpartition(" ")[0]},Training', "whole numbers from 0 to 255, found '300'"),
    (f'0,{pixels(0)}', 'expected 3 fields (emotion, pixels, usage), found 2'),
    (f'0,{pixels(0)},Training,1', 'expected 3 fields (emotion, pixels, usage), found 4'),
    (f'0,"{pixels(0)},Training', 'unexpected end of data'),
]


@pytest.mark.parametrize('line, expected', BAD_LINES)
def test_bad_lines_are_told_by_number(tmp_path, line, expected):
  write(tmp_path, {'fer2013.csv': table(line4=line)})
  rows, problems = reader.open_table(str(tmp_path))
  assert len(problems) == 1 and problems[0].startswith('fer2013.csv, line 4: ') and expected in problems[0]
  assert [row.name for row in rows] == [f'fer2013_{i:05d}.png' for i in range(len(ROWS)) if i != 2]
  builder = fer2013(data_dir=tmp_path / 'data', source=str(tmp_path))
  with pytest.raises(UserError) as e:
    builder.faces(str(tmp_path))
  assert expected in str(e.value) and '--strict=false' in str(e.value)


@pytest.mark.parametrize('files, expected', [
    ({'fer2013.csv': b''}, ['fer2013.csv has no row']),
    ({'fer2013.csv': b'emotion,pixels,Usage\n'}, ['fer2013.csv has no row']),
    ({'fer2013.csv': b'\x89PNG\xff\xfe'}, ['fer2013.csv cannot be read as UTF-8 text']),
    ({'fer2013.csv': table().partition(b'\n')[2]}, ['line 1: the header has no emotion, pixels, usage; found 0, ']),
    ({'fer2013.csv': b'emotion,pixels\n' + b'0,1\n'}, ['the header has no usage; found emotion, pixels']),
    ({'train.csv': b'emotion,pixels\n', 'test.csv': b'pixels\n'}, ['no fer2013.csv or icml', 'no Usage names']),
    ({'fer2013.tar.gz': b''}, ['found there: fer2013.tar.gz', 'to be unpacked']),
    (tree(), ['found there: test/, train/', 'choose --variant=folder']),
    ({'FER2013Train/label.csv': b'', 'FER2013Train/fer0000000.png': b''}, ['This is FERPlus', '--dataset=ferplus']),
    ({'a/fer2013.csv': table(), 'b/fer2013.csv': table()}, ['more than once', 'a/fer2013.csv', 'b/fer2013.csv']),
    ({'notes.txt': b''}, ['found there: notes.txt', 'To obtain it']),
])
@pytest.mark.parametrize('kind', ['f.zip', 'folder'])
def test_what_is_not_the_table(tmp_path, kind, files, expected):
  with pytest.raises(UserError) as e:
    reader.open_table(write(tmp_path / kind, files))
  for text in (*expected, kind):
    assert text in str(e.value)


def test_kaggles_train_csv_itself_is_refused(tmp_path):
  write(tmp_path, {'train.csv': b'emotion,pixels\n0,1 2 3\n'})
  with pytest.raises(UserError, match='train.csv, line 1: the header has no usage'):
    reader.open_table(str(tmp_path / 'train.csv'))


def test_wrong_paths_and_damaged_zips(tmp_path):
  for path, expected in ((None, 'To obtain it'), (str(tmp_path / 'none.csv'), 'does not exist')):
    with pytest.raises(UserError, match=expected):
      reader.open_table(path)
  whole = pathlib.Path(write(tmp_path / 'f.zip', {'fer2013.csv': table()})).read_bytes()
  (tmp_path / 'cut.zip').write_bytes(whole[:len(whole) // 2])
  with pytest.raises(UserError, match='neither a folder nor a zip file, or a damaged one'):
    reader.open_table(str(tmp_path / 'cut.zip'))
  (tmp_path / 'hurt.zip').write_bytes(whole.replace(b'Training', b'training', 1))
  with pytest.raises(UserError, match='hurt.zip/fer2013.csv cannot be read.*CRC'):
    reader.open_table(str(tmp_path / 'hurt.zip'))


# Votes.


def test_votes_are_joined_by_the_order_of_the_rows(tmp_path):
  rows, problems = reader.open_table(write(tmp_path, {'fer2013.csv': table(), 'fer2013new.csv': votes()}), votes=True)
  assert not problems and len(rows) == len(ROWS)
  assert reader.VOTES[:7] == reader.CLASSES
  for row, (_, given) in zip(rows, VOTES, strict=True):
    assert dict(zip(reader.VOTES, row.votes, strict=True)) == dict(zip(FERPLUS, given, strict=True))
  assert reader.open_table(str(tmp_path / 'fer2013.csv'), votes=True) == (
      [row._replace(image=row.image._replace(table=f'{tmp_path}/fer2013.csv')) for row in rows], [])


def test_agreement_leaves_ties_out(tmp_path):
  rows, _ = reader.open_table(write(tmp_path, {'fer2013.csv': table(), 'fer2013new.csv': votes()}), votes=True)
  # Of five rows of train one is tied; two say what the label does, one that it is no face, and one contempt.
  assert reader.agreement([row for row in rows if row.usage == 'Training']) == (2, 4)
  assert reader.agreement([]) == (0, 0)


@pytest.mark.parametrize('files, expected', [
    ({}, ['no fer2013new.csv, the votes of FERPlus', 'found there: fer2013.csv']),
    ({'fer2013new.csv': votes().rpartition(b'Priv')[0]}, ['same images in the same order', '8 and 7 rows']),
    ({'fer2013new.csv': votes(line6='PublicTest,,' + '1,' * 9 + '1')},
     ['line 6 of the first is Training and this row of the second PublicTest']),
    ({'fer2013new.csv': votes(line1='Usage,Image name,' + ','.join(FERPLUS[1:]))}, ['the header has no neutral']),
])
def test_votes_of_other_images(tmp_path, files, expected):
  with pytest.raises(UserError) as e:
    reader.open_table(write(tmp_path / 'folder', {'fer2013.csv': table(), **files}), votes=True)
  for text in expected:
    assert text in str(e.value)


@pytest.mark.parametrize('line, expected', [
    ('Training,x.png,1,2', 'expected 12 fields'),
    ('Training,x.png,' + 'x,' * 9 + '1', "the votes should be 10 whole numbers, found 'x'"),
    ('Training,x.png,' + '-1,' * 9 + '1', "found '-1'"),
    ('Train,x.png,' + '1,' * 9 + '1', "the usage should be one of"),
])
def test_bad_lines_of_votes_leave_their_rows_out(tmp_path, line, expected):
  write(tmp_path, {'fer2013.csv': table(line3='0,1,Training'), 'fer2013new.csv': votes(line5=line)})
  rows, problems = reader.open_table(str(tmp_path), votes=True)
  assert problems[0].startswith('fer2013.csv, line 3: ')
  assert problems[1].startswith('fer2013new.csv, line 5: ') and expected in problems[1]
  assert [int(row.name[8:13]) for row in rows] == [0, 2, 4, 5, 6, 7]


# Folders of images.


def test_folders_tell_valid_by_names(tmp_path):
  faces = reader.open_folders(write(tmp_path / 'f.zip', {f'archive/{name}': file for name, file in tree().items()}))
  assert {split: sorted(folders) for split, folders in faces.splits.items()} == {
      split: sorted(FOLDERS.values()) for split in ('train', 'valid', 'test')}
  assert list(faces.splits['valid']['happy']) == ['test/happy/PublicTest_3.jpg']
  assert list(faces.splits['test']['happy']) == ['test/happy/PrivateTest_3.jpg']
  plain = reader.open_folders(write(tmp_path / 'plain', tree(('im', 'p'))))
  assert list(plain.splits) == ['train', 'test'] and len(plain.splits['test']['sad']) == 2
  own = reader.open_folders(write(tmp_path / 'own', tree(('',)) | {f'val/{name}/v.jpg': b'' for name in FOLDERS}))
  assert list(own.splits) == ['train', 'valid', 'test']


def without(part):
  return {name: file for name, file in tree().items() if part not in name}


@pytest.mark.parametrize('files, expected', [
    (without('test/'), ['test has no folder with images of anger']),
    (without('train/'), ['train has no folder with images of anger']),
    (without('/sad/'), ['train has no folder with images of sadness', 'surprise']),
    (tree(('PublicTest_', 'x')), ['called PublicTest_ or PrivateTest_ and 7 are not', 'test/angry/x0.jpg']),
    (tree() | {'train/stray.jpg': jpeg(0)}, ['in no class', 'train/stray.jpg']),
    ({'fer2013.csv': table()}, ['as a csv file', 'without --variant=folder']),
    ({'FER2013Train/label.csv': b'', 'FER2013Train/a.png': b''}, ['This is FERPlus']),
    ({'a.txt': b''}, ['found there: a.txt', 'train/angry/*.jpg']),
])
def test_what_is_not_the_folders(tmp_path, files, expected):
  with pytest.raises(UserError) as e:
    reader.open_folders(write(tmp_path / 'folder', files))
  for text in expected:
    assert text in str(e.value)


def test_an_unknown_class_folder_is_told(tmp_path):
  builder = fer2013(data_dir=tmp_path / 'data', config='folder')
  with pytest.raises(UserError) as e:
    builder.faces(write(tmp_path / 'folder', tree() | {'test/contempt/PublicTest_9.jpg': jpeg(0)}))
  assert 'valid: contempt (1 image(s))' in str(e.value) and 'classes are anger, disgust' in str(e.value)


# Prepared data.


def test_counts_are_those_of_the_official_data(tmp_path):
  assert [sum(fer2013.COUNTS['default'][split]) for split in ('train', 'valid', 'test')] == [28709, 3589, 3589]
  assert sum(fer2013.COUNTS['folder']['test']) == 7178
  with pytest.raises(UserError) as e:
    build(tmp_path, {'fer2013.csv': table()}, check_counts=True)
  for text in ('train: found 5, expected 28,709', 'valid: found 2, expected 3,589', 'test: found 1', 'anger'):
    assert text in str(e.value)
  for prefixes, expected in ((('PublicTest_', 'PrivateTest_'), 'valid: found 7, expected 3,589'),
                             (('a', 'b'), 'test: found 14, expected 7,178')):
    builder = fer2013(data_dir=tmp_path / prefixes[0], config='folder', file_format='array_record',
                      source=write(tmp_path / f'{prefixes[0]}.zip', tree(prefixes)))
    with pytest.raises(UserError, match=expected):
      builder.download_and_prepare()
  assert not list((tmp_path / 'data').rglob('contents.json'))


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  return build(tmp_path_factory.mktemp('Gesichter-ß'), {'fer2013.csv': table(), 'fer2013new.csv': votes()}, 'votes')


def test_records(built):
  found = {split: records(built, split) for split in ('train', 'valid', 'test')}
  assert {split: sorted(held) for split, held in found.items()} == {
      'train': [f'fer2013_0000{i}.png' for i in range(5)], 'valid': ['fer2013_00005.png', 'fer2013_00006.png'],
      'test': ['fer2013_00007.png']}
  for name, record in (found['train'] | found['valid'] | found['test']).items():
    row = int(name[8:13])
    assert record['label'] == ROWS[row][0]
    np.testing.assert_array_equal(decoded(record), GREYS[row])
    assert record['votes'].dtype == np.int32
    assert dict(zip(reader.VOTES, record['votes'], strict=True)) == dict(zip(FERPLUS, VOTES[row][1], strict=True))
    assert record['landmarks'].shape == (68, 2) and np.isfinite(record['landmarks']).all()
  summary = preparation.summary(built)
  assert 'train: the label has the most of the ten votes for 2 of 4 images' in summary
  assert 'valid: the label has the most of the ten votes for 2 of 2 images' in summary


def test_votes_as_targets_are_in_the_order_of_the_classes(built):
  data_dir = str(built.data_dir_root)
  split = splits.open_split('fer2013', 'votes', 'train', data_dir, target='votes')
  assert split.classes == fer2013.CLASSES
  target = {name: split.example(row)['target'] for row, name in enumerate(split.names)}
  np.testing.assert_allclose(target['fer2013_00000.png'], [.8, .2, 0, 0, 0, 0, 0], atol=1e-6)
  np.testing.assert_allclose(target['fer2013_00002.png'], [0, 0, 7 / 9, 0, 0, 2 / 9, 0], atol=1e-6)
  assert not target['fer2013_00001.png'].any()
  some = splits.open_split('fer2013', 'votes', 'train', data_dir, target='votes', classes=('fear', 'anger'))
  np.testing.assert_allclose([some.example(some.names.index(f'fer2013_0000{i}.png'))['target'] for i in (0, 2)],
                             [[0, 1], [1, 0]])


def test_bad_lines_are_left_out_if_wanted(tmp_path):
  files = {'fer2013.csv': table(line4='3,1 2 3,Training')}
  with pytest.raises(UserError, match='line 4: expected 2,304 pixels, found 3'):
    build(tmp_path, files)
  assert not list((tmp_path / 'data').rglob('contents.json'))
  pytest.importorskip('dlib', reason='landmarks need dlib')
  builder = build(tmp_path, files, strict=False)
  assert sorted(records(builder, 'train')) == [f'fer2013_0000{i}.png' for i in (0, 1, 3, 4)]
  assert (builder.data_path / 'skipped.txt').read_text() == 'fer2013.csv, line 4: expected 2,304 pixels, found 3\n'
  assert builder.contents()['skipped'] == 1 and 'votes' not in builder.info.features


@pytest.mark.parametrize('hurt, reason', [(jpeg(0)[:400], 'truncated'), (b'', 'empty file'), (b'text', 'not an image')])
def test_folders_with_a_bad_image(tmp_path, hurt, reason):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  files = tree() | {'train/sad/Training_4.jpg': hurt, 'train/sad/glücklich.jpg': jpeg(7)}
  with pytest.raises(UserError, match=f'train/sad/Training_4.jpg: .*{reason}'):
    build(tmp_path, files, 'folder')
  assert not list((tmp_path / 'data').rglob('contents.json'))
  builder = build(tmp_path, files, 'folder', strict=False)
  assert builder.contents()['skipped'] == 1
  assert 'train/sad/Training_4.jpg' in (builder.data_path / 'skipped.txt').read_text()
  assert [(split, info.num_examples) for split, info in builder.info.splits.items()] == [
      ('train', 7), ('valid', 7), ('test', 7)]
  train = records(builder, 'train')
  assert train['train/sad/glücklich.jpg']['label'] == 4
  assert train['train/sad/glücklich.jpg']['image'] == jpeg(7)  # The file as distributed, byte for byte.
  assert records(builder, 'valid')['test/neutral/PublicTest_6.jpg']['label'] == 6


@pytest.mark.parametrize('name', ['fer2013', 'icml_face_data'])
def test_samples(name):
  path = SAMPLES / f'{name}.sample.csv'
  if not path.exists():
    pytest.skip(f'there are no samples at {SAMPLES}')
  rows, problems = reader.open_table(str(path))
  assert not problems
  assert [(row.label, row.usage) for row in rows] == [(0, 'Training'), (3, 'PublicTest'), (6, 'PrivateTest')]
  assert list(rows[0].image.values[:4]) == [0, 2, 4, 6]


def test_real_votes(tmp_path):
  if not REAL.exists():
    pytest.skip(f'the real data are not at {REAL}')
  with zipfile.ZipFile(REAL) as archive:
    (tmp_path / 'fer2013new.csv').write_bytes(archive.read('fer2013new.csv'))
  # Images are none of the votes' business: one stands for all.
  usages = [usage for usage, split in reader.SPLITS.items() for _ in range(sum(fer2013.COUNTS['votes'][split]))]
  (tmp_path / 'fer2013.csv').write_text('emotion,pixels,Usage\n' + ''.join(f'0,1 2,{usage}\n' for usage in usages))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(reader, '_pixels', lambda text: b'')
    rows, problems = reader.open_table(str(tmp_path), votes=True)
  assert not problems and len(rows) == 35887
  # All votes are NF where a row has no name, and there are 173 such rows.
  assert rows[0].votes == (3, 2, 0, 0, 1, 0, 4, 0, 0, 0)
  assert sum(row.votes[-1] == 10 for row in rows) >= 173
