"""Action-unit maps: the hand-checked cosines of a synthetic face, validity, and the two geometries."""

import cv2
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.landmarks import action_units

SHOWN = tuple(name for name, units in action_units.CODEBOOK.items() if units)


def synthetic_face():
  """A roughly symmetric face on 224 px, as fractions; points that no action unit uses are 0."""
  points = {
      6: [(85, 220)], 8: [(112, 226)], 10: [(139, 220)],
      17: [(46, 88), (54, 77), (67, 73), (80, 75), (92, 81), (132, 81), (144, 75), (157, 73), (170, 77), (178, 88)],
      29: [(112, 129)], 31: [(96, 152)], 35: [(128, 152)],
      36: [(62, 105), (71, 98), (82, 98), (91, 105), (82, 109), (71, 109)],
      42: [(133, 105), (142, 98), (153, 98), (162, 105), (153, 109), (142, 109)],
      48: [(83, 185)], 50: [(105, 173), (112, 175), (119, 173)], 54: [(141, 185), (130, 196)], 57: [(112, 201)],
      59: [(94, 196)],
  }
  face = np.zeros((68, 2), np.float32)
  for first, values in points.items():
    face[first:first + len(values)] = values
  return face / 224


def cosine(a, b):
  a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
  return a @ b / np.sqrt((a @ a) * (b @ b))


# Between the classes' maps with the code's geometry; computed by hand from exact ellipses, at 224 px. OpenCV's
# ellipses are polygons a little larger, hence the tolerance.
COSINES = {
    'surprise': {'fear': 0.91, 'disgust': 0.28, 'happiness': 0.21, 'sadness': 0.62, 'anger': 0.58},
    'fear': {'disgust': 0.46, 'happiness': 0.33, 'sadness': 0.66, 'anger': 0.66},
    'disgust': {'happiness': 0.57, 'sadness': 0.43, 'anger': 0.57},
    'happiness': {'sadness': 0.74, 'anger': 0.52},
    'sadness': {'anger': 0.64},
}


@pytest.mark.parametrize('size', [56, 224])
def test_cosines_between_classes(size):
  maps = {name: action_units.action_unit_map(synthetic_face(), name, size) for name in SHOWN}
  for first, others in COSINES.items():
    for second, expected in others.items():
      assert cosine(maps[first], maps[second]) == pytest.approx(expected, abs=0.03), (first, second)


def drawn_as_the_source(units):
  """What the source makes of units, each a list of (centre, axes) in whole pixels, at 224 px."""
  layers = []
  for ellipses in units:
    canvas = np.full((224, 224), 1e-4)
    for (x, y), axes in ellipses:
      cv2.ellipse(canvas, (int(x), int(y)), axes, 0, 0, 360, (255, 255, 255), cv2.FILLED)
    layers.append(cv2.resize(cv2.blur(cv2.resize(canvas, (28, 28)), (3, 3)), (224, 224)))
  image = np.max(layers, axis=0)
  return (image - image.min()) / (image.max() - image.min())


def smile(p, more=()):
  """Action units 6, 12 and 25."""
  return [[(p[i] + (0, 37), (22, 22)) for i in (41, 46)], [(p[i], (20, 20)) for i in (48, 54)],
          [(p[i], (25, 10)) for i in (51, 57)], *more]


def test_maps_are_those_of_the_source_at_every_pixel():
  for face in synthetic_face() + np.random.default_rng(0).normal(0, 0.02, (30, 68, 2)):
    expected = drawn_as_the_source(smile(np.trunc(face * 224 + 1e-3)))
    np.testing.assert_allclose(action_units.action_unit_map(face, 'happiness', 224) / 255, expected, atol=2e-3)


def test_the_generic_map_of_the_code_has_the_dimple_and_the_closed_eye(monkeypatch):
  # The left corner of the mouth is 10 px from the border; the left eye is upside down, so that its half height is none
  # and AU 7 falls back to 5 px, AU 43 to the line that OpenCV draws.
  p = np.rint(synthetic_face() * 224).astype(int)
  p[48, 0], p[38, 1], p[41, 1] = 10, 109, 88
  monkeypatch.setattr(action_units, 'UNITS', (6, 12, 25))
  more = [[((0, 185), (20, 20)), ((161, 185), (20, 20))], [((76, 98), (14, 0)), ((147, 103), (14, 15))]]
  for geometry, units in (('code', smile(p, more)), ('intended', None)):
    drawn = action_units.action_unit_map(p / 224, 'any', 224, geometry, au6='offset') / 255
    expected = drawn_as_the_source(units or smile(p))
    np.testing.assert_allclose(drawn, expected, atol=2e-3)


@pytest.mark.parametrize('geometry, expected', [
    ('code', {'anger': 0.83, 'fear': 0.95}), ('intended', {'anger': 0.98, 'fear': 1.0})])
def test_symmetry_of_the_geometries(geometry, expected):
  for name in SHOWN:
    drawn = action_units.action_unit_map(synthetic_face(), name, 224, geometry)
    assert cosine(drawn, drawn[:, ::-1]) == pytest.approx(expected.get(name, 0.99), abs=0.013), name


def test_maps_span_the_range():
  for name in SHOWN:
    drawn = action_units.action_unit_map(synthetic_face(), name, 56)
    assert drawn.shape == (56, 56) and drawn.dtype == np.uint8 and drawn.min() == 0 and drawn.max() == 255


@pytest.mark.parametrize('expression', ['neutral', 'contempt', None])
def test_expressions_without_action_units_have_no_map(expression):
  assert not action_units.action_unit_map(synthetic_face(), expression, 28).any()


def test_missing_landmarks_have_no_map():
  hurt = synthetic_face()
  hurt[40, 1] = np.nan
  for landmarks in (None, np.full((68, 2), np.nan), hurt, synthetic_face() + 5):  # The last: all outside.
    assert not action_units.action_unit_map(landmarks, 'fear', 28).any()


def test_lips_parted_is_drawn_at_the_lips():
  # AU 25 is the only unit of happiness near the centre line.
  drawn = action_units.action_unit_map(synthetic_face(), 'happiness', 224)
  assert drawn[175, 112] > 150 and drawn[201, 112] > 150 and drawn[100, 112] == 0


def test_any_shows_all_units_of_the_table():
  # One map for every face whatever it shows: the largest of the maps of the units, each alone.
  face = synthetic_face()
  assert set().union(*action_units.CODEBOOK.values()) == set(action_units.UNITS)
  generic = action_units.action_unit_map(face, 'any', 56)
  assert not set(action_units.MORE_UNITS) & set(action_units.UNITS)
  points = np.trunc(face * 224.0 + 1e-3).tolist()
  raw = [action_units._draw(action_units._ellipses(unit, points, action_units.GEOMETRY['code'], 1.0))
         for unit in action_units.UNITS + action_units.MORE_UNITS]
  expected = np.max([cv2.resize(each, (56, 56)) for each in raw], axis=0)
  assert expected.min() == 0
  np.testing.assert_allclose(generic, 255 * expected / expected.max(), atol=0.51)
  for name in SHOWN:
    assert (generic >= action_units.action_unit_map(face, name, 56).astype(int) - 2).all(), name


@pytest.mark.parametrize('landmarks', [None, np.full((68, 2), np.nan)])
def test_any_needs_landmarks(landmarks):
  assert not action_units.action_unit_map(landmarks, 'any', 28).any()


def test_radii_scale_with_the_image_or_keep_their_pixels():
  face = synthetic_face()
  draw = lambda expression, **options: action_units.action_unit_map(face, expression, 224, **options)
  for name in SHOWN:
    plain = draw(name)
    np.testing.assert_array_equal(plain, draw(name, radii='scaled', image_size=448))
    np.testing.assert_array_equal(plain, draw(name, radii='fixed_px', image_size=224))

  # Discs of 20 px at the corners of the mouth, AU 12 of a smile, cover half the width at 448 px and twice it at 112.
  covered = {size: (draw('happiness', radii='fixed_px', image_size=size)[185:, :80] > 127).sum()
             for size in (112, 224, 448)}
  assert covered[448] < 0.5 * covered[224] < 0.5 * 0.5 * covered[112]
  # Surprise's brows are shares of the side, so they stay.
  brows = [draw('surprise', radii='fixed_px', image_size=size)[:90] for size in (224, 448)]
  np.testing.assert_allclose(*(b.astype(float) for b in brows), atol=1)


def test_each_switch_changes_its_expressions_only():
  face = synthetic_face()
  plain = {name: action_units.action_unit_map(face, name, 28) for name in SHOWN}
  changed = {
      'disgust': {'disgust'}, 'au20_right': {'fear'}, 'au10': {'anger'}, 'au6': {'happiness', 'sadness'}}
  for switch, expected in changed.items():
    value = action_units.GEOMETRY['intended'][switch]
    different = {name for name in SHOWN
                 if (action_units.action_unit_map(face, name, 28, **{switch: value}) != plain[name]).any()}
    assert different == expected, switch


def test_float32_fractions_do_not_lose_a_pixel():
  # Whole pixels, divided and multiplied by 224 in float32, must not truncate to the pixel before.
  shift = np.array([[3, 2]], np.float32) / 224
  direct = action_units.action_unit_map(np.float64(np.rint(synthetic_face() * 224)) / 224, 'anger', 224)
  np.testing.assert_array_equal(direct, action_units.action_unit_map(synthetic_face(), 'anger', 224))
  assert (direct != action_units.action_unit_map(synthetic_face() + shift, 'anger', 224)).any()


@pytest.mark.parametrize('options', [{}, {'geometry': 'intended'}, {'radii': 'fixed_px', 'image_size': 100}])
def test_several_expressions_are_drawn_as_each_alone(options):
  names = [*action_units.CODEBOOK, 'any', None, 'fear']
  for size in (56, 224):
    maps = action_units.action_unit_maps(synthetic_face(), names, size, **options)
    assert maps.shape == (11, size, size) and maps.dtype == np.uint8
    for drawn, name in zip(maps, names, strict=True):
      np.testing.assert_array_equal(drawn, action_units.action_unit_map(synthetic_face(), name, size, **options))
  assert not action_units.action_unit_maps(None, names, 8).any()
  assert action_units.action_unit_maps(synthetic_face(), [], 8).shape == (0, 8, 8)


@hypothesis.given(hnp.arrays(np.float32, (68, 2), elements=st.floats(-1, 2, width=32)), st.sampled_from(SHOWN),
                  st.sampled_from(tuple(action_units.GEOMETRY)))
@hypothesis.settings(max_examples=50, deadline=None)
def test_any_landmarks_give_a_map_or_zeros(landmarks, expression, geometry):
  drawn = action_units.action_unit_map(landmarks, expression, 14, geometry)
  assert drawn.max() in (0, 255)


@pytest.mark.parametrize('options, message', [
    ({'expression': 'happy'}, "did you mean 'happiness'"),
    ({'expression': 'fear', 'geometry': 'paper'}, 'unknown geometry'),
    ({'expression': 'fear', 'radii': 'fixed'}, "did you mean 'fixed_px'"),
    ({'expression': 'fear', 'au6': 'p50'}, "au6='p50'"),
    ({'expression': 'fear', 'au7': 'offset'}, 'au7'),
])
def test_unknown_choices_are_named(options, message):
  with pytest.raises(UserError, match=message):
    action_units.action_unit_map(synthetic_face(), size=8, **options)
