"""Attribution maps of a forward pass: which kind, of which logits, at which tap, over which channels.

One function serves the alignment loss, the metrics and the pictures. It sees the forward pass as a ``context`` with
``outputs`` (``models.classifier.Outputs``), ``batch``, ``gradient(cotangent) -> {tap: (B, h, w, c)}``,
``logits(perturbations) -> (B, K)`` and ``class_weights(cotangent) -> (B, C)``; see ``step.Context``.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fer_jax import registry
from fer_jax.errors import UserError, nearest

TARGETS = ('logit_sum', 'true_class', 'predicted', 'cross_entropy')
CHANNELS = ('all', 'mean', 'half_mean')


def cotangent(context: Any, target: str) -> jax.Array:
  """The gradient (B, K) of the scalar that is explained with respect to the logits.

  Args:
    context: the forward pass.
    target: 'logit_sum' (PAL; a sum of softmax outputs would be constant, so logits it is), 'true_class' (zero for
      examples without a label), 'predicted' (the arg-max logit, held fixed) or 'cross_entropy' (the loss with
      ``batch['target']``: softmax - target, through which gradients flow; zero for a target of zeros). Integrated
      gradients hold it at its value for the whole activation all along their path.
  """
  logits = context.outputs.logits
  if target == 'logit_sum':
    return jnp.ones_like(logits)
  if target == 'true_class':
    return jax.nn.one_hot(context.batch['label'], logits.shape[-1], dtype=logits.dtype)
  if target == 'predicted':
    return jax.nn.one_hot(logits.argmax(axis=-1), logits.shape[-1], dtype=logits.dtype)
  if target == 'cross_entropy':
    wanted = context.batch['target'].astype(logits.dtype)
    return jax.nn.softmax(logits, axis=-1) * wanted.sum(axis=-1, keepdims=True) - wanted
  raise UserError(f"unknown attribution target '{target}'{nearest(target, TARGETS)}")


def attribution_map(context: Any, *, attribution: str, target: str, tap: str, channels: str = 'mean',
                    steps: int = 8) -> jax.Array:
  """Computes attribution maps, in float32 where the net computes in bfloat16.

  Args:
    context: the forward pass.
    attribution: name of a file in ``attribution/kinds``.
    target: see ``cotangent``.
    tap: name of a tap of the backbone.
    channels: 'mean' over all channels, 'half_mean' over the first half (the others stay free), or 'all' kept. Kinds
      that end in a ReLU over a sum of channels, and those made from attention, have one channel only.
    steps: points on the path of integrated gradients.

  Returns:
    (B, h, w, 1) for 'mean' and 'half_mean', (B, h, w, c) for 'all'.

  Raises:
    UserError: an unknown name, the message lists the choices; or a kind that does not go with this net, this tap or
      these channels.
  """
  taps = context.outputs.taps
  if tap not in taps:
    raise UserError(f"the backbone has no tap '{tap}'{nearest(tap, taps)}")
  if channels not in CHANNELS:
    raise UserError(f"unknown attribution channels '{channels}'{nearest(channels, CHANNELS)}")
  kind = registry.find('attribution.kinds', attribution)
  maps = kind(context, tap, cotangent(context, target), steps)
  maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
  if channels == 'all':
    return maps
  if channels == 'half_mean':
    if maps.shape[-1] < 2:
      raise UserError(f"attribution '{attribution}' gives one channel at tap '{tap}', which has no half; "
                      "choose channels 'mean'.")
    maps = maps[..., : maps.shape[-1] // 2]
  return maps.mean(axis=-1, keepdims=True)
