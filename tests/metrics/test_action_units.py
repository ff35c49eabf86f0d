"""Agreement with action units: the paper's definitions written out, hand-checked values, and what pictures score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fer_jax.landmarks.action_units import CODEBOOK, action_unit_maps
from fer_jax.metrics import action_units, alignment
from tests.attribution.test_priors import along_one_axis
from tests.landmarks.test_action_units import synthetic_face

CLASSES = tuple(CODEBOOK)
SHOWN = tuple(name for name, units in CODEBOOK.items() if units)
FACE = action_unit_maps(synthetic_face(), CLASSES, 224)
SMALL = action_unit_maps(synthetic_face(), CLASSES, 28)
# The definition's own cosine has a floor of 1e-8, below which it is no cosine.
values = st.floats(-1e3, 1e3, width=32).filter(lambda value: not 0 < abs(value) < 1e-6)


def measure(maps, drawn, label, prediction=None, **options):
  """``measure`` of faces whose unit maps are an array (N, K, S, S)."""
  label = np.asarray(label)
  options = {'faces': np.arange(len(label)), 'constants': {}, **options}
  return action_units.measure(maps, lambda row: drawn[row], label=label, classes=CLASSES,
                              prediction=label if prediction is None else np.asarray(prediction), **options)


def cosine(a, b):
  return float(a.ravel() @ b.ravel() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-8))


def prepared(image, size, attention=False):
  """The paper's preparation of a map, as it is written in words."""
  image = image.astype(np.float64)
  if attention:
    image = image - image.min() if image.min() < 0 else image
  else:
    with np.errstate(all='ignore'):
      image = np.nan_to_num((image - image.min()) / (image.max() - image.min()))
  return np.clip(alignment.resize(image, (size, size)), 0, 1 if not attention else None)


@given(hnp.arrays(np.float32, (4, 3, 5), elements=values), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_agrees_with_the_definition_written_out(maps, attention, seed):
  rng = np.random.default_rng(seed)
  label, prediction = rng.integers(0, 8, (2, 4))
  drawn = np.stack([np.roll(SMALL, shift, axis=2) for shift in rng.integers(0, 5, 4)])
  rows, _ = measure({'m': maps}, drawn, label, prediction, attention={'m'} if attention else ())
  expected, predicted, contrast, pearson = ({} for _ in range(4))
  for i in range(4):
    if not CODEBOOK[name := CLASSES[label[i]]]:
      continue
    image = prepared(maps[i], 28, attention)
    cosines = {other: cosine(image, drawn[i, CLASSES.index(other)].astype(float)) for other in SHOWN}
    expected.setdefault(name, []).append(cosines[name])
    contrast.setdefault(name, []).append(cosines[name] - np.mean([cosines[o] for o in SHOWN if o != name]))
    flat = np.ptp(image) < 1e-5 * image.max() or not image.any()
    true = drawn[i, label[i]].astype(float)
    pearson.setdefault(name, []).append(0 if flat else np.corrcoef(image.ravel(), true.ravel())[0, 1])
    if CODEBOOK[CLASSES[prediction[i]]]:
      predicted.setdefault(name, []).append(cosines[CLASSES[prediction[i]]])
  if not expected:
    assert rows == {}
    return
  row = rows['m']
  assert row['action_unit_cosine_by_class'] == pytest.approx({k: np.mean(v) for k, v in expected.items()}, abs=1e-6)
  assert row['action_unit_count'] == sum(map(len, expected.values()))
  assert row['action_unit_predicted_left_out'] == row['action_unit_count'] - sum(map(len, predicted.values()))
  for key, by_class in (('cosine', expected), ('contrast', contrast), ('pearson', pearson)):
    assert row[f'action_unit_{key}'] == pytest.approx(np.mean([np.mean(v) for v in by_class.values()]), abs=1e-6), key
  assert row['action_unit_predicted_cosine'] == (
      pytest.approx(np.mean([np.mean(v) for v in predicted.values()]), abs=1e-6) if predicted else None)


@given(hnp.arrays(np.int8, (6, 6, 7), elements=st.integers(-2, 2) | st.integers(-128, 127)), st.booleans())
@settings(max_examples=20, deadline=None)
def test_pointing_is_at_all_pixels_of_the_enlarged_map_that_are_its_maximum(maps, attention):
  label = [1, 2, 3, 4, 5, 6]
  rows, _ = measure({'m': maps}, np.stack([FACE] * 6), label, attention=['m'] * attention,
                    constants=alignment.trivial_maps((224, 224)))
  expected = []
  for k, image in zip(label, maps, strict=True):
    image = alignment.resize(image, (224, 224))
    highest = image >= image.max() - 1e-6 * np.ptp(image)
    expected.append((FACE[k] >= 128)[highest].mean())
  assert rows['m']['action_unit_pointing'] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize('cam, attention, expected', [
    ([[2, 0], [0, -2]], False, 0.8165), ([[1, 0], [0, 0]], False, 1), ([[0.5, 0], [0, 1]], False, 0.4472),
    ([[0.5, 0], [0, 1]], True, 0.4472), ([[0, 0], [0, 0]], False, 0), ([[0, 0], [0, 0]], True, 0),
    ([[np.nan, 0], [0, 1]], False, 0), ([[np.inf, 0], [0, 1]], True, 0),
    # A floor that all pixels share is taken from a CAM; from attention only where it is negative.
    ([[2, 1], [1, 1]], False, 1), ([[2, 1], [1, 1]], True, 2 / np.sqrt(7)), ([[1, -1], [-1, -1]], True, 1)])
def test_hand_checked_maps(cam, attention, expected):
  drawn = np.zeros((1, 8, 2, 2), np.uint8)
  drawn[0, 1, 0, 0] = 255
  rows, _ = measure({'m': np.array([cam], float)}, drawn, [1], attention=['m'] if attention else ())
  assert rows['m']['action_unit_cosine'] == pytest.approx(expected, abs=5e-5)
  assert rows['m']['action_unit_count'] == 1 and rows['m']['action_unit_contrast'] is None  # There is no other class.


@pytest.mark.parametrize('side, theirs, ours', [(28, 0.997, 0.972), (7, 0.854, 0.763)])
def test_published_cosine_enlarges_attention_as_the_authors_code(side, theirs, ours):
  # Attention that their loss has made perfect: the action-unit map, shrunk as they shrink it. It is scored as they
  # score it, and where the network sees it.
  def moved(image, n_out):
    step = (len(image) - 1) / (n_out - 1)
    for axis in (0, 1):
      image = np.apply_along_axis(along_one_axis, axis, image, n_out, step, max(step, 1))
    return image

  label = [CLASSES.index(name) for name in SHOWN]
  maps = np.array([moved(FACE[k].astype(float), side) for k in label])
  rows, _ = measure({'cam': maps, 'attention': maps}, np.stack([FACE] * 6), label, attention=['attention'])
  expected = np.mean([cosine(moved(image, 224), FACE[k].astype(float)) for image, k in zip(maps, label, strict=True)])
  assert rows['attention']['action_unit_published_cosine'] == pytest.approx(expected) == pytest.approx(theirs, abs=1e-3)
  assert rows['attention']['action_unit_cosine'] == pytest.approx(ours, abs=1e-3)
  for name in ('cam', 'class_free'):
    assert rows[name]['action_unit_published_cosine'] == rows[name]['action_unit_cosine']


@given(hnp.arrays(np.float32, (6, 3, 3), elements=values), st.floats(0.01, 100), st.floats(-50, 50), st.booleans())
@settings(max_examples=30, deadline=None)
def test_ranges_and_what_does_not_matter(maps, scale, offset, attention):
  maps = np.round(maps)  # So that an offset cannot swallow what differs.
  label = [1, 2, 3, 4, 5, 6]

  def of(maps):
    row = measure({'m': maps}, np.stack([SMALL] * 6), label, attention=['m'] * attention)[0]['m']
    return row | row.pop('action_unit_cosine_by_class')

  row = of(maps)
  for key in ('cosine', 'predicted_cosine', 'pointing'):
    assert 0 <= row[f'action_unit_{key}'] <= 1
  assert -1 <= row['action_unit_pearson'] <= 1 and -1 <= row['action_unit_contrast'] <= 1
  assert row['action_unit_predicted_cosine'] == row['action_unit_cosine']  # All were recognised.
  assert of(maps * scale) == pytest.approx(row, abs=1e-6)
  if not attention:
    assert of(maps.astype(np.float64) + offset) == pytest.approx(row, abs=1e-6)


@given(hnp.arrays(np.float32, (4, 4), elements=values), st.permutations(range(12)))
@settings(max_examples=30, deadline=None)
def test_a_fixed_map_has_no_contrast_when_classes_are_balanced_on_one_face(image, order):
  label = np.array([1, 2, 3, 4, 5, 6] * 2)[order]
  constants = alignment.trivial_maps((9, 9))
  rows, _ = measure({'m': np.stack([image] * 12)}, np.stack([SMALL] * 12), label, constants=constants)
  for name, row in rows.items():
    assert row['action_unit_contrast'] == pytest.approx(0, abs=1e-9), name


def test_the_right_map_of_every_face_is_perfect_and_its_contrast_known():
  label = [CLASSES.index(name) for name in SHOWN]
  rows, _ = measure({'m': FACE[label].astype(float)}, np.stack([FACE] * 6), label)
  assert rows['m']['action_unit_cosine'] == pytest.approx(1) == rows['m']['action_unit_pearson']
  assert rows['m']['action_unit_pointing'] == 1
  assert rows['m']['action_unit_contrast'] == pytest.approx(0.45, abs=0.01)


# Published nowhere: computed by hand from exact ellipses on the same face, each to two decimals.
BASELINES = {
    'uniform': (.47, .52, .43, .43, .54, .44), 'centred_gaussian': (.51, .55, .64, .59, .70, .60),
    'largest': (.73, .81, .69, .68, .85, .69), 'class_free': (.79, .87, .68, .69, .88, .83)}


def test_pictures_that_owe_nothing_to_a_network_score_what_the_table_says():
  order = ('surprise', 'fear', 'disgust', 'happiness', 'sadness', 'anger')
  constants = {**alignment.trivial_maps((224, 224)), 'largest': FACE.max(axis=0) / 255}
  rows, class_free = measure({}, np.stack([FACE] * 6), [CLASSES.index(name) for name in order], constants=constants)
  assert list(rows) == ['uniform', 'centred_gaussian', 'largest', 'class_free']
  for name, expected in BASELINES.items():
    found = rows[name]['action_unit_cosine_by_class']
    assert [found[key] for key in order] == pytest.approx(expected, abs=0.02), name
    assert rows[name]['action_unit_cosine'] == pytest.approx(np.mean(expected), abs=0.01)
  assert rows['uniform']['action_unit_pearson'] == 0
  covered = np.mean([(FACE[CLASSES.index(name)] >= 128).mean() for name in SHOWN])
  assert rows['uniform']['action_unit_pointing'] == pytest.approx(covered)
  shown = FACE[[CLASSES.index(name) for name in SHOWN]]
  np.testing.assert_allclose(class_free[2], alignment.resize(shown.mean(axis=0) / 255, (56, 56)), atol=1e-6)


def test_faces_that_do_not_count():
  # Neutral; no label; contempt; landmarks not trusted; all outside of the image; and one face that counts.
  drawn = np.stack([FACE] * 6)
  drawn[4] = 0
  maps = np.random.default_rng(0).random((6, 4, 4))
  rows, class_free = measure({'m': maps}, drawn, [0, -1, 7, 2, 3, 1], faces=[0, 1, 2, 4, 5])
  alone, _ = measure({'m': maps[5:]}, drawn[5:], [1])
  assert rows == alone and rows['m']['action_unit_count'] == 1
  assert [image.any() for image in class_free] == [True, True, True, False, False, True]
  rows, class_free = measure({'m': maps[:3]}, drawn, [0, -1, 7])
  assert rows == {} and class_free.shape == (3, 56, 56)
  assert measure({'m': maps}, drawn, [1] * 6, faces=[])[0] == {}


def test_a_map_that_is_not_finite_counts_as_zero():
  maps = np.random.default_rng(0).random((2, 4, 4))
  good, _ = measure({'m': maps}, np.stack([FACE] * 2), [1, 1])
  maps[0, 0, 0] = np.nan
  bad, _ = measure({'m': maps}, np.stack([FACE] * 2), [1, 1])
  assert bad['m']['action_unit_count'] == 2
  assert bad['m']['action_unit_cosine'] == pytest.approx(measure({'m': maps[1:]}, FACE[None], [1])[0]['m'][
      'action_unit_cosine'] / 2)
  assert bad['m']['action_unit_cosine'] < good['m']['action_unit_cosine']


def test_predicted_classes_without_action_units_are_left_out_and_counted():
  maps = np.random.default_rng(0).random((4, 4, 4))
  rows, _ = measure({'m': maps}, np.stack([FACE] * 4), [1, 1, 2, 2], [0, 2, 7, 2])
  assert rows['m']['action_unit_predicted_left_out'] == 2 and rows['m']['action_unit_count'] == 4
  images = [alignment.resize(alignment.min_max(image), (224, 224)) for image in maps]
  expected = [cosine(images[1], FACE[2].astype(float)), cosine(images[3], FACE[2].astype(float))]
  assert rows['m']['action_unit_predicted_cosine'] == pytest.approx(np.mean(expected))


@given(hnp.arrays(np.float64, (3, 9), elements=st.integers(0, 1000).map(lambda k: k / 1000)),
       hnp.arrays(np.float32, (2, 9), elements=st.integers(0, 255).map(float)), st.floats(-0.2, 0.2))
@settings(max_examples=50, deadline=None)
def test_similarities_agree_with_numpy(pictures, units, off):
  shifts = pictures.mean(axis=1) + off
  cosines, correlations = action_units.similarities((pictures - shifts[:, None]).astype(np.float32), units, shifts)
  for i, k in np.ndindex(3, 2):
    a, b = pictures[i], units[k].astype(np.float64)
    assert cosines[i, k] == pytest.approx(cosine(a, b), abs=2e-6)
    expected = np.corrcoef(a, b)[0, 1] if np.ptp(a) and np.ptp(b) else 0
    if not np.ptp(a) or np.ptp(a) > 1e-2:
      assert correlations[i, k] == pytest.approx(expected, abs=2e-5)


def test_training_mean_weighs_classes_the_same_and_looks_at_few_faces(monkeypatch):
  labels = np.array([1] * 60 + [2] * 6 + [0, -1])
  rows = 10 * np.arange(68)
  seen = []

  def unit_map(row, label):
    seen.append((row, label))
    assert labels[row // 10] == label
    return FACE[label] // (1 + (row == 0)) if row != 50 else np.zeros_like(FACE[0])  # Of one the landmarks are gone.

  mean = action_units.training_mean(unit_map, rows, labels)
  first = (58 * FACE[1].astype(float) + FACE[1] // 2) / 59
  np.testing.assert_allclose(mean, (first + FACE[2]) / 2 / 255, atol=1e-9)
  assert len(seen) == 67
  monkeypatch.setattr(action_units, 'FACES_OF_A_CLASS', 4)
  seen.clear()
  action_units.training_mean(unit_map, rows, labels)
  assert [row for row, label in seen if label == 1] == [0, 150, 300, 450]
  assert action_units.training_mean(unit_map, rows[-2:], labels[-2:]) is None


@given(st.integers(0, 500), st.integers(1, 60))
def test_evenly_spaced_rows(count, most):
  rows = action_units.evenly(count, most)
  assert len(rows) == min(count, most) and (not count or rows[0] == 0) and (rows < count).all()
  assert len(rows) < 2 or set(np.diff(rows)) <= {count // len(rows), -(-count // len(rows))}
