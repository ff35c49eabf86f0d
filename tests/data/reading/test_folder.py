"""A folder of images as a data set, and splits of some classes only."""

import os

import cv2
import numpy as np
import PIL.Image
import pytest

from fer_jax.data import face
from fer_jax.data.preparing.files import File
from fer_jax.data.preparing.records import Listed, make_record
from fer_jax.data.reading import splits, streams
from fer_jax.data.reading.folder import Folder
from fer_jax.data.reading.mixture import Part
from fer_jax.data.reading.restricted import Restricted
from fer_jax.errors import UserError


def write(folder, name, value=0, shape=(8, 8)):
  """Writes an image that holds nothing but ``value``, a number or RGB."""
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  image = np.broadcast_to(np.uint8(value), shape if np.ndim(value) == 0 else (*shape, 3))
  encoded = cv2.imencode(path.suffix.lower(), image if image.ndim == 2 else image[..., ::-1])[1]
  path.write_bytes(encoded.tobytes())


def names(folder, **options):
  images = Folder(folder, **options)
  return [images[row]['name'] for row in range(len(images))]


def test_images_are_ordered_by_path_whatever_their_depth(tmp_path):
  listed = ['B.png', 'a/z.png', 'a.png', 'b/1/x.png', 'b/10.png', 'b/9.png']
  for name in reversed(listed):
    write(tmp_path, name)
  assert names(tmp_path) == sorted(listed)
  records = list(Folder(tmp_path))
  assert [record['name'] for record in records] == sorted(listed)
  for record in records:
    assert record['image'] == (tmp_path / record['name']).read_bytes()
    assert record['label'] == -1 and record['landmark_source'] == face.LANDMARK_SOURCES.index('none')
    assert record['landmarks'].shape == (68, 2) and np.isnan(record['landmarks']).all()
  assert Folder(tmp_path).classes == face.EXPRESSIONS


def test_hidden_files_other_endings_and_folders_are_no_images(tmp_path):
  shown = ['a.JPG', 'b.jpeg', 'c.Png', 'd.bmp', 'e.webp', 'f.g.png']
  for name in [*shown, '.hidden.png', '.thumbnails/a.png', 'sub/.b/c.png']:
    write(tmp_path, name)
  (tmp_path / 'folder.png').mkdir()
  for name in ('readme.txt', 'x.heic', 'png', 'labels.csv'):
    (tmp_path / name).write_text('no image')
  assert names(tmp_path) == shown
  hidden, others = Folder(tmp_path).notes
  assert "3 image(s) or folder(s) whose names begin with '.'" in hidden and '.thumbnails' in hidden
  assert '4 file(s)' in others and '1 .heic' in others
  assert all(splits.Split(Folder(tmp_path), face.EXPRESSIONS).example(row)['image'].shape == (8, 8, 1)
             for row in range(6))


def test_a_hidden_folder_above_hides_nothing(tmp_path):
  write(tmp_path, '.cache/faces/a.png')
  assert names(tmp_path / '.cache/faces') == ['a.png']


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  write(tmp_path, 'faces/a.png')
  assert names('~/faces') == ['a.png']
  with pytest.raises(UserError, match="there is no user 'nobody-of-this-name'"):
    Folder('~nobody-of-this-name/faces')


def test_folders_are_classes(tmp_path):
  for name in ('sad/1.png', 'happy/deep/2.png', 'happy/3.png', 'Angry/4.png'):
    write(tmp_path, name)
  images = Folder(tmp_path, labelled=True)
  assert images.classes == ('Angry', 'happy', 'sad')
  assert {record['name']: record['label'] for record in images} == {
      'Angry/4.png': 0, 'happy/3.png': 1, 'happy/deep/2.png': 1, 'sad/1.png': 2}


@pytest.mark.parametrize('folders, classes', [
    (('10', '2', '1'), ('1', '2', '10')), (('10', '2', 'x'), ('10', '2', 'x')), (('-1', '2', '10'), ('-1', '10', '2'))])
def test_classes_are_ordered_as_numbers_where_all_are(tmp_path, folders, classes):
  for folder in folders:
    write(tmp_path, f'{folder}/a.png')
  images = Folder(tmp_path, labelled=True)
  assert images.classes == classes
  assert all(classes[record['label']] == record['name'].split('/')[0] for record in images)


def test_no_folder_and_no_image(tmp_path):
  with pytest.raises(UserError, match=f'there is no folder {tmp_path}/nowhere'):
    Folder(tmp_path / 'nowhere')
  write(tmp_path, 'a.png')
  with pytest.raises(UserError, match='there is no folder .*a.png'):
    Folder(tmp_path / 'a.png')
  with pytest.raises(UserError, match='there is no folder xxx'):
    Folder('x' * 5000)
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'empty/readme.txt').write_text('no image')
  with pytest.raises(UserError, match=r'empty has no image: looked for \.jpg, \.jpeg'):
    Folder(tmp_path / 'empty')


def test_an_image_outside_of_the_classes(tmp_path):
  write(tmp_path, 'happy/a.png')
  write(tmp_path, 'stray.png')
  with pytest.raises(UserError, match=r'stray.png is in no class: each image belongs in .*/CLASS/'):
    Folder(tmp_path, labelled=True)
  assert names(tmp_path) == ['happy/a.png', 'stray.png']


def test_the_fingerprint_changes_with_a_file(tmp_path):
  for name in ('one/a.png', 'one/b.png', 'two/a.png', 'two/b.png'):
    write(tmp_path, name)
  seen = [Folder(tmp_path / 'one').fingerprint]
  assert Folder(tmp_path / 'two').fingerprint == seen[0] and len(seen[0]) == 64  # The same wherever it lies.
  os.utime(tmp_path / 'one/a.png', (0, 0))
  (tmp_path / 'one/notes.txt').write_text('no image')
  assert Folder(tmp_path / 'one').fingerprint == seen[0]
  for change in (lambda: write(tmp_path, 'one/c.png'), (tmp_path / 'one/c.png').unlink,
                 lambda: (tmp_path / 'one/b.png').rename(tmp_path / 'one/d.png'),
                 lambda: write(tmp_path, 'one/a.png', shape=(64, 64))):
    change()
    seen.append(Folder(tmp_path / 'one').fingerprint)
  assert seen[0] == seen[2] and len(set(seen)) == 4


SHAPES = {'a.png': (77, (8, 8)), 'b.bmp': ((200, 10, 60), (20, 10)), 'c.png': (120, (5, 30)),
          'd.png': ((1, 2, 3), (16, 16))}


@pytest.fixture
def faces(tmp_path):
  for name, (value, shape) in SHAPES.items():
    write(tmp_path, f'wild/{name}', value, shape)
  return str(tmp_path)


@pytest.mark.parametrize('variant', ['', None])
def test_images_of_many_sizes_become_a_batch(faces, variant):
  source = splits.open_split('folder', variant, 'wild', faces, size=12, channels=3)
  batch, = streams.evaluation_batches(source, batch_size=4, threads=0)
  assert batch['image'].shape == (4, 12, 12, 3) and batch['image'].dtype == np.uint8
  for image, (value, _) in zip(batch['image'], SHAPES.values(), strict=True):
    np.testing.assert_array_equal(image, np.broadcast_to(value, (12, 12, 3)))
  assert (batch['label'] == -1).all() and not batch['target'].any() and np.isnan(batch['landmarks']).all()
  assert batch.keys() == {'image', 'label', 'target', 'landmarks', 'landmark_source', 'mask', 'row'}
  assert source.names == list(SHAPES) and source.folder == faces
  assert source.fingerprint == Folder(f'{faces}/wild').fingerprint
  trained = next(streams.training_batches([Part(source)], seed=0, batch_size=4, threads=0))
  assert sorted(trained['image'][:, 0, 0, 0].tolist()) == [1, 77, 120, 200]


def test_the_first_image_decides_the_size_and_any_in_colour_the_channels(faces, capsys):
  grey = splits.open_split('folder', '', 'wild', faces, size=12, channels=1)
  rgb = np.array([200, 10, 60])
  np.testing.assert_allclose(grey.example(1)['image'], np.full((12, 12, 1), rgb @ [0.299, 0.587, 0.114]), atol=1)
  assert not capsys.readouterr().out
  first = splits.open_split('folder', '', 'wild', faces)
  assert (first.size, first.channels) == (8, 3) and first.example(0)['image'].shape == (8, 8, 3)
  assert 'wild: 2 image(s) in colour, 2 grey; all are read in colour' in capsys.readouterr().out
  with pytest.raises(UserError, match=r"'b.bmp' is 10 x 20 pixels.*data.size"):
    first.example(1)


def test_the_split_is_a_folder_in_it_or_nothing(faces):
  assert splits.open_split('folder', '', '', faces, size=8).names == [f'wild/{name}' for name in SHAPES]
  labelled = splits.open_split('folder', 'classes', '', faces, size=8)
  assert labelled.classes == ('wild',) and labelled.labels.tolist() == [0] * 4
  np.testing.assert_array_equal(labelled.example(0)['target'], [1])


def test_without_a_folder_it_is_the_current_one(faces, monkeypatch):
  monkeypatch.chdir(faces)
  assert splits.open_split('folder', '', 'wild', None, size=8).names == list(SHAPES)


@pytest.mark.parametrize('variant, split, options, message', [
    ('labelled', 'wild', {}, "a folder has no variant 'labelled'; choose '' or, if its folders are classes, 'classes'"),
    ('', 'tame', {}, 'there is no folder .*tame'), ('classes', 'wild', {}, 'a.png is in no class'),
    ('', 'wild', {'target': 'votes'}, "target='votes': the data set has no field of this name")])
def test_mistakes_about_a_folder(faces, variant, split, options, message):
  with pytest.raises(UserError, match=message):
    splits.open_split('folder', variant, split, faces, **options)


def test_some_folders_only(tmp_path):
  for i, name in enumerate(('sad/1.png', 'happy/2.png', 'angry/3.png', 'happy/4.png')):
    write(tmp_path, name, i)
  whole = splits.open_split('folder', 'classes', '', str(tmp_path))
  some = splits.open_split('folder', 'classes', '', str(tmp_path), classes=('sad', 'happy'))
  assert whole.classes == ('angry', 'happy', 'sad') and some.classes == ('sad', 'happy')
  assert some.names == ['happy/2.png', 'happy/4.png', 'sad/1.png'] and some.labels.tolist() == [1, 1, 0]
  other = splits.open_split('folder', 'classes', '', str(tmp_path), classes=('happy', 'sad'))
  assert len({whole.fingerprint, some.fingerprint, other.fingerprint}) == 3


CLASSES = ('neutral', 'happiness', 'surprise', 'fear')
IMAGE = face.png(np.zeros((8, 8), np.uint8)).getvalue()


def make_records():
  """Labels, votes for the four classes and then for unknown and no face, and distributions."""
  votes = [(5, 3, 0, 2, 0, 0), (0, 6, 0, 4, 0, 0), (2, 2, 6, 0, 0, 0), (0, 0, 3, 7, 0, 0), (0, 0, 0, 0, 9, 1),
           (4, 4, 1, 1, 0, 0)]
  return [{'image': IMAGE, 'name': f'{i}.png', 'label': label, 'landmarks': np.zeros((68, 2), np.float32),
           'landmark_source': 0, 'votes': np.int32(vote), 'target': np.float32(vote[:4]) / max(sum(vote[:4]), 1)}
          for i, (label, vote) in enumerate(zip((0, 1, 2, 3, -1, 1), votes, strict=True))]


@pytest.mark.parametrize('target, expected', [
    ('label', [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]),
    ('target', [[2 / 10, 5 / 10, 3 / 10], [4 / 10, 0, 6 / 10], [7 / 7, 0, 0], [1 / 9, 4 / 9, 4 / 9]]),
    ('votes', [[2 / 10, 5 / 10, 3 / 10], [4 / 10, 0, 6 / 10], [1, 0, 0], [0, 4 / 8, 4 / 8]])])
def test_restricted_labels_votes_and_targets(target, expected):
  # Fear, neutral and happiness, in the caller's order; surprise and the unknown are left out.
  wanted = ('fear', 'neutral', 'happiness')
  source = splits.Split(Restricted(make_records(), CLASSES, wanted), wanted, target=target)
  assert source.names == ['0.png', '1.png', '3.png', '5.png'] and source.labels.tolist() == [1, 2, 0, 2]
  examples = [source.example(row) for row in range(len(source))]
  assert [example['label'] for example in examples] == [1, 2, 0, 2]
  np.testing.assert_allclose([example['target'] for example in examples], expected, rtol=1e-6)
  assert all(example['target'].dtype == np.float32 for example in examples)


def test_restricted_targets_without_a_share_are_zeros_and_records_stay_as_they_are():
  records = make_records()
  records[0] |= {'target': np.float32([0, 0, 1, 0])}
  kept = Restricted(records, CLASSES, ('neutral', 'fear'))
  assert kept[0]['target'].tolist() == [0, 0] and kept[0]['votes'].tolist() == [5, 2]
  assert kept[0]['label'] == 0 and kept[1]['label'] == 1
  assert records[3]['label'] == 3 and records[3]['votes'].shape == (6,) and records[3]['target'].shape == (4,)
  assert kept[0]['name'] == '0.png' and kept[0]['image'] is IMAGE


def test_restricted_works_without_votes_and_targets():
  records = [{'label': label, 'name': str(label)} for label in (0, 1, 3, 1)]
  assert list(Restricted(records, CLASSES, ['happiness'])) == [{'label': 0, 'name': '1'}] * 2
  assert len(Restricted(records, CLASSES, CLASSES)) == 4


@pytest.mark.parametrize('wanted, message', [
    (('neutral', 'hapiness'), "classes neutral, hapiness: 'hapiness' is unknown; did you mean 'happiness'"),
    (('fear', 'neutral', 'fear'), "classes fear, neutral, fear: 'fear' is named 2 times")])
def test_classes_that_cannot_be_had(wanted, message):
  with pytest.raises(UserError, match=message):
    Restricted(make_records(), CLASSES, wanted)


def test_no_face_of_the_classes():
  with pytest.raises(UserError, match='the split has no face of the classes surprise'):
    Restricted(make_records()[:2], CLASSES, ('surprise',))


@pytest.mark.parametrize('name, make', [
    ('empty.png: empty file', lambda path: path.write_bytes(b'')),
    ('gone.jpg: .*No such file', lambda path: path.symlink_to('nowhere')),
    ('pipe.png: .*not a file', os.mkfifo), ('loop.png: .*Too many levels', lambda path: path.symlink_to('loop.png'))])
def test_files_that_cannot_be_read_are_told_before_anything_is_computed(tmp_path, name, make):
  write(tmp_path, 'a.png')
  said, name = name, name.partition(':')[0]
  make(tmp_path / name)
  with pytest.raises(UserError, match=rf'images that cannot be used \(1\):\n  .*{said}'):
    Folder(tmp_path)
  (tmp_path / name).unlink()
  (tmp_path / name).mkdir()  # A folder is a folder, whatever it is called.
  write(tmp_path, f'{name}/b.png')
  assert names(tmp_path) == ['a.png', f'{name}/b.png']


def test_what_is_prepared_and_what_is_read_are_one_picture(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (8, 6), dtype=np.uint8)
  exif = PIL.Image.Exif()
  exif[274] = 6
  PIL.Image.fromarray(image).save(tmp_path / 'a.png')
  PIL.Image.fromarray(image.astype(np.uint16) * 257).save(tmp_path / 'b.png')
  PIL.Image.fromarray(np.rot90(image)).save(tmp_path / 'c.png', exif=exif)
  PIL.Image.fromarray(np.float32(image) / 255).save(tmp_path / 'd.tiff')
  PIL.Image.fromarray(image).save(tmp_path / 'e.jpg', exif=exif)
  split = splits.open_split('folder', '', '', str(tmp_path), size=8)
  for row in range(4):
    np.testing.assert_array_equal(split.example(row)['image'], split.example(0)['image'])
  listed = Listed('', File(str(tmp_path / 'e.jpg')), 0, landmarks=np.zeros((68, 2)))
  prepared = make_record(listed, expressions=('happiness',))
  assert prepared['image'].getvalue() == split.records[4]['image']


def test_a_damaged_image_is_told_where_it_is_read(tmp_path):
  write(tmp_path, 'a.png')
  write(tmp_path, 'thin.png', shape=(1, 12_000))
  (tmp_path / 'cut.png').write_bytes((tmp_path / 'a.png').read_bytes()[:60])
  split = splits.open_split('folder', '', '', str(tmp_path))
  assert split.names == ['a.png', 'cut.png', 'thin.png']
  for row, said in ((1, 'cut.png: unreadable or truncated'), (2, 'thin.png: 12,000 x 1 pixels are too thin')):
    with pytest.raises(UserError, match=said):
      split.example(row)
