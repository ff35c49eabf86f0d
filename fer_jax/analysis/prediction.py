"""From a picture to what a run's network says of its faces: ``load(WORKDIR)`` gives that function.

The command ``predict``, pages and exported files are ``answer`` in other clothes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fer_jax.errors import UserError, nearest
from fer_jax.training import setup, step

# Targets of a map that only a labelled face has; a face without a label is explained by the predicted class.
_LABELLED = ('true_class', 'cross_entropy')


def answer(recipe: step.Recipe, explanation: Mapping[str, Any] | None, temperature: float,
           variables: Mapping[str, Any], batch: step.Batch) -> dict[str, jax.Array]:
  """What a network says of cut-out faces: ``step.evaluation_step`` without labels, calibrated. Pure; to be compiled.

  Args:
    recipe: of the run.
    explanation: keyword arguments of ``tap_map``, from ``explanation``; None: no map.
    temperature: what logits are divided by (Guo et al., arXiv 1706.04599), above 0; 1: not calibrated.
    variables: {'params', 'batch_stats'}.
    batch: 'image' uint8 (B, S, S, C) and, where the run has regions, 'landmarks' (B, 68, 2) float32 fractions of the
      image, NaN where unknown.

  Returns:
    'probabilities' (B, K) float32, 'logits' (B, K), 'embedding' (B, D), 'pooled' (B, C) and, with an explanation, 'map'
    (B, h, w).
  """
  table = step.evaluation_step(recipe, {} if explanation is None else {'map': explanation}, variables, batch)
  answered = {name: table[name] for name in ('logits', 'embedding', 'pooled')}
  answered['probabilities'] = jax.nn.softmax(table['logits'].astype(jnp.float32) / temperature)
  return answered if explanation is None else answered | {'map': table['map/map']}


def explanation(trained: setup.Trained, name: str = '') -> dict[str, Any]:
  """The options of ``tap_map`` of a map of a run's config, without a need for labels.

  Args:
    name: of ``config.explain``; '': 'predicted' where the config has it, else its first.

  Raises:
    UserError: there is no such map, or the network's answer to a face depends on the other faces (ARM's batch mean).
  """
  check_alone(trained)
  known = trained.system.explain
  if not known:
    raise UserError(f"the run in {trained.workdir} has no maps: its config's explain is empty.")
  name = name or ('predicted' if 'predicted' in known else next(iter(known)))
  if name not in known:
    raise UserError(f"the run in {trained.workdir} has no map '{name}'{nearest(name, known)}")
  options = dict(known[name])
  return options | ({'target': 'predicted'} if options.get('target') in _LABELLED else {})


def check_alone(trained: setup.Trained) -> None:
  """Raises UserError where a network's answer to one face depends on the faces beside it."""
  if trained.protocol.batch_mean:
    raise UserError(f"the network in {trained.workdir} is ARM with global_mean='batch': its answer to a face depends "
                    'on the faces beside it, so a face alone has none. Train with '
                    '--config.model.head.global_mean=running.')
