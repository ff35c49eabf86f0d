"""Which stage of a backbone a module belongs to: the stages end at the taps."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from fer_jax.models.taps import Mark


def stages(initialise: Callable[[], Any]) -> dict[str, str]:
  """Walks through a network without computing anything.

  Args:
    initialise: initialises the network, which has a 'backbone'.

  Returns:
    {path of a module of the backbone, such as 'backbone/layer1_0/bn1': name of the first tap above it}, in the order of
    the calls; '' above the last.
  """
  found: dict[str, str] = {}
  waiting: list[str] = []

  def walk(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
    module = context.module
    if context.method_name != '__call__' or module.path[:1] != ('backbone',):
      return call(*args, **kwargs)
    if isinstance(module, Mark):
      found.update(dict.fromkeys(waiting, module.name.removeprefix('tap_')))
      waiting.clear()
    elif len(module.path) > 1 and '/'.join(module.path) not in found:
      waiting.append('/'.join(module.path))
    return call(*args, **kwargs)

  with nn.intercept_methods(walk):
    jax.eval_shape(initialise)
  return found | dict.fromkeys(waiting, '')
