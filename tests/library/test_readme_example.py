"""PAL in a user's own loop: the example of the README, run as it stands."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fer_jax
from fer_jax.errors import UserError

README = Path(__file__).resolve().parents[2] / 'README.md'


@pytest.fixture(scope='module')
def example():
  """The names that the example defines, and the arguments of its step."""
  code = re.search(r'^```python\n(.*?)^```', README.read_text(), re.DOTALL | re.MULTILINE)[1]
  assert code.count('\n') <= 20
  exec(code, names := {})
  rng = np.random.default_rng(0)
  images = rng.normal(size=(4, 32, 32, 3)).astype(np.float32)
  heatmaps = np.stack([fer_jax.landmark_heatmap(points, 56) for points in rng.uniform(0.2, 0.8, (4, 68, 2))])
  params = names['net'].init(jax.random.key(0), images)
  return names, [params, names['optimizer'].init(params), images, np.arange(4), heatmaps / 255]


def test_the_example_trains(example):
  names, (params, state, *batch) = example
  values = []
  for _ in range(10):
    moved, state, value = names['train_step'](params, state, *batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(moved))
    params = moved
    values.append(float(value))
  assert np.isfinite(values).all() and values[-1] < values[0]


def test_the_gradient_of_pal_flows(example):
  names, (params, state, *batch) = example
  shuffled = [*batch[:2], np.roll(batch[2], 1, axis=0)]
  one, other = (names['train_step'](params, state, *arguments) for arguments in (batch, shuffled))
  assert one[2] != other[2]  # Another prior, another loss,
  assert optax.tree.norm(jax.tree.map(jnp.subtract, one[0], other[0])) > 0  # and another step.


def test_heatmaps_of_integers_raise(example):
  names, (params, state, *batch) = example
  with pytest.raises(UserError, match='uint8; divide a heatmap of uint8 by 255'):
    names['train_step'](params, state, *batch[:2], np.uint8(batch[2] * 255))
