"""RegionNorm against flax's BatchNorm applied to one region after the other, and to each device's rows."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fer_jax.models.norm import batch_norm
from fer_jax.runtime import cluster, scaling

FACES, REGIONS, CHANNELS, DEVICES = 4, 3, 5, 8
MESH, ROWS = cluster.make_mesh(), PartitionSpec(cluster.AXIS)


class Net(nn.Module):
  """One layer, made as the backbones make it."""

  train: bool
  regions: int
  dtype: str = 'float32'
  devices: int = 1
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x):
    return batch_norm(self.train, jnp.dtype(self.dtype), self.axis_name, self.regions, devices=self.devices)(
        name='bn')(x)


def one_after_the_other(variables, x, dtype='float32'):
  """x (B, R, ..., c): BatchNorm on region 0 of every face, then on region 1 with the statistics it left."""
  stats, out = variables['batch_stats']['bn'], []
  for region in range(x.shape[1]):
    norm = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=jnp.dtype(dtype))
    y, updates = norm.apply({'params': variables['params']['bn'], 'batch_stats': stats}, x[:, region],
                            mutable=['batch_stats'])
    stats = updates['batch_stats']
    out.append(y)
  return jnp.stack(out, 1), {'bn': stats}


def together(variables, x, dtype='float32'):
  y, updates = Net(True, REGIONS, dtype).apply(variables, x.reshape(-1, *x.shape[2:]), mutable=['batch_stats'])
  return y.reshape(x.shape), updates['batch_stats']


def make(place=(2, 3), seed=0, dtype=np.float32):
  rng = np.random.default_rng(seed)
  shape = (FACES, REGIONS, *place, CHANNELS)
  offsets = 3 * rng.normal(size=(1, REGIONS, *[1] * len(place), CHANNELS))
  variables = {'params': {'bn': {'scale': rng.uniform(0.5, 2, CHANNELS), 'bias': rng.normal(size=CHANNELS)}},
               'batch_stats': {'bn': {'mean': rng.normal(size=CHANNELS), 'var': rng.uniform(0.5, 2, CHANNELS)}}}
  return jax.tree.map(dtype, variables), dtype(rng.normal(size=shape) + offsets)


@pytest.mark.parametrize('place', [(2, 3), ()], ids=['maps', 'vectors'])
def test_training_equals_batch_norm_on_one_region_after_the_other(place):
  variables, x = make(place)
  (ours, our_stats), (theirs, their_stats) = together(variables, x), one_after_the_other(variables, x)
  np.testing.assert_allclose(ours, theirs, atol=1e-5)
  assert jax.tree.structure(our_stats) == jax.tree.structure(their_stats)
  for name in ('mean', 'var'):
    np.testing.assert_allclose(our_stats['bn'][name], their_stats['bn'][name], rtol=1e-5, atol=1e-6)
  assert np.abs(our_stats['bn']['mean'] - variables['batch_stats']['bn']['mean']).max() > 0.1


def test_training_against_numpy():
  variables, x = make()
  ours, stats = together(variables, x)
  scale, bias = (np.float64(variables['params']['bn'][name]) for name in ('scale', 'bias'))
  mean, var = (np.float64(variables['batch_stats']['bn'][name]) for name in ('mean', 'var'))
  for region in range(REGIONS):
    for c in range(CHANNELS):
      values = np.float64(x[:, region, ..., c])
      expected = (values - values.mean()) / np.sqrt(values.var() + 1e-5) * scale[c] + bias[c]
      np.testing.assert_allclose(ours[:, region, ..., c], expected, atol=1e-4)
      mean[c] = 0.9 * mean[c] + 0.1 * values.mean()
      var[c] = 0.9 * var[c] + 0.1 * values.var()
  np.testing.assert_allclose(stats['bn']['mean'], mean, rtol=1e-4)
  np.testing.assert_allclose(stats['bn']['var'], var, rtol=1e-4)


def test_gradients_equal_those_of_batch_norm_on_one_region_after_the_other():
  variables, x = make()
  weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)

  def gradients(apply):
    loss = lambda params, x: (apply({**variables, 'params': params}, x)[0] ** 2 * weights).sum()
    return jax.grad(loss, (0, 1))(variables['params'], x)

  for a, b in zip(jax.tree.leaves(gradients(together)), jax.tree.leaves(gradients(one_after_the_other)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)
    assert np.abs(b).max() > 0.1


def test_folded_regions_share_their_statistics():
  variables, x = make()
  rows = x.reshape(-1, *x.shape[2:])
  folded = Net(True, 1).apply(variables, rows, mutable=['batch_stats'])[0]
  plain = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
  theirs = plain.apply({name: values['bn'] for name, values in variables.items()}, rows, mutable=['batch_stats'])[0]
  np.testing.assert_array_equal(folded, theirs)
  assert np.abs(folded - together(variables, x)[0].reshape(rows.shape)).max() > 0.1


def test_one_place_without_spread_stays_finite():
  variables, x = make()
  x[..., 0] = 1e3
  ours, stats = together(variables, x)
  np.testing.assert_allclose(ours[..., 0], variables['params']['bn']['bias'][0], atol=1e-2)
  assert np.isfinite(ours).all() and (stats['bn']['var'] >= 0).all()


@pytest.mark.parametrize('train, regions', [(True, 1), (True, REGIONS), (False, 1)])
def test_epsilon_is_added_to_the_variance(train, regions):
  x = jnp.repeat(jnp.float32([[-0.1], [0.3]]), regions, 0)  # Two faces; every region has the same values.
  layer = batch_norm(train, jnp.float32, None, regions, epsilon=0.5)()
  variables = layer.init(jax.random.key(0), x)
  y, _ = layer.apply(variables, x, mutable=['batch_stats'])
  mean, var = (x.mean(), x.var()) if train else (0.0, 1.0)
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 0.5), rtol=1e-5)


@pytest.mark.parametrize('regions', [1, REGIONS])
def test_evaluation_is_plain_batch_norm(regions):
  variables, x = make()
  rows = x.reshape(-1, *x.shape[2:])
  plain = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
  theirs = plain.apply({name: values['bn'] for name, values in variables.items()}, rows)
  np.testing.assert_array_equal(Net(False, regions).apply(variables, rows), theirs)


def test_parameters_and_statistics_are_those_of_batch_norm():
  x = jnp.ones((FACES * REGIONS, 2, 2, CHANNELS))
  shapes = [jax.eval_shape(lambda train=train, regions=regions: Net(train, regions).init(jax.random.key(0), x))
            for train, regions in ((True, REGIONS), (True, 1), (False, REGIONS))]
  assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_outputs_have_the_dtype_of_the_computation_and_statistics_are_float32(dtype):
  variables, x = make()
  x = jnp.asarray(x, dtype)
  (ours, our_stats), (theirs, _) = together(variables, x, dtype), one_after_the_other(variables, x, dtype)
  assert ours.dtype == theirs.dtype == jnp.dtype(dtype)
  assert {leaf.dtype for leaf in jax.tree.leaves(our_stats)} == {jnp.dtype('float32')}
  np.testing.assert_allclose(np.float32(ours), np.float32(theirs), rtol=1e-5 if dtype == 'float32' else 0.01, atol=1e-5)


def test_float64_keeps_its_precision():
  with jax.enable_x64(True):
    variables, x = make(dtype=np.float64)
    (ours, our_stats), (theirs, their_stats) = (f(variables, jnp.asarray(x), 'float64')
                                                for f in (together, one_after_the_other))
    assert ours.dtype == theirs.dtype == jnp.float64
    np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)
    for name in ('mean', 'var'):
      assert our_stats['bn'][name].dtype == their_stats['bn'][name].dtype
      np.testing.assert_allclose(our_stats['bn'][name], their_stats['bn'][name], rtol=1e-12)


def shards(x, devices=DEVICES):
  """x (B, R, ..., c) of every device."""
  return np.split(np.asarray(x), devices)


def wide(place=(2, 3), seed=0):
  """Faces of 8 devices, six each, with means and spreads of their own."""
  variables, _ = make(place)
  rng = np.random.default_rng(seed)
  shape = (DEVICES, 6, REGIONS, *place, CHANNELS)
  offsets, spreads = (rng.uniform(0.5, 2, (DEVICES, 1, *shape[2:3], *[1] * len(place), CHANNELS)) for _ in range(2))
  return variables, np.float32(spreads * rng.normal(size=shape) + offsets).reshape(-1, *shape[2:])


def apply(variables, x, regions, devices, mapped=False):
  """The layer on rows (face, region); mapped over the devices, or as one program."""
  def run(x):
    net = Net(True, regions, devices=devices, axis_name='data' if mapped else None)
    y, updates = net.apply(variables, x.reshape(-1, *x.shape[2:]), mutable=['batch_stats'])
    return y.reshape(x.shape), updates['batch_stats']
  specs = {'in_specs': ROWS, 'out_specs': (ROWS, PartitionSpec())}
  return jax.jit(jax.shard_map(run, mesh=MESH, check_vma=False, **specs) if mapped else run)(x)


@pytest.mark.parametrize('mapped', [False, True], ids=['jit', 'mapped'])
@pytest.mark.parametrize('regions', [1, REGIONS])
@pytest.mark.parametrize('place', [(2, 3), ()], ids=['maps', 'vectors'])
def test_each_device_normalises_its_own_rows(place, regions, mapped):
  variables, x = wide(place)
  ours, stats = apply(variables, x, regions, DEVICES, mapped)
  scale, bias = (np.float64(variables['params']['bn'][name]) for name in ('scale', 'bias'))
  left = []
  for shard, got in zip(shards(x), shards(ours), strict=True):
    mean, var = (np.float64(variables['batch_stats']['bn'][name]) for name in ('mean', 'var'))
    for region in range(regions):
      of = slice(region, region + 1) if regions > 1 else slice(None)
      values = np.float64(shard[:, of])
      axes = tuple(range(values.ndim - 1))
      expected = (values - values.mean(axes)) / np.sqrt(values.var(axes) + 1e-5) * scale + bias
      np.testing.assert_allclose(got[:, of], expected, rtol=1e-5, atol=1e-5)
      mean, var = 0.9 * mean + 0.1 * values.mean(axes), 0.9 * var + 0.1 * values.var(axes)
    left.append((mean, var))
  for name, expected in zip(('mean', 'var'), np.mean(left, axis=0), strict=True):
    np.testing.assert_allclose(stats['bn'][name], expected, rtol=1e-5)
  assert np.abs(ours - apply(variables, x, regions, 1)[0]).max() > 0.5


@pytest.mark.parametrize('regions', [1, REGIONS])
def test_devices_send_each_other_what_evaluation_needs_alone(regions):
  variables, x = wide()

  def collectives(devices):
    def loss(x):
      y, updates = Net(True, regions, devices=devices).apply(
          variables, x.reshape(-1, *x.shape[2:]), mutable=['batch_stats'])
      return jnp.square(y).sum(), updates
    rows = NamedSharding(MESH, ROWS)
    step = jax.jit(lambda x: jax.grad(loss, has_aux=True)(x), in_shardings=rows,
                   out_shardings=(rows, NamedSharding(MESH, PartitionSpec())))
    return scaling.collectives(step.lower(x).compile().as_text())

  apart, together = collectives(DEVICES), collectives(1)
  assert apart.keys() == together.keys() == {'all-reduce'}
  # Means and variances once; together also what the sums are that gradients need.
  assert apart['all-reduce'].size == 2 * 4 * CHANNELS * regions < together['all-reduce'].size


def test_evaluation_knows_no_devices():
  variables, x = wide()
  rows = x.reshape(-1, *x.shape[2:])
  np.testing.assert_array_equal(Net(False, REGIONS, devices=DEVICES).apply(variables, rows),
                                Net(False, 1).apply(variables, rows))
