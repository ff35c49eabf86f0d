"""BatchNorm in the place of a scale and a shift: the same function, with statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.models.measured import with_statistics


class Net(nn.Module):
  """Two layers, the second with another epsilon."""

  @nn.compact
  def __call__(self, x, train):
    x = nn.BatchNorm(use_running_average=not train, epsilon=1e-5, name='first')(nn.Dense(3, name='dense')(x))
    return nn.BatchNorm(use_running_average=not train, epsilon=1e-3, name='second')(nn.relu(x))


def drawn():
  keys = iter(jax.random.split(jax.random.key(0), 20))
  x = 3 + 2 * jax.random.normal(next(keys), (3, 16, 5, 5, 4))
  variables = Net().init(next(keys), x[0], False)
  draw = lambda low: lambda leaf: jax.random.uniform(next(keys), leaf.shape, minval=low, maxval=2.0)
  return x, {'params': jax.tree.map(draw(-1.0), variables['params']),
             'batch_stats': jax.tree.map(draw(0.5), variables['batch_stats'])}


def test_evaluation_is_the_same_function():
  x, variables = drawn()
  measured = with_statistics(Net(), variables, x)
  # At other images than those that were measured.
  others = jax.random.normal(jax.random.key(7), (4, 5, 5, 4))
  np.testing.assert_allclose(Net().apply(measured, others, False), Net().apply(variables, others, False), atol=1e-5)


def test_statistics_are_those_of_all_batches():
  x, variables = drawn()
  measured = with_statistics(Net(), variables, x)
  seen = np.asarray(x, np.float64) @ variables['params']['dense']['kernel'] + variables['params']['dense']['bias']
  for name, numpy in (('mean', np.mean), ('var', np.var)):
    np.testing.assert_allclose(measured['batch_stats']['first'][name], numpy(seen, axis=(0, 1, 2, 3)), rtol=1e-4)
  # So training's own normalisation of them gives nearly what evaluation gives.
  trained, _ = Net().apply(measured, x.reshape(-1, 5, 5, 4), True, mutable=['batch_stats'])
  np.testing.assert_allclose(trained, Net().apply(measured, x.reshape(-1, 5, 5, 4), False), atol=1e-3)


def test_a_channel_that_never_changes_stays_finite():
  x = jnp.zeros((2, 8, 2, 2, 4))
  variables = Net().init(jax.random.key(0), x[0], False)
  measured = with_statistics(Net(), variables, x)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(measured))
  np.testing.assert_allclose(Net().apply(measured, x[0], False), Net().apply(variables, x[0], False), atol=1e-6)
