"""Attribution maps without a backward pass, for heads that pool globally and then apply one linear layer.

There the gradient of a scalar s at the pooled features A (B, h, w, C) is W / (h w), flat in space, with weights W
(B, C) = kernel times ds/dlogits. Every function takes A and W and returns, up to a positive factor per example, the map
of the kind of the same name (``attribution/kinds``): (B, h, w, C) of terms whose sum over channels is the map, or
(B, h, w, 1). The table of arXiv 2402.00281's methods, simplified by hand.
"""

import jax


def weighted_relu(features: jax.Array, weights: jax.Array) -> jax.Array:
  """ReLU(sum_c w_c A_c), (B, h, w, 1): what the Grad-CAM family shares; weights (B, C) or (B, h, w, C)."""
  if weights.ndim == 2:
    weights = weights[:, None, None]
  return jax.nn.relu((weights * features).sum(axis=-1, keepdims=True))


def cam(features: jax.Array, weights: jax.Array) -> jax.Array:
  """CAM (arXiv 1512.04150): the terms W_c A_c, (B, h, w, C), without a ReLU."""
  return features * weights[:, None, None]


def grad_input(features: jax.Array, weights: jax.Array) -> jax.Array:
  """Gradient times input: CAM's terms over h w."""
  return cam(features, weights) / (features.shape[1] * features.shape[2])


def integrated_gradients(features: jax.Array, weights: jax.Array) -> jax.Array:
  """Integrated gradients from zero: the gradient is the same along the whole path, so it is gradient times input."""
  return grad_input(features, weights)


def grad_cam(features: jax.Array, weights: jax.Array) -> jax.Array:
  """Grad-CAM (arXiv 1610.02391): ReLU of CAM, (B, h, w, 1)."""
  return weighted_relu(features, weights)


def grad_cam_plus_plus(features: jax.Array, weights: jax.Array) -> jax.Array:
  """Grad-CAM++ as AU cues' code computes it: w_c = max(W_c, 0)^3, (B, h, w, 1)."""
  return weighted_relu(features, jax.nn.relu(weights) ** 3)


def grad_cam_plus_plus_intended(features: jax.Array, weights: jax.Array) -> jax.Array:
  """Grad-CAM++ (arXiv 1710.11063): w_c = max(W_c, 0) / (2 + W_c mean_ij A_c), (B, h, w, 1)."""
  positive = jax.nn.relu(weights)
  return weighted_relu(features, positive / (2 + positive * features.mean(axis=(1, 2))))


def layer_cam(features: jax.Array, weights: jax.Array) -> jax.Array:
  """LayerCAM (Jiang et al., IEEE TIP 2021): ReLU(sum_c max(W_c, 0) A_c), (B, h, w, 1)."""
  return weighted_relu(features, jax.nn.relu(weights))
