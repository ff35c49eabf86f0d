"""Normalisation that a network's files do not have: its statistics are measured, and the function stays the same.

Files for inference have a scale g and a shift b where there was a BatchNorm, y = g x + b. A BatchNorm with the mean m
and the variance v of x on some batches, the scale g sqrt(v + e) and the bias b + g m is the same function in
evaluation; in training it normalises, as the network was trained.
"""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict


def with_statistics(backbone: nn.Module, variables: dict[str, Any], batches: Iterable[jax.Array],
                    compile: Callable[..., Any] = jax.jit) -> dict[str, Any]:
  """Variables of the same function in evaluation, whose BatchNorms have the statistics of images.

  Args:
    backbone: ``images, train -> ...``.
    variables: {'params', 'batch_stats'}, whatever its statistics are.
    batches: normalised images (N, H, W, 3), each batch of as many.
    compile: of the function that measures; ``jax.jit``, with whatever a mesh wants of it.
  """
  sums: dict[str, Any] = {}
  measure = compile(lambda variables, images: _moments(backbone, variables, images))
  count = 0
  for images in batches:
    moments, count = measure(variables, images), count + 1
    sums = jax.tree.map(jnp.add, sums, moments) if sums else moments
  params, statistics = (flatten_dict(variables[kind], sep='/') for kind in ('params', 'batch_stats'))
  for path, moments in sums.items():
    mean, square, epsilon = (moment / count for moment in moments)
    var = jnp.maximum(square - jnp.square(mean), 0.0)
    # What its input is multiplied by, and what is added.
    gain = params[f'{path}/scale'] * jax.lax.rsqrt(statistics[f'{path}/var'] + epsilon)
    shift = params[f'{path}/bias'] - gain * statistics[f'{path}/mean']
    params |= {f'{path}/scale': gain * jnp.sqrt(var + epsilon), f'{path}/bias': shift + gain * mean}
    statistics |= {f'{path}/mean': mean, f'{path}/var': var}
  return {'params': unflatten_dict(params, sep='/'), 'batch_stats': unflatten_dict(statistics, sep='/')}


def _moments(backbone: nn.Module, variables: dict[str, Any], images: jax.Array) -> dict[str, Any]:
  """{path of a BatchNorm: mean and mean square (c,) of its input, and what it adds to the variance}."""
  found: dict[str, Any] = {}

  def look(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
    if context.method_name == '__call__' and isinstance(context.module, nn.BatchNorm):
      x = args[0].astype(jnp.float32)
      axes = tuple(range(x.ndim - 1))
      found['/'.join(context.module.path)] = (
          x.mean(axes), jnp.square(x).mean(axes), jnp.float32(context.module.epsilon))
    return call(*args, **kwargs)

  with nn.intercept_methods(look):
    backbone.apply(variables, images, False)
  return found
