"""Triplet loss: of three faces, the two that are alike are closer to each other than to the odd one.

Two-sided, with a margin by type of triplet, as FECNet has it (arXiv 1811.11283; form and margins recalled).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fer_jax.attribution.forward import Forward
from fer_jax.errors import UserError


def triplet_loss(first: jax.Array, second: jax.Array, odd: jax.Array, margin: float | jax.Array = 0.1) -> jax.Array:
  """max(0, D12 - D13 + m) + max(0, D12 - D23 + m) with D the squared distance of embeddings, 3 the odd one.

  Squared, because the root has no gradient at 0; between embeddings of length 1, D lies in [0, 4]. In float32 at least.

  Args:
    first, second: (..., D) embeddings of two faces that are alike.
    odd: (..., D), of the face that is not.
    margin: m, a number or (...).

  Returns:
    (...).
  """
  wide = jnp.promote_types(first.dtype, jnp.float32)
  distance = lambda a, b: jnp.square(a.astype(wide) - b).sum(axis=-1)
  alike = distance(first, second) + margin
  return jnp.maximum(0.0, alike - distance(first, odd)) + jnp.maximum(0.0, alike - distance(second, odd))


def triplet(forward: Forward, margins: Sequence[float] = (0.1, 0.2, 0.2)) -> jax.Array:
  """``triplet_loss`` of the triplets in a batch.

  Args:
    forward: the forward pass; ``batch['triplet']`` is the type of a triplet in its first row, whose other faces are the
      next two rows: (B,), or (B / g, g) where no triplet leaves a group of g rows.
    margins: m for triplets of one, two and three classes.

  Returns:
    (B,): the loss of the triplet that starts in a row; use the mask 'triplets', other rows mean nothing.

  Raises:
    UserError: not one margin for each type.
  """
  if len(margins) != 3:
    raise UserError(f'triplet.margins={tuple(margins)}: give three numbers, for one, two and three classes.')
  types = forward.batch['triplet']
  first = forward.outputs.embedding.reshape(*types.shape, -1)
  margin = jnp.asarray(margins, jnp.float32)[jnp.maximum(types, 0)]
  return triplet_loss(first, jnp.roll(first, -1, axis=-2), jnp.roll(first, -2, axis=-2), margin).reshape(-1)
