"""The training state: with the step number it is everything a run needs to go on."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from fer_jax.models.classifier import Classifier


@flax.struct.dataclass
class TrainState:
  """All that changes during training, and all that a checkpoint holds.

  Attributes:
    step: int32 scalar, the number of steps taken; every random choice is a function of it and the seed.
    params: float32 parameters.
    batch_stats: running BatchNorm statistics.
    opt_state: the optimiser's state.
    ema: {'params', 'batch_stats'} averaged over steps, or None where the config asks for none.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any

  def variables(self, averaged: bool = False) -> dict[str, Any]:
    """The model's variables for ``apply``: the current ones, or their moving average."""
    return self.ema if averaged else {'params': self.params, 'batch_stats': self.batch_stats}


def initial_variables(model: Classifier, seed: int, image_size: int, regions: int = 1) -> dict[str, Any]:
  """Parameters and batch statistics of step 0, a function of ``seed`` alone; ``regions`` is the images per face."""
  images = jnp.zeros((1, *([regions] if regions > 1 else []), image_size, image_size, 3))
  variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(seed))
  return {'params': variables['params'], 'batch_stats': variables.get('batch_stats', {})}


def initial_state(variables: dict[str, Any], optimizer: optax.GradientTransformation, averaged: bool) -> TrainState:
  """The state before the first step.

  Args:
    variables: {'params', 'batch_stats'}.
    optimizer: the optax chain.
    averaged: whether to keep a moving average of the variables.
  """
  # A copy: the average and the variables are donated together, so they must not share buffers.
  ema = jax.tree.map(jnp.copy, variables) if averaged else None
  return TrainState(jnp.zeros((), jnp.int32), variables['params'], variables['batch_stats'],
                    optimizer.init(variables['params']), ema)
