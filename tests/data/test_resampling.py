"""The products that a TPU resamples by, against the gather of other devices and against SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fer_jax.data import augment, resampling
from tests import traces

MESH = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
ROWS = jax.sharding.NamedSharding(MESH, jax.sharding.PartitionSpec('data'))
SIZES = [(24, 24), (25, 56), (48, 20)]  # The same side, larger, smaller.


def noise(b=4, side=24, channels=3, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (b, side, side, channels), dtype=np.uint8)


def maps(turned, shape=(4,), seed=1):
  """Affine maps (..., 2, 3) that flip, scale and shift far beyond the border; ``turned`` also rotates and shears."""
  rng = np.random.default_rng(seed)
  matrices = np.zeros((*shape, 2, 3))
  matrices[..., 0, 0] = rng.uniform(0.4, 1.5, shape) * rng.choice([-1, 1], shape)
  matrices[..., 1, 1] = rng.uniform(0.4, 1.5, shape)
  matrices[..., 2] = rng.uniform(-0.4, 0.4, (*shape, 2))
  if turned:
    matrices[..., 0, 1], matrices[..., 1, 0] = rng.uniform(-0.8, 0.8, (2, *shape))
  return matrices.astype(np.float32)


def both(images, matrices, size, fill, turned):
  """The images by the gather, and by the products at the same points, which are computed beforehand."""
  points = functools.partial(resampling._points, height=images.shape[1], width=images.shape[2], size=size)
  x, y = jax.jit(jax.vmap(points))(matrices)
  products = resampling._products if turned else resampling._separate_products
  return [jax.jit(jax.vmap(functools.partial(form, fill=fill)))(images, x, y)
          for form in (resampling._gather, products)]


@pytest.fixture
def on_tpu(monkeypatch):
  """Makes this platform take the TPU's form."""
  monkeypatch.setattr(jax.lax, 'platform_dependent', lambda *at, tpu, default: tpu(*at))


@pytest.mark.parametrize('turned', [True, False])
@pytest.mark.parametrize('fill', ['edge', 'zero'])
@pytest.mark.parametrize('side, size', SIZES)
def test_products_are_the_gather_to_a_thousandth_of_a_grey_level(side, size, fill, turned):
  gathered, multiplied = both(noise(side=side), maps(turned), size, fill, turned)
  np.testing.assert_allclose(multiplied, gathered, atol=1e-3)
  assert np.std(gathered) > 10


@pytest.mark.parametrize('turned', [True, False])
@pytest.mark.parametrize('fill', ['edge', 'zero'])
def test_products_are_scipys(fill, turned, on_tpu):
  side, size, images, matrices = 24, 31, noise(), maps(turned)
  out = resampling.warp(images, matrices, size, fill, turned)
  steps = (np.arange(size) + 0.5) / size - 0.5
  grid = np.stack([*np.meshgrid(steps, steps), np.ones((size, size))])  # x, y, 1.
  for got, image, matrix in zip(out, images, np.float64(matrices), strict=True):
    x, y = (np.tensordot(matrix, grid, 1) + 0.5) * side - 0.5
    inside = (abs(x + 0.5 - side / 2) < side / 2) & (abs(y + 0.5 - side / 2) < side / 2)
    for channel in range(3):
      expected = ndimage.map_coordinates(np.float64(image[..., channel]), [y, x], order=1, mode='nearest')
      np.testing.assert_allclose(got[..., channel], expected * (inside if fill == 'zero' else 1), atol=0.01)


@pytest.mark.parametrize('turned', [True, False])
def test_products_of_the_identity_are_exactly_the_input(turned, on_tpu):
  images = noise(channels=1)
  np.testing.assert_array_equal(resampling.warp(images, np.tile(np.eye(2, 3), (4, 1, 1)), 24, turned=turned), images)


@pytest.mark.parametrize('turned', [True, False])
def test_regions_are_images_of_their_own(turned, on_tpu):
  images, matrices = noise(b=2), maps(turned, (2, 3))
  together = resampling.warp(images, matrices, 20, turned=turned)
  for region in range(3):
    alone = resampling.warp(images, matrices[:, region], 20, turned=turned)
    np.testing.assert_allclose(together[:, region], alone, atol=1e-3)


@pytest.mark.parametrize('options', [{'rotation': 20.0}, {}], ids=['turned', 'upright'])
@pytest.mark.parametrize('regions', [None, {'scheme': 'fixed5'}], ids=['one', 'regions'])
def test_augmentation_is_the_same_by_either_form(regions, options, monkeypatch):
  batch = {'image': noise(), 'landmark_heatmap': noise(side=14)[..., 0], 'landmarks': np.full((4, 68, 2), 0.5, 'f')}
  keys = augment.example_keys(0, 0, np.arange(4))
  run = lambda: jax.jit(lambda: augment.augment(
      batch, keys, image_size=20, regions=regions, scale=(0.8, 1.2), brightness=0.2, **options))()
  gathered = run()
  monkeypatch.setattr(jax.lax, 'platform_dependent', lambda *at, tpu, default: tpu(*at))
  multiplied = run()
  for name in ('image', 'landmark_heatmap'):  # The points are rounded as each program is compiled.
    np.testing.assert_allclose(multiplied[name], gathered[name], atol=5e-3 / 255)


@pytest.mark.parametrize('turned', [True, False])
def test_the_platform_that_is_lowered_for_decides(turned):
  traced = jax.jit(lambda *at: resampling.warp(*at, 20, turned=turned)).trace(noise(), maps(turned))
  for platform, multiplies in (('tpu', True), ('cpu', False), ('cuda', False)):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ('stablehlo.dot_general' in text, 'stablehlo.gather' in text) == (multiplies, not multiplies)
  assert not traces.rounded(traced.jaxpr.jaxpr)


@pytest.mark.parametrize('options', [{'rotation': 20.0}, {}], ids=['turned', 'upright'])
def test_products_of_a_sharded_batch_stay_where_they_are(options, on_tpu):
  batch = {'image': noise(b=8, side=12), 'landmarks': np.full((8, 68, 2), 0.5, 'f'), 'row': jnp.arange(8)}

  def step(batch):
    keys = augment.example_keys(0, 0, batch['row'])
    return augment.augment(batch, keys, image_size=14, regions={'scheme': 'landmark'}, **options)['image']

  compiled = jax.jit(step, in_shardings=ROWS, out_shardings=ROWS).lower(batch).compile()
  text = compiled.as_text()
  assert not any(word in text for word in ('all-gather', 'all-reduce', 'collective-permute', 'all-to-all'))
  assert 'dot(' in text
