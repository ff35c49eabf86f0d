"""The optimiser: an optax chain, a learning-rate schedule, rules for single parameters, and the moving average."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fer_jax.errors import UserError, nearest

OPTIMISERS = ('sgd', 'adam', 'adamw')
DECAYED = ('weights', 'all')


@dataclasses.dataclass(frozen=True)
class _Rule:
  """What one parameter gets: multiples of the learning rate and of the weight decay, later, or nothing at all."""
  learning_rate: float = 1.0
  weight_decay: float = 1.0
  waits: float = 0.0
  frozen: bool = False


def make_optimizer(params: Any, total_steps: int, *, name: str = 'sgd', learning_rate: float = 0.1,
                   momentum: float = 0.9, nesterov: bool = False, beta1: float = 0.9, beta2: float = 0.999,
                   epsilon: float = 1e-8, weight_decay: float = 0.0, decay: str = 'weights', schedule: str = 'cosine',
                   warmup: float = 0.0, end: float = 0.0, power: float = 1.0, boundaries: Sequence[float] = (),
                   factor: float = 0.1, period: float = 0.25, clip_norm: float = 0.0, accumulate: int = 1,
                   rules: Sequence[tuple[str, Mapping[str, Any]]] = ()
                   ) -> tuple[optax.GradientTransformation, Callable[[Any], jax.Array]]:
  """Makes the optimiser and its learning rate as a function of the training step.

  Args:
    params: the parameters, or anything of their structure.
    total_steps: length of training in steps, that is in calls of the optimiser's ``update``.
    name: 'sgd', 'adam' (weight decay is added to the gradient, as L2 regularisation and torch's Adam do) or 'adamw'
      (decoupled: Loshchilov and Hutter, arXiv 1711.05101).
    learning_rate: the peak.
    momentum, nesterov: of SGD.
    beta1, beta2, epsilon: of Adam, its decays of the means of gradients and of their squares, and what is added to the
      denominator.
    weight_decay: lambda, per unit of learning rate.
    decay: what is decayed, unless a rule says otherwise: 'weights', the kernels of convolutions and dense layers, and
      neither biases, normalisation and slopes nor a transformer's position embedding and class token (so does timm);
      or 'all' parameters, as PyTorch's optimisers do.
    schedule: with t in [0, 1] the share of training that is done, a multiple of ``learning_rate``: 'constant'; 'cosine'
      falls to ``end``; 'step' is multiplied by ``factor`` at each of ``boundaries``; 'exponential' by ``factor`` after
      each ``period``; 'polynomial' is end + (1 - end) (1 - t)^power.
    warmup: share of training during which the schedule is also multiplied by a line that rises to 1; the first of n
      updates has 1 / n, since one at a rate of 0 would move the statistics and no parameter.
    end, power, boundaries, factor, period: of the schedules that name them; boundaries are shares of training,
      ascending in (0, 1), and so is the period: 1 / epochs decays once an epoch.
    clip_norm: gradients of greater global norm are scaled down to this; 0 leaves them. Frozen parameters do not count.
    accumulate: so many steps' gradients are averaged into one update; the parameters rest in between, and after the
      last whole number of updates.
    rules: pairs (regular expression, options) for the parameters in whose path, such as 'backbone/conv1/kernel', the
      expression is found. The first that matches decides. Options: ``learning_rate`` and ``weight_decay``, multiples of
      the values above; ``waits``, the share of training during which it stays as it is at first; and ``frozen``: it
      stays so, and where a module has no other parameters, its normalisation and dropout run as in evaluation (see
      ``frozen_paths``).

  Returns:
    An optax transformation (its state holds nothing for frozen parameters) and a function from the step to the learning
    rate.

  Raises:
    UserError: an unknown name or a value out of range, fewer steps than one update takes, or a rule that is malformed
      or matches no parameter.
  """
  if name not in OPTIMISERS:
    raise UserError(f"unknown optimizer '{name}'{nearest(str(name), OPTIMISERS)}")
  if decay not in DECAYED:
    raise UserError(f"unknown optimizer.decay '{decay}'{nearest(str(decay), DECAYED)}")
  if accumulate < 1:
    raise UserError(f'optimizer.accumulate={accumulate}: choose 1 or more.')
  if accumulate > total_steps:
    raise UserError(f'optimizer.accumulate={accumulate}: training has {total_steps} steps, too few for one update; '
                    'train for longer, or accumulate less.')
  rule_by_path = _rules_by_path(params, rules, decay)
  updates = total_steps // accumulate
  rate = _schedule(updates, schedule, learning_rate, warmup, end, power, boundaries, factor, period)
  each = lambda field: {path: getattr(rule, field) for path, rule in rule_by_path.items()}
  decayed = _grouped(each('weight_decay'), lambda scale: optax.add_decayed_weights(weight_decay * scale))
  core = optax.trace(momentum, nesterov) if name == 'sgd' else optax.scale_by_adam(beta1, beta2, epsilon)
  wait = lambda share: optax.scale_by_schedule(lambda count: jnp.float32(count >= round(share * updates)))
  chain = optax.chain(
      optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
      *((core, decayed) if name == 'adamw' else (decayed, core)),
      _grouped(each('learning_rate'), optax.scale),
      *([_grouped(each('waits'), wait)] if any(each('waits').values()) else []),
      optax.scale_by_learning_rate(rate))
  if accumulate > 1:
    chain = optax.MultiSteps(chain, accumulate).gradient_transformation()
  optimiser = _grouped(each('frozen'), lambda frozen: optax.set_to_zero() if frozen else chain)
  return optimiser, lambda step: jnp.asarray(rate(step // accumulate))


def ema_update(old: Any, new: Any, decay: float, step: int | jax.Array, accumulate: int = 1) -> Any:
  """Returns old + (1 - d) (new - old) with d = min(decay, (1 + n) / (10 + n)), for trees of equal structure.

  n is the number of updates before that of ``step``. A step that ends none, see ``make_optimizer``'s ``accumulate``,
  leaves the average as it is. The warm-up of d keeps the initial parameters from lingering in the average
  (TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``). What never changes is its own average bit for bit.
  """
  done = jnp.asarray(step // accumulate, jnp.float32)
  share = jnp.where((step + 1) % accumulate == 0, 1 - jnp.minimum(decay, (1 + done) / (10 + done)), 0.0)
  return jax.tree.map(lambda old, new: old + share * (new - old), old, new)


def frozen_paths(params: Any, rules: Sequence[tuple[str, Mapping[str, Any]]]) -> frozenset[str]:
  """The paths of the parameters that ``rules`` freeze, and of the modules all of whose parameters are frozen.

  Args:
    params, rules: see ``make_optimizer``.
  """
  frozen = {path: rule.frozen for path, rule in _rules_by_path(params, rules).items()}
  trained = {part for path in frozen if not frozen[path] for part in _prefixes(path)}
  return frozenset(part for path in frozen for part in _prefixes(path)) - trained


def hold(params: Any, paths: frozenset[str]) -> Any:
  """The parameters, of which those at ``paths`` have no gradient."""
  return jax.tree_util.tree_map_with_path(
      lambda path, leaf: jax.lax.stop_gradient(leaf) if _path(path) in paths else leaf, params)


def _schedule(updates: int, schedule: str, peak: float, warmup: float, end: float, power: float,
              boundaries: Sequence[float], factor: float, period: float) -> optax.Schedule:
  """The learning rate as a function of the number of updates done."""
  rates = {
      'constant': lambda: optax.constant_schedule(peak),
      'cosine': lambda: optax.cosine_decay_schedule(peak, updates, end),
      'step': lambda: optax.piecewise_constant_schedule(peak, {round(share * updates): factor for share in boundaries}),
      'exponential': lambda: optax.exponential_decay(peak, max(round(period * updates), 1), factor, staircase=True),
      'polynomial': lambda: optax.polynomial_schedule(peak, peak * end, power, updates),
  }
  if schedule not in rates:
    raise UserError(f"unknown optimizer.schedule '{schedule}'{nearest(str(schedule), rates)}")
  if not 0 <= warmup < 1:
    raise UserError(f'optimizer.warmup={warmup}: it is a share of training, in [0, 1).')
  if schedule == 'step' and not (boundaries and all(0 < boundary < 1 for boundary in boundaries)):
    raise UserError(f'optimizer.boundaries={tuple(boundaries)}: a step schedule needs shares of training in (0, 1).')
  if schedule == 'exponential' and not 0 < period <= 1:
    raise UserError(f'optimizer.period={period}: it is a share of training, in (0, 1].')
  rate = rates[schedule]()
  rising = max(round(warmup * updates), 1)
  return lambda count: rate(count) * jnp.minimum((count + 1) / rising, 1.0)


def _rules_by_path(params: Any, rules: Sequence[tuple[str, Mapping[str, Any]]], decay: str = 'weights'
                   ) -> dict[str, _Rule]:
  """The rule of every parameter, by path."""
  leaves = [_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  known = [field.name for field in dataclasses.fields(_Rule)]
  found: dict[str, Mapping[str, Any]] = {}
  for pattern, options in rules:
    for option in options:
      if option not in known:
        raise UserError(f"optimizer.rules: '{pattern}' has no option '{option}'{nearest(option, known)}")
    try:
      matches = [path for path in leaves if re.search(pattern, path)]
    except re.error as e:
      raise UserError(f"optimizer.rules: '{pattern}' is not a regular expression: {e}.") from e
    if not matches:
      raise UserError(f"optimizer.rules: '{pattern}' matches no parameter. Parameters are called like "
                      f"{', '.join(leaves[:: max(len(leaves) // 5, 1)])}.")
    found = {**dict.fromkeys(matches, options), **found}
  defaults = {path: {'weight_decay': float(decay == 'all' or path.endswith('kernel'))} for path in leaves}
  return {path: _Rule(**{**defaults[path], **found.get(path, {})}) for path in leaves}


def _grouped(groups: Mapping[str, Hashable], transformation: Callable[[Any], optax.GradientTransformation]
             ) -> optax.GradientTransformation:
  """Gives the parameters of each group, named by ``groups`` for each path, ``transformation(group)``."""
  distinct = set(groups.values())
  if len(distinct) == 1:
    return transformation(*distinct)

  def label(tree):  # Of whatever part of the parameters an enclosing partition leaves; strings, for checkpoints.
    return jax.tree_util.tree_map_with_path(lambda path, _: str(groups[_path(path)]), tree)

  return optax.partition({str(group): transformation(group) for group in distinct}, label)


def _prefixes(path: str) -> list[str]:
  """'a', 'a/b' and 'a/b/c' of 'a/b/c'."""
  return list(itertools.accumulate(path.split('/'), '{}/{}'.format))


def _path(path: tuple[Any, ...]) -> str:
  """The path of a parameter as 'a/b/c'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')
