"""Where the faces of a run lie in its images: measured from trusted landmarks, written down, or found again."""

import dataclasses

import numpy as np
import pytest

from fer_jax.data import face
from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError
from fer_jax.landmarks import align
from fer_jax.training import framing, setup
from fer_jax.training.data import Data
from tests import faces

SIDE = 40


def split(shapes, sources=('detector',), size=(SIDE, SIDE)):
  """A split of faces whose 68 landmarks are ``shapes`` (N, 68, 2), in fractions of the squared image."""
  image = face.png(np.zeros(size, np.uint8)).getvalue()
  corner = (max(size) - np.array(size[::-1])) // 2
  records = [{'image': image, 'name': f'{i}', 'label': 0, 'landmarks': np.float32(shape * max(size) - corner),
              'landmark_source': face.LANDMARK_SOURCES.index(sources[i % len(sources)])}
             for i, shape in enumerate(shapes)]
  return Split(records, ('a',))


def shapes(count=60):
  return np.random.default_rng(0).normal(0.5, 0.2, (68, 2)) + np.random.default_rng(1).normal(0, 0.03, (count, 68, 2))


@pytest.mark.parametrize('size', [(SIDE, SIDE), (SIDE, 30), (26, SIDE)])
def test_the_frame_is_the_mean_of_five_points_at_the_mean_size(size):
  made = shapes()
  found = framing.framing(split(made, size=size), 'default')
  points = np.array([align.five_points(shape) for shape in made])
  mean = points.mean(0)
  scale = lambda shape: np.sqrt(((shape - shape.mean(0)) ** 2).sum())
  expected = mean.mean(0) + (mean - mean.mean(0)) * np.mean([scale(one) for one in points]) / scale(mean)
  np.testing.assert_allclose(found['frame']['points'], expected, atol=1e-4)
  np.testing.assert_allclose(found['frame']['spread'], np.sqrt(((points - mean) ** 2).sum(-1).mean()), atol=1e-4)
  assert (found['frame']['count'], found['size'], found['align_size']) == (60, SIDE, 0)


def test_heads_that_tilt_to_both_sides_do_not_make_the_frame_smaller():
  base, tilted = faces_upright(), []
  for angle in np.radians([-30, -15, 0, 15, 30] * 8):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = align.five_points(base).mean(0)
    tilted.append((base - middle) @ turn.T + middle)
  found = framing.framing(split(np.array(tilted)), '')
  np.testing.assert_allclose(found['frame']['points'], align.five_points(base), atol=2e-4)


def faces_upright():
  shape = np.full((68, 2), 0.5)
  for group, place in zip((range(36, 42), range(42, 48), [30], [48], [54]), align.TEMPLATE, strict=True):
    shape[list(group)] = place
  return shape


def test_untrusted_landmarks_do_not_count_and_few_are_not_enough():
  made = shapes()
  made[1::2] += 0.3
  found = framing.framing(split(made, ('detector', 'image_box')), '')
  assert found['frame']['count'] == 30
  np.testing.assert_allclose(found['frame']['points'], framing.framing(split(made[::2]), '')['frame']['points'])
  for few in (split(made[:19]), split(made, ('none',)), split(np.full((60, 68, 2), np.nan))):
    assert framing.framing(few, '') == {'size': SIDE, 'align_size': 0, 'frame': None}


def test_aligned_data_say_it_by_their_variant():
  assert framing.framing(split(shapes()), 'default-similarity112') == {'size': SIDE, 'align_size': 112, 'frame': None}


def test_a_run_of_an_earlier_version_is_measured_where_its_data_are_there(monkeypatch):
  made = faces.config()
  with made.unlocked():
    made.data.variant = 'tiny'
  protocol = setup.make_protocol(made)
  system = type('System', (), {'recipe': type('Recipe', (), {'image_size': 16})})
  trained = setup.Trained(None, protocol, {'channels': 1}, system, {}, 0, list)
  faces_there = split(shapes())
  monkeypatch.setattr(Data, 'open', lambda self, name: faces_there)
  assert framing.recalled(trained) == framing.framing(faces_there, 'tiny')

  def gone(self, name):
    raise UserError('not prepared')

  monkeypatch.setattr(Data, 'open', gone)
  assert framing.recalled(trained) == {'size': 16, 'align_size': 0, 'frame': None}
  aligned = dataclasses.replace(protocol, data=dataclasses.replace(protocol.data, variant='a-similarity96', size=0))
  assert framing.recalled(dataclasses.replace(trained, protocol=aligned)) == {
      'size': 96, 'align_size': 96, 'frame': None}
  written = {'size': 48, 'align_size': 0, 'frame': {'points': [], 'spread': 0.1, 'count': 20}}
  assert framing.recalled(dataclasses.replace(trained, record=written | {'steps': 3})) == written
