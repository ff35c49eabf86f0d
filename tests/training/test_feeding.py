"""Faces that lie on the devices are the faces that are sent: same rows, same augmentation, same steps."""

import types

import jax
import numpy as np
import pytest

from configs import baseline
from fer_jax.data.reading import streams
from fer_jax.data.reading.mixture import Mixture, Part
from fer_jax.data.triplets import triplets_from_labels
from fer_jax.runtime import cluster
from fer_jax.training import feeding
from fer_jax.training.data import Data
from fer_jax.training.plan import make_plan
from tests import faces

STEPS = 20


@pytest.fixture(autouse=True, scope='module')
def splits():
  """Every split of every data set is a handful of faces in memory."""
  made = {name: faces.source(48, seed=seed) for seed, name in enumerate(('train', 'valid', 'test'))}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Data, '_open', lambda self, where, split, **options: made[split])
    yield made


def smooth(made):
  """The config with a network that has no ReLU: at its kinks rounding becomes any difference."""
  with made.unlocked():
    made.model.backbone = {'name': 'vit', 'size': 'tiny', 'patch': 4, 'depth': 4, 'width': 16, 'heads': 2}
    made.optimizer.learning_rate = 0.01
  return made


def config(**changes):
  return smooth(faces.config(**{'length': f'{STEPS} steps', 'log_every': 6, **changes}))


def planned(config, devices=1):
  mesh = cluster.make_mesh(jax.devices()[:devices])
  return make_plan(config, mesh), mesh


def taken(plan, mesh, stop=STEPS, start=0, state=None):
  """State and meter after the steps from ``start`` to ``stop``, and the ranges in which they were taken."""
  state = cluster.replicate(plan.initial() if state is None else state, mesh)
  meter, ranges = cluster.replicate(plan.new_meter(), mesh), []
  for steps, take in plan.feed(start, mesh):
    state, meter = take(state, meter)
    ranges.append((steps.start, steps.stop))
    if steps.stop >= stop:
      return jax.device_get(state), jax.device_get(meter), ranges


def assert_close(a, b, bound=1e-6):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=bound, atol=bound)


@pytest.fixture(scope='module')
def streamed():
  plan, mesh = planned(config())
  return plan, mesh, taken(plan, mesh)


@pytest.fixture(scope='module')
def resident():
  plan, mesh = planned(config(data__resident='True', data__resident_steps=4))
  return plan, mesh, taken(plan, mesh)


def test_resident_steps_are_the_streamed_ones(streamed, resident):
  assert_close(streamed[2][:2], resident[2][:2])
  assert streamed[2][2] == [(at, at + 1) for at in range(STEPS)]
  # At most four, and up to a line of the log or a checkpoint.
  assert resident[2][2] == [(0, 4), (4, 6), (6, 10), (10, 12), (12, 16), (16, 18), (18, 20)]


def test_a_run_goes_on_in_the_other_form(streamed, resident):
  for before, after in ((streamed, resident), (resident, streamed)):
    half = taken(*before[:2], stop=12)[0]
    assert_close(taken(*after[:2], start=12, state=half)[0], streamed[2][0])


@pytest.mark.parametrize('options', [{}, {'data__resident': 'split', 'parallel': 'pmap'}])
def test_eight_devices_with_a_copy_or_a_share_each(streamed, options):
  plan, mesh = planned(config(data__resident_steps=4, **{'data__resident': 'True', **options}), devices=8)
  assert_close(taken(plan, mesh)[0], streamed[2][0], 1e-5)


def test_tables_of_several_sources_hold_what_batches_do():
  """Labelled faces, triplets and unlabelled faces of several splits."""
  train, valid = faces.source(20, seed=0), faces.source(12, seed=1)
  triplets = triplets_from_labels(valid.labels, len(valid.classes), 9)
  parts = [Part(train), Part(valid, 1, 'triplets', triplets, name='triplets'), Part(valid, 2, 'none', name='others')]
  fields = ['image', 'label', 'target', 'action_unit_map', 'landmarks']
  mixture, rows = Mixture(parts, 0, 12, fields), np.arange(12)
  steps = np.arange(7)
  places, kinds = mixture.places(steps, rows)
  tables = mixture.tables()
  assert {len(table) for table in tables.values()} == {20 + 12 + 12}
  assert mixture.tabulate() == sum(table.nbytes for table in tables.values())
  batches = streams.training_batches(parts, seed=0, batch_size=12, threads=0)
  for at, kind in zip(places, kinds, strict=True):
    batch = next(batches)
    np.testing.assert_array_equal(batch['triplet'], kind)
    for name, table in tables.items():
      np.testing.assert_array_equal(table[at], batch[name])


def test_what_nobody_reads_is_not_decoded(streamed, splits):
  assert streamed[0].fields - feeding.LAYOUT == {'image', 'target', 'landmark_heatmap', 'landmark_source'}
  plain = faces.shrink(baseline.get_config('synthetic_faces'))
  plan, mesh = planned(plain)
  assert plan.fields - feeding.LAYOUT == {'image', 'target'}
  asked, decode = [], splits['train']._decoded
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(splits['train'], '_decoded', lambda record, fields: asked.append(fields) or decode(record, fields))
    patch.setattr(splits['train'], '_table', {})
    batch = next(plan.batches(fields=plan.fields, threads=0))
  assert batch.keys() == {'image', 'target', 'row', 'mask', 'triplet'}
  # The first face says what there is; of the others only what is asked for is decoded.
  assert asked.count(None) == 1 and not set().union(*filter(None, asked)) & {'landmark_heatmap', 'action_unit_map'}


@pytest.mark.parametrize('start, most, every, expected', [
    (0, 4, [6, 9], [(0, 4), (4, 6), (6, 9), (9, 12), (12, 14)]), (5, 100, [10], [(5, 10), (10, 14)]), (14, 3, [2], []),
    (0, 1, [3], [(at, at + 1) for at in range(14)])])
def test_chunks_end_where_something_is_to_be_done(start, most, every, expected):
  assert [(one.start, one.stop) for one in feeding.chunks(start, 14, most, every)] == expected


def test_tables_lie_on_devices_where_they_are_told_to_or_fit(monkeypatch):
  mesh = cluster.make_mesh(jax.devices()[:1])
  assert feeding.fits('True', 10**15, mesh) and feeding.fits('split', 10**15, mesh)
  assert not feeding.fits('False', 1, mesh) and not feeding.fits('auto', 1, mesh)  # A CPU gains nothing by it.
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  device = type('Device', (), {'memory_stats': lambda self: {'bytes_limit': 4000}})()
  mesh = types.SimpleNamespace(local_devices=[device])
  assert feeding.fits('auto', 1000, mesh) and not feeding.fits('auto', 1001, mesh)
