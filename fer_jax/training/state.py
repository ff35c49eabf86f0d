"""The training state: with the step number it is everything a run needs to go on."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict

from fer_jax.errors import UserError
from fer_jax.models.classifier import Classifier


@flax.struct.dataclass
class TrainState:
  """All that changes during training, and all that a checkpoint holds.

  Attributes:
    step: int32 scalar, the number of steps taken; every random choice is a function of it and the seed.
    params: float32 parameters.
    batch_stats: running BatchNorm statistics.
    opt_state: the optimiser's state.
    ema: {'params', 'batch_stats'} averaged over updates, or None where the config asks for none.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any

  def variables(self, averaged: bool = False) -> dict[str, Any]:
    """The model's variables for ``apply``: the current ones, or their moving average."""
    return self.ema if averaged else {'params': self.params, 'batch_stats': self.batch_stats}


def initialiser(model: Classifier, image_size: int, regions: int = 1) -> Callable[[int], dict[str, Any]]:
  """Returns the function from a seed to the parameters and batch statistics of step 0, which is compiled once.

  The network will see images of ``image_size`` pixels a side, ``regions`` of each face.
  """
  shape = (1, *([regions] if regions > 1 else []), image_size, image_size, 3)
  init = jax.jit(lambda key: model.init(key, jnp.zeros(shape), train=False))

  def initial_variables(seed: int) -> dict[str, Any]:
    variables = init(jax.random.key(seed))
    return {'params': variables['params'], 'batch_stats': variables.get('batch_stats', {})}

  return initial_variables


def initial_state(variables: dict[str, Any], optimizer: optax.GradientTransformation, averaged: bool) -> TrainState:
  """The state before the first step from {'params', 'batch_stats'}; ``averaged`` keeps their moving average."""
  # A copy: the average and the variables are donated together, so they must not share buffers.
  ema = jax.device_put(variables, may_alias=False) if averaged else None
  return TrainState(jnp.zeros((), jnp.int32), variables['params'], variables['batch_stats'],
                    jax.jit(optimizer.init)(variables['params']), ema)  # Not compiled once for every shape.


def with_backbone(state: TrainState, variables: dict[str, Any]) -> TrainState:
  """The state with the backbone of other variables {'params', 'batch_stats'}, from which a run starts.

  Raises:
    UserError: it is another backbone; the message names a parameter.
  """
  ours, theirs = ({name: leaf.shape for name, leaf in flatten_dict(params['backbone'], sep='/').items()}
                  for params in (state.params, variables['params']))
  if differing := sorted(ours.items() ^ theirs.items()):
    name = differing[0][0]
    raise UserError(f"config.init_from: it has another backbone: '{name}' is {ours.get(name, 'absent')} here and "
                    f"{theirs.get(name, 'absent')} there.")
  replaced = {kind: {**getattr(state, kind), 'backbone': variables[kind]['backbone']} for kind in variables
              if 'backbone' in variables[kind]}
  averaged = state.ema and {**state.ema, **jax.tree.map(jnp.copy, replaced)}  # Of arrays of the host, too.
  return state.replace(**replaced, ema=averaged)
