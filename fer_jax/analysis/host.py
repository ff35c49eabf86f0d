"""What a training step costs the host: everything the loop does for it, around a step that does nothing."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from fer_jax.analysis.speed import in_turns
from fer_jax.runtime import cluster
from fer_jax.training.metrics_log import Window
from fer_jax.training.plan import Plan, make_plan
from fer_jax.training.start import settle

# How faces come to the devices: what the config's data has to say of it.
FORMS = {'decoded at every use': {'table': False, 'resident': 'False'},
         'from a mapped table': {'table': True, 'resident': 'False'},
         'resident': {'table': True, 'resident': 'True', 'resident_steps': 32}}


def host_table(configs: Mapping[str, ConfigDict], rounds: int, batches: int = 64) -> Table:
  """Faces a second that one process can give to its devices, by form, ``batches`` dispatches a round.

  The steps read what the config's own would read. Nothing is computed with it, so nothing but the host is measured.

  Raises:
    UserError: a bad config.
  """
  mesh = cluster.make_mesh()
  table = Table('config', 'faces', 'faces/s and process, median', 'slowest and fastest round', 'bytes a face',
                title=f'{rounds} rounds of {batches} dispatches, in turns, of steps that do nothing on '
                      f'{cluster.hardware()}',
                caption='One process. 4 threads decode; of resident faces 32 steps are one dispatch.')
  for name, config in configs.items():
    settle(config)
    plan = make_plan(config, mesh)
    sent = sum(int(np.prod(form.shape[1:])) * form.dtype.itemsize for field, form in plan.like[-1].items()
               if field in plan.fields)
    seconds = in_turns([_steps(plan, mesh, options, batches) for options in FORMS.values()], rounds)
    for i, (form, options) in enumerate(FORMS.items()):
      rates = batches * options.get('resident_steps', 1) * plan.batch_size / seconds[:, i]
      table.add_row(f'{name}, {plan.batch_size} a step', form, f'{np.median(rates):,.0f}',
                    f'{rates.min():,.0f} to {rates.max():,.0f}', f'{sent if i < 2 else 8:,}')
  return table


def _steps(plan: Plan, mesh: jax.sharding.Mesh, options: Mapping[str, Any], batches: int) -> Callable[[int], None]:
  """A function that takes so many steps of a form, and waits for the last."""
  nothing = cluster.parallel(lambda state, meter, frozen, batch: (state, {'steps': meter['steps'] + 1}), mesh, 'jit')
  protocol = dataclasses.replace(plan.protocol, data=dataclasses.replace(plan.protocol.data, **options))
  parts = [dataclasses.replace(part, source=dataclasses.replace(part.source)) for part in plan.parts]  # With no table.
  plan = dataclasses.replace(plan, protocol=protocol, parts=parts, train_step=nothing, frozen={}, holdout=None,
                             log_every=10**9, checkpoint_every=10**9, system=dataclasses.replace(
                                 plan.system, total_steps=10**9))
  feed, at = plan.feed(0, mesh), 0
  held = [cluster.replicate(tree, mesh) for tree in ({}, {'steps': np.float32(0)})]
  window = Window(0)

  def take(_: int) -> None:
    nonlocal at
    for _ in range(batches):
      with window.waiting():
        steps, step = next(feed)
      held[:] = step(*held)
      window.dispatched(held[1], len(steps))
      at = steps.stop
    window.read(held[1], at, plan.batch_size)

  take(0)  # Compiled, and the first batches ahead.
  return take
