"""Attribution maps: which kind, of which logits, at which tap, over which channels.

One implementation serves the alignment loss, the metrics and the pictures: ``attribution_map`` for a forward pass of a
``Classifier``, ``from_function.attribution_map`` for any other network.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from fer_jax import registry
from fer_jax.attribution.forward import Forward, Tap
from fer_jax.errors import UserError, nearest

TARGETS = ('logit_sum', 'true_class', 'predicted', 'cross_entropy')
CHANNELS = ('all', 'mean', 'half_mean')


def cotangent(logits: jax.Array, target: str, batch: Mapping[str, jax.Array]) -> jax.Array:
  """The gradient (B, K) of the scalar that is explained with respect to the logits (B, K).

  Args:
    logits: of the forward pass.
    target: 'logit_sum' (PAL; a sum of softmax outputs would be constant, so logits it is), 'true_class' (zero for
      examples without a label), 'predicted' (the arg-max logit, held fixed) or 'cross_entropy' (the loss with
      ``batch['target']``: softmax - target, through which gradients flow; zero for a target of zeros). Integrated
      gradients hold it at its value for the whole activation all along their path.
    batch: 'label' (B,) int for 'true_class', 'target' (B, K) for 'cross_entropy'.
  """
  if target == 'logit_sum':
    return jnp.ones_like(logits)
  if target == 'true_class':
    return jax.nn.one_hot(batch['label'], logits.shape[-1], dtype=logits.dtype)
  if target == 'predicted':
    return jax.nn.one_hot(logits.argmax(axis=-1), logits.shape[-1], dtype=logits.dtype)
  if target == 'cross_entropy':
    wanted = batch['target'].astype(logits.dtype)
    return jax.nn.softmax(logits, axis=-1) * wanted.sum(axis=-1, keepdims=True) - wanted
  raise UserError(f"unknown attribution target '{target}'{nearest(target, TARGETS)}")


def attribution_map(forward: Forward, *, attribution: str, target: str, tap: str, channels: str = 'mean',
                    steps: int = 8) -> jax.Array:
  """Computes attribution maps, in float32 where the net computes in bfloat16.

  Args:
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
  outputs = forward.outputs
  if tap not in outputs.taps:
    raise UserError(f"the backbone has no tap '{tap}'{nearest(tap, outputs.taps)}")
  layer = Tap(tap, outputs.taps[tap], lambda seen: forward.gradient(seen)[tap],
              lambda change: forward.logits({tap: change}), forward.class_weights, outputs.attention)
  return draw(layer, cotangent(outputs.logits, target, forward.batch), attribution, channels, steps)


def draw(tap: Tap, seen: jax.Array, attribution: str, channels: str, steps: int) -> jax.Array:
  """The maps of a tap for the cotangent ``seen`` (B, K); arguments, result and errors as ``attribution_map``'s."""
  if channels not in CHANNELS:
    raise UserError(f"unknown attribution channels '{channels}'{nearest(channels, CHANNELS)}")
  maps = registry.find('attribution.kinds', attribution)(tap, seen, steps)
  maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
  if channels == 'all':
    return maps
  if channels == 'half_mean':
    if maps.shape[-1] < 2:
      raise UserError(f"attribution '{attribution}' gives one channel at tap '{tap.name}', which has no half; "
                      "choose channels 'mean'.")
    maps = maps[..., : maps.shape[-1] // 2]
  return maps.mean(axis=-1, keepdims=True)
