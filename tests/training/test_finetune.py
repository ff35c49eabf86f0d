"""Learning rates by depth, a head that learns alone, frozen stages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fer_jax.errors import UserError
from fer_jax.training import optim
from fer_jax.training.finetune import finetuning_rules

STAGES = {'backbone/conv1': 'stem', 'backbone/layer1': 'stage1', 'backbone/layer1/conv': 'stage1',
          'backbone/layer2': 'stage2', 'backbone/embed': ''}
PARAMS = {'backbone': {'conv1': {'kernel': jnp.ones(2)}, 'layer1': {'conv': {'kernel': jnp.ones(2)}},
                       'layer2': {'kernel': jnp.ones(2)}, 'embed': {'kernel': jnp.ones(2)}, 'position': jnp.ones(2)},
          'head': {'kernel': jnp.ones(2)}}
PATHS = ['backbone/conv1/kernel', 'backbone/layer1/conv/kernel', 'backbone/layer2/kernel', 'backbone/embed/kernel',
         'backbone/position', 'head/kernel']


def moved(steps, user=(), **options):
  """How far each parameter has come under a gradient of ones and plain SGD at a rate of 1, by path."""
  rules = [*user, *finetuning_rules(STAGES, PATHS, **options)]
  optimizer, _ = optim.make_optimizer(PARAMS, 10, learning_rate=1.0, momentum=0.0, schedule='constant', rules=rules)
  params, state = PARAMS, optimizer.init(PARAMS)
  for _ in range(steps):
    updates, state = optimizer.update(jax.tree.map(jnp.ones_like, PARAMS), state, params)
    params = optax.apply_updates(params, updates)
  return {path: float(1 - leaf[0]) for path, leaf in
          zip(PATHS, (params['backbone']['conv1']['kernel'], params['backbone']['layer1']['conv']['kernel'],
                      params['backbone']['layer2']['kernel'], params['backbone']['embed']['kernel'],
                      params['backbone']['position'], params['head']['kernel']), strict=True)}


def test_each_stage_has_a_share_of_the_rate_above_it():
  np.testing.assert_allclose(list(moved(1, factor=0.5).values()), [1 / 8, 1 / 4, 1 / 2, 1 / 2, 1 / 8, 1], rtol=1e-6)


def test_the_head_learns_alone_at_first():
  assert set(list(moved(3, head_alone=0.3).values())[:-1]) == {0.0}
  np.testing.assert_allclose(list(moved(5, head_alone=0.3).values()), [2, 2, 2, 2, 2, 5], rtol=1e-6)


def test_stages_up_to_a_tap_stay_as_they_are():
  found = moved(2, frozen='stage1', factor=0.5)
  assert [path for path, way in found.items() if not way] == PATHS[:2] + ['backbone/position']
  rules = finetuning_rules(STAGES, PATHS, frozen='stage1')
  assert {'backbone/conv1', 'backbone/layer1'} <= optim.frozen_paths(PARAMS, rules)  # Their normalisation, too.


def test_a_rule_of_the_optimizer_goes_first():
  assert moved(1, user=[('conv1', {'learning_rate': 3.0})], factor=0.5)['backbone/conv1/kernel'] == 3.0


def test_nothing_asked_for_is_no_rule():
  assert not finetuning_rules(STAGES, PATHS)


@pytest.mark.parametrize('options, message', [
    ({'factor': 0.0}, r'config\.finetune\.factor=0\.0: it is in \(0, 1\]'),
    ({'factor': 1.5}, r'config\.finetune\.factor=1\.5'),
    ({'head_alone': 1.0}, r'config\.finetune\.head_alone=1\.0: it is a share of training, in \[0, 1\)'),
    ({'frozen': 'stage3'}, r"config\.finetune\.frozen='stage3': the backbone has no such tap.*stage2")])
def test_a_bad_value_is_told(options, message):
  with pytest.raises(UserError, match=message):
    finetuning_rules(STAGES, PATHS, **options)
