"""Attribution maps: which kind, of which logits, at which tap, over which channels.

One implementation serves the alignment loss, the metrics and the pictures: ``tap_map`` for a forward pass of a
``Classifier``, ``attribution_map`` for any other network.
"""

from collections.abc import Callable, Mapping

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


def attribution_map(logits_of: Callable[[jax.Array], jax.Array], tap: jax.Array, *, attribution: str = 'grad_input',
                    target: str = 'logit_sum', channels: str = 'mean', labels: jax.Array | None = None, steps: int = 8
                    ) -> jax.Array:
  """Computes attribution maps at a layer; the defaults are PAL's (arXiv 2203.12905). Pure: jit it, differentiate it.

  Args:
    logits_of: maps the layer's value to logits (B, K), each row by itself: dropout and BatchNorm above the layer must
      give the same answer each time.
    tap: the layer's value, (B, h, w, c) float.
    attribution: 'grad_input' | 'grad' | 'integrated_gradients' | 'activation' | 'grad_cam' | 'grad_cam_plus_plus' |
      'grad_cam_plus_plus_intended' | 'layer_cam'. The other files of ``attribution/kinds`` need a backbone's attention
      or a head's weights.
    target: the scalar that is explained: 'logit_sum' | 'predicted' (the arg-max logit), and with ``labels``
      'true_class' (their logit) | 'cross_entropy'; see ``cotangent``.
    channels: 'mean' over all channels, 'half_mean' over the first half (the others stay free), or 'all' kept. Kinds
      that end in a ReLU over a sum of channels, and those made from attention, have one channel only.
    labels: (B,) int, -1 unknown.
    steps: points on the path of integrated gradients.

  Returns:
    (B, h, w, 1), or (B, h, w, c) for channels 'all' of a kind that keeps them; float32 at least.

  Raises:
    UserError: an unknown name, labels that are missing, other shapes, or a kind that a function is not enough for.
  """
  logits, pull_back = jax.vjp(logits_of, tap)
  if tap.ndim != 4 or getattr(logits, 'ndim', None) != 2:
    raise UserError(f'an attribution wants a tap (B, h, w, c), tokens laid out as h x w, and logits (B, K); it got '
                    f'{tap.shape} and {jax.tree.map(jnp.shape, logits)}.')
  if labels is None and target in ('true_class', 'cross_entropy'):
    raise UserError(f"attribution target '{target}' needs labels=, (B,) integers.")
  batch = {} if labels is None else {'label': labels, 'target': jax.nn.one_hot(labels, logits.shape[1])}
  layer = Tap('tap', tap, lambda seen: pull_back(seen)[0], logits_of)
  return _draw(layer, cotangent(logits, target, batch), attribution, channels, steps)


def tap_map(forward: Forward, *, attribution: str, target: str, tap: str, channels: str = 'mean', steps: int = 8
            ) -> jax.Array:
  """The ``attribution_map`` of a classifier's forward pass, of any kind, at the tap of its backbone named ``tap``.

  Raises:
    UserError: an unknown name, the message lists the choices; or a kind that does not go with this net, this tap or
      these channels.
  """
  outputs = forward.outputs
  if tap not in outputs.taps:
    raise UserError(f"the backbone has no tap '{tap}'{nearest(tap, outputs.taps)}")
  layer = Tap(tap, outputs.taps[tap], lambda seen: forward.gradient(seen)[tap],
              lambda activation: forward.logits({tap: activation}), forward.class_weights, outputs.attention)
  return _draw(layer, cotangent(outputs.logits, target, forward.batch), attribution, channels, steps)


def _draw(tap: Tap, seen: jax.Array, attribution: str, channels: str, steps: int) -> jax.Array:
  """The maps of a tap for the cotangent ``seen`` (B, K)."""
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
