"""Batches of several sources: their layout, what a row carries, and that sources, processes and steps do not mix."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data import face
from fer_jax.data.reading import splits, streams
from fer_jax.data.reading.mixture import Mixture, Part, check_devices, passes
from fer_jax.data.triplets import Triplets
from fer_jax.errors import UserError

CLASSES = ('neutral', 'happiness', 'surprise')
MAP = face.png(np.full((56, 56), 90, np.uint8)).getvalue()


def make_source(count, at=0, classes=CLASSES, labels=None, maps=('landmark_heatmap', 'action_unit_map'),
                **options):
  """``count`` labelled faces with action units; the image of face i holds nothing but ``at`` + i, so that at tells the
  sources apart."""
  records = []
  for i in range(count):
    image = face.png(np.full((8, 8), at + i, np.uint8)).getvalue()
    records.append({'image': image, 'label': i % len(classes) if labels is None else labels[i], 'name': f'{at + i}.png',
                    'landmarks': np.full((68, 2), 2, np.float32), 'landmark_source': 3, **dict.fromkeys(maps, MAP)})
  return splits.Split(records, classes, **options)


def make_triplets(faces, count, seed=0):
  rng = np.random.RandomState(seed)
  rows = rng.random_sample((count, faces)).argsort(axis=1)[:, :3]
  return Triplets(rows.astype(np.int32), (np.arange(count) % 3).astype(np.int32), (count, 0, 0), 'chance')


# The shuffle of few examples takes ten times as long as that of many.
TRAIN, COMPARED, OTHER = make_source(90), make_source(80, at=100), make_source(50, at=200)
TRIPLETS = make_triplets(80, 60)


def mix(train=2, triplets=1, unlabelled=3, order='shuffle'):
  return [Part(TRAIN, train, order=order), Part(COMPARED, triplets, 'triplets', TRIPLETS, name='triplets'),
          Part(OTHER, unlabelled, 'none', name='unlabelled')]


def take(parts, batch_size, count, **options):
  batches = streams.training_batches(parts, **{'seed': 4, 'batch_size': batch_size, 'threads': 0, **options})
  return list(itertools.islice(batches, count))


def faces_of(batch):
  return batch['image'][:, 0, 0, 0].astype(int)


def items(batches):
  """What was read of each source, in order: faces of 'train' and 'unlabelled', triplets as (first, second, odd)."""
  images, starts = (np.concatenate([values(batch) for batch in batches])
                    for values in (faces_of, lambda batch: batch['triplet'] >= 0))
  return {'train': images[images < 100].tolist(), 'unlabelled': images[images >= 200].tolist(),
          'triplets': [tuple(images[row:row + 3].tolist()) for row in np.flatnonzero(starts)]}


def assert_equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])
    assert a[name].dtype == b[name].dtype


def test_a_batch_is_groups_of_rows_that_look_the_same():
  for batch in take(mix(), 16, 5):
    image, starts = faces_of(batch), np.array([0, 0, 1, 0, 0, 0, 0, 0] * 2, bool)
    source = np.searchsorted([100, 200], image, side='right')
    assert source.tolist() == [0, 0, 1, 1, 1, 2, 2, 2] * 2
    for row in np.flatnonzero(starts):
      members = (image[row:row + 3] - 100).tolist()
      at = TRIPLETS.rows.tolist().index(members)  # These three in this order, so the odd one last.
      assert batch['triplet'][row] == TRIPLETS.types[at]
    assert (batch['triplet'][~starts] == -1).all()
    assert batch['triplet'].dtype == np.int32 and batch['row'].tolist() == list(range(16)) and batch['mask'].all()


def test_a_row_carries_the_supervision_of_its_source_and_no_more():
  for source in (TRAIN, COMPARED, OTHER):  # They all know labels and action units.
    example = source.example(1)
    assert example['label'] == 1 and example['target'].sum() == 1 and example['action_unit_map'].any()
  for batch in take(mix(), 16, 5):
    image = faces_of(batch)
    own = image < 100
    np.testing.assert_array_equal(batch['label'], np.where(own, image % 3, -1))
    np.testing.assert_array_equal(batch['target'], np.eye(3)[image % 3] * own[:, None])
    np.testing.assert_array_equal(batch['action_unit_map'].any(axis=(1, 2)), own)
    assert batch['label'].dtype == np.int32 and batch['target'].dtype == np.float32
    # What needs no label is there for all.
    assert batch['landmark_heatmap'].all() and (batch['landmarks'] == 0.25).all()
    assert (batch['landmark_source'] == 3).all()
  assert OTHER.example(1)['label'] == 1 and OTHER.example(1)['action_unit_map'].any()  # They are as they were.


@pytest.mark.parametrize('order', ['shuffle', 'balanced', 'oversample'])
def test_a_source_of_0_parts_is_like_no_source_at_all(order):
  none, absent = take(mix(2, 2, 0, order), 16, 6), take(mix(2, 2, 0, order)[:2], 16, 6)
  first = take([mix(order=order)[0], Part(OTHER, 0, name='x'), *mix(2, 2, 0)[1:2]], 16, 6)
  for a, b, c in zip(none, absent, first, strict=True):
    assert_equal(a, b)
    assert_equal(a, c)


def test_the_training_split_alone_is_read_as_if_there_were_no_mixtures():
  alone, grouped = take([Part(TRAIN)], 6, 5), take(mix(3, 0, 0), 6, 5)
  for a, b in zip(alone, grouped, strict=True):
    assert_equal(a, b)
    assert (a['triplet'] == -1).all()


@functools.cache
def alone(order):
  """What each source gives where it is the only one."""
  return items(take(mix(1, 0, 0, order), 36, 1) + take(mix(0, 1, 0), 108, 1) + take(mix(0, 0, 1), 36, 1))


@given(st.tuples(*[st.integers(0, 3)] * 3).filter(any), st.permutations([1, 2]), st.integers(1, 3),
       st.sampled_from(['shuffle', 'balanced', 'oversample']))
@settings(deadline=None, max_examples=15)
def test_the_order_of_a_source_does_not_depend_on_the_others(shares, places, groups, order):
  parts = mix(*shares, order)
  mixed = items(take([parts[0], *(parts[place] for place in places)], sum(np.multiply(shares, [1, 3, 1])) * groups, 4))
  for share, name in zip(shares, ('train', 'triplets', 'unlabelled'), strict=True):
    assert mixed[name] == alone(order)[name][:share * groups * 4]


def test_the_orders_of_sources_differ_from_each_other_and_between_seeds():
  same = [Part(TRAIN), Part(TRAIN, supervision='none', name='a'), Part(TRAIN, supervision='none', name='b')]
  sequences = {tuple(image[k::3].tolist()) for seed in (4, 5) for image in [faces_of(take(same, 30, 1, seed=seed)[0])]
               for k in range(3)}
  assert len(sequences) == 6


def test_every_item_of_every_source_comes_once_in_a_pass():
  seen = items(take(mix(), 64, 16))  # 128 groups: of each source two passes and a bit.
  for name, source in (('train', range(90)), ('unlabelled', range(200, 250)),
                       ('triplets', map(tuple, (TRIPLETS.rows + 100).tolist()))):
    whole = sorted(source)
    first, second = seen[name][:len(whole)], seen[name][len(whole):2 * len(whole)]
    assert sorted(first) == sorted(second) == whole and first != second


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_share_a_batch_even_where_their_boundary_cuts_a_group(processes):
  # Groups of 8 rows and the triplet in rows 2 to 4: with 4 processes of 4 rows a boundary cuts each triplet.
  whole = take(mix(), 16, 4)
  pieces = [take(mix(), 16, 4, process_index=p, process_count=processes) for p in range(processes)]
  for batch, *parts in zip(whole, *pieces, strict=True):
    assert_equal(batch, {name: np.concatenate([part[name] for part in parts]) for name in batch})


@pytest.mark.parametrize('threads', [0, 3])
def test_a_start_in_the_middle_gives_the_batches_of_the_whole(threads):
  whole = take(mix(), 16, 7)
  for a, b in zip(whole[4:], take(mix(), 16, 3, start_step=4, threads=threads), strict=True):
    assert_equal(a, b)


def test_labels_of_another_data_set_are_mapped_by_name():
  votes = [[4, 2, 2, 0], [0, 0, 6, 2], [3, 3, 0, 0], [0, 4, 0, 4], [0, 0, 0, 9]]
  other = make_source(5, at=100, classes=('surprise', 'fear', 'neutral', 'happiness'), labels=[0, 2, 1, 3, -1])
  for record, vote in zip(other.records, votes, strict=True):
    record['votes'] = np.array(vote)
  other = dataclasses.replace(other, target='votes')
  mixture = Mixture([Part(TRAIN), Part(other, name='other')], 0, 2)
  faces, _ = mixture.places(np.arange(5), np.array([1]))
  read = mixture.read(faces[:, 0])
  seen = {int(at) - 100: {name: values[i] for name, values in read.items()} for i, at in enumerate(faces_of(read))}
  # In the order of TRAIN's neutral, happiness, surprise; fear is unknown there, and so is a face of it or of no class.
  expected = [(2, [1 / 3, 0, 2 / 3]), (0, [3 / 4, 1 / 4, 0]), (-1, [0, 0, 0]), (1, [0, 1, 0]), (-1, [0, 0, 0])]
  for i, (label, target) in enumerate(expected):
    assert seen[i]['label'] == label and seen[i]['label'].dtype == np.int32
    np.testing.assert_allclose(seen[i]['target'], target, rtol=1e-6)
    assert seen[i]['target'].dtype == np.float32
    assert seen[i]['action_unit_map'].any() == (label >= 0)


def test_fields_are_those_of_the_training_split():
  rich = make_source(4, maps=('landmark_heatmap', 'action_unit_map', 'causal_mask'))
  bare = make_source(4, at=100, maps=())
  without, = take([Part(bare), Part(rich, name='rich')], 8, 1)
  assert without.keys() & {'landmark_heatmap', 'action_unit_map', 'causal_mask'} == set()
  assert sorted(without['label'][1::2].tolist()) == [0, 0, 1, 2]
  batch, = take([Part(rich), Part(bare, name='bare')], 8, 1)
  assert sorted(batch['label'][1::2].tolist()) == [0, 0, 1, 2]
  for name in ('landmark_heatmap', 'action_unit_map', 'causal_mask'):
    assert batch[name].dtype == np.uint8 and batch[name].shape == (8, 56, 56)
    assert batch[name][::2].all() and not batch[name][1::2].any()


def test_classes_and_fields_are_the_training_splits_even_where_it_has_no_part():
  other = make_source(4, at=100, classes=CLASSES[::-1], maps=())
  batch, = take([Part(TRAIN, 0), Part(other, name='other')], 4, 1)
  image = faces_of(batch) - 100
  np.testing.assert_array_equal(batch['label'], 2 - image % 3)
  assert not batch['landmark_heatmap'].any() and batch['landmark_heatmap'].shape == (4, 56, 56)


@pytest.mark.parametrize('batch_size, works', [(20, 16), (15, 8), (7, 8), (1, 8)])
def test_a_batch_that_groups_do_not_fill(batch_size, works):
  with pytest.raises(UserError, match=rf'batch_size={batch_size} is no multiple of 8, .*2 x 1 \+ 1 x 3 \+ 3 x 1.*'
                                      rf'Try {works}\.'):
    streams.training_batches(mix(), seed=0, batch_size=batch_size)
  assert Mixture(mix(), 0, works).group == 8


def test_processes_must_share_a_batch_evenly():
  with pytest.raises(UserError, match='divisible by 3'):
    streams.training_batches(mix(), seed=0, batch_size=16, process_count=3)


def test_all_parts_0():
  with pytest.raises(UserError, match='config.data.parts and the parts of all config.sources are 0'):
    Mixture(mix(0, 0, 0), 0, 8)


@pytest.mark.parametrize('options, message', [
    ({'supervision': 'label', 'name': 'x'}, r"config\.sources\.x: unknown supervision 'label'; did you mean 'labels'"),
    ({'parts': -1, 'name': 'x'}, r'config\.sources\.x\.parts=-1: give a whole number'),
    ({'parts': -2}, r'config\.data\.parts=-2: give a whole number'),
    ({'parts': 1.5}, r'config\.data\.parts=1.5: give a whole number')])
def test_bad_parts(options, message):
  with pytest.raises(UserError, match=message):
    Part(TRAIN, **options)


def test_passes():
  # 10 batches of 2 groups: 40 faces of 90, 20 triplets of 60, 60 faces of 50.
  assert passes(mix(), 16, 10) == {'train': 0.444, 'triplets': 0.333, 'unlabelled': 1.2}
  assert passes([Part(TRAIN)], 30, 9) == {'train': 3.0}


@pytest.mark.parametrize('batch_size, devices', [(8, 1), (16, 2), (32, 2), (64, 8)])
def test_devices_that_hold_whole_groups(batch_size, devices):
  check_devices(mix(), batch_size, devices)


@pytest.mark.parametrize('batch_size, devices', [(8, 2), (24, 2), (16, 4)])
def test_a_triplet_on_two_devices_is_refused(batch_size, devices):
  with pytest.raises(UserError, match=f"parallel='pmap' with triplets.*each of {devices} devices gets "
                                      f"{batch_size // devices} rows.*multiple of {8 * devices}"):
    check_devices(mix(), batch_size, devices)
  check_devices([part for part in mix() if part.triplets is None], batch_size, devices)
