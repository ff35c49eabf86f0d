"""Numbers in a config that cannot be."""

import pytest

from configs import common
from fer_jax.errors import UserError
from fer_jax.runtime import storage
from fer_jax.training import ranges

NAN, INFINITE = float('nan'), float('inf')


@pytest.fixture(scope='module')
def values():
  return storage.flat(common.get_config('ferplus').to_dict())


@pytest.mark.parametrize('key, wrong, right', [
    ('seed', (-1, 2**31, 2**32 - 1), (0, 2**31 - 1)), ('data.seed', (-2, 2**32), (-1, 0)),
    ('log_every', (0, -5), (1,)), ('epochs', (0.0, -1.0, NAN, INFINITE), (0.01,)), ('batch_size', (0, -8), (1,)),
    ('eval_batch_size', (-1,), (1,)), ('evaluate_every', (0.0, -1.0), (0.5,)),
    ('checkpoint_every', (0.0, NAN), (0.5,)), ('checkpoint_minutes', (-1.0, NAN), (0.0, 0.1)),
    ('image_size', (0, -48), (48,)), ('data.size', (0,), (1,)),
    ('data.threads', (-1,), (0,)), ('optimizer.learning_rate', (-0.1, NAN, -INFINITE), (0.0, 1e30)),
    ('optimizer.weight_decay', (-1e-4,), (0.0,)), ('optimizer.momentum', (1.0, -0.1), (0.0,)),
    ('optimizer.accumulate', (0,), (1,)), ('ema', (1.0, -0.1), (0.0, 0.999)), ('augment.flip', (1.5,), (0, 1)),
    ('augment.scale', ((0.0, 1.0), (0.5, NAN)), ((0.5, 1.2),)), ('normalise.std', ((0.5, 0.0, 0.5),), ((1, 1, 1),)),
    ('losses.cross_entropy.smoothing', (1.0,), (0.1,)), ('losses.cross_entropy.weight', (((0, 1), (1, NAN)),), (-1,)),
    ('model.head.dropout', (1.0,), (0.5,)), ('model.backbone.width', (0, -4), (0.5, 64)),
    ('data.parts', (-1,), (0, 5)), ('data.maps.landmark_heatmap.sigma', (0.0, -1.0), (0.01,)),
    ('sources.more.parts', (-1,), (0,))])
def test_a_number_out_of_its_range_is_named_with_what_may_be_there(key, wrong, right, values):
  for value in wrong:
    with pytest.raises(UserError, match=rf'^config\.{key}=.*: give a (finite )?number'):
      ranges.check({**values, key: value})
  for value in right:
    ranges.check({**values, key: value})
