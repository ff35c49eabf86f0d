"""What is frozen runs in training as in evaluation, and the rest of the network trains."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models.classifier import Classifier
from fer_jax.models.frozen import as_in_evaluation
from fer_jax.models.heads.arm import Arm
from fer_jax.models.heads.linear import Linear
from fer_jax.models.norm import batch_norm
from tests import faces


class Layer(nn.Module):
  """A normalisation and a dropout inside a module that is not told whether it trains."""

  norm: type
  train: bool

  @nn.compact
  def __call__(self, x):
    return nn.Dropout(0.5, deterministic=not self.train)(self.norm(name='bn')(x))


class Trunk(nn.Module):
  """Two layers. The axis does not exist here: who averages over it fails."""

  regions: int
  axis: str | None

  @nn.compact
  def __call__(self, images, train):
    for name in ('low', 'high'):
      axis = self.axis if name == 'low' else None
      images = Layer(batch_norm(train, jnp.float32, axis, self.regions, 0.1), train, name=name)(images)
    return images, {}, None


def run(model, images, train, paths=()):
  """Outputs and statistics of a pass."""
  variables = faces.drawn(jax.eval_shape(lambda: model.init(jax.random.key(0), images, False)))
  with as_in_evaluation(paths):
    outputs, updates = model.apply(variables, images, train, mutable=['batch_stats'],
                                   rngs={'dropout': jax.random.key(1)})
  moved = {jax.tree_util.keystr(path[:-1], simple=True, separator='/')
           for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(variables['batch_stats']),
                                       jax.tree.leaves(updates['batch_stats']), strict=True) if (old != new).any()}
  return outputs, moved


IMAGES = jax.random.normal(jax.random.key(2), (6, 4, 4, 16))


@pytest.mark.parametrize('head', [Linear(7, 0.5), Arm(7, block=2, kernel=2, stride=1)])
@pytest.mark.parametrize('regions, axis', [(1, None), (2, 'data')])
def test_all_of_it_frozen_is_evaluation(regions, axis, head):
  model = Classifier(Trunk(regions, axis), head)
  ours, moved = run(model, IMAGES, True, {'backbone', 'head'})
  np.testing.assert_array_equal(ours.logits, run(model, IMAGES, False)[0].logits)
  assert not moved


@pytest.mark.parametrize('regions, axis', [(1, 'data'), (2, 'data')])
def test_a_frozen_layer_among_others(regions, axis):
  model = Classifier(Trunk(regions, axis), Arm(7, block=2, kernel=2, stride=1))
  low = {'backbone/low', 'backbone/low/bn'}
  outputs, moved = run(model, IMAGES, True, low)
  assert moved == {'backbone/high/bn', 'head/bn', 'head'}
  assert run(model, IMAGES, True, low | {'head', 'head/bn', 'head/fc'})[1] == {'backbone/high/bn'}
  assert np.abs(outputs.logits - run(model, IMAGES, False)[0].logits).max() > 1e-3
