"""Folders of labelled faces: whose order the classes have, what is read back without it, and what must fail."""

import pathlib
import re

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from fer_jax.data import face
from fer_jax.data.builders.faces_folder import faces_folder
from fer_jax.data.builders.faces_folder import files as reader
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.preparing import preparation
from fer_jax.data.reading import splits
from fer_jax.errors import UserError
from tests import trees
from tests.trees import write

IMAGES = [draw_face(np.random.default_rng(i), 'neutral', 48).image for i in range(4)]


def png(seed=0):
  return face.png(IMAGES[seed % len(IMAGES)]).getvalue()


def jpeg(seed=0):
  return face.jpeg(IMAGES[seed % len(IMAGES)]).getvalue()


# 'staunend' is no name of an expression that is known here.
CLASSES = ('surprised', 'Happy', 'müde', 'staunend:fear')


def tree():
  """A folder in which every split is called otherwise, val lacks a class, and some files are no images."""
  return {
      'train/Happy/1.png': png(0), 'train/Happy/below/1.JPG': jpeg(1), 'train/müde/größe 1.png': png(2),
      'train/surprised/a.png': png(3), 'train/staunend/1.png': png(1), 'train/staunend/.hidden.png': b'',
      'train/Happy/notes.txt': b'text', 'Validation/Happy/1.png': png(2), 'Validation/surprised/1.png': png(1),
      'Validation/staunend/1.png': png(1), 'test/müde/1.png': png(3), 'test/Happy/1.png': png(0),
      'test/surprised/b.png': png(0), 'test/staunend/1.png': png(2), 'readme.md': b'text',
  }


def changed(**changes):
  """The tree with files added or (None) removed; __ stands for / and names lack their .png."""
  files = tree() | {f'{name.replace("__", "/")}.png': content for name, content in changes.items()}
  return {name: content for name, content in files.items() if content is not None}


def build(tmp_path, files, classes=CLASSES, variant=None, **options):
  return trees.build('faces_folder', tmp_path, files, variant, classes=classes, **options)


def records(builder, split):
  return trees.records(builder, split, encoded=('image', 'landmark_heatmap'))


def fails(tmp_path, files, *expected, **options):
  """Preparing fails with a message that has all of these texts, and leaves no data."""
  with pytest.raises(UserError) as e:
    build(tmp_path, files, **options)
  for text in expected:
    assert text in str(e.value), str(e.value)
  assert not list((tmp_path / 'data').rglob('contents.json'))


@pytest.mark.parametrize('path, level', [
    ('f.zip', ''), ('f.zip', 'archive/images/'), ('folder', ''), ('ordner-ü', 'x/')])
def test_accepted_layouts(tmp_path, path, level):
  faces = reader.open_files(write(tmp_path / path, {level + name: file for name, file in tree().items()}))
  assert list(faces.splits) == ['train', 'valid', 'test']
  assert list(faces.splits['train']) == ['Happy', 'müde', 'staunend', 'surprised']
  assert list(faces.splits['train']['Happy']) == ['train/Happy/1.png', 'train/Happy/below/1.JPG']
  assert faces.splits['train']['Happy']['train/Happy/below/1.JPG'].read() == jpeg(1)
  assert list(faces.splits['valid']['Happy']) == ['Validation/Happy/1.png']
  hidden, note = faces.notes
  assert '1 image(s) or folder(s)' in hidden and 'train/staunend/.hidden.png' in hidden
  assert '1 file(s)' in note and '(1 .txt), e.g. Happy/notes.txt' in note


@pytest.mark.parametrize('name', ['val', 'valid', 'validation', 'VAL'])
def test_names_of_the_validation_split(tmp_path, name):
  assert list(reader.open_files(write(tmp_path, {f'{name}/a/1.bmp': b'', 'test/a/1.webp': b''})).splits) == [
      'valid', 'test']


def test_images_outside_of_the_splits_are_ignored_and_told(tmp_path):
  faces = reader.open_files(write(tmp_path, {'train/a/1.png': b'', 'cover.png': b'', 'testing/a/1.png': b''}))
  assert faces.notes == ['2 image(s) outside of the folders of the splits were ignored, e.g. cover.png']


# The order of the classes.


@hypothesis.given(st.permutations(face.EXPRESSIONS), st.data())
@hypothesis.settings(max_examples=100, deadline=None)
def test_the_order_is_the_one_given_whatever_the_folders_are_called(order, data):
  folders = [data.draw(st.sampled_from([name, f' {name.upper()} ', *face._SYNONYMS[name]])) for name in order]
  assert list(reader.read_classes(folders).values()) == list(order)
  assert list(reader.read_classes(folders)) == [folder.strip() for folder in folders]
  numbered = reader.read_classes([f'{i}:{folder}' for i, folder in enumerate(folders)])
  assert numbered == {str(i): name for i, name in enumerate(order)}


def test_other_names_are_kept():
  assert reader.read_classes(['Pain', '3:joy', 'a:b:müde', 'sad']) == {
      'Pain': 'Pain', '3': 'happiness', 'a:b': 'müde', 'sad': 'sadness'}


@pytest.mark.parametrize('classes, expected', [
    (['happy', 'joy', 'sad'], 'the folders happy and joy are both happiness'),
    (['0:EXPRESSION', '1:EXPRESSION'], 'the folders 0 and 1 are both EXPRESSION'),
    (['happy', 'happy:fear'], 'the folder happy is named twice'),
    (['happy', ' '], "' ' names no class"),
    (['happy', '1:'], "'1:' names no class"),
])
def test_classes_that_cannot_be(tmp_path, classes, expected):
  with pytest.raises(UserError, match=expected):
    preparation.make_builder('faces_folder', None, str(tmp_path), classes=classes)


@pytest.mark.parametrize('folders, expected', [
    (['surprise', 'Happy', 'anger', 'müde'], ["'--classes=Happy,surprise,anger,müde'", 'the order that you want']),
    (['sad', 'neutral'], ['\n  --classes=neutral,sad']),
    (['10', '9', '0'], ['--classes=0:EXPRESSION,9:EXPRESSION,10:EXPRESSION', 'only the owner of the images knows']),
])
def test_without_classes_the_folders_are_listed_with_a_line_to_copy(tmp_path, folders, expected):
  files = {f'train/{folder}/1.png': png() for folder in folders}
  fails(tmp_path, files, 'needs --classes', *folders, *expected, classes=None)


# What must fail.


@pytest.mark.parametrize('files, expected', [
    ({'Happy/1.png': png(), 'müde/1.png': png()}, ['no folder train, val or test', 'Happy/, müde/', 'train/CLASS/']),
    ({'train/Happy/notes.txt': b''}, ['no folder train, val or test with images', 'found there: train/']),
    ({}, ['found there: nothing']),
    (changed(train__stray=png(), test__other=png()), ['are in no class', 'train/stray.png', 'test/other.png']),
    (changed(valid__Happy__1=png()), ['Validation/ and valid/', 'Keep one']),
    (changed(train__wütend__1=png(), test__wütend__1=png()),
     ['no class (2)', 'train: wütend (1 image(s))', 'test: wütend', '--classes has surprised, Happy, müde, staunend']),
    (changed(test__happy__1=png()), ['test: happy (1 image(s))']),
    (changed(train__surprised__a=None), ['surprised', 'without an image in train']),
    ({f'{part}/{name}': file for name, file in tree().items() for part in 'ab'}, ['more than once']),
])
def test_broken_folders(tmp_path, files, expected):
  (tmp_path / 'source').mkdir()
  fails(tmp_path, files, str(tmp_path / 'source'), *expected)


def test_wrong_paths(tmp_path):
  fails(tmp_path, {}, 'train/CLASS/*.jpg', source=None)
  fails(tmp_path, {}, 'none does not exist', source=str(tmp_path / 'none'))
  whole = pathlib.Path(write(tmp_path / 'f.zip', tree())).read_bytes()
  (tmp_path / 'cut.zip').write_bytes(whole[:len(whole) // 2])
  fails(tmp_path, {}, 'cut.zip is neither a folder nor a zip file, or a damaged one', source=str(tmp_path / 'cut.zip'))


def test_unknown_options_and_variants(tmp_path):
  with pytest.raises(UserError, match="did you mean 'classes'"):
    preparation.make_builder('faces_folder', None, str(tmp_path), clases=['a'])
  for variant in ('a/b', '..', '.', '.a', 'a\n'):  # '..' is another folder.
    with pytest.raises(UserError, match='letters, digits'):
      preparation.make_builder('faces_folder', variant, str(tmp_path))
  assert faces_folder(data_dir=tmp_path).builder_config.name == 'default'


@pytest.mark.parametrize('hurt, reason', [
    (png()[:800], 'truncated'), (b'', 'empty file'),
    (face.png(np.zeros((1, 12_000), np.uint8)).getvalue(), '12,000 x 1 pixels are too thin')])
def test_bad_images(tmp_path, hurt, reason):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  files = {'train/a/1.png': png(0), 'train/a/x\n2.png': hurt, 'train/b/1.png': png(1)}
  fails(tmp_path, files, 'train/a/x\\n2.png: ', reason, classes=['b', 'a'])
  builder = build(tmp_path, files, classes=['b', 'a'], strict=False)
  assert sorted(records(builder, 'train')) == ['train/a/1.png', 'train/b/1.png']
  line, = (builder.data_path / 'skipped.txt').read_text().splitlines()
  assert 'train/a/x\\n2.png: ' in line and 'Left out 1 image' in preparation.summary(builder)
  assert builder.contents()['skipped'] == 1


# Prepared data.


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  return build(tmp_path_factory.mktemp('built'), tree() | {'more/1.png': b''}, variant='mine')


NAMES = ('surprise', 'happiness', 'müde', 'fear')


def test_records(built):
  found = records(built, 'train')
  assert {name: record['label'] for name, record in found.items()} == {
      'train/surprised/a.png': 0, 'train/Happy/1.png': 1, 'train/Happy/below/1.JPG': 1, 'train/müde/größe 1.png': 2,
      'train/staunend/1.png': 3}
  files = tree()
  for name, record in found.items():
    assert record['image'] == files[name]  # The file as distributed, byte for byte.
    assert record['landmarks'].shape == (68, 2) and np.isfinite(record['landmarks']).all()
    assert record['action_unit_map'].any() == (record['label'] != 2)
  assert set(records(built, 'valid')) == {f'Validation/{folder}/1.png' for folder in ('Happy', 'surprised', 'staunend')}
  assert built.contents()['classes'] == list(NAMES)
  summary = preparation.summary(built)
  for text in ('2 müde', 'action-unit maps are empty: müde.', 'valid has no face of the class folder(s) müde.',
               '1 image(s) outside of the folders of the splits were ignored, e.g. more/1.png'):
    assert text in summary


def test_reading_needs_no_classes(built):
  data_dir = str(built.data_dir_root)
  builder = preparation.make_builder('faces_folder', 'mine', data_dir)
  assert builder.is_prepared() and builder.classes() == NAMES
  assert builder.info.features['label'].names == list(NAMES)
  assert {name: record['label'] for name, record in records(builder, 'test').items()} == {
      'test/müde/1.png': 2, 'test/Happy/1.png': 1, 'test/surprised/b.png': 0, 'test/staunend/1.png': 3}
  assert not preparation.prepare(builder) and preparation.summary(builder) == preparation.summary(built)
  split = splits.open_split('faces_folder', 'mine', 'train', data_dir)
  assert split.classes == NAMES and len(split) == 5
  row = split.names.index('train/müde/größe 1.png')
  assert split.labels[row] == 2 and split.example(row)['image'].shape == (48, 48, 3)
  some = splits.open_split('faces_folder', 'mine', 'train', data_dir, classes=('fear', 'surprise'))
  assert dict(zip(some.names, some.labels, strict=True)) == {'train/staunend/1.png': 0, 'train/surprised/a.png': 1}


def test_other_classes_than_the_prepared_ones_are_refused(built):
  data_dir = str(built.data_dir_root)
  assert preparation.make_builder('faces_folder', 'mine', data_dir, classes=CLASSES).classes() == NAMES
  for classes in (sorted(CLASSES), CLASSES[:3]):
    with pytest.raises(UserError, match=re.escape(f'prepared with the classes {", ".join(NAMES)}, in this order')):
      preparation.make_builder('faces_folder', 'mine', data_dir, classes=classes)


def test_what_is_not_prepared_or_damaged_is_told(tmp_path):
  with pytest.raises(UserError, match='faces_folder is not prepared'):
    splits.open_split('faces_folder', None, 'train', str(tmp_path))
  pytest.importorskip('dlib', reason='landmarks need dlib')
  builder = build(tmp_path, {'test/a/1.png': png()}, classes=['a', 'b'])  # Test alone will do.
  assert builder.classes() == ('a', 'b') and list(builder.info.splits) == ['test']
  (builder.data_path / 'contents.json').unlink()
  with pytest.raises(UserError, match='contents.json is missing'):
    preparation.make_builder('faces_folder', None, str(tmp_path / 'data'))


def test_aligned(tmp_path, caplog):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  files = {'train/happy/1.png': png(0), 'train/sad/1.png': png(1)}
  build(tmp_path, files, classes=['sad', 'happy'], variant='mine-similarity64')
  builder = preparation.make_builder('faces_folder', 'mine-similarity64', str(tmp_path / 'data'))
  assert builder.classes() == ('sadness', 'happiness')
  assert splits.open_split('faces_folder', 'mine-similarity64', 'train', str(tmp_path / 'data')).size == 64
  assert 'custom data configuration' not in caplog.text  # TFDS says this of every variant that it has no list of.
