"""dlib behind one function: finds drawn faces, falls back to the whole image, and says what is missing."""

import sys

import cv2
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.landmarks import align, detect


def drawn_face(size=48):
  """A frontal face that fills the image, uint8 (size, size), and the centres of its eyes in pixels."""
  image = np.full((480, 480), 190, np.uint8)
  cv2.ellipse(image, (240, 250), (190, 240), 0, 0, 360, 150, -1)  # Head.
  for x in (155, 325):
    cv2.ellipse(image, (x, 190), (42, 26), 0, 0, 360, 60, -1)  # Eye sockets, lids, pupils, brows.
    cv2.ellipse(image, (x, 192), (34, 14), 0, 0, 360, 225, -1)
    cv2.circle(image, (x, 192), 13, 20, -1)
    cv2.ellipse(image, (x, 150), (55, 16), 0, 180, 360, 50, 12)
  cv2.line(image, (218, 200), (208, 290), 120, 10)
  cv2.line(image, (262, 200), (272, 290), 120, 10)
  cv2.ellipse(image, (240, 300), (42, 16), 0, 0, 180, 80, 10)  # Nose.
  cv2.ellipse(image, (240, 380), (75, 24), 0, 0, 360, 85, -1)  # Mouth.
  cv2.line(image, (170, 380), (310, 380), 40, 6)
  image = cv2.GaussianBlur(image, (0, 0), 7)
  small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
  return small, np.array([(155, 192), (325, 192)]) * size / 480


@pytest.fixture(scope='module')
def detector():
  pytest.importorskip('dlib', reason='landmarks need dlib')
  return detect.Detector()


def test_finds_a_drawn_face(detector):
  image, eyes = drawn_face()
  found = detector(image)
  assert found.source == 'detector' and found.score > -0.4
  assert found.landmarks.shape == (68, 2) and found.landmarks.dtype == np.float32
  centres = np.stack([found.landmarks[36:42].mean(0), found.landmarks[42:48].mean(0)])
  np.testing.assert_allclose(centres, eyes, atol=2.5)


def test_grey_and_colour_agree_and_pixels_scale(detector):
  image, _ = drawn_face()
  grey = detector(image)
  colour = detector(np.repeat(image[:, :, None], 3, 2))
  np.testing.assert_allclose(colour.landmarks, grey.landmarks, atol=1)
  larger = detector(drawn_face(96)[0])
  np.testing.assert_allclose(larger.landmarks / 2, grey.landmarks, atol=1)


def test_no_face_falls_back_to_the_whole_image(detector):
  noise = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
  found = detector(noise)
  assert (found.source, found.score) == ('image_box', 0)
  assert np.isfinite(found.landmarks).all()
  # The points of a face the size of the image.
  assert np.ptp(found.landmarks[:, 0]) > 30 and np.ptp(found.landmarks[:, 1]) > 20


def test_without_looking_the_whole_image_is_the_box(detector):
  image, eyes = drawn_face()
  found = detector(image, look=False)
  assert (found.source, found.score) == ('image_box', 0)
  centres = np.stack([found.landmarks[36:42].mean(0), found.landmarks[42:48].mean(0)])
  np.testing.assert_allclose(centres, eyes, atol=6)


def test_thin_images_do_not_fill_the_memory(detector):
  for shape in ((1, 12_000), (12_000, 1), (3, 900)):
    found = detector(np.zeros(shape, np.uint8))
    assert found.source == 'image_box' and np.isfinite(found.landmarks).all()


def test_what_is_missing_is_told(monkeypatch, tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  with pytest.raises(UserError, match='no landmark model at'):
    detect.Detector(str(tmp_path / 'none.dat'))
  monkeypatch.setenv('HOME', str(tmp_path))
  with pytest.raises(UserError, match=f'no landmark model at {tmp_path}/none.dat'):
    detect.Detector('~/none.dat')
  (tmp_path / 'wrong.dat').write_bytes(b'no model')
  with pytest.raises(UserError, match='not a dlib shape predictor'):
    detect.Detector(str(tmp_path / 'wrong.dat'))
  monkeypatch.setattr(detect.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match='--landmark_model'):
    detect.Detector()
  monkeypatch.setitem(sys.modules, 'dlib', None)
  with pytest.raises(UserError, match=r'pip install "fer_jax\[landmarks\]"'):
    detect.Detector()


def test_all_faces_of_a_photograph_the_surest_first(detector):
  image, _ = drawn_face(96)
  photo = np.full((300, 500), 120, np.uint8)
  corners = np.array([(20, 30), (220, 150), (404, 204)])  # The last one touches the corner.
  for x, y in corners:
    photo[y:y + 96, x:x + 96] = image
  found = detector.faces(photo)
  assert len(found) == 3 and [one.score for one in found] == sorted((one.score for one in found), reverse=True)
  found.sort(key=lambda one: one.box[0])
  eyes = drawn_face(96)[1]
  for one, corner in zip(found, corners, strict=True):
    np.testing.assert_allclose(one.points[:2], eyes + corner, atol=4)
    np.testing.assert_array_equal(one.points, align.five_points(one.landmarks))
    left, top, right, bottom = one.box
    assert left < one.points[0, 0] < one.points[1, 0] < right and top < one.points[0, 1] < one.points[3, 1] < bottom
  assert detector.faces(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)) == []


def test_photographs_are_looked_at_in_a_size_that_memory_has_room_for(detector, monkeypatch):
  looked_at = []
  monkeypatch.setattr(detector, '_detect', type('Spy', (), {
      'run': lambda self, image, *_: (looked_at.append(image.shape), ((), (), ()))[1]})())
  for side in (48, 300, 3000, 9000):
    assert detector.faces(np.zeros((side, side), np.uint8)) == []
  margin = 2 * 48
  # A small picture's short side becomes 192; others are enlarged by 2, up to 8 megapixels.
  assert looked_at == [(side + margin,) * 2 for side in (192, 600, 2828, 2828)]


def test_landmarks_at_five_points_are_those_of_the_detector_also_where_the_head_is_tilted(detector):
  image, _ = drawn_face(240)
  photo = cv2.copyMakeBorder(image, 60, 60, 60, 60, cv2.BORDER_REPLICATE)
  found, = detector.faces(photo)
  apart = np.linalg.norm(found.points[0] - found.points[1])
  distance = lambda ours, theirs: np.linalg.norm(ours - theirs, axis=1).mean() / apart
  assert distance(detector.landmarks_at(photo, found.points), found.landmarks) < 0.06
  turn = cv2.getRotationMatrix2D((180, 180), 50, 0.8)
  turned = cv2.warpAffine(photo, turn, (360, 360), borderMode=cv2.BORDER_REPLICATE)
  there = detector.landmarks_at(turned, align.move(found.points, turn))
  assert distance(there, align.move(found.landmarks, turn)) < 0.06
