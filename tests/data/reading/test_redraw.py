"""The action units of a random class, a control: which class, on which faces, and what it leaves as it is."""

import itertools

import numpy as np
import pytest

from fer_jax.data import face
from fer_jax.data.reading import splits, streams
from fer_jax.data.reading.mixture import Part
from fer_jax.data.reading.redraw import WITH_UNITS, random_expression
from fer_jax.landmarks.action_units import action_unit_map
from fer_jax.training.step import MASKS
from tests import faces

NAME = 'action_unit_random_map'
CLASSES = (*face.EXPRESSIONS, 'drowsy')


def make_split(count=60, turn=1, **options):
  """Faces of every class and of none, three sets of landmarks; in the other order with ``turn`` -1."""
  points = np.random.default_rng(0).uniform(4, 44, (68, 2)).astype(np.float32)
  records = []
  for i in range(count):
    label = i % (len(CLASSES) + 1) - 1
    made = face.record(image=face.png(np.full((48, 48), i, np.uint8)), name=f'face{i}.png', label=label,
                       expression=face.canonical(CLASSES[label]) if label >= 0 else None, size=(48, 48),
                       landmarks=points + i % 3, source='image_box' if i % 7 == 0 else 'exact')
    records.append({key: value.getvalue() if hasattr(value, 'getvalue') else value for key, value in made.items()})
  return splits.Split(records[::turn], CLASSES, **options)


@pytest.mark.parametrize('options', [{}, {'geometry': 'intended'}])
def test_it_is_this_faces_own_map_of_the_expression_that_its_name_draws(options):
  maps = {'action_unit_map': options, NAME: True}
  source, again, turned = make_split(maps=maps), make_split(maps=maps), make_split(maps=maps, turn=-1)
  empty = 0
  for row, record in enumerate(source.records):
    example = source.example(row)
    if record['label'] >= 0 and CLASSES[record['label']] in WITH_UNITS:
      landmarks, drawn = record['landmarks'] / np.float32(48), random_expression(f'face{row}.png')
      np.testing.assert_array_equal(example[NAME], action_unit_map(landmarks, drawn, 56, **options))
      assert example[NAME].any()
    else:
      assert not example[NAME].any()
      empty += 1
    for other in (again.example(row), turned.example(59 - row)):
      np.testing.assert_array_equal(other[NAME], example[NAME])
  assert empty == 24


def test_it_speaks_of_the_faces_that_the_labelled_action_units_speak_of():
  batch = next(streams.evaluation_batches(make_split(maps={NAME: True}), batch_size=64))
  assert batch[NAME].shape == (64, 56, 56) and batch[NAME].dtype == np.uint8
  own = MASKS['action_units'](batch)
  assert 0 < own.sum() < 36  # Those whose landmarks are not to be trusted are out as well.
  np.testing.assert_array_equal(MASKS['action_units'](batch | {'action_unit_map': batch[NAME]}), own)
  differ = (batch[NAME] != batch['action_unit_map']).any(axis=(1, 2))
  assert 0 < differ[own].sum() < own.sum()  # The labelled class is among those that are drawn.


def test_where_the_drawn_expression_shows_nothing_the_next_one_is_taken():
  # Radii so large on an image this small that disgust fills it all, which is an empty map.
  options = {'geometry': 'intended', 'radii': 'fixed_px'}
  source, others = make_split(maps={'action_unit_map': options, NAME: True}), []
  for row, record in enumerate(source.records):
    example, landmarks = source.example(row), record['landmarks'] / np.float32(48)
    shown = {name: action_unit_map(landmarks, name, 56, image_size=48, **options) for name in WITH_UNITS}
    assert example[NAME].any() == example['action_unit_map'].any()
    if example[NAME].any() and not shown[drawn := random_expression(f'face{row}.png')].any():
      np.testing.assert_array_equal(example[NAME], shown['fear'])
      others.append(drawn)
  assert {*others} == {'disgust'}


def test_other_maps_and_what_cam_cos_compares_with_stay_as_they_are():
  source, plain = make_split(maps={NAME: True}), make_split()
  for row in (2, 13, 25):
    with_it, without = source.example(row), plain.example(row)
    assert with_it.keys() - without.keys() == {NAME}
    assert all((with_it[name] == without[name]).all() for name in without)
    np.testing.assert_array_equal(source.unit_maps(row, 56), plain.unit_maps(row, 56))
    np.testing.assert_array_equal(source.unit_maps(row, 56, [with_it['label']])[0], with_it['action_unit_map'])


def test_expressions_are_equally_likely_whatever_the_label():
  assert {*WITH_UNITS} == {*face.EXPRESSIONS} - {'neutral', 'contempt'}
  assert [random_expression(f'face{i}.png') for i in range(3)] == ['happiness', 'anger', 'anger']  # In every process.
  near = lambda count: abs(count - 1000) < 4 * np.sqrt(6000 / 6 * 5 / 6)  # Four standard deviations.
  drawn = {names: [random_expression(names.format(i)) for i in range(6000)]
           for names in ('fer{:07d}.png', 'happiness/{}.jpg', 'sadness/{}.jpg', 'S{:04d}_AN.tiff')}
  for names in drawn.values():
    assert all(near(names.count(expression)) for expression in WITH_UNITS)
  for one, other in itertools.combinations(drawn.values(), 2):  # Nor does a name's part lead to another's expression.
    assert near(sum(a == b for a, b in zip(one, other, strict=True)))


def test_it_does_not_tell_of_labels_that_a_source_does_not_give():
  train, other = (faces.source(14, maps={NAME: True}, seed=seed) for seed in (0, 1))
  given = {}
  for supervision in ('none', 'labels'):
    parts = [Part(train), Part(other, 1, supervision, name='other')]
    batch = next(streams.training_batches(parts, seed=0, batch_size=28, threads=0))
    given[supervision] = batch[NAME][1::2].any(axis=(1, 2)).sum()
    assert batch[NAME][::2].any(axis=(1, 2)).sum() == 12  # All but neutral.
  assert given == {'none': 0, 'labels': 12}
