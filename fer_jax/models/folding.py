"""BatchNorm in evaluation as part of the layer before it: the same function in fewer operations.

In evaluation a BatchNorm is y = g x + b with g = scale / sqrt(var + e) and b = bias - g mean. Where x is what a
convolution or a dense layer gives, and nothing else sees it, g goes into that layer's kernel and b into its bias
(Jacob et al., arXiv 1712.05877, section 3.2).
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.ad_checkpoint import checkpoint_name


@dataclasses.dataclass(frozen=True)
class Folded:
  """A network without BatchNorm: what ``fold`` makes.

  Attributes:
    variables: {'params', 'batch_stats'} float32, of the same paths and shapes as those of the network; ``applied()``
      alone knows how to use them.
    into: {path of a BatchNorm, such as 'backbone/layer1_0/bn1': path of the layer that it went into}; '' where it
      became one multiplication and one addition: after a sum or a concatenation, before a convolution, or where a tap
      sees its input, too.
  """

  variables: dict[str, Any]
  into: Mapping[str, str]
  _biased: frozenset[str]

  def applied(self) -> AbstractContextManager[None]:
    """A context for ``apply`` with ``variables``, in evaluation."""

    def walk(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
      path = '/'.join(context.module.path)
      if context.method_name != '__call__' or path not in self.into:
        return call(*args, **kwargs)
      layer, own = self.into[path], context.module.variables['params']
      if layer in self._biased:
        return args[0]
      return (args[0] if layer else args[0] * own['scale']) + own['bias']

    return nn.intercept_methods(walk)


def fold(apply: Callable[[Any], Any], variables: Mapping[str, Any]) -> Folded:
  """Folds the BatchNorms of a network, whatever its architecture.

  Args:
    apply: of variables: applies a module of linen once, in evaluation. It is traced, and nothing is computed.
    variables: {'params', 'batch_stats'}.
  """
  into, epsilons = _followed(apply, variables)
  params, statistics = ({path: np.asarray(leaf) for path, leaf in flatten_dict(jax.device_get(variables[kind]),
                                                                               sep='/').items()}
                        for kind in ('params', 'batch_stats'))
  biased = frozenset(layer for layer in into.values() if f'{layer}/bias' in params)
  for norm, layer in into.items():
    scale, bias, mean, var = (each[f'{norm}/{name}'].astype(np.float64) for each, name in (
        (params, 'scale'), (params, 'bias'), (statistics, 'mean'), (statistics, 'var')))
    gain = scale / np.sqrt(var + epsilons[norm])
    shift = bias - gain * mean
    if layer:
      params[f'{layer}/kernel'] = params[f'{layer}/kernel'] * gain  # Channels that a layer gives are its last axis.
    if layer in biased:
      params[f'{layer}/bias'] = params[f'{layer}/bias'] * gain + shift
    params |= {f'{norm}/scale': gain, f'{norm}/bias': shift}
  params = {path: leaf.astype(np.float32) for path, leaf in params.items()}
  return Folded({'params': unflatten_dict(params, sep='/'), 'batch_stats': unflatten_dict(statistics, sep='/')}, into,
                biased)


def _followed(apply: Callable[[Any], Any], variables: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, float]]:
  """``Folded.into`` of a network, and what each of its BatchNorms adds to the variance."""
  into: dict[str, str] = {}
  epsilons: dict[str, float] = {}
  calls: Counter[str] = Counter()
  outputs: list[tuple[str, jax.Array]] = []

  def walk(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
    module, path = context.module, '/'.join(context.module.path)
    if context.method_name != '__call__' or not isinstance(module, nn.Conv | nn.Dense | nn.BatchNorm):
      return call(*args, **kwargs)
    calls[path] += 1
    if isinstance(module, nn.BatchNorm):
      into[path] = next((layer for layer, output in outputs if output is args[0]), '')
      epsilons[path] = module.epsilon
      return call(*args, **kwargs)
    outputs.append((path, checkpoint_name(call(*args, **kwargs), path)))  # Named, so that who reads it can be counted.
    return outputs[-1][1]

  with nn.intercept_methods(walk):
    traced = jax.make_jaxpr(apply)(variables).jaxpr
  read = Counter(id(each) for equation in traced.eqns for each in equation.invars)
  read.update(map(id, traced.outvars))
  # A BatchNorm in evaluation reads its input once.
  alone = {equation.params['name'] for equation in traced.eqns
           if equation.primitive.name == 'name' and read[id(equation.outvars[0])] == 1}
  return {norm: layer if layer in alone and calls[layer] == calls[norm] == 1 else ''
          for norm, layer in into.items()}, epsilons
