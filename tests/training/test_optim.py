"""Optimisers against numpy, schedules at their ends, rules, accumulation and the moving average."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from fer_jax.errors import UserError
from fer_jax.training import optim

KERNEL = np.array([[0.5, -1.0], [2.0, 0.25]], np.float32)
BIAS = np.array([0.3, -0.7], np.float32)
PARAMS = {'body': {'kernel': KERNEL, 'bias': BIAS}, 'head': {'kernel': 2 * KERNEL}}
GRADIENTS = [jax.tree.map(lambda p, s=s: np.asarray(s * np.sin(3 * p) + 0.1, np.float32), PARAMS) for s in (1.0, -0.4)]


def run(gradients=GRADIENTS, params=PARAMS, total_steps=10, **options):
  """Parameters and optimiser state after one update per gradient."""
  optimiser, _ = optim.make_optimizer(jax.eval_shape(lambda: params), total_steps, **options)
  state = optimiser.init(params)
  for gradient in gradients:
    updates, state = jax.jit(optimiser.update)(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def by_hand(step, weight_decay=0.1):
  """Applies ``step(p, gradients, weight decay)`` to every parameter; biases get no decay."""
  out = {}
  for block, leaves in PARAMS.items():
    for name, p in leaves.items():
      decay = weight_decay if name == 'kernel' else 0.0
      out.setdefault(block, {})[name] = step(p.astype(np.float64), [g[block][name] for g in GRADIENTS], decay)
  return out


def assert_close(actual, expected, atol=2e-6):
  jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=atol, rtol=1e-5), actual, expected)


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd(nesterov):
  def step(p, gradients, decay):
    velocity = 0
    for g in gradients:
      g = g + decay * p
      velocity = 0.8 * velocity + g
      p = p - 0.05 * (g + 0.8 * velocity if nesterov else velocity)
    return p

  actual, _ = run(name='sgd', learning_rate=0.05, momentum=0.8, nesterov=nesterov, weight_decay=0.1,
                  schedule='constant')
  assert_close(actual, by_hand(step))


@pytest.mark.parametrize('name', ['adam', 'adamw'])
def test_adam(name):
  def step(p, gradients, decay):
    m = v = 0
    for t, g in enumerate(gradients, 1):
      g = g + decay * p * (name == 'adam')
      m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
      direction = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
      p = p - 0.05 * (direction + decay * p * (name == 'adamw'))
    return p

  actual, _ = run(name=name, learning_rate=0.05, beta2=0.99, weight_decay=0.1, schedule='constant')
  assert_close(actual, by_hand(step))


def rates(total_steps=100, **options):
  _, rate = optim.make_optimizer(PARAMS, total_steps, learning_rate=2.0, **options)
  return lambda step: float(rate(step))


def test_constant():
  rate = rates(schedule='constant')
  assert rate(0) == rate(100) == 2.0


def test_cosine():
  rate = rates(schedule='cosine', end=0.1)
  np.testing.assert_allclose([rate(0), rate(50), rate(100)], [2.0, 1.1, 0.2], rtol=1e-6)


def test_polynomial():
  rate = rates(schedule='polynomial', power=5.0)
  np.testing.assert_allclose([rate(0), rate(20), rate(50), rate(100)], [2.0, 2 * 0.8**5, 2 * 0.5**5, 0], rtol=1e-5)


def test_step():
  rate = rates(schedule='step', boundaries=(0.3, 0.8), factor=0.1)
  np.testing.assert_allclose([rate(s) for s in (0, 29, 30, 79, 80, 99)], [2, 2, 0.2, 0.2, 0.02, 0.02], rtol=1e-6)


def test_exponential():
  rate = rates(schedule='exponential', factor=0.9, period=0.1)
  np.testing.assert_allclose([rate(s) for s in (0, 9, 10, 19, 95)], 2 * 0.9 ** np.array([0, 0, 1, 1, 9]), rtol=1e-6)


def test_warmup_multiplies_the_schedule():
  warm, plain = rates(schedule='cosine', warmup=0.2), rates(schedule='cosine')
  # Of 20 updates of warming up the first has a twentieth: a rate of 0 would move the statistics alone.
  np.testing.assert_allclose([warm(0), warm(9), warm(19), warm(60)],
                             [plain(0) / 20, plain(9) / 2, plain(19), plain(60)], rtol=1e-6)


def test_the_reported_rate_is_the_one_applied():
  ones = jax.tree.map(np.ones_like, PARAMS)
  options = {'learning_rate': 0.5, 'schedule': 'cosine', 'warmup': 0.2, 'momentum': 0.0}
  _, rate = optim.make_optimizer(PARAMS, 10, **options)
  moved, _ = run([ones] * 4, **options)
  np.testing.assert_allclose(BIAS - moved['body']['bias'], sum(float(rate(s)) for s in range(4)), rtol=1e-5)


def test_frozen_parameters_do_not_move_and_have_no_state():
  rules = (('^body/', {'frozen': True}),)
  params, state = run(name='adamw', weight_decay=0.1, clip_norm=1.0, rules=rules)
  assert params['body']['kernel'].tobytes() == KERNEL.tobytes()
  assert params['body']['bias'].tobytes() == BIAS.tobytes()
  assert not np.array_equal(params['head']['kernel'], PARAMS['head']['kernel'])
  shapes = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.shape]
  assert shapes == [KERNEL.shape] * 2  # Adam's two moments of the one parameter that is trained.


def test_frozen_gradients_do_not_count_in_the_norm():
  huge = {**GRADIENTS[0], 'body': jax.tree.map(lambda g: 1e6 * g, GRADIENTS[0]['body'])}
  options = {'rules': (('^body/', {'frozen': True}),), 'clip_norm': 1.0}
  assert_close(run([huge], **options)[0], run(GRADIENTS[:1], **options)[0])


def test_clip_norm():
  params, _ = run(GRADIENTS[:1], learning_rate=1.0, schedule='constant', clip_norm=0.01)
  moved = optax.tree.norm(jax.tree.map(jnp.subtract, params, PARAMS))
  np.testing.assert_allclose(moved, 0.01, rtol=1e-4)


def test_rules_scale_rate_and_decay_and_the_first_wins():
  zeros = [jax.tree.map(np.zeros_like, PARAMS)]
  rules = ml_collections.ConfigDict({'rules': (
      ('head/kernel', {'learning_rate': 10.0, 'weight_decay': 0.5}),
      ('kernel', {'learning_rate': 0.0}),
      ('bias', {'weight_decay': 2.0}))}).to_dict()['rules']
  params, _ = run(zeros, learning_rate=0.1, schedule='constant', weight_decay=0.01, rules=rules)
  assert_close(params, {
      'body': {'kernel': KERNEL, 'bias': BIAS * (1 - 0.1 * 0.01 * 2)},
      'head': {'kernel': 2 * KERNEL * (1 - 0.1 * 10 * 0.01 * 0.5)}}, atol=1e-7)


@pytest.mark.parametrize('decay, share', [('weights', 1.0), ('all', 0.9)])
def test_a_bias_is_decayed_with_all_alone(decay, share):
  params, _ = run([jax.tree.map(np.zeros_like, PARAMS)], learning_rate=1.0, schedule='constant', weight_decay=0.1,
                  decay=decay)
  np.testing.assert_allclose(params['body']['bias'], share * BIAS, rtol=1e-6)
  np.testing.assert_allclose(params['body']['kernel'], 0.9 * KERNEL, rtol=1e-6)


def test_accumulated_micro_batches_equal_one_batch():
  options = {'learning_rate': 0.1, 'weight_decay': 0.1, 'schedule': 'step', 'boundaries': (0.5,)}
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *GRADIENTS)
  whole, _ = run([mean, mean], total_steps=2, **options)
  pieces, _ = run(GRADIENTS * 2, total_steps=4, accumulate=2, **options)
  assert_close(pieces, whole)
  half, _ = run(GRADIENTS[:1], total_steps=4, accumulate=2, **options)
  assert_close(half, PARAMS, atol=0)
  _, rate = optim.make_optimizer(PARAMS, 4, accumulate=2, **options)
  np.testing.assert_allclose([rate(s) for s in range(4)], [0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_the_average_counts_updates_and_not_the_steps_between():
  by_update = by_step = np.float32([0.0, 1.0])
  for i in range(4):
    new = np.float32([i + 1, 1.0])
    by_update = optim.ema_update(by_update, new, 0.3, i)
    for k in range(8):
      by_step = optim.ema_update(by_step, new + (k < 7), 0.3, 8 * i + k, accumulate=8)
    np.testing.assert_array_equal(by_step, by_update)
  assert by_step[1] == 1 and 3 < by_step[0] < 4


def test_what_is_frozen_by_path():
  rules = (('body/bias', {'frozen': False}), ('^body|head', {'frozen': True}))
  assert optim.frozen_paths(PARAMS, rules) == {'body/kernel', 'head', 'head/kernel'}
  assert optim.frozen_paths(PARAMS, rules[1:]) == {'body', 'body/bias', 'body/kernel', 'head', 'head/kernel'}
  assert not optim.frozen_paths(PARAMS, ())


def test_accumulation_with_frozen_parameters():
  params, _ = run(GRADIENTS, accumulate=2, rules=(('^head/', {'frozen': True}),))
  assert params['head']['kernel'].tobytes() == PARAMS['head']['kernel'].tobytes()
  assert not np.array_equal(params['body']['bias'], BIAS)


@pytest.mark.parametrize('options, message', [
    ({'name': 'sdg'}, "did you mean 'sgd'"),
    ({'schedule': 'cosin'}, "did you mean 'cosine'"),
    ({'schedule': 'step', 'boundaries': (30, 60)}, 'shares of training'),
    ({'schedule': 'step'}, 'shares of training'),
    ({'schedule': 'exponential', 'period': 0.0}, 'period'),
    ({'warmup': 500}, 'share of training'),
    ({'decay': 'weight'}, "did you mean 'weights'"),
    ({'accumulate': 0}, 'accumulate'),
    ({'accumulate': 11}, 'training has 10 steps, too few for one update'),
    ({'rules': (('neck/', {'frozen': True}),)}, r"'neck/' matches no parameter.*body/bias"),
    ({'rules': (('bias', {'frosen': True}),)}, "did you mean 'frozen'"),
    ({'rules': (('(', {'frozen': True}),)}, 'not a regular expression'),
])
def test_mistakes_are_explained(options, message):
  with pytest.raises(UserError, match=message):
    optim.make_optimizer(PARAMS, 10, **options)


def test_ema():
  old, new = {'a': np.float32([0.0, 1.0])}, {'a': np.float32([1.0, 3.0])}
  np.testing.assert_allclose(optim.ema_update(old, new, 0.999, 0)['a'], [0.9, 2.8], rtol=1e-6)
  np.testing.assert_allclose(optim.ema_update(old, new, 0.5, 10_000)['a'], [0.5, 2.0], rtol=1e-6)
  jitted = jax.jit(optim.ema_update, static_argnums=2)(old, new, 0.999, 90)
  np.testing.assert_allclose(jitted['a'], [0.09, 1 + 2 * 0.09], rtol=1e-5)
