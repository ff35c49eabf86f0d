"""config.model.norm_scope in a whole step: both forms of parallelism agree; where nothing is split nothing changes."""

import functools

import jax
import numpy as np
import pytest

from configs import arm, ran
from fer_jax.training import setup, step
from tests import faces

MAKERS = {'pal': faces.config, 'ran': lambda **changes: faces.shrink(ran.get_config(), **changes),
          'arm': lambda **changes: faces.shrink(arm.get_config(), **changes)}


def make(system, scope='device', **changes):
  return MAKERS[system](batch_size=32, model__norm_scope=scope, **changes)


def difference(a, b):
  return max(float(np.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize('system', ['ran', 'arm'])  # With regions, and with a norm in the head.
def test_one_program_and_one_for_each_device_agree(system):
  (one, sums), (each, meter) = (faces.steps(make(system, parallel=form), count=2, devices=8)
                                for form in ('jit', 'pmap'))
  assert difference(one.params, each.params) < 1e-5
  assert difference(one.batch_stats, each.batch_stats) < 1e-5
  for name, value in sums.items():
    np.testing.assert_allclose(meter[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_it_is_another_network_than_with_statistics_of_all_rows():
  apart, together = (faces.steps(make('arm', scope, parallel='pmap'), count=2, devices=8)[0]
                     for scope in ('device', 'global'))
  assert difference(apart.params, together.params) > 1e-3


@pytest.mark.parametrize('system', MAKERS)
def test_on_one_device_it_is_the_step_with_statistics_of_all_rows(system, monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  apart, together = (faces.traced_step(make(system, scope))[0] for scope in ('device', 'global'))
  assert str(apart) == str(together)


def test_evaluation_does_not_know_of_it():
  batch = {'image': np.zeros((4, 16, 16, 1), np.uint8), 'label': np.zeros(4, np.int32), 'mask': np.ones(4, bool)}

  def program(scope):
    system = setup.make_system(make('pal', scope), faces.CLASSES, 20)
    evaluate = functools.partial(step.evaluation_step, system.recipe, {})
    return str(jax.make_jaxpr(evaluate)(jax.eval_shape(system.initial).variables(), batch))

  assert program('device') == program('global')
