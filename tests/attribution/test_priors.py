"""Priors: what they are drawn from, and the three forms of resizing against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.attribution import priors
from fer_jax.attribution.priors import prior_map
from fer_jax.data.face import LANDMARK_SOURCES
from fer_jax.errors import UserError

ROWS = 4


def batch_of(height=24, width=24):
  rng = np.random.default_rng(0)
  maps = {name: jnp.asarray(rng.uniform(0.1, 0.9, (ROWS, height, width)), jnp.float32)
          for name in ('landmark_heatmap', 'action_unit_map', 'action_unit_generic_map', 'action_unit_random_map')}
  # The circle of 'shuffled' is rows 1, 0, 3, 2.
  return {'label': jnp.zeros(ROWS, jnp.int32), 'landmark_source': jnp.full(ROWS, LANDMARK_SOURCES.index('exact')),
          'draw': jnp.float32([0.5, 0.1, 0.9, 0.7]), **maps}


NEXT = np.array([3, 0, 1, 2])


def along_one_axis(values, n_out, step, width):
  """Resizes a row of numbers the way PyTorch's kernels do: triangles over a window cut off at the ends."""
  n_in, result = len(values), []
  for i in range(n_out):
    centre = step * (i + 0.5)
    first, last = max(int(centre - width + 0.5), 0), min(int(centre + width + 0.5), n_in)
    weights = np.array([max(1 - abs(j - centre + 0.5) / width, 0) for j in range(first, last)])
    result.append(values[first:last] @ weights / weights.sum())
  return np.array(result)


@pytest.mark.parametrize('size', [(7, 7), (6, 10), (24, 24), (1, 5), (30, 24)])
@pytest.mark.parametrize('resize', priors.RESIZES)
def test_resizing_agrees_with_numpy(resize, size):
  batch = batch_of(24, 20)
  ours, valid = prior_map(batch, 'landmark', size, resize)
  expected = np.asarray(batch['landmark_heatmap'], np.float64)
  for axis, n_out in ((1, size[0]), (2, size[1])):
    n_in = expected.shape[axis]
    if resize == 'torch_ac_aa':
      step = (n_in - 1) / (n_out - 1) if n_out > 1 else 0.0
    else:
      step = n_in / n_out
    width = max(step, 1.0) if resize != 'plain' else 1.0
    expected = np.apply_along_axis(along_one_axis, axis, expected, n_out, step, width)
  np.testing.assert_allclose(ours, expected, atol=1e-6)
  assert valid.all()


@pytest.mark.parametrize('resize, antialias', [('antialias', True), ('plain', False)])
def test_forms_without_aligned_corners_are_those_of_jax(resize, antialias):
  batch = batch_of()
  expected = jax.image.resize(batch['landmark_heatmap'], (ROWS, 7, 9), 'linear', antialias=antialias)
  np.testing.assert_allclose(prior_map(batch, 'landmark', (7, 9), resize)[0], expected, atol=1e-6)


def test_torch_form_moves_a_point_by_the_misplaced_samples():
  # A pixel of 224 at 200 is 25 of 28; PyTorch's samples there lie 0.26 * 25.5 = 6.6 px further: it looks left of it.
  image = jnp.zeros((1, 224, 224)).at[0, 200:208, 200:208].set(1.0)
  place = {}
  for resize in priors.RESIZES:
    drawn = np.asarray(prior_map({'landmark_heatmap': image}, 'landmark', (28, 28), resize)[0][0])
    place[resize] = (drawn.sum(axis=0) @ np.arange(28)) / drawn.sum()
  assert place['antialias'] == pytest.approx(25, abs=1e-3)
  assert place['torch_ac_aa'] == pytest.approx(25 - 6.6 / 8, abs=0.05)


@pytest.mark.parametrize('resize', priors.RESIZES)
@pytest.mark.parametrize('kind', priors.SOURCES)
def test_priors_stay_between_their_sources_least_and_largest_value(kind, resize):
  batch = batch_of()
  # Constant maps of numbers that are no sums of binary fractions: unclipped, rounding leaves them.
  level = jnp.float32([0.1, 0.3, 0.7, 1 / 3])
  constant = {**batch, priors.SOURCES[kind]: jnp.broadcast_to(level[:, None, None], (ROWS, 24, 24))}
  drawn, _ = prior_map(constant, kind, (7, 7), resize)
  level = level[NEXT] if kind == 'shuffled' else level
  np.testing.assert_array_equal(drawn, np.broadcast_to(level[:, None, None], drawn.shape))
  drawn, _ = prior_map(batch, kind, (30, 5), resize)
  source = batch[priors.SOURCES[kind]]
  assert drawn.min() >= source.min() and drawn.max() <= source.max()


def test_each_prior_is_drawn_from_its_own_map():
  batch = batch_of()
  for kind in ('landmark', 'action_unit', 'action_unit_generic', 'action_unit_random'):
    np.testing.assert_allclose(prior_map(batch, kind, (24, 24))[0], batch[priors.SOURCES[kind]], atol=1e-6)
  uniform, valid = prior_map({'label': batch['label']}, 'uniform', (3, 4))
  assert (uniform == 1).all() and uniform.shape == (ROWS, 3, 4) and valid.all()


@pytest.mark.parametrize('kind', priors.SOURCES)
def test_an_empty_map_is_not_valid(kind):
  batch = batch_of()
  batch[priors.SOURCES[kind]] = batch[priors.SOURCES[kind]].at[2].set(0.0)
  drawn, valid = prior_map(batch, kind, (7, 7))
  np.testing.assert_array_equal(valid, np.arange(ROWS) != 2)
  assert (drawn[2] == 0).all()


def test_a_shuffled_face_gets_the_landmarks_of_another_where_both_are_trusted():
  rng, rows = np.random.default_rng(1), 24
  found, pairs = LANDMARK_SOURCES.index('detector'), set()
  for _ in range(40):
    source = rng.choice([found - 1, found], rows, p=(0.3, 0.7))
    source[:7] = found - 1  # A face alone in its block at most.
    batch = {'label': jnp.zeros(rows), 'landmark_source': jnp.asarray(source), 'draw': jnp.asarray(rng.random(rows)),
             'landmark_heatmap': jnp.ones((rows, 1, 1)) * jnp.arange(1, rows + 1)[:, None, None]}
    other = np.asarray(priors.prior(batch, 'shuffled', (1, 1)))[:, 0, 0].astype(int) - 1
    for block in np.arange(rows).reshape(-1, 8):
      known = [row for row in block if source[row] == found]
      if len(known) < 2:
        assert (other[block] == -1).all()
        continue
      assert sorted(other[known]) == known and all(other[row] != row for row in known)
      assert (np.delete(other[block], np.array(known) - block[0]) == -1).all()
    pairs |= {(row, int(at)) for row, at in enumerate(other) if at >= 0}
  assert len(pairs) == 2 * 8 * 7  # Everybody in its block is met.
  with pytest.raises(UserError, match="needs 'draw'"):
    priors.prior({name: value for name, value in batch.items() if name != 'draw'}, 'shuffled', (1, 1))


def test_blocks_stay_on_a_device_of_the_mapped_form():
  for rows, devices in ((64, 8), (12, 3), (20, 5)):
    priors.check_devices(rows, devices)
  for rows, devices in ((32, 8), (16, 4), (12, 6)):
    with pytest.raises(UserError, match='choose a batch_size'):
      priors.check_devices(rows, devices)


@pytest.mark.parametrize('options, message', [
    ({'kind': 'landmarks'}, "unknown prior 'landmarks'; did you mean 'landmark'"),
    ({'kind': 'action_unit_general'}, "did you mean 'action_unit_generic'"),
    ({'kind': 'landmark', 'resize': 'antialiased'}, "unknown resize 'antialiased'; did you mean 'antialias'"),
    ({'kind': 'action_unit_generic'}, r"'action_unit_generic_map', .* config\.data\.maps"),
    ({'kind': 'action_unit_random'}, r"'action_unit_random_map', .* config\.data\.maps"),
])
def test_errors_say_what_to_do(options, message):
  batch = batch_of()
  del batch['action_unit_generic_map'], batch['action_unit_random_map']
  with pytest.raises(UserError, match=message):
    prior_map(batch, size=(7, 7), **options)
