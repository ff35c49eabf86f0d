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

# Named corners of the family: the keyword arguments of ``alignment`` that give a paper.
PRESETS = {
    'pal': {'attribution': 'grad_input', 'target': 'logit_sum', 'taps': ('stage4',), 'channels': 'mean',
            'prior': 'landmark', 'similarity': 'pearson', 'steps': 8},
}


def alignment(context: Any, attribution: str, target: str, taps: Sequence[str], channels: str, prior: str,
              similarity: str, steps: int = 8) -> jax.Array:
  """Dissimilarity of attribution maps and priors.

  Args:
    context: the forward pass.
    attribution: 'grad' | 'grad_input' | 'integrated_gradients' | 'activation'.
    target: 'logit_sum' | 'true_class' | 'predicted': the logit(s) whose attribution is aligned.
    taps: one or several taps of the backbone; their losses are averaged.
    channels: 'mean' | 'half_mean' | 'all' (the prior is repeated over the channels).
    prior: 'landmark' | 'action_unit' | 'centred_gaussian' | 'uniform' | 'shuffled'.
    similarity: 'pearson' (loss in [-1, 1]) | 'zscore_sum' (the paper's, its scale grows with the map) | 'cosine'
      (loss 1 - cosine, in [0, 2]).
    steps: points on the path of integrated gradients.

  Returns:
    (B,); 0 for an example whose prior is empty or whose map is constant under 'pearson' and 'zscore_sum'.
  """
  losses = []
  for tap in taps:
    maps = attribution_map(context, attribution=attribution, target=target, tap=tap, channels=channels, steps=steps)
    rows, h, w, c = maps.shape
    drawn, valid = prior_map(context.batch, prior, (h, w))
    drawn = jnp.broadcast_to(drawn[..., None], (rows, h, w, c))
    alike = similarity_of(maps.reshape(rows, -1), drawn.reshape(rows, -1), similarity)
    losses.append(jnp.where(valid, (1.0 if similarity == 'cosine' else 0.0) - alike, 0.0))
  return jnp.stack(losses).mean(axis=0)
