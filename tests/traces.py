"""What a traced function computes: its equations, with those of all functions inside it."""

from collections.abc import Iterator

import jax
from jax.interpreters import partial_eval


def equations(jaxpr, primitives=()) -> Iterator:
  """Yields every equation of a jaxpr and of the jaxprs in it, or those of some primitives only."""
  for equation in jaxpr.eqns:
    if not primitives or equation.primitive.name in primitives:
      yield equation
    for inner in inside(equation):
      yield from equations(inner, primitives)


def inside(equation) -> Iterator:
  """Yields the jaxprs that an equation has in its parameters."""
  for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, 'jaxpr')):
    inner = getattr(inner, 'jaxpr', inner)
    if hasattr(inner, 'eqns'):
      yield inner


def live(jaxpr):
  """The jaxpr without what its results do not need, as a compiler leaves it."""
  return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]


def scope(equation) -> str:
  """The modules an equation was traced in, as 'Classifier/backbone/conv1', without the transformations around them."""
  return str(equation.source_info.name_stack).replace('transpose(', '').replace('jvp(', '').replace(')', '')


def rounded(jaxpr, around='') -> set[str]:
  """The scopes of the products whose factors an accelerator may round, which a TPU does to bfloat16.

  What is in a jaxpr without a scope of its own, as in derivatives written by hand, is in the scope ``around`` it.
  """
  found = set()
  for equation in jaxpr.eqns:
    where = scope(equation) or around
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      if str(equation.params['precision']).count('HIGHEST') != 2:
        found.add(where)
    for inner in inside(equation):
      found |= rounded(inner, where)
  return found
