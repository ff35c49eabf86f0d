"""Overlays show where a map is large and which sign it has, and survive maps that show nothing."""

import base64

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fer_jax import registry
from fer_jax.reports import pictures

FACE = np.full((40, 40, 3), 128, np.uint8)


def test_colour_tells_the_sign_and_scale_does_not_matter():
  values = np.zeros((4, 4), np.float32)
  values[0, 0], values[3, 3] = 5e-9, -5e-9
  drawn = pictures.overlay(FACE, values).astype(int)
  np.testing.assert_array_equal(drawn, pictures.overlay(FACE, values * 1e12))
  assert np.abs(drawn[2, 2] - pictures.FOR).max() < 25
  assert np.abs(drawn[-3, -3] - pictures.AGAINST).max() < 25
  assert np.ptp(drawn[2, -3]) == 0, 'no evidence leaves the grey photograph'


@pytest.mark.parametrize('value', [0, np.nan, np.inf])
def test_maps_that_show_nothing_leave_the_face_bare(value):
  drawn = pictures.overlay(FACE, np.full((3, 3), value, np.float32))
  assert np.ptp(drawn) == 0


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))))
def test_photographs_keep_their_aspect_and_become_rgb(image):
  drawn = pictures.photo(image)
  assert drawn.dtype == np.uint8 and drawn.shape[2] == 3
  assert drawn.shape[0] / drawn.shape[1] == pytest.approx(image.shape[0] / image.shape[1], abs=0.01)


def test_data_uri_is_the_picture():
  blob = pictures.photo(cv2.circle(np.zeros((40, 40, 3), np.uint8), (20, 20), 12, (200, 40, 40), -1))
  head, data = pictures.data_uri(blob).split(',')
  assert head == 'data:image/jpeg;base64'
  back = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
  assert np.abs(back.astype(int) - blob).mean() < 5


def test_rows_name_classes_and_hold_one_cell_per_map_in_pairs():
  panel = {'images': np.stack([FACE, FACE]), 'labels': np.array([1, -1]), 'predictions': np.array([0, 7]),
           **{key: np.ones((2, 3, 3)) for key in ('before/predicted', 'after/logit_sum', 'after/predicted')}}
  first, second = pictures.faces(panel, ['neutral', 'fear'])
  assert (first['label'], first['prediction'], first['correct']) == ('fear', 'neutral', False)
  assert (second['label'], second['prediction'], second['correct']) == ('', 'class 7', None)
  assert [(c['title'], c['group']) for c in first['cells']] == [
      ('photo', ''), ('before training', 'predicted'), ('after training', 'predicted'), ('after training', 'logit sum')]


def test_whose_faces_are_not_to_be_passed_on():
  known = {name: pictures.restricted({'data': {'dataset': name}}, {}) for name in registry.names('data.builders')}
  assert known == dict.fromkeys(('affectnet', 'fec', 'fer2013', 'ferplus', 'rafdb', 'sfew'), True) | {
      'faces_folder': False, 'synthetic_faces': False}


def test_neighbours_are_compared_with_their_query_where_both_labels_are_known():
  found = {'images': np.stack([np.stack([FACE] * 3)] * 2), 'labels': np.array([[1, 1, 7], [-1, -1, 0]]),
           'distances': np.array([[0, 0.25, 1234.5], [0, 1, 2]], np.float32)}
  first, second = pictures.neighbours(found, ['neutral', 'fear'])
  assert (first['query']['label'], second['query']['label']) == ('fear', '')
  assert [(c['label'], c['same'], c['distance']) for c in first['cells']] == [
      ('fear', True, '0.25'), ('class 7', False, '1.23e+03')]
  assert [(c['label'], c['same']) for c in second['cells']] == [('', None), ('neutral', None)]
