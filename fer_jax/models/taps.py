"""Taps: the activations of a backbone that losses and attributions look at, move and replace."""

from collections.abc import Callable

import flax.linen as nn
import jax


class Mark(nn.Module):
  """A place between two layers that has no variables: that of a tap, for who walks through a network's modules."""

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns x."""
    return x


def tapping(backbone: nn.Module) -> tuple[dict[str, jax.Array], Callable[..., jax.Array]]:
  """Returns an empty dict and ``tap(name, x) -> x``, which makes x (N, h, w, c) a tap and files it there.

  Call it inside the compact ``__call__`` of ``backbone``, and go on with what ``tap`` returns. What else layers above
  see of those below, such as a class token, goes along: ``tap(name, x, *beside) -> (x, *beside)``.

  A tap is a ``perturb`` point. A pass with the mutable collection 'held' also returns there what every tap was,
  ``(x, *beside)``; a pass that is given such tuples in 'held' goes on with them, and the layers below are dead code.
  """
  taps: dict[str, jax.Array] = {}

  def tap(name: str, x: jax.Array, *beside: jax.Array) -> jax.Array | tuple[jax.Array, ...]:
    if not backbone.is_initializing():  # Where every collection is mutable, and nothing is to be held.
      x, *beside = backbone.get_variable('held', name, (x, *beside))
      if backbone.is_mutable_collection('held'):
        backbone.put_variable('held', name, (x, *beside))
    taps[name] = x = Mark(name=f'tap_{name}', parent=backbone)(backbone.perturb(name, x))
    return (x, *beside) if beside else x

  return taps, tap
