"""Frozen parts of a network in training: their normalisation and their dropout are those of evaluation."""

import inspect
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn

from fer_jax.models.norm import RegionNorm, batch_norm


def as_in_evaluation(paths: Collection[str]) -> AbstractContextManager[None]:
  """A context for ``apply`` with ``train=True``, in which the modules at ``paths`` run as they do in evaluation.

  Normalisation there takes the running statistics and leaves them as they are, dropout does nothing, and a module that
  is told whether it trains is told that it does not.

  Args:
    paths: of modules, such as 'backbone/layer1_0/bn1', or 'head' with all that is in it.
  """
  def intercept(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
    module = context.module
    owner = module.path[:-1] if isinstance(module, nn.Dropout) else module.path  # Dropout has nothing to be frozen.
    if context.method_name != '__call__' or '/'.join(owner) not in paths:
      return call(*args, **kwargs)
    if isinstance(module, nn.Dropout):
      return args[0]
    if isinstance(module, RegionNorm):
      return batch_norm(False, module.dtype, None, epsilon=module.epsilon)(parent=None).apply(module.variables, *args)
    if isinstance(module, nn.BatchNorm):
      return module.clone(parent=None, use_running_average=True).apply(module.variables, *args)
    given = inspect.signature(type(module).__call__).bind(module, *args, **kwargs)
    if 'train' in given.arguments:
      given.arguments['train'] = False
    return call(*given.args[1:], **given.kwargs)

  return nn.intercept_methods(intercept)
