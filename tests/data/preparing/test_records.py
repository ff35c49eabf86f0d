"""From a listed face to its record: cut, landmarks, alignment, and the file that is stored."""

import io

import numpy as np
import PIL.Image
import pytest

from fer_jax.data import face
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.preparing.files import File
from fer_jax.data.preparing.records import Listed, make_record
from fer_jax.landmarks import align
from fer_jax.landmarks.heatmap import FLIP

PLAIN = {'expressions': ('happiness', None)}


@pytest.fixture(scope='module')
def drawn():
  return draw_face(np.random.default_rng(0), 'happiness', 64)


def make(tmp_path, image, settings=PLAIN, kind='PNG', **options):
  path = tmp_path / 'a'
  (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(path, kind)
  return make_record(Listed('a.png', File(str(path)), options.pop('label', 0), **options), **settings)


def pixels(record):
  return np.asarray(PIL.Image.open(record['image']))


def test_the_file_is_stored_as_it_is(drawn, tmp_path):
  for kind in ('PNG', 'JPEG'):
    record = make(tmp_path, drawn.image, kind=kind, landmarks=drawn.landmarks)
    assert record['image'].getvalue() == (tmp_path / 'a').read_bytes()
  np.testing.assert_array_equal(record['landmarks'], np.float32(drawn.landmarks))
  assert face.LANDMARK_SOURCES[record['landmark_source']] == 'released' and record['landmark_score'] == 0


@pytest.mark.parametrize('mode, kind', [('RGBA', 'PNG'), ('P', 'PNG'), ('CMYK', 'JPEG'), ('RGB', 'BMP'), ('L', 'WEBP'),
                                        ('RGB', 'TIFF'), ('1', 'PNG')])
def test_other_modes_and_formats_become_grey_or_rgb(drawn, tmp_path, mode, kind):
  record = make(tmp_path, PIL.Image.fromarray(drawn.image).convert(mode), kind=kind, landmarks=drawn.landmarks)
  stored = PIL.Image.open(record['image'])
  assert stored.mode in ('L', 'RGB') and stored.format == ('JPEG' if kind == 'JPEG' else 'PNG')
  if kind in ('BMP', 'TIFF'):
    np.testing.assert_array_equal(np.asarray(stored), drawn.image)


def test_a_box_cuts_image_and_landmarks(drawn, tmp_path):
  record = make(tmp_path, drawn.image, landmarks=drawn.landmarks, box=(-3.2, 5.4, 40.6, 80))
  np.testing.assert_array_equal(pixels(record), drawn.image[5:, :41])
  np.testing.assert_allclose(record['landmarks'], drawn.landmarks - (0, 5), atol=1e-5)
  again = face.record(image=None, name='', label=0, expression='happiness', size=(59, 41),
                      landmarks=record['landmarks'], source='released')
  assert record['landmark_heatmap'].getvalue() == again['landmark_heatmap'].getvalue()
  assert record['action_unit_map'].getvalue() == again['action_unit_map'].getvalue()


@pytest.mark.parametrize('box', [(70, 0, 90, 20), (0, -9, 20, 0), (20, 20, 20.2, 40)])
def test_a_box_without_a_pixel_is_a_reason(drawn, tmp_path, box):
  reason = make(tmp_path, drawn.image, landmarks=drawn.landmarks, box=box)
  assert reason == f'the face box {tuple(map(float, box))} is not within the 64 x 64 image' or 'face box' in reason


def test_points_are_aligned_by_and_carry_all_along(drawn, tmp_path):
  settings = {'expressions': ('happiness',), 'align_size': 48}
  points = align.five_points(drawn.landmarks)
  for given in (None, points):
    record = make(tmp_path, drawn.image, settings, landmarks=drawn.landmarks, points=given, box=(8, 8, 56, 56))
    matrix = align.similarity(points, 48)
    np.testing.assert_allclose(record['landmarks'], align.move(drawn.landmarks, matrix), atol=1e-4)
    np.testing.assert_array_equal(pixels(record), align.warp(drawn.image, matrix, 48))  # Of the whole image.


def test_without_trusted_points_the_box_is_fitted(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
  record = make(tmp_path, noise, PLAIN | {'align_size': 30}, box=(0, 0, 60, 30), label=-1)
  assert face.LANDMARK_SOURCES[record['landmark_source']] == 'image_box'
  np.testing.assert_array_equal(pixels(record), align.warp(noise, align.fitted((0, 0, 60, 30), 30), 30))
  plain = make(tmp_path, noise, box=(0, 0, 60, 30), label=-1)
  np.testing.assert_allclose(record['landmarks'], plain['landmarks'] / 2 + (0, 7.5), atol=1e-3)


def test_landmarks_are_looked_for_on_the_cut(drawn, tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  wide = np.full((64, 200, 3), 127, np.uint8)
  wide[:, 100:164] = drawn.image
  record = make(tmp_path, wide, box=(100, 0, 164, 64))
  alone = make(tmp_path, drawn.image)
  np.testing.assert_allclose(record['landmarks'], alone['landmarks'], atol=1e-4)
  assert record['landmark_score'] == alone['landmark_score']


def test_a_class_that_is_no_expression_has_an_empty_map(drawn, tmp_path):
  record = make(tmp_path, drawn.image, landmarks=drawn.landmarks, label=1)
  assert record['label'] == 1 and not np.asarray(PIL.Image.open(record['action_unit_map'])).any()
  assert np.asarray(PIL.Image.open(record['landmark_heatmap'])).any()


def turned(drawn, number):
  """The image as a camera stores it that was held so, and what its points become."""
  image, size = drawn.image, len(drawn.image)
  at = np.array(drawn.landmarks, np.float64)
  if number == 6:  # Shown by turning it to the right.
    return np.rot90(image), np.stack([at[:, 1], size - at[:, 0]], 1)
  if number == 3:
    return image[::-1, ::-1], size - at
  return image[:, ::-1], np.stack([size - at[:, 0], at[:, 1]], 1)[FLIP]  # 2, a mirror.


@pytest.mark.parametrize('number', [2, 3, 6])
@pytest.mark.parametrize('settings', [PLAIN, PLAIN | {'align_size': 48}])
def test_faces_are_stored_upright_with_what_the_data_set_knows_of_them(drawn, tmp_path, number, settings):
  image, landmarks = turned(drawn, number)
  exif = PIL.Image.Exif()
  exif[274] = number
  image = PIL.Image.fromarray(np.ascontiguousarray(image))
  points = align.five_points(landmarks)
  box = (0, 0, 64, 50) if number == 6 else (0, 0, 50, 64)  # The right part of the face as it is shown.
  for more in ({}, {'points': points}, {'box': box}):
    path = tmp_path / 'a'
    image.save(path, 'PNG', exif=exif)
    record = make_record(Listed('a.png', File(str(path)), 0, landmarks=landmarks, **more), **settings)
    upright = make(tmp_path, drawn.image, settings, landmarks=drawn.landmarks,
                   box=(14, 0, 64, 64) if 'box' in more else None)
    np.testing.assert_array_equal(pixels(record), pixels(upright))
    np.testing.assert_allclose(record['landmarks'], upright['landmarks'], atol=1e-4)


@pytest.mark.parametrize('content, reason', [(b'', 'empty file'), (b'text', 'not an image'), (None, 'unreadable')])
def test_reasons(tmp_path, content, reason):
  if content is not None:
    (tmp_path / 'a').write_bytes(content)
  made = make_record(Listed('a.png', File(str(tmp_path / 'a')), 0), **PLAIN)
  assert isinstance(made, str) and reason in made


def test_jpeg_in_jpeg_out(drawn, tmp_path):
  record = make(tmp_path, drawn.image, kind='JPEG', landmarks=drawn.landmarks, box=(0, 0, 50, 50))
  assert PIL.Image.open(io.BytesIO(record['image'].getvalue())).format == 'JPEG'
