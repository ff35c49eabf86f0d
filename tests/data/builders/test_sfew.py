"""SFEW: the aligned faces end to end on drawn faces, every layout, and what must fail."""

import functools
import io
import pathlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest

from fer_jax.data import face
from fer_jax.data.builders.sfew import files as reader
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.preparing import preparation
from fer_jax.errors import UserError
from tests import trees
from tests.trees import records, write

FOLDERS = ('Angry', 'Disgust', 'Fear', 'Happy', 'Neutral', 'Sad', 'Surprise')
TRAIN, VAL, TEST = ('Train/Train_Aligned_Faces/', 'Val/Val_Aligned_Faces_new/Val_Aligned_Faces/',
                    'Test/Test_Aligned_Faces/')


def png(image):
  file = io.BytesIO()
  PIL.Image.fromarray(image).save(file, 'PNG')
  return file.getvalue()


def picture(seed):
  """A face of 143 x 181 pixels, as SFEW's."""
  return png(draw_face(np.random.default_rng(seed), 'neutral', 181).image[:, 19:162])


EXPECTED = {
    'train': {f'{folder}/Film_00010{i}_00000005.png': i for i, folder in enumerate(FOLDERS)}
             | {'Fear/Film_000100_00000005.png': 2},
    'valid': {f'{folder}/Reel_00010{i}_00000005.png': i for i, folder in enumerate(FOLDERS)},
    'test': {'Other_000200_00000001.png': -1},
}
FACES = [picture(i) for i in range(3)]
FRAME = png(np.zeros((576, 720, 3), np.uint8))


def tree():
  """File names and contents of a tiny SFEW; train has one file name in two folders."""
  files = {f'{place}{folder}/{film}_00010{i}_00000005.png': FACES[i % 3]
           for place, film in ((TRAIN, 'Film'), (VAL, 'Reel')) for i, folder in enumerate(FOLDERS)}
  files |= {f'{TRAIN}Fear/Film_000100_00000005.png': FACES[1], f'{TRAIN}Fear/Thumbs.db': b'',
            f'{TEST}Other_000200_00000001.png': FACES[2]}
  return files


def broken(changes):
  """The tree with files replaced, added or (None) removed."""
  return {name: content for name, content in (tree() | changes).items() if content is not None}


def moved(before, after):
  """The tree with folders renamed."""
  return {name.replace(before, after): content for name, content in tree().items()}


def without(*begin):
  return {name: content for name, content in tree().items() if not name.startswith(begin)}


build = functools.partial(trees.build, 'sfew', kind='files.zip')


# Prepared data.


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  return build(tmp_path_factory.mktemp('built'), tree())


def test_records(built):
  assert built.info.features['label'].names == ['anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness',
                                                'surprise']
  assert reader.CLASSES == tuple(map(face.canonical, FOLDERS))
  train, valid, test = (records(built, split) for split in ('train', 'valid', 'test'))
  for split, found in zip(('train', 'valid', 'test'), (train, valid, test), strict=True):
    assert {name: record['label'] for name, record in found.items()} == EXPECTED[split]
  for name, record in valid.items():
    assert record['image'] == FACES[EXPECTED['valid'][name] % 3]  # The file as distributed, byte for byte.
    assert record['landmarks'].shape == (68, 2) and np.isfinite(record['landmarks']).all()
    assert face.LANDMARK_SOURCES[record['landmark_source']] in ('detector', 'image_box')
  assert not (built.data_path / 'skipped.txt').exists()


def test_counts_are_told_and_accepted(built):
  """They are not certain, so they are no error, although the counts are checked."""
  told = preparation.summary(built)
  for text in ('train: found 8, expected 891', 'valid: found 7, expected 431', 'test: found 1, expected 372'):
    assert text in told


def test_test_may_be_wanting(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  builder = build(tmp_path, without('Test'))
  assert list(builder.info.splits) == ['train', 'valid']
  assert 'test: found 0, expected 372' in preparation.summary(builder)


@pytest.mark.parametrize('content, reason', [
    (b'', 'empty file'), (FACES[0][:5000], 'truncated'), (b'this is no picture', 'not an image'),
    (FACES[0][:5000] + bytes(100) + FACES[0][5100:], 'unreadable')])
def test_bad_images(tmp_path, content, reason):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  files = broken({f'{VAL}Sad/Reel_000105_00000005.png': content})
  with pytest.raises(UserError, match=f'Sad/Reel_000105_00000005.png: .*{reason}'):
    build(tmp_path, files)
  assert not list((tmp_path / 'data').glob('sfew/aligned/1*'))
  builder = build(tmp_path, files, strict=False)
  assert len(records(builder, 'valid')) == 6 and len(records(builder, 'train')) == 8
  skipped = (builder.data_path / 'skipped.txt').read_text().splitlines()
  assert len(skipped) == 1 and 'Sad/Reel_000105_00000005.png: ' in skipped[0] and reason in skipped[0]
  assert 'Left out 1' in preparation.summary(builder)


def test_an_image_in_two_splits_is_an_error(tmp_path):
  files = broken({f'{VAL}Fear/Film_000100_00000005.png': FACES[1]})
  with pytest.raises(UserError, match='Fear/Film_000100_00000005.png: in train and in valid'):
    build(tmp_path, files)


# Layouts.


def labels(found):
  return {split: {listed.name: listed.label for listed in faces} for split, faces in found.splits.items()}


@pytest.mark.parametrize('before, after', [
    ('Val', 'Val'),
    ('Val_Aligned_Faces_new/', ''),
    ('Val/Val_Aligned_Faces_new/', ''),
    ('Train/Train', 'SFEW 2.0/images/Train'),
    ('Train/', 'TRAIN/a/b/'),
    ('Val/', 'Validation/'),
    ('Test/', 'train_and_test/'),  # The innermost folder says it.
])
@pytest.mark.parametrize('file, level', [('f.zip', ''), ('folder', 'SFEW_2.0'), ('f.zip', 'SFEW_2.0/')])
def test_accepted_layouts(tmp_path, file, level, before, after):
  found = reader.open_files(write(tmp_path / file, moved(before, after), level))
  assert labels(found) == EXPECTED and not found.notes


def test_aligned_faces_are_preferred_to_frames(tmp_path):
  files = tree()
  files |= {f'{split}/{folder}/{i}.png': FRAME for split in ('Train', 'Val') for i, folder in enumerate(FOLDERS)}
  files |= {'Test/1.png': FRAME}
  found = reader.open_files(write(tmp_path / 'f.zip', files))
  assert labels(found) == EXPECTED and not found.notes


def test_faces_in_folders_that_are_not_called_aligned_are_told(tmp_path):
  found = reader.open_files(write(tmp_path / 'f.zip', moved('Train_Aligned_Faces/', '')))
  assert labels(found) == EXPECTED
  assert len(found.notes) == 1 and 'No folder of train has Aligned' in found.notes[0]


def test_images_elsewhere_are_told(tmp_path):
  found = reader.open_files(write(tmp_path / 'f.zip', broken({'paper/figure.png': b'', 'cover.jpg': b''})))
  assert labels(found) == EXPECTED
  assert len(found.notes) == 1 and '2 image(s) in no folder' in found.notes[0] and 'cover.jpg' in found.notes[0]


@hypothesis.given(st.lists(st.sampled_from(['angry', 'Anger', ' ANGRY', 'Joy', 'happiness', 'SURPRISED', 'neutrality']),
                           min_size=1, max_size=4, unique=True))
@hypothesis.settings(max_examples=20, deadline=None)
def test_folders_in_other_words(tmp_path_factory, words):
  files = broken({f'{TRAIN}{word}/x.png': b'' for word in words})
  found = reader.open_files(write(tmp_path_factory.mktemp('f') / 'f.zip', files))
  named = {listed.name: reader.CLASSES[listed.label] for listed in found.splits['train']}
  assert len(named) == 8 + len(words)
  assert all(named[f'{word}/x.png'] == face.canonical(word) for word in words)


def test_names_and_paths_beyond_ascii(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  files = broken({f'{VAL}Sad/Reel_000105_00000005.png': None, f'{VAL}Sad/Amélie_顔.png': FACES[2]})
  for name in ('Gesichter-ä.zip', '顔'):
    (tmp_path / name[0]).mkdir()
    builder = build(tmp_path / name[0], {}, source=write(tmp_path / name, files, 'données/'))
    assert records(builder, 'valid')['Sad/Amélie_顔.png']['label'] == 5


@pytest.mark.parametrize('files, expected', [
    (without('Val'), ['has no images in a folder Val...', 'found there: Test/, Train/', 'https://cs.anu.edu.au']),
    (without('Val') | {'Val/Val_Aligned_Faces_new.zip': b''}, ['Still packed: Val/Val_Aligned_Faces_new.zip']),
    ({'0.png': FACES[0]}, ['has no images in a folder Train...', 'found there: 0.png']),
    (without(f'{TRAIN}Disgust'), ['Train/Train_Aligned_Faces has no images of disgust; found there: Angry, Fear']),
    (broken({f'{TRAIN}Bored/1.png': b'', f'{TRAIN}Bored/2.png': b'', f'{TRAIN}Contempt/1.png': b''}),
     ['images of train lie in folders Angry', 'unlike these (2)', 'Train/Train_Aligned_Faces/Bored: 2 image(s)',
      'Train/Train_Aligned_Faces/Contempt: 1 image(s)']),
    (broken({f'{VAL}1.png': b''}), ['images of valid', 'Val_Aligned_Faces: 1 image(s)']),
    (broken({f'{TEST}Angry/1.png': b''}), ['test images have no labels', 'Test_Aligned_Faces/Angry: 1 image(s)']),
    (broken({'Test/Test_Aligned_Faces_2/1.png': b''}), ['holds images of test more than once',
                                                       'Test/Test_Aligned_Faces, Test/Test_Aligned_Faces_2. Keep one']),
    (broken({'Val/Val_Aligned_Faces/Angry/1.png': b''}),
     ['holds images of valid more than once', 'Val/Val_Aligned_Faces, Val/Val_Aligned_Faces_new/Val_Aligned_Faces']),
    ({f'Train/{folder}/1.png': FRAME for folder in FOLDERS} | {'Train/Train_Aligned_Faces.zip': b''},
     ['Train/Angry/1.png: the images of train are whole frames', 'Still packed: Train/Train_Aligned_Faces.zip']),
])
@pytest.mark.parametrize('kind', ['f.zip', 'folder'])
def test_broken_sources_are_told(tmp_path, kind, files, expected):
  with pytest.raises(UserError) as e:
    reader.open_files(write(tmp_path / kind, files))
  for text in (*expected, kind):
    assert text in str(e.value)


def test_wrong_paths(tmp_path):
  truncated = pathlib.Path(write(tmp_path / 'truncated.zip', tree()))
  truncated.write_bytes(truncated.read_bytes()[:-2000])
  for path, expected in ((None, 'To obtain it'), (tmp_path / 'none', 'does not exist'),
                         (truncated, 'neither a folder nor a zip')):
    with pytest.raises(UserError, match=expected):
      reader.open_files(path and str(path))
