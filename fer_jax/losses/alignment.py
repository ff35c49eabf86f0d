"""Alignment: pulls an attribution map onto a prior. PAL is one corner of it.

The map is sum_c u_c x_c over the channels of a tap, with u from gradients (PAL, arXiv 2203.12905), from the
activations alone or from class weights; the prior is drawn from landmarks or from action units, or is a control. The
loss is the negative similarity, plus one for the cosine, so that it is 0 at best.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fer_jax.attribution.maps import attribution_map
from fer_jax.attribution.priors import prior_map
from fer_jax.attribution.similarity import similarity as similarity_of
from fer_jax.errors import UserError, nearest

# Named corners of the family: the keyword arguments of ``alignment`` that give a paper.
PRESETS = {
    'pal': {'attribution': 'grad_input', 'target': 'logit_sum', 'taps': ('stage4',), 'channels': 'mean',
            'prior': 'landmark', 'similarity': 'pearson', 'steps': 8, 'stats': 'sample', 'resize': 'antialias'},
    'au_cues': {'attribution': 'activation', 'target': 'logit_sum', 'taps': ('stage4',), 'channels': 'mean',
                'prior': 'action_unit', 'similarity': 'cosine', 'steps': 8, 'stats': 'sample', 'resize': 'antialias'},
}

STATS = ('sample', 'channel')


def alignment(context: Any, attribution: str, target: str, taps: Sequence[str], channels: str, prior: str,
              similarity: str, steps: int = 8, stats: str = 'sample', resize: str = 'antialias') -> jax.Array:
  """Dissimilarity of attribution maps and priors.

  With the cosine and the mean activation it is AU cues' 1 - <T, A> / max(|T| |A|, 1e-8) (arXiv 2402.00281, section 3);
  with z-scores and gradients PAL's (arXiv 2203.12905).

  Args:
    context: the forward pass.
    attribution: name of a file in ``attribution/kinds``.
    target: 'logit_sum' | 'true_class' | 'predicted' | 'cross_entropy': the scalar whose attribution is aligned.
    taps: one or several taps of the backbone; their losses are averaged.
    channels: 'mean' | 'half_mean' | 'all' (the prior is repeated over the channels).
    prior: a name in ``attribution.priors.PRIORS``.
    similarity: 'pearson' (loss in [-1, 1]) | 'zscore_sum' (the paper's, its scale grows with the map) | 'cosine'
      (loss 1 - cosine, in [0, 2]; 1 for a map of zeros).
    steps: points on the path of integrated gradients.
    stats: for channels 'all': means and norms are taken over pixels and channels of an example ('sample'), or every
      channel is compared with the prior by itself ('channel': the mean of the channels' similarities, or for
      'zscore_sum' their sum).
    resize: how the prior is brought to the map's size, a name in ``attribution.priors.RESIZES``.

  Returns:
    (B,); 0 for an example whose prior is empty or whose map is constant under 'pearson' and 'zscore_sum'.

  Raises:
    UserError: an unknown name, or an attribution or prior that this net or these data do not have.
  """
  if stats not in STATS:
    raise UserError(f"unknown alignment stats '{stats}'{nearest(str(stats), STATS)}")
  losses = []
  for tap in taps:
    maps = attribution_map(context, attribution=attribution, target=target, tap=tap, channels=channels, steps=steps)
    rows, h, w, c = maps.shape
    drawn, valid = prior_map(context.batch, prior, (h, w), resize)
    drawn = jnp.broadcast_to(drawn[..., None], (rows, h, w, c))
    if stats == 'channel':
      maps, drawn = (x.reshape(rows, h * w, c).swapaxes(1, 2) for x in (maps, drawn))
    else:
      maps, drawn = (x.reshape(rows, 1, -1) for x in (maps, drawn))
    alike = similarity_of(maps, drawn, similarity)
    alike = alike.sum(axis=1) if similarity == 'zscore_sum' else alike.mean(axis=1)
    losses.append(jnp.where(valid, (1.0 if similarity == 'cosine' else 0.0) - alike, 0.0))
  return jnp.stack(losses).mean(axis=0)
