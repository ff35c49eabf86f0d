"""Taps: the activations of a backbone that losses and attributions look at and move."""

from collections.abc import Callable

import flax.linen as nn
import jax


def tapping(backbone: nn.Module) -> tuple[dict[str, jax.Array], Callable[[str, jax.Array], jax.Array]]:
  """Returns an empty dict and ``tap(name, x) -> x``, which makes x (N, h, w, c) a ``perturb`` point and files it there.

  Call it inside the compact ``__call__`` of ``backbone``, and go on with what ``tap`` returns.
  """
  taps: dict[str, jax.Array] = {}

  def tap(name: str, x: jax.Array) -> jax.Array:
    taps[name] = backbone.perturb(name, x)
    return taps[name]

  return taps, tap
