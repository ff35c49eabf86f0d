"""Attribution maps of any network: a layer's value, and the function that makes logits of it."""

from collections.abc import Callable

import jax

from fer_jax.attribution.forward import Tap
from fer_jax.attribution.maps import cotangent, draw
from fer_jax.errors import UserError


def attribution_map(logits_of: Callable[[jax.Array], jax.Array], tap: jax.Array, *, attribution: str = 'grad_input',
                    target: str = 'logit_sum', channels: str = 'mean', labels: jax.Array | None = None, steps: int = 8
                    ) -> jax.Array:
  """Computes attribution maps at a layer; the defaults are PAL's (arXiv 2203.12905). Pure: jit it, differentiate it.

  Args:
    logits_of: maps the layer's value to logits (B, K), each row by itself: dropout and BatchNorm above the layer must
      give the same answer each time.
    tap: the layer's value, (B, h, w, c) float.
    attribution: 'grad_input' | 'grad' | 'integrated_gradients' | 'activation' | 'grad_cam' | 'grad_cam_plus_plus' |
      'grad_cam_plus_plus_intended' | 'layer_cam'. The other kinds need a backbone's attention or a head's weights.
    target: the scalar that is explained: 'logit_sum' | 'predicted' (the arg-max logit), and with ``labels``
      'true_class' (their logit) | 'cross_entropy'.
    channels: 'mean' | 'half_mean' (of the first half of the channels) | 'all'.
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
                    f'{tap.shape} and {jax.tree.map(jax.numpy.shape, logits)}.')
  if labels is None and target in ('true_class', 'cross_entropy'):
    raise UserError(f"attribution target '{target}' needs labels=, (B,) integers.")
  batch = {} if labels is None else {'label': labels, 'target': jax.nn.one_hot(labels, logits.shape[1])}
  layer = Tap('tap', tap, lambda seen: pull_back(seen)[0], lambda change: logits_of(tap + change))
  return draw(layer, cotangent(logits, target, batch), attribution, channels, steps)
