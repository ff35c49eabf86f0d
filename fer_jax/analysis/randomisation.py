"""The sanity check of explanations by random parameters: what of a map is left when the network forgets what it learnt.

Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, section 3.1, cascading randomisation: parameters become
random again from the top of the network down, and each time the maps are compared with those of the trained network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from fer_jax.landmarks.regions import region_count
from fer_jax.metrics.faithfulness import correlations, summarise_correlations
from fer_jax.runtime import cluster
from fer_jax.training import evaluation, setup, step

_DRAWS = 3  # Of random parameters: where few of them decide about a map's sign, one draw can be far from the next.


def seeds(seed: int) -> list[int]:
  """The seeds of the random parameters that a run of ``seed`` is compared with."""
  return [seed + 1 + draw for draw in range(_DRAWS)]


def cascade(trained: setup.Trained, source: Any, batch_size: int, mesh: jax.sharding.Mesh) -> list[dict[str, Any]]:
  """Correlates the maps of ``config.explain`` with those of the network with random parameters, depth by depth.

  Parameters and running statistics are drawn anew, as at the start of training: first those of the head, then also
  those of the last stage, down to the stem.

  Returns:
    A row {'random', 'depth', 'maps'} for each depth: the group that became random last, how many are by now, and for
    each map ``summarise_correlations`` over faces and draws. Before them come 'nothing', depth 0, where the trained
    network draws its maps again, and, with two faces or more, 'another face': the trained network's map of the next
    face, which says how alike its maps are whatever it is shown.
  """
  evaluator = setup.make_evaluator(trained.system, mesh)
  groups = parameter_groups(trained.system.recipe, trained.variables)
  redrawn = [cluster.replicate(trained.system.initial(seed).variables(), mesh) for seed in seeds(trained.protocol.seed)]

  def maps_of(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    table = evaluation.outputs_of(evaluator, variables, source, batch_size, mesh)
    return {name: table[f'map/{name}'] for name in trained.system.explain}

  ours = maps_of(trained.variables)

  def row(random: str, depth: int, draws: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    return {'random': random, 'depth': depth, 'maps': {
        name: summarise_correlations([correlations(draw[name], maps) for draw in draws])
        for name, maps in ours.items()}}

  rows = [row('nothing', 0, [maps_of(randomised(trained.variables, redrawn[0], groups, 0))])]
  if len(source) > 1:
    rows.append(row('another face', 0, [{name: np.roll(maps, -1, axis=0) for name, maps in ours.items()}]))
  for depth, name in enumerate(groups, 1):
    cluster.say(f"random parameters: {', '.join(list(groups)[:depth])}")
    rows.append(row(name, depth, [maps_of(randomised(trained.variables, draw, groups, depth)) for draw in redrawn]))
  return rows


def parameter_groups(recipe: step.Recipe, variables: Mapping[str, Any]) -> dict[str, list[int]]:
  """Groups a network's variables by depth, from the top down: the head, then what lies below each tap of the backbone.

  Whatever the backbone is made of, a variable belongs to the first tap that cannot be computed without it. What only
  lies above the last tap comes as 'above <tap>' after the head.

  Returns:
    {group: indices of leaves of ``variables`` in the order of ``jax.tree.leaves``}; every leaf is in one group.
  """
  regions = [region_count(**recipe.regions)] if recipe.regions else []
  images = jnp.zeros((1, *regions, recipe.image_size, recipe.image_size, 3))
  trace = jax.make_jaxpr(lambda v: recipe.model.apply(v, images, False).taps, return_shape=True)
  closed, taps = trace(jax.eval_shape(lambda: variables))
  traced = closed.jaxpr

  def read(out: Any) -> set[int]:
    """The leaves that an output depends on."""
    needed = {out}
    for equation in reversed(traced.eqns):
      if not needed.isdisjoint(equation.outvars):
        needed.update(value for value in equation.invars if not isinstance(value, Literal))
    return {i for i, leaf in enumerate(traced.invars) if leaf in needed}

  below = sorted(((read(out), name) for out, name in zip(traced.outvars, sorted(taps), strict=True)),
                 key=lambda pair: len(pair[0]))
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
  head = {i for i, path in enumerate(paths) if path[1].key == 'head'}
  groups, left = {}, set(range(len(paths))) - head
  for leaves, name in below:
    groups[name] = leaves & left
    left -= leaves
  groups |= {f'above {below[-1][1]}': left, 'head': head}
  return {name: sorted(leaves) for name, leaves in reversed(groups.items()) if leaves}


def randomised(variables: Mapping[str, Any], redrawn: Mapping[str, Any], groups: Mapping[str, Sequence[int]], depth: int
               ) -> Any:
  """``variables`` with those of the first ``depth`` groups taken from ``redrawn``."""
  random = {leaf for name in list(groups)[:depth] for leaf in groups[name]}
  (ours, tree), theirs = jax.tree.flatten(variables), jax.tree.leaves(redrawn)
  return jax.tree.unflatten(tree, [theirs[i] if i in random else leaf for i, leaf in enumerate(ours)])
