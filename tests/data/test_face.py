"""The record: what is stored can be drawn again from the stored landmarks."""

import io

import cv2
import numpy as np
import pytest

from fer_jax.data import face
from fer_jax.data.preparing import builder
from fer_jax.landmarks.action_units import CODEBOOK, action_unit_map
from fer_jax.landmarks.heatmap import landmark_heatmap

CLASSES = face.EXPRESSIONS[:7]


def decoded(file):
  return cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)


def make(**changes):
  image = np.zeros((40, 80), np.uint8)
  landmarks = np.random.default_rng(0).uniform((10, 5), (70, 35), (68, 2))
  return face.record(**{'image': face.png(image), 'name': 'a.png', 'label': 2, 'expression': 'surprise',
                        'size': image.shape, 'landmarks': landmarks, 'source': 'detector', 'score': 1.5} | changes)


def test_every_expression_has_an_entry_in_the_codebook():
  assert set(CODEBOOK) == set(face.EXPRESSIONS)


@pytest.mark.parametrize('name, expression', [
    ('happiness', 'happiness'), ('Happy', 'happiness'), (' JOY ', 'happiness'), ('Angry', 'anger'), ('afraid', 'fear'),
    ('Surprised', 'surprise'), ('normal', 'neutral'), ('sad', 'sadness'), ('contempt', 'contempt'), ('calm', None),
    ('', None), ('0', None)])
def test_data_sets_have_their_own_words_for_an_expression(name, expression):
  assert face.canonical(name) == expression


def test_png_keeps_grey_and_colour():
  grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
  np.testing.assert_array_equal(decoded(face.png(grey)), grey)
  colour = np.stack([grey, grey + 50, grey + 100], -1)
  np.testing.assert_array_equal(decoded(face.png(colour))[:, :, ::-1], colour)  # OpenCV's order is BGR.


def test_record_fits_the_features():
  record = make(votes=np.arange(10, dtype=np.int32))
  assert set(record) == {*builder.features(CLASSES), 'votes'}
  encoded = builder.features(CLASSES).encode_example({k: v for k, v in record.items() if k != 'votes'})
  assert encoded['label'] == 2


def test_maps_are_drawn_from_fractions_of_width_and_height():
  record = make()
  assert record['landmarks'].dtype == np.float32
  fractions = record['landmarks'] / np.float32([80, 40])
  np.testing.assert_array_equal(decoded(record['landmark_heatmap']), landmark_heatmap(fractions, face.MAP_SIZE))
  np.testing.assert_array_equal(decoded(record['action_unit_map']),
                                action_unit_map(fractions, 'surprise', face.MAP_SIZE))
  assert face.LANDMARK_SOURCES[record['landmark_source']] == 'detector'


def test_no_landmarks_are_nan_and_empty_maps():
  record = make(landmarks=np.full((68, 2), np.nan), source='none', label=-1, expression=None)
  assert record['landmarks'].shape == (68, 2) and np.isnan(record['landmarks']).all()
  for name in ('landmark_heatmap', 'action_unit_map'):
    assert isinstance(record[name], io.BytesIO)
    assert decoded(record[name]).shape == (56, 56) and not decoded(record[name]).any()


def test_unknown_source_is_an_error():
  with pytest.raises(ValueError, match='not in tuple'):
    make(source='guess')
