"""WILDCAT's head against numpy."""

import jax
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models.heads.wildcat import Wildcat


@pytest.mark.parametrize('share, kept', [(0.5, 3), (1.0, 6), (0.01, 1)])
def test_a_logit_is_the_mean_of_the_brightest_pixels_of_a_class(share, kept):
  rng = np.random.default_rng(0)
  head, features = Wildcat(4, modalities=3, share=share), rng.normal(size=(2, 2, 3, 5)).astype(np.float32)
  variables = head.init(jax.random.key(0), features, False)
  kernel, bias = (np.asarray(variables['params']['maps'][name]) for name in ('kernel', 'bias'))
  logits, embedding, weights = head.apply(variables, features, False)
  for b, k in np.ndindex(2, 4):
    one = lambda x, k=k: np.mean([x @ kernel[:, 3 * k + m] + bias[3 * k + m] for m in range(3)])
    pixels = [one(x) for x in features[b].reshape(6, 5)]
    np.testing.assert_allclose(logits[b, k], np.mean(sorted(pixels)[-kept:]), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(embedding, features.mean((1, 2)), rtol=1e-5, atol=1e-6)
  assert weights is None


def test_a_share_out_of_range():
  with pytest.raises(UserError, match='share=0: a share of the pixels'):
    Wildcat(4, share=0)
