"""RAF-DB: both variants end to end on drawn faces, every layout, what must fail, and the lists of RAN."""

import functools
import io
import pathlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest

from fer_jax.data import face
from fer_jax.data.builders.rafdb import files as reader
from fer_jax.data.builders.rafdb import rafdb
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.preparing import preparation
from fer_jax.data.reading import subsets
from fer_jax.errors import UserError
from fer_jax.landmarks import align
from tests import trees
from tests.trees import records, write

SHARED = pathlib.Path(__file__).resolve().parents[4] / 'shared' / 'data'

TABLE = 'EmoLabel/list_patition_label.txt'
LABELS = {'train_00001': 1, 'train_00002': 2, 'train_00003': 4, 'train_00004': 7, 'test_0001': 5, 'test_0002': 3}
SIZE = 72
CORNER = 20, 12  # Of the face in the original image: x, y.
BOX = 20, 12, 92, 84


def jpeg(image):
  file = io.BytesIO()
  PIL.Image.fromarray(image).save(file, 'JPEG')
  return file.getvalue()


FACES = {stem: draw_face(np.random.default_rng(i), 'neutral', SIZE) for i, stem in enumerate(LABELS)}
ALIGNED = {stem: jpeg(drawn.image) for stem, drawn in FACES.items()}
ORIGINAL = {stem: jpeg(np.pad(drawn.image, ((12, 16), (20, 8), (0, 0)))) for stem, drawn in FACES.items()}
POINTS = {stem: align.five_points(drawn.landmarks) + CORNER for stem, drawn in FACES.items()}


def attributes(points, *codes):
  return ''.join([*(f'{x:.3f}\t{y:.3f}\n' for x, y in points), *(f'{code}\n' for code in codes)]).encode()


def tree(images=('aligned', 'original'), annotations=('boundingbox', 'manual')):
  """File names and contents of a tiny RAF-DB."""
  files = {TABLE: '\n'.join(f'{stem}.jpg {label}' for stem, label in LABELS.items()).encode()}  # As official: no end.
  for stem in LABELS:
    files[f'Image/aligned/{stem}_aligned.jpg'] = ALIGNED[stem]
    files[f'Image/original/{stem}.jpg'] = ORIGINAL[stem]
    files[f'Annotation/boundingbox/{stem}_boundingbox.txt'] = b'20 12 92 84 \n'
    files[f'Annotation/manual/{stem}_manu_attri.txt'] = attributes(POINTS[stem], 1, 0, 2)
  folders = ('EmoLabel', *(f'Image/{name}' for name in images), *(f'Annotation/{name}' for name in annotations))
  return {name: content for name, content in files.items() if name.startswith(folders)}


def broken(changes, files=None):
  """The tree with files replaced, added or (None) removed."""
  files = (tree() if files is None else files) | changes
  return {name: content for name, content in files.items() if content is not None}


def lines(*rows):
  """The tree with this list."""
  return broken({TABLE: '\n'.join(rows).encode()})


build = functools.partial(trees.build, 'rafdb', kind='files.zip')


# Prepared data.


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  return build(tmp_path_factory.mktemp('aligned'), broken({'Annotation/manual/test_0001_manu_attri.txt': None}))


@pytest.fixture(scope='module')
def built_original(tmp_path_factory):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  return build(tmp_path_factory.mktemp('original'), tree(), 'original')


def test_aligned_records(built):
  assert built.builder_config.name == 'aligned'
  assert built.info.features['label'].names == ['surprise', 'fear', 'disgust', 'happiness', 'sadness', 'anger',
                                                'neutral']
  assert all(face.canonical(name) == name for name in reader.CLASSES)
  train, test = records(built, 'train'), records(built, 'test')
  assert {name: record['label'] for name, record in train.items()} == {
      'train_00001_aligned.jpg': 0, 'train_00002_aligned.jpg': 1, 'train_00003_aligned.jpg': 3,
      'train_00004_aligned.jpg': 6}
  assert {name: record['label'] for name, record in test.items()} == {
      'test_0001_aligned.jpg': 4, 'test_0002_aligned.jpg': 2}
  for name, record in (train | test).items():
    stem = name.removesuffix('_aligned.jpg')
    assert record['image'] == ALIGNED[stem]  # The file as distributed, byte for byte.
    assert np.abs(record['landmarks'] - FACES[stem].landmarks).mean() < 6
    codes = (-1, -1, -1) if stem == 'test_0001' else (1, 0, 2)
    assert (record['gender'], record['race'], record['age']) == codes
  assert not (built.data_path / 'skipped.txt').exists()
  assert any('1 face(s) have no manual points' in note and 'test_0001_manu_attri.txt' in note
             for note in built.contents()['notes'])
  assert 'Digest' in preparation.summary(built)


def test_original_records_are_cut_to_the_box(built_original):
  train = records(built_original, 'train')
  assert set(train) == {f'{stem}_aligned.jpg' for stem in LABELS if stem.startswith('train')}
  for name, record in train.items():
    stem = name.removesuffix('_aligned.jpg')
    image = np.asarray(PIL.Image.open(io.BytesIO(record['image'])))
    assert image.shape == (SIZE, SIZE, 3)
    assert np.abs(image.astype(int) - FACES[stem].image).mean() < 8
    assert np.abs(record['landmarks'] - FACES[stem].landmarks).mean() < 6
    assert (record['gender'], record['race'], record['age']) == (1, 0, 2)
  assert not any('photos' in note or 'points' in note for note in built_original.contents()['notes'])


@pytest.mark.parametrize('name', ['built', 'built_original'])
def test_lists_of_ran_fit_both_variants(tmp_path, request, name):
  """Their labels are one less than RAF-DB's, which is the index of the class."""
  test = records(request.getfixturevalue(name), 'test')
  names, labels = list(test), np.array([record['label'] for record in test.values()])
  for text in ('test_0001_aligned 4 3\r\ntest_0002_aligned 2 1', '4/test_0001_aligned.jpg\n2/test_0002_aligned.jpg\n'):
    (tmp_path / 'list.txt').write_text(text)
    found = subsets.match(subsets.read_list(tmp_path / 'list.txt'), names, labels)
    assert found.mask.all() and (found.listed, found.unmatched, found.disagreeing) == (2, 0, 0)


def test_alignment_is_by_the_manual_points(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  shifted = POINTS['train_00001'] + (9, 0)  # Not where a detector would find them.
  files = broken({'Annotation/manual/train_00001_manu_attri.txt': attributes(shifted, 0, 0, 0)})
  train = records(build(tmp_path, files, 'original-similarity48'), 'train')
  for stem, points in (('train_00001', shifted), ('train_00002', POINTS['train_00002'])):
    photo = np.asarray(PIL.Image.open(io.BytesIO(ORIGINAL[stem])))
    expected = align.warp(photo, align.similarity(np.round(points, 3), 48), 48)
    assert train[f'{stem}_aligned.jpg']['image'] == face.jpeg(expected).getvalue()


@pytest.mark.parametrize('variant', list(reader.VARIANTS))
def test_points_and_boxes_are_of_the_original_photos_alone(tmp_path, variant):
  builder = rafdb(data_dir=tmp_path, config=variant, file_format='array_record')
  faces = builder.faces(write(tmp_path / 'f.zip', tree()))
  assert {split: len(listed) for split, listed in faces.items()} == {'train': 4, 'test': 2}
  for listed in (*faces['train'], *faces['test']):
    assert (listed.points is not None) == (listed.box is not None) == (variant == 'original')
    assert listed.landmarks is None


def test_without_annotations_photos_are_whole_and_codes_unknown(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  builder = build(tmp_path, tree(annotations=()), 'original')
  record = records(builder, 'test')['test_0002_aligned.jpg']
  assert record['image'] == ORIGINAL['test_0002']
  assert (record['gender'], record['race'], record['age']) == (-1, -1, -1)
  notes = ' '.join(builder.contents()['notes'])
  assert 'boundingbox is not there: images are whole photos' in notes and '6 face(s) have no manual points' in notes


@pytest.mark.parametrize('content, reason', [
    (b'', 'empty file'), (ALIGNED['test_0001'][:900], 'truncated'), (b'this is no picture', 'not an image')])
def test_bad_images(tmp_path, content, reason):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  files = broken({'Image/aligned/test_0001_aligned.jpg': content})
  with pytest.raises(UserError, match=f'test_0001_aligned.jpg: .*{reason}'):
    build(tmp_path, files)
  assert not list((tmp_path / 'data').glob('rafdb/aligned/1*'))
  builder = build(tmp_path, files, strict=False)
  assert set(records(builder, 'test')) == {'test_0002_aligned.jpg'}
  skipped = (builder.data_path / 'skipped.txt').read_text().splitlines()
  assert len(skipped) == 1 and 'test_0001_aligned.jpg: ' in skipped[0] and reason in skipped[0]


def test_bad_lines_are_left_out_named_and_counted(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  files = lines('train_00001.jpg 1', 'train_00002.jpg 8', 'test_0001.jpg', 'test_0002.jpg 3', 'test_0009.jpg 3')
  with pytest.raises(UserError, match=r'lines that cannot be used \(3\):(.|\n)*--strict=false'):
    build(tmp_path, files)
  builder = build(tmp_path, files, strict=False)
  assert set(records(builder, 'train')) == {'train_00001_aligned.jpg'}
  skipped = (builder.data_path / 'skipped.txt').read_text().splitlines()
  assert [line.split(':')[0] for line in skipped] == ['line 2', 'line 3', 'line 5']
  assert 'Left out 3' in preparation.summary(builder)


def test_names_and_paths_beyond_ascii(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  files = {TABLE: 'train_Жё.jpg 1\ntest_é.jpg 7\n'.encode(),
           'Image/aligned/train_Жё_aligned.jpg': ALIGNED['train_00001'],
           'Image/aligned/test_é_aligned.jpg': ALIGNED['test_0001']}
  for name in ('Gesichter-ä.zip', '顔'):
    (tmp_path / name[0]).mkdir()
    builder = build(tmp_path / name[0], {}, source=write(tmp_path / name, files, 'données/'))
    assert set(records(builder, 'train')) == {'train_Жё_aligned.jpg'}
    assert set(records(builder, 'test')) == {'test_é_aligned.jpg'}


# Layouts.


@pytest.mark.parametrize('file, level', [
    ('f.zip', ''), ('f.zip', 'basic/'), ('folder', ''), ('folder', 'basic'), ('folder', 'RAF-DB/basic')])
@pytest.mark.parametrize('variant', list(reader.VARIANTS))
def test_accepted_layouts(tmp_path, file, level, variant):
  found = reader.open_files(write(tmp_path / file, tree(), level), variant)
  assert [(row.name.removesuffix('_aligned.jpg'), row.label + 1) for row in found.faces] == list(LABELS.items())
  assert not found.problems and not found.notes
  images, box = (ALIGNED, None) if variant == 'aligned' else (ORIGINAL, BOX)
  for row in found.faces:
    stem = row.name.removesuffix('_aligned.jpg')
    assert row.file.read() == images[stem] and row.box == box
    if variant == 'original':
      np.testing.assert_allclose(row.points, POINTS[stem], atol=1e-3)
    assert row.extra == {'gender': 1, 'race': 0, 'age': 2}


def test_lists_of_other_editors_and_spellings(tmp_path):
  """Line ends, a byte-order mark, tabs, a blank line, the misspelling mended, folders one deeper, the compound set."""
  files = {name.replace('Image/aligned/', 'Image/aligned/aligned/'): content for name, content in tree().items()}
  text = '\ufeff' + ''.join(f'{stem}.jpg\t{label}\r\n' for stem, label in LABELS.items()) + '\r\n'
  files = broken({TABLE: None, 'EmoLabel/list_partition_label.txt': text.encode()}, files)
  files = {f'basic/{name}': content for name, content in files.items()} | {f'compound/{TABLE}': b'train_0001.jpg 11'}
  found = reader.open_files(write(tmp_path / 'f.zip', files), 'aligned')
  assert [row.name.removesuffix('_aligned.jpg') for row in found.faces] == list(LABELS) and not found.problems


def test_points_begin_at_the_images_left(tmp_path):
  turned = POINTS['train_00001'][:, ::-1] * (1, -1) + (0, 200)  # By a quarter.
  mirrored = POINTS['train_00001'][[1, 0, 2, 4, 3]]  # The subject's left first.
  files = broken({'Annotation/manual/train_00001_manu_attri.txt': attributes(mirrored, 0, 0, 0),
                  'Annotation/manual/train_00002_manu_attri.txt': attributes(turned, 0, 0, 0)})
  first, second, *_ = reader.open_files(write(tmp_path / 'f.zip', files), 'original').faces
  np.testing.assert_allclose(first.points, POINTS['train_00001'], atol=1e-3)
  np.testing.assert_allclose(second.points, turned, atol=1e-3)


def test_images_without_a_line_are_told(tmp_path):
  files = broken({'Image/aligned/test_0099_aligned.jpg': b'', 'Image/aligned/Thumbs.db': b''})
  found = reader.open_files(write(tmp_path / 'f.zip', files), 'aligned')
  assert len(found.faces) == 6 and len(found.notes) == 1
  assert '1 image(s)' in found.notes[0] and 'test_0099' in found.notes[0]


@pytest.mark.parametrize('files, variant, expected', [
    (broken({TABLE: None}), 'aligned', ['no EmoLabel/list_patition_label.txt', 'found there: Annotation/, Image/',
                                        'whdeng.cn']),
    (tree(images=('original',)), 'aligned', ['Image/aligned has no images *_aligned.jpg', '--variant=original']),
    (tree(images=()), 'original', ['Image/original has no images *.jpg', 'original.zip']),
    (broken({'Image/aligned.zip': b''}, tree(images=())), 'aligned', ['Image/aligned.zip is still packed',
                                                                     'Image/aligned/train_00001_aligned.jpg']),
    (broken({'Image/aligned/aligned.zip': b''}, tree(images=())), 'aligned', ['aligned.zip is still packed']),
    (broken({'Annotation/boundingbox.zip': b''}, tree(annotations=())), 'original',
     ['boundingbox.zip is still packed', 'Annotation/boundingbox/train_00001_boundingbox.txt']),
    ({'DATASET/train/1/a.jpg': b'', 'DATASET/test/7/b.jpg': b'', 'train_labels.csv': b''}, 'aligned',
     ['sorted into folders', '--dataset=faces_folder', '/DATASET --classes=1:surprise,2:fear,3:disgust,4:happiness,'
      '5:sadness,6:anger,7:neutral']),
    (tree() | {f'copy/{TABLE}': b''}, 'aligned', ['more than once']),
    (broken({TABLE: b'\n'}), 'aligned', [f'{TABLE} lists no image']),
    (broken({TABLE: b'train_\xff.jpg 1'}), 'aligned', [f'{TABLE} cannot be read as UTF-8']),
])
@pytest.mark.parametrize('kind', ['f.zip', 'folder'])
def test_broken_sources_are_told(tmp_path, kind, files, variant, expected):
  with pytest.raises(UserError) as e:
    reader.open_files(write(tmp_path / kind, files), variant)
  for text in (*expected, kind):
    assert text in str(e.value)


def test_wrong_paths(tmp_path):
  truncated = pathlib.Path(write(tmp_path / 'truncated.zip', tree()))
  truncated.write_bytes(truncated.read_bytes()[:-2000])
  for path, expected in ((None, 'To obtain it'), (tmp_path / 'none', 'does not exist'),
                         (truncated, 'neither a folder nor a zip')):
    with pytest.raises(UserError, match=expected):
      reader.open_files(path and str(path), 'aligned')


GOOD = 'train_00001.jpg 1'
MANUAL = 'Annotation/manual/train_00001_manu_attri.txt'
FACE_BOX = 'Annotation/boundingbox/train_00001_boundingbox.txt'


@pytest.mark.parametrize('files, expected', [
    (lines(GOOD, 'train_00002.jpg 1 1'), 'line 2: expected 2 fields (name, label), found 3'),
    (lines(GOOD, 'train_00002.jpg'), 'line 2: expected 2 fields (name, label), found 1'),
    (lines('train_00001.jpg 0'), "line 1: a label of the basic set should be 1 to 7, found '0'"),
    (lines('train_00001.jpg 11'), "should be 1 to 7, found '11'"),
    (lines('train_00001.jpg happy'), "should be 1 to 7, found 'happy'"),
    (lines('valid_00001.jpg 1'), "a name should be such as train_00001.jpg or test_0001.jpg, found 'valid_00001.jpg'"),
    (lines('train_00001.png 1'), "found 'train_00001.png'"),
    (lines(GOOD, 'test_0001.jpg 2', GOOD), 'line 3: train_00001.jpg is already in line 1'),
    (broken({'Image/original/train_00001.jpg': None}), 'line 1: train_00001.jpg is not in'),
    (broken({FACE_BOX: None}), 'line 1: train_00001_boundingbox.txt is not in'),
    (broken({FACE_BOX: b'1 2 3'}), "expected 4 numbers (left, top, right, bottom), found '1 2 3'"),
    (broken({FACE_BOX: b'1 2 3 x'}), "found '1 2 3 x'"),
    (broken({FACE_BOX: b'1 2 3 nan'}), "found '1 2 3 nan'"),
    (broken({FACE_BOX: b''}), "found ''"),
    (broken({FACE_BOX: b'30 2 20 40'}), 'the face box (30.0, 2.0, 20.0, 40.0) is empty'),
    (broken({MANUAL: attributes(POINTS['train_00001'], 1, 0)}), 'expected 13 numbers'),
    (broken({MANUAL: attributes(POINTS['train_00001'], 3, 0, 0)}), 'the gender should be 0 to 2, found 3'),
    (broken({MANUAL: attributes(POINTS['train_00001'], 0, -1, 0)}), 'the race should be 0 to 2, found -1'),
    (broken({MANUAL: attributes(POINTS['train_00001'], 0, 0, 1.5)}), 'the age should be 0 to 4, found 1.5'),
])
def test_problems_of_single_lines(tmp_path, files, expected):
  found = reader.open_files(write(tmp_path / 'f.zip', files), 'original')
  assert len(found.problems) == 1 and expected in found.problems[0]
  assert found.table.endswith(f'f.zip/{TABLE}')


def test_a_damaged_annotation_in_a_zip(tmp_path):
  path = pathlib.Path(write(tmp_path / 'f.zip', tree()))
  path.write_bytes(path.read_bytes().replace(b'20 12 92 84', b'20 12 92 85', 1))
  found = reader.open_files(str(path), 'original')
  assert len(found.problems) == 1 and 'train_00001_boundingbox.txt: unreadable (Bad CRC' in found.problems[0]


@hypothesis.given(st.lists(st.tuples(st.sampled_from(sorted(LABELS)), st.integers(-1, 9)), max_size=12))
@hypothesis.settings(max_examples=50, deadline=None)
def test_every_line_is_a_row_or_a_problem(tmp_path_factory, rows):
  files = lines(GOOD, *(f'{stem}.jpg {label}' for stem, label in rows))
  found = reader.open_files(write(tmp_path_factory.mktemp('f') / 'f.zip', files), 'aligned')
  assert len(found.faces) + len(found.problems) == len(rows) + 1
  expected, seen = [], set()
  for stem, label in [('train_00001', 1), *rows]:
    if 1 <= label <= 7 and stem not in seen:
      expected.append((stem, label - 1))
      seen.add(stem)
  assert [(row.name.removesuffix('_aligned.jpg'), row.label) for row in found.faces] == expected


# Counts.


def test_counts_are_asserted_class_by_class(tmp_path):
  for variant in reader.VARIANTS:
    with pytest.raises(UserError) as e:
      build(tmp_path, tree(), variant, check_counts=True)
    for text in ('train: found 4, expected 12,271', 'fear 1 for 281', 'test: found 2, expected 3,068',
                 'neutral 0 for 680', '--nocheck_counts'):
      assert text in str(e.value)


def test_a_split_that_is_missing_is_told(tmp_path):
  with pytest.raises(UserError, match='test: found 0, expected 3,068'):
    build(tmp_path, lines(GOOD), check_counts=True)


# The samples of the format and the lists of RAN, where they are at hand.


@pytest.mark.skipif(not (SHARED / 'formats').is_dir(), reason='needs the samples of the formats')
def test_samples_of_the_format(tmp_path):
  samples = SHARED / 'formats' / 'rafdb' / 'basic'
  files = {str(path.relative_to(samples)): path.read_bytes() for path in samples.rglob('*.txt')}
  stems = [line.split('.')[0] for line in files[TABLE].decode().splitlines()]
  files |= {f'Image/aligned/{stem}_aligned.jpg': b'' for stem in stems}
  found = reader.open_files(write(tmp_path / 'f.zip', files), 'aligned')
  assert [row.label for row in found.faces] == [0, 1, 2, 3, 4, 5, 6, 3, 6, 5, 4, 3, 2, 1, 0] and not found.problems
  assert tuple(found.faces[0].extra.values()) == (1, 0, 2)
  files = {name.replace('aligned', 'original').replace('_original', ''): content for name, content in files.items()}
  found = reader.open_files(write(tmp_path / 'g.zip', files), 'original')
  assert found.faces[0].points.tolist()[:2] == [[181.25, 212.5], [291.75, 209.0]]
  assert found.faces[0].box == (140.5, 150.25, 332.75, 395) and len(found.problems) == 14


@pytest.mark.skipif(not (SHARED / 'ran_lists').is_dir(), reason='needs the lists of RAN')
@pytest.mark.parametrize('name, unique', [('occlusion', 734), ('pose30', 1247), ('pose45', 558)])
def test_the_lists_of_ran_name_faces_of_the_test_split(name, unique):
  names = [f'test_{i:04}_aligned.jpg' for i in range(1, 3069)]
  found = subsets.match(subsets.read_list(SHARED / 'ran_lists' / f'rafdb_{name}.txt'), names, np.full(3068, -1))
  assert found.mask.sum() == unique and found.unmatched == 0
