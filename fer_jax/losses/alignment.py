"""Alignment: pulls an attribution map onto a prior. PAL is one corner of it.

The map is sum_c u_c x_c over the channels of a tap, with u from gradients (PAL, arXiv 2203.12905), from the
activations alone or from class weights; the prior is drawn from landmarks or from action units, or is a control. The
loss is the negative similarity, plus one for the cosine, so that it is 0 at best.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fer_jax.attribution import priors
from fer_jax.attribution.forward import Forward
from fer_jax.attribution.maps import tap_map
from fer_jax.attribution.similarity import similarity as similarity_of
from fer_jax.errors import UserError, nearest

# Named corners of the family: the keyword arguments of ``alignment`` that give a paper.
_PAL = {'attribution': 'grad_input', 'target': 'logit_sum', 'taps': ('stage4',), 'channels': 'mean',
        'prior': 'landmark', 'similarity': 'pearson', 'steps': 8, 'stats': 'sample', 'resize': 'antialias'}
PRESETS = {'pal': _PAL,
           'au_cues': _PAL | {'attribution': 'activation', 'prior': 'action_unit', 'similarity': 'cosine'}}

STATS = ('sample', 'channel')


def alignment_loss(maps: jax.Array, prior: jax.Array, valid: jax.Array | None = None, *, similarity: str = 'pearson',
                   stats: str = 'sample', resize: str = 'antialias') -> jax.Array:
  """Dissimilarity of attribution maps and priors. Pure: jit it, differentiate it with respect to the maps.

  With the cosine and the mean activation it is AU cues' 1 - <T, A> / max(|T| |A|, 1e-8) (arXiv 2402.00281, section 3);
  with z-scores and gradients PAL's (arXiv 2203.12905).

  Args:
    maps: (B, h, w) or (B, h, w, c) float, of ``attribution_map``; the prior is repeated over channels. Whatever they
      are, the loss is computed in float32 at least.
    prior: (B, H, W) float, non-negative, such as ``landmark_heatmap`` / 255; it is resized to (h, w).
    valid: (B,) bool, False for examples without a loss; None: all. Those whose prior is empty have none in any case.
    similarity: 'pearson' (loss in [-1, 1]) | 'zscore_sum' (the paper's, its scale grows with the map) | 'cosine'
      (loss 1 - cosine, in [0, 2]; 1 for a map of zeros).
    stats: for several channels: means and norms are taken over pixels and channels of an example ('sample'), or every
      channel is compared with the prior by itself ('channel': the mean of the channels' similarities, or for
      'zscore_sum' their sum).
    resize: how the prior is brought to the map's size, a name in ``landmarks.resizing.RESIZES``.

  Returns:
    (B,); 0 for an example whose prior is empty or whose map is constant under 'pearson' and 'zscore_sum'.

  Raises:
    UserError: an unknown name, or a prior of integers or of another shape.
  """
  if stats not in STATS:
    raise UserError(f"unknown alignment stats '{stats}'{nearest(str(stats), STATS)}")
  maps, prior = jnp.asarray(maps), jnp.asarray(prior)
  maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))  # Sums over pixels cancel in bfloat16.
  if valid is not None:
    prior = jnp.where(jnp.asarray(valid, bool)[:, None, None], prior, 0)  # Whatever it held, it is empty now.
  rows, h, w, c = maps.shape if maps.ndim == 4 else (*maps.shape, 1)
  drawn, found = priors.resized(prior, (h, w), resize)
  drawn = jnp.broadcast_to(drawn[..., None], (rows, h, w, c))
  if stats == 'channel':
    maps, drawn = (x.reshape(rows, h * w, c).swapaxes(1, 2) for x in (maps, drawn))
  else:
    maps, drawn = (x.reshape(rows, 1, -1) for x in (maps, drawn))
  alike = similarity_of(maps, drawn, similarity)
  alike = alike.sum(axis=1) if similarity == 'zscore_sum' else alike.mean(axis=1)
  return jnp.where(found, (1.0 if similarity == 'cosine' else 0.0) - alike, 0.0)


def alignment(forward: Forward, attribution: str, target: str, taps: Sequence[str], channels: str, prior: str,
              similarity: str, steps: int = 8, stats: str = 'sample', resize: str = 'antialias') -> jax.Array:
  """``alignment_loss`` of a forward pass, the mean over one or several ``taps`` of the backbone.

  Args:
    attribution, target, channels, steps: see ``attribution.maps.tap_map``.
    taps: names of taps.
    prior: a name in ``attribution.priors.PRIORS``.
    similarity, stats, resize: see ``alignment_loss``.

  Returns:
    (B,).

  Raises:
    UserError: an unknown name, or an attribution or prior that this net or these data do not have.
  """
  losses = []
  for tap in taps:
    maps = tap_map(forward, attribution=attribution, target=target, tap=tap, channels=channels, steps=steps)
    drawn = priors.prior(forward.batch, prior, maps.shape[1:3])
    losses.append(alignment_loss(maps, drawn, similarity=similarity, stats=stats, resize=resize))
  return jnp.stack(losses).mean(axis=0)
