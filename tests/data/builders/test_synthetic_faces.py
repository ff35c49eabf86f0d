"""Synthetic faces: exact geometry, action units that do what they are called, causal masks, and the TFDS builder."""

import subprocess
import sys

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow_datasets as tfds

from fer_jax import registry
from fer_jax.data import face
from fer_jax.data.builders.synthetic_faces import anatomy
from fer_jax.data.builders.synthetic_faces import synthetic_faces_dataset_builder as builder_module
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.errors import UserError
from fer_jax.landmarks.action_units import CODEBOOK, action_unit_map
from fer_jax.landmarks.heatmap import landmark_heatmap

CLASSES = face.EXPRESSIONS[:7]
IMAGES = ('image', 'landmark_heatmap', 'action_unit_map', 'causal_mask')
seeds = st.integers(0, 2**32 - 1)
drawing = hypothesis.settings(max_examples=30, deadline=None)


def decode(encoded: bytes) -> np.ndarray:
  return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)


def test_head_is_symmetric():
  np.testing.assert_array_equal(anatomy.MIRROR[anatomy.MIRROR], np.arange(68))
  for table in (anatomy.FACE, *anatomy.SHIFTS.values()):
    np.testing.assert_allclose(table[anatomy.MIRROR] * np.array([-1, 1, 1])[:table.shape[1]], table)


def test_every_action_unit_of_the_codebook_moves_something():
  for unit in set().union(*CODEBOOK.values()):
    assert np.abs(anatomy.SHIFTS[unit]).max() > .02, unit


@hypothesis.given(seeds, st.sampled_from([
    (1, [21, 22], 'up'), (2, [17, 18, 25, 26], 'up'), (4, [20, 21, 22, 23], 'down'), (5, [37, 38, 43, 44], 'up'),
    (6, [40, 41, 46, 47], 'up'), (9, [31, 32, 34, 35], 'up'), (10, [50, 51, 52], 'up'), (12, [48, 54], 'up'),
    (15, [48, 54], 'down'), (16, [56, 57, 58], 'down'), (17, [8], 'up'), (26, [7, 8, 9, 57, 66], 'down'),
    (27, [7, 8, 9, 57, 66], 'down')]))
@drawing
def test_action_unit_moves_its_points_its_way(seed, effect):
  unit, points, way = effect
  neutral = anatomy.shape(np.random.default_rng(seed))[0]
  moved = anatomy.express(neutral, {unit: 1.0}) - anatomy.express(neutral, {})
  assert np.all(moved[points, 1] * (1 if way == 'down' else -1) > .01)


@hypothesis.given(seeds)
@drawing
def test_mouth_widens_tightens_and_opens(seed):
  neutral = anatomy.shape(np.random.default_rng(seed))[0]

  def mouth(*units):
    moved = anatomy.express(neutral, dict.fromkeys(units, 1.0))
    return moved[54, 0] - moved[48, 0], moved[66, 1] - moved[62, 1]

  width, gap = mouth()
  assert mouth(20)[0] > width > mouth(23)[0]
  assert mouth(25, 26, 27)[1] > mouth(26)[1] > mouth(25)[1] > gap
  assert mouth(24)[1] <= gap + 1e-6


@hypothesis.given(seeds, st.dictionaries(st.sampled_from(sorted(anatomy.SHIFTS)), st.floats(0, 1)), st.floats(-.2, .2))
@drawing
def test_lids_and_lips_never_cross(seed, strengths, asymmetry):
  y = anatomy.express(anatomy.shape(np.random.default_rng(seed))[0], strengths, asymmetry)[:, 1]
  above = [37, 38, 43, 44, 61, 62, 63, 50, 51, 52, 67, 66, 65]
  below = [41, 40, 47, 46, 67, 66, 65, 61, 62, 63, 58, 57, 56]
  assert np.all(y[below] - y[above] > -1e-9)


def test_rotation_turns_the_nose_where_it_says():
  nose, ear = np.array([0, 0, 1.0]), np.array([1.0, 0, 0])
  assert (anatomy.rotation(.3, 0, 0) @ nose)[0] > 0
  assert (anatomy.rotation(0, .3, 0) @ nose)[1] > 0
  assert (anatomy.rotation(0, 0, .3) @ ear)[1] > 0
  turn = anatomy.rotation(.3, -.2, .1)
  np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)


@hypothesis.given(seeds, st.sampled_from(CLASSES))
@drawing
def test_landmarks_lie_on_the_face_in_order(seed, expression):
  points = draw_face(np.random.default_rng(seed), expression, 32).landmarks
  assert points.shape == (68, 2) and points.dtype == np.float32
  assert np.all(points > -.25 * 32) and np.all(points < 1.25 * 32)
  left, right, mouth = (points[part].mean(0) for part in (slice(36, 42), slice(42, 48), slice(48, 68)))
  across = (right - left) / np.linalg.norm(right - left)
  assert across[0] > .8  # Roll is at most 20 degrees; yaw and pitch together tilt the line of the eyes by 8 more.
  down = np.array([-across[1], across[0]])
  height = points @ down
  assert height[17:27].mean() < height[36:48].mean() < height[31:36].mean() < height[48:68].mean() < height[8]
  assert cv2.pointPolygonTest(cv2.convexHull(points[:27]), mouth.tolist(), False) > 0


def test_drawing_is_a_function_of_the_seed():
  first, again, other = (draw_face(np.random.default_rng(seed), 'anger', 48) for seed in (1, 1, 2))
  for name in ('image', 'landmarks', 'causal_mask'):
    np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
  assert first.action_units == again.action_units
  assert np.abs(first.image.astype(int) - other.image).mean() > 5


@pytest.mark.parametrize('seed', range(3))
def test_size_only_changes_resolution(seed):
  small, large = (draw_face(np.random.default_rng(seed), 'fear', size) for size in (64, 128))
  np.testing.assert_allclose(large.landmarks, 2 * small.landmarks, rtol=1e-4)
  shrunk = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA)
  assert np.abs(shrunk.astype(int) - small.image).mean() < 14


@hypothesis.given(seeds)
@drawing
def test_neutral_has_an_empty_causal_mask(seed):
  drawn = draw_face(np.random.default_rng(seed), 'neutral', 32)
  assert not drawn.causal_mask.any() and drawn.intensity == 0
  assert all(strength < .15 for strength in drawn.action_units.values())


@pytest.mark.parametrize('expression', CLASSES[1:])
def test_causal_mask_lies_on_the_face(expression):
  inside = total = 0
  for seed in range(12):
    drawn = draw_face(np.random.default_rng([7, seed]), expression, 64)
    assert .5 <= drawn.intensity <= 1
    assert set(drawn.action_units) <= set(CODEBOOK[expression])
    assert set(np.unique(drawn.causal_mask)) <= {0, 255}
    hull = np.zeros((64, 64), np.uint8)
    brows, nose = drawn.landmarks[17:27], drawn.landmarks[30]
    points = np.concatenate([drawn.landmarks, brows + .4 * (brows - nose)])  # The forehead wrinkles too.
    cv2.fillConvexPoly(hull, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
    hull = cv2.dilate(hull, np.ones((7, 7), np.uint8))
    inside += (drawn.causal_mask[hull > 0] > 0).sum()
    total += (drawn.causal_mask > 0).sum()
  assert total > 12 * .01 * 64**2
  assert inside > .98 * total


def test_causal_mask_follows_the_action_units():
  def share_of_upper_half(expression):
    upper = total = 0
    for seed in range(12):
      drawn = draw_face(np.random.default_rng([9, seed]), expression, 64)
      y, x = np.nonzero(drawn.causal_mask)
      nose, chin = drawn.landmarks[29], drawn.landmarks[8]
      upper += ((np.stack([x, y], -1) + .5 - nose) @ (chin - nose) < 0).sum()
      total += len(x)
    return upper / total

  assert share_of_upper_half('surprise') > share_of_upper_half('happiness') + .2


def test_unknown_expression_is_named():
  for wrong, hint in (('contempt', 'contempt'), ('happy', 'happiness')):
    with pytest.raises(UserError, match=hint):
      draw_face(np.random.default_rng(0), wrong)


def test_bad_config_is_refused():
  with pytest.raises(UserError, match='image_size'):
    builder_module.SyntheticFacesConfig(name='wrong', image_size=4)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
  builder = registry.find('data.builders', 'synthetic_faces')(
      data_dir=tmp_path_factory.mktemp('tfds'), config='tiny', file_format='array_record')
  builder.download_and_prepare()
  return builder


def read(builder, split):
  source = builder.as_data_source(split, decoders={name: tfds.decode.SkipDecoding() for name in IMAGES})
  return [source[k] for k in range(len(source))]


def test_builder_writes_balanced_records(tiny):
  assert [len(read(tiny, split)) for split in ('train', 'valid', 'test')] == [64, 32, 32]
  assert tuple(tiny.info.features['label'].names) == CLASSES
  counts = np.bincount([record['label'] for record in read(tiny, 'train')], minlength=7)
  assert counts.max() - counts.min() <= 1
  assert 'tensorflow' not in sys.modules


def test_records_read_back_what_was_drawn(tiny):
  for record in read(tiny, 'test')[:10]:
    index = int(record['name'].decode().removeprefix('test_').removesuffix('.png'))
    expression = CLASSES[record['label']]
    drawn = draw_face(np.random.default_rng([0, 2, index]), expression, 32)
    np.testing.assert_array_equal(decode(record['image'])[..., ::-1], drawn.image)
    np.testing.assert_array_equal(record['landmarks'], drawn.landmarks)
    assert record['intensity'] == pytest.approx(drawn.intensity)
    assert face.LANDMARK_SOURCES[record['landmark_source']] == 'exact'
    fractions = record['landmarks'] / np.float32(32)
    np.testing.assert_array_equal(decode(record['landmark_heatmap']), landmark_heatmap(fractions, face.MAP_SIZE))
    np.testing.assert_array_equal(decode(record['action_unit_map']),
                                  action_unit_map(fractions, expression, face.MAP_SIZE))
    mask = decode(record['causal_mask'])
    assert mask.shape == (face.MAP_SIZE, face.MAP_SIZE) and mask.any() == drawn.causal_mask.any()


def test_process_pool_draws_the_same_faces(tmp_path):
  config = builder_module.SyntheticFacesConfig(name='pool', train=300, valid=1, test=1, image_size=16, seed=5)
  builder = builder_module.Builder(data_dir=tmp_path, config=config, file_format='array_record', workers=2)
  listed = builder.faces(None)['train']
  drawn = list(builder._generate_examples('train', listed))
  assert [key for key, _ in drawn] == [f'train_{k:06d}.png' for k in range(300)]
  for k in (0, 255, 256, 299):
    here = builder_module.draw_record(listed[k], seed=5, image_size=16)
    assert here['image'].getvalue() == drawn[k][1]['image'].getvalue()


def test_drawing_needs_neither_jax_nor_tensorflow():
  code = ("import sys; import fer_jax.data.builders.synthetic_faces.synthetic_faces_dataset_builder; "
          "assert not {'jax', 'tensorflow'} & set(sys.modules)")
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stderr
