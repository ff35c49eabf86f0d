"""Fine-tuning: learning rates by depth, a head that learns alone at first, and stages that stay as they are."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fer_jax.errors import UserError, nearest

Rules = list[tuple[str, dict[str, Any]]]


def finetuning_rules(stage_of: Mapping[str, str], parameters: Iterable[str], *, factor: float = 1.0,
                     head_alone: float = 0.0, frozen: str = '') -> Rules:
  """Rules for ``optim.make_optimizer``, one for each parameter of the backbone; none where nothing is asked for.

  Args:
    stage_of: see ``models.stages``.
    parameters: paths of all parameters, such as 'backbone/conv1/kernel'.
    factor: of the learning rate from a stage to the one below it, and from the head to the last stage.
    head_alone: share of training at whose start the backbone's parameters stay as they are. Its normalisation follows
      the new images all the same.
    frozen: the tap up to which the backbone stays as it is all the time, its normalisation too; '' for none.

  Raises:
    UserError: an unknown tap, or a number out of range.
  """
  if not 0 < factor <= 1:
    raise UserError(f'config.finetune.factor={factor}: it is in (0, 1]; 1 for one learning rate for all.')
  if not 0 <= head_alone < 1:
    raise UserError(f'config.finetune.head_alone={head_alone}: it is a share of training, in [0, 1).')
  taps = list(dict.fromkeys(filter(None, stage_of.values())))
  if frozen and frozen not in taps:
    raise UserError(f"config.finetune.frozen='{frozen}': the backbone has no such tap{nearest(frozen, taps)}")
  if (factor, head_alone, frozen) == (1, 0, ''):
    return []
  rules: Rules = []
  for path in parameters:
    if path.startswith('backbone/'):
      # The backbone's own parameters, such as a position embedding, are at its start.
      at = taps.index(stage_of.get(path.rpartition('/')[0], taps[0]) or taps[-1])
      rules.append((f'^{re.escape(path)}$', {'frozen': True} if frozen and at <= taps.index(frozen) else
                    {'learning_rate': factor ** (len(taps) - at), 'waits': head_alone}))
  return rules
