"""The training order as a function of (seed, step), exact evaluation, and the decoding of records into batches."""

import itertools
import pathlib
import subprocess
import sys

import cv2
import grain
import numpy as np
import pytest

from configs import common
from fer_jax.data import face
from fer_jax.data.reading import order, splits, streams
from fer_jax.data.reading.mixture import Part
from fer_jax.errors import UserError
from fer_jax.landmarks.action_units import action_unit_map
from fer_jax.landmarks.heatmap import landmark_heatmap

CLASSES = ('neutral', 'happiness', 'surprise')


def encode(image):
  return face.png(image).getvalue()


def make_record(i, image=None, **fields):
  """Record ``i`` as a data source returns it; its image holds nothing but ``i``."""
  heatmap = np.zeros((56, 56), np.uint8)
  heatmap[5, 7] = 200
  return {'image': encode(np.full((8, 8), i, np.uint8) if image is None else image), 'label': i % 3,
          'landmarks': np.full((68, 2), np.nan, np.float32) if i % 2 else np.full((68, 2), 2, np.float32),
          'landmark_source': i % 4, 'landmark_score': np.float32(0), 'landmark_heatmap': encode(heatmap),
          'action_unit_map': encode(heatmap // 2), 'name': f'face{i}.png'.encode(), **fields}


def make_source(n, **options):
  return splits.Split([make_record(i) for i in range(n)], CLASSES, **options)


def make_skewed():
  """20 examples of class 0, 3 of class 1, none of class 2, and 4 without a label."""
  labels = [0] * 20 + [1] * 3 + [-1] * 4
  return splits.Split([make_record(i, label=label) for i, label in enumerate(labels)], CLASSES)


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def held(batches):
  """The examples in batches, by what their images hold."""
  return [batch['image'][:, 0, 0, 0].tolist() for batch in batches]


def assert_equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])
    assert a[name].dtype == b[name].dtype


def test_batch_fields():
  batch = next(streams.training_batches([Part(make_source(5))], seed=0, batch_size=4))
  assert {name: (values.shape, values.dtype.name) for name, values in batch.items()} == {
      'image': ((4, 8, 8, 1), 'uint8'), 'label': ((4,), 'int32'), 'target': ((4, 3), 'float32'),
      'landmarks': ((4, 68, 2), 'float32'), 'landmark_source': ((4,), 'int32'),
      'landmark_heatmap': ((4, 56, 56), 'uint8'), 'action_unit_map': ((4, 56, 56), 'uint8'), 'mask': ((4,), 'bool'),
      'row': ((4,), 'int32'), 'triplet': ((4,), 'int32')}
  i = batch['image'][:, 0, 0, 0]
  np.testing.assert_array_equal(batch['label'], i % 3)
  np.testing.assert_array_equal(batch['target'], np.eye(3)[i % 3])
  np.testing.assert_array_equal(batch['landmark_source'], i % 4)
  np.testing.assert_array_equal(np.isnan(batch['landmarks'][:, 0, 0]), i % 2 == 1)
  assert batch['landmarks'][i % 2 == 0].tolist() == np.full(((i % 2 == 0).sum(), 68, 2), 0.25).tolist()
  assert batch['landmark_heatmap'][0, 5, 7] == 200 and batch['action_unit_map'][0, 5, 7] == 100
  assert batch['mask'].all() and batch['row'].tolist() == [0, 1, 2, 3]


def test_every_epoch_is_a_new_permutation():
  seen = sum(held(take(streams.training_batches([Part(make_source(12))], seed=3, batch_size=4), 9)), [])
  epochs = [seen[:12], seen[12:24], seen[24:]]
  assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
  assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != list(range(12))


@pytest.mark.parametrize('order', ['shuffle', 'balanced', 'oversample'])
def test_order_is_a_function_of_seed_and_step(order):
  parts = [Part(make_source(14), order=order)]
  start = lambda seed, step: held(take(streams.training_batches(parts, seed=seed, batch_size=5, start_step=step), 6))
  whole = start(0, 0)
  assert start(0, 0) == whole
  assert start(1, 0) != whole
  assert start(0, 4)[:2] == whole[4:]


@pytest.mark.parametrize('order', ['shuffle', 'balanced', 'oversample'])
@pytest.mark.parametrize('processes', [2, 4])
def test_the_global_batch_is_the_same_for_any_number_of_processes(processes, order):
  source = [Part(make_source(11), order=order)]
  options = {'seed': 5, 'batch_size': 8, 'start_step': 2}
  whole = take(streams.training_batches(source, **options), 4)
  shares = [take(streams.training_batches(source, **options, process_index=p, process_count=processes), 4)
            for p in range(processes)]
  for batch, *pieces in zip(whole, *shares, strict=True):
    assert_equal(batch, {name: np.concatenate([piece[name] for piece in pieces]) for name in batch})
    assert batch['row'].tolist() == list(range(8))


@pytest.mark.parametrize('table', [False, True])
def test_threads_and_tables_change_nothing(table):
  plain = take(streams.training_batches([Part(make_source(30))], seed=0, batch_size=6, threads=0), 12)
  source = make_source(30)
  fields = list(plain[0].keys() - {'mask', 'row', 'triplet'})
  if table:
    source.tabulate(fields)
    first = source.example(0)
    source.example = lambda row, fields=None: first if row == 0 else pytest.fail('decoded again')
  threaded = take(streams.training_batches([Part(source)], seed=0, batch_size=6, threads=5, fields=fields), 12)
  for a, b in zip(plain, threaded, strict=True):
    assert_equal(a, b)


def test_balanced_batches():
  source = make_skewed()
  batches = take(streams.training_batches([Part(source, order='balanced')], seed=0, batch_size=10), 4)
  assert all(np.bincount(batch['label'], minlength=3).tolist() == [5, 5, 0] for batch in batches)
  common = [i for batch in held(batches) for i in batch if i < 20]
  assert sorted(common) == list(range(20))


def test_a_balanced_epoch_as_long_as_the_smallest_class_allows():
  # 3 examples of the smallest class, 2 classes: 6 examples in which none comes twice.
  first = held(take(streams.training_batches([Part(make_skewed(), order='balanced')], seed=0, batch_size=6), 1))[0]
  assert len(set(first)) == 6 and sorted(i for i in first if i >= 20) == [20, 21, 22]


def test_oversampling_draws_classes_equally_often_and_leaves_unlabelled_examples_out():
  draws = 6000
  row_at = order.training_order('oversample', 3, make_skewed())
  counts = np.bincount(row_at(np.arange(draws)), minlength=27)
  expected = np.array([draws / 2 / 20] * 20 + [draws / 2 / 3] * 3 + [0] * 4)
  assert (counts[23:] == 0).all()
  chi_square = ((counts - expected)[:23] ** 2 / expected[:23]).sum()
  assert chi_square < 50  # 22 degrees of freedom: 1 in 1600.
  first = np.arange(50)
  assert row_at(first).tolist() != order.training_order('oversample', 4, make_skewed())(first).tolist()
  assert order.training_order('oversample', 3, make_skewed())(np.array([5000])) == row_at(np.array([7, 5000]))[1]


def grain_order(kind, seed, split):
  """The orders as grain's own data sets have them, an index at a time."""
  if kind == 'shuffle':
    return grain.MapDataset.range(len(split)).seed(seed).shuffle().repeat()
  rows = [np.flatnonzero(split.labels == label) for label in range(max(split.labels) + 1)]
  seeds = np.random.SeedSequence(seed).generate_state(len(rows))
  return grain.MapDataset.mix([grain.MapDataset.source(some).seed(int(own)).shuffle().repeat()
                               for some, own in zip(rows, seeds, strict=True) if len(some)])


# Around the sizes at which the permutation takes more bits.
@pytest.mark.parametrize('kind, count', [('shuffle', 1), ('shuffle', 2), ('shuffle', 90), ('shuffle', 65_535),
                                         ('shuffle', 65_538), ('shuffle', 300_000), ('balanced', 27)])
@pytest.mark.parametrize('seed', [0, 2**31 - 1])
def test_the_order_is_that_of_grain(kind, count, seed):
  split = make_skewed() if kind == 'balanced' else range(count)
  grains = grain_order(kind, seed, split)
  positions = np.concatenate([np.arange(60), np.arange(count - 20, count + 40), [3 * count + 1]])
  positions = positions[positions >= 0]
  assert order.training_order(kind, seed, split)(positions).tolist() == [grains[int(at)] for at in positions]


def test_oversampling_repeats_examples_before_all_were_seen():
  parts = [Part(make_source(12), order='oversample')]
  seen = sum(held(take(streams.training_batches(parts, seed=3, batch_size=12), 1)), [])
  assert len(set(seen)) < 12


def test_training_order_mistakes():
  with pytest.raises(UserError, match="unknown order 'ballanced'; did you mean 'balanced'"):
    streams.training_batches([Part(make_source(3), order='ballanced')], seed=0, batch_size=1)
  unlabelled = splits.Split([make_record(0, label=-1)], CLASSES)
  with pytest.raises(UserError, match="'oversample' needs labels"):
    streams.training_batches([Part(unlabelled, order='oversample')], seed=0, batch_size=1)


@pytest.mark.parametrize('processes', [1, 2])
def test_evaluation_orders(processes):
  source = make_source(17)

  def visited(order):
    parts = [list(streams.evaluation_batches(source, batch_size=6, process_index=p, process_count=processes,
                                            order=order)) for p in range(processes)]
    batches = [{name: np.concatenate([batch[name] for batch in step]) for name in step[0]}
               for step in zip(*parts, strict=True)]
    whole = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert (whole['image'][whole['mask'], 0, 0, 0] == whole['row'][whole['mask']]).all()
    return whole['row'][whole['mask']].tolist()

  assert visited('stored') == list(range(17))
  assert visited('sorted') == [*range(0, 17, 3), *range(1, 17, 3), *range(2, 17, 3)]
  shuffled = visited('shuffled')
  assert shuffled == visited('shuffled') and sorted(shuffled) == list(range(17)) != shuffled
  with pytest.raises(UserError, match="did you mean 'shuffled'"):
    visited('shufled')


@pytest.mark.parametrize('processes', [1, 2, 3])
@pytest.mark.parametrize('n', [1, 5, 6, 7, 17])
def test_evaluation_counts_every_example_once(n, processes):
  source = make_source(n)
  parts = [list(streams.evaluation_batches(source, batch_size=6, process_index=p, process_count=processes, threads=2))
           for p in range(processes)]
  assert {len(part) for part in parts} == {-(-n // 6)}
  rows, values = [], []
  for batch in sum(parts, []):
    assert batch['image'].shape == (6 // processes, 8, 8, 1)
    mask = batch['mask']
    rows += batch['row'][mask].tolist()
    values += batch['image'][mask, 0, 0, 0].tolist()
    assert (batch['label'][~mask] == -1).all()
    assert not any(values[~mask].any() for name, values in batch.items() if name != 'label')
  assert sorted(rows) == list(range(n)) and values == rows


def test_batch_size_must_be_shared_evenly():
  with pytest.raises(UserError, match='divisible by 3'):
    streams.training_batches([Part(make_source(4))], seed=0, batch_size=8, process_count=3)
  with pytest.raises(UserError, match='divisible by 3'):
    streams.evaluation_batches(make_source(4), batch_size=8, process_count=3)


def test_rows_names_and_labels():
  source = make_source(9)
  assert source.names == [f'face{i}.png' for i in range(9)]
  assert source.labels.tolist() == [i % 3 for i in range(9)]
  batch = streams.rows(source, [7, 0])
  assert held([batch]) == [[7, 0]] and batch['row'].tolist() == [7, 0] and batch['mask'].all()


def test_channels():
  rng = np.random.default_rng(0)
  rgb = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
  alpha = cv2.imencode('.png', np.dstack([rgb[..., ::-1], rgb[..., 0]]))[1].tobytes()
  records = [make_record(0, rgb), make_record(1), make_record(2, image=rgb) | {'image': alpha}]
  colour = splits.Split(records, CLASSES)
  np.testing.assert_array_equal(colour.example(0)['image'], rgb)
  np.testing.assert_array_equal(colour.example(1)['image'], np.ones((8, 8, 3)))
  np.testing.assert_array_equal(colour.example(2)['image'], rgb)
  grey = splits.Split(records, CLASSES, channels=1)
  assert grey.example(0)['image'].shape == (8, 8, 1)
  np.testing.assert_allclose(grey.example(0)['image'][..., 0], rgb @ [0.299, 0.587, 0.114], atol=1)


def test_size():
  ramp = np.repeat(np.arange(16, dtype=np.uint8)[None] * 16, 16, 0)
  source = splits.Split([make_record(0), make_record(1, ramp)], CLASSES, size=8)
  np.testing.assert_array_equal(source.example(1)['image'][0, :, 0], ramp[0].reshape(8, 2).mean(1).round())
  assert splits.Split([make_record(0)], CLASSES, size=11).example(0)['image'].shape == (11, 11, 1)
  with pytest.raises(UserError, match=r"'face1.png' is 16 x 16 pixels.*data.size"):
    splits.Split([make_record(0), make_record(1, ramp)], CLASSES).example(1)


def test_an_oblong_image_is_padded_and_everything_follows():
  image = np.zeros((40, 80), np.uint8)
  image[10:14, 60:64] = 255
  point = np.float32([62, 12])  # The spot's centre, pixels.
  heatmap = cv2.resize(image, (56, 56), interpolation=cv2.INTER_AREA)
  record = make_record(0, image, landmarks=np.tile(point, (68, 1)), landmark_heatmap=encode(heatmap))
  example = splits.Split([record], CLASSES).example(0)
  assert example['image'].shape == (80, 80, 1)
  expected = np.array([62 / 80, (12 + 20) / 80])
  np.testing.assert_allclose(example['landmarks'], np.tile(expected, (68, 1)), rtol=1e-6)
  for values in (example['image'][..., 0], example['landmark_heatmap']):
    y, x = np.indices(values.shape) + 0.5
    centre = np.array([(x * values).sum(), (y * values).sum()]) / values.sum() / len(values)
    np.testing.assert_allclose(centre, expected, atol=0.01)


def make_faces(**options):
  """Three real records, as a builder stores them, one without landmarks."""
  rng = np.random.default_rng(0)
  records = []
  points = (rng.uniform(4, 44, (68, 2)), rng.uniform(4, 44, (68, 2)), np.full((68, 2), np.nan))
  for i, landmarks in enumerate(points):
    made = face.record(image=face.png(np.full((48, 48), i, np.uint8)), name=f'{i}.png', label=i, expression=CLASSES[i],
                       size=(48, 48), landmarks=landmarks, source='exact')
    records.append({key: value.getvalue() if hasattr(value, 'getvalue') else value for key, value in made.items()})
  return splits.Split(records, CLASSES, **options)


def test_maps_drawn_with_the_builders_options_are_the_stored_ones():
  defaults = common.get_config('ferplus').data.maps.to_dict()
  for maps in ({}, defaults, {'action_unit_map': {'geometry': 'code', 'au6': 'offset'}}):
    for i in range(3):
      assert_equal(make_faces(maps=maps).example(i), make_faces().example(i))
  # What is stored is used as it is, not drawn again to the same effect.
  source = make_faces(maps=defaults)
  source.records[0]['landmark_heatmap'] = encode(np.full((56, 56), 7, np.uint8))
  assert (source.example(0)['landmark_heatmap'] == 7).all()
  # And the other way about: drawn again from the records' landmarks, they are what the builder stored.
  for i, record in enumerate(make_faces().records):
    fractions = record['landmarks'] / 48
    np.testing.assert_array_equal(landmark_heatmap(fractions, 56), make_faces().example(i)['landmark_heatmap'])


def test_maps_of_earlier_rules_are_not_taken_from_the_records():
  old, new = make_faces(drawing=1), make_faces()
  for record in old.records:
    record |= {name: encode(np.full((56, 56), 7, np.uint8)) for name in ('action_unit_map', 'landmark_heatmap')}
  for row in range(3):
    np.testing.assert_array_equal(old.example(row)['action_unit_map'], new.example(row)['action_unit_map'])
    assert (old.example(row)['landmark_heatmap'] == 7).all()  # Its rules are the same.


@pytest.mark.parametrize('maps, name, draw', [
    ({'landmark_heatmap': {'sigma': 8 / 224, 'combine': 'max'}}, 'landmark_heatmap',
     lambda landmarks, _: landmark_heatmap(landmarks, 56, sigma=8 / 224, combine='max')),
    ({'landmark_heatmap': {'points': 'all'}}, 'landmark_heatmap',
     lambda landmarks, _: landmark_heatmap(landmarks, 56, points='all')),
    ({'action_unit_map': {'au6': 'cheek', 'au10': ''}}, 'action_unit_map',
     lambda landmarks, expression: action_unit_map(landmarks, expression, 56, au6='cheek')),
    ({'action_unit_map': {'radii': 'fixed_px'}}, 'action_unit_map',
     lambda landmarks, expression: action_unit_map(landmarks, expression, 56, radii='fixed_px', image_size=48)),
    ({'action_unit_map': {'geometry': 'intended'}, 'action_unit_generic_map': True}, 'action_unit_generic_map',
     lambda landmarks, _: action_unit_map(landmarks, 'any', 56, geometry='intended')),
])
def test_maps_drawn_otherwise(maps, name, draw):
  source = make_faces(maps=maps)
  batch = next(streams.evaluation_batches(source, batch_size=4))
  stored = [make_faces().example(i) for i in range(3)]
  assert batch[name].shape == (4, 56, 56) and batch[name].dtype == np.uint8
  for i in range(3):
    np.testing.assert_array_equal(batch[name][i], draw(source.records[i]['landmarks'] / np.float32(48), CLASSES[i]))
  if name in stored[0]:
    assert any((batch[name][i] != stored[i][name]).any() for i in range(3))
  untouched = {'landmark_heatmap', 'action_unit_map'} - maps.keys()
  assert all((batch[other][i] == stored[i][other]).all() for other in untouched for i in range(3))
  assert not batch[name][2:].any()  # No landmarks; padding.
  assert ('action_unit_generic_map' in batch) == ('action_unit_generic_map' in maps)


@pytest.mark.parametrize('maps, options', [
    ({}, {}), ({'action_unit_map': {'geometry': 'intended', 'au6': ''}}, {'geometry': 'intended'}),
    ({'action_unit_map': {'radii': 'fixed_px'}}, {'radii': 'fixed_px', 'image_size': 48})])
def test_unit_maps_of_all_classes_are_drawn_on_one_face(maps, options):
  source = make_faces(maps=maps)
  for row in range(2):
    drawn = source.unit_maps(row, 32)
    landmarks = source.records[row]['landmarks'] / np.float32(48)
    np.testing.assert_array_equal(drawn, [action_unit_map(landmarks, name, 32, **options) for name in CLASSES])
    np.testing.assert_array_equal(source.unit_maps(row, 32, [2, 0]), drawn[[2, 0]])
  # At the size of the stored maps, that of the label is the one in a batch.
  np.testing.assert_array_equal(source.unit_maps(1, 56)[1], source.example(1)['action_unit_map'])
  assert not source.unit_maps(2, 32).any()  # No landmarks.
  source.records[0]['landmark_source'] = face.LANDMARK_SOURCES.index('image_box')
  assert source.unit_maps(0, 32).shape == (3, 32, 32) and not source.unit_maps(0, 32).any()


def test_unit_maps_follow_an_oblong_image():
  rng = np.random.default_rng(0)
  landmarks = np.float32([40, 20]) + rng.uniform(-15, 15, (68, 2)).astype(np.float32)
  record = face.record(image=face.png(np.zeros((40, 80), np.uint8)), name='0.png', label=1, expression='happiness',
                       size=(40, 80), landmarks=landmarks, source='exact')
  record = {key: value.getvalue() if hasattr(value, 'getvalue') else value for key, value in record.items()}
  source = splits.Split([record], CLASSES)
  np.testing.assert_array_equal(source.unit_maps(0, 56)[1], source.example(0)['action_unit_map'])
  assert source.unit_maps(0, 56)[1].any() and not source.unit_maps(0, 56)[:, :14].any()  # Above the image.


def test_a_redrawn_map_follows_an_oblong_image():
  record = make_record(0, np.zeros((40, 80), np.uint8), landmarks=np.tile(np.float32([62, 12]), (68, 1)))
  example = splits.Split([record], CLASSES, maps={'landmark_heatmap': {'points': 'all'}}).example(0)
  y, x = np.indices((56, 56)) + 0.5
  heat = example['landmark_heatmap']
  centre = np.array([(x * heat).sum(), (y * heat).sum()]) / heat.sum() / 56
  np.testing.assert_allclose(centre, example['landmarks'][0], atol=0.01)


@pytest.mark.parametrize('maps, message', [
    ({'landmark_heatmaps': {}}, "did you mean 'landmark_heatmap'"),
    ({'landmark_heatmap': {'sigmas': 1}}, "no option 'sigmas'; did you mean 'sigma'"),
    ({'landmark_heatmap': {'points': 'al'}}, "data.maps.landmark_heatmap: unknown points 'al'; did you mean 'all'"),
    ({'landmark_heatmap': {'sigma': 0}}, 'data.maps.landmark_heatmap'),
    ({'action_unit_map': {'geometry': 'intend'}}, "did you mean 'intended'"),
    ({'action_unit_map': {'au6': 'nose'}}, "au6='nose'"),
    ({'action_unit_map': {'radii': 'fixed'}}, "did you mean 'fixed_px'"),
])
def test_map_mistakes_show_when_the_split_is_opened(maps, message):
  with pytest.raises(UserError, match=message):
    make_source(1, maps=maps)


def test_targets():
  votes = np.array([6, 1, 3, 1, 0], np.int32)  # Three classes, then unknown and no face.
  single = np.array([1, 1, 1, 5, 2], np.int32)
  target = np.float32([0.5, 0.0, 0.5])
  records = [make_record(0, votes=votes, target=target), make_record(1, votes=single, target=target, label=-1)]
  example = lambda **options: [splits.Split(records, CLASSES, **options).example(i)['target'].tolist() for i in (0, 1)]
  assert example() == [[1, 0, 0], [0, 0, 0]]
  assert example(target='target') == [target.tolist()] * 2
  np.testing.assert_allclose(example(target='votes'), [[2 / 3, 0, 1 / 3], [0, 0, 0]], rtol=1e-6)
  with pytest.raises(UserError, match="did you mean 'votes'"):
    example(target='vote')
  with pytest.raises(UserError, match='has no field of this name'):
    make_source(1, target='votes')


@pytest.mark.parametrize('threads', [0, 2])
def test_a_broken_image_is_named(threads):
  source = splits.Split([make_record(0), make_record(1) | {'image': b'no image'}], CLASSES)
  with pytest.raises(UserError, match="'face1.png': its image cannot be decoded"):
    take(streams.training_batches([Part(source)], seed=0, batch_size=2, threads=threads), 1)


def test_an_empty_split():
  with pytest.raises(UserError, match='empty'):
    make_source(0)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A folder with the tiny synthetic faces."""
  path = str(tmp_path_factory.mktemp('prepared'))
  splits.open_split('synthetic_faces', 'tiny', 'test', path, prepare_if_missing=True)
  return path


def test_open_split(data_dir):
  source, train, valid = (splits.open_split('synthetic_faces', 'tiny', split, data_dir, size=24)
                          for split in ('train+valid', 'train', 'valid'))
  assert len(source) == len(train) + len(valid)
  assert source.names == train.names + valid.names
  assert source.classes == face.EXPRESSIONS[:7]
  batch = next(streams.evaluation_batches(source, batch_size=4))
  assert batch['image'].shape == (4, 24, 24, 3) and batch['causal_mask'].shape == (4, 56, 56)
  assert (batch['landmark_source'] == face.LANDMARK_SOURCES.index('exact')).all()
  assert 0.2 < np.nanmean(batch['landmarks']) < 0.8
  assert source.labels.tolist() == [source.example(i)['label'] for i in range(len(source))]


def test_fingerprints_tell_splits_apart_and_repeat(data_dir):
  fingerprint = lambda split: splits.open_split('synthetic_faces', 'tiny', split, data_dir).fingerprint
  assert fingerprint('train') == fingerprint('train') != fingerprint('valid')
  assert len(fingerprint('train')) == 64


@pytest.mark.parametrize('name, variant, split, message', [
    ('synthetic_face', '', 'train', "did you mean 'synthetic_faces'"),
    ('synthetic_faces', 'tin', 'train', "did you mean 'tiny'"),
    ('synthetic_faces', 'tiny', 'trian', "bad split 'trian'.*There are: train, valid, test"),
    ('synthetic_faces', 'tiny', 'train[', 'bad split'),
    ('ferplus', 'majority', 'train',
     r'(?s)not prepared.*python -m fer_jax.prepare --dataset=ferplus --variant=majority --data_dir=\S+ --source='),
])
def test_mistakes_are_explained(data_dir, name, variant, split, message):
  with pytest.raises(UserError, match=message):
    splits.open_split(name, variant, split, data_dir)


def test_reading_does_not_import_tensorflow(data_dir):
  code = ('import sys; from fer_jax.data.reading import mixture, splits, streams; '
          f'source = splits.open_split("synthetic_faces", "tiny", "valid", {data_dir!r}); '
          'parts = [mixture.Part(source)]; '
          'next(streams.training_batches(parts, seed=0, batch_size=2)); sys.exit("tensorflow" in sys.modules)')
  subprocess.run([sys.executable, '-c', code], check=True, cwd=pathlib.Path(__file__).parents[3])
