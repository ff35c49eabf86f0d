"""What attributions and losses see of a network: a forward pass, and one tap of it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import jax

from fer_jax.models.classifier import Outputs


class Forward(Protocol):
  """One forward pass of a classifier; ``training.step.Context`` is one."""

  batch: Mapping[str, jax.Array]  # Augmented.
  outputs: Outputs
  teacher: Outputs | None  # A frozen teacher's, for the same faces.

  def gradient(self, cotangent: jax.Array) -> Mapping[str, jax.Array]:
    """Pulls a cotangent (B, K) on the logits back to every tap: {tap: (B, h, w, c)}."""

  def logits(self, activations: Mapping[str, jax.Array]) -> jax.Array:
    """Logits (B, K) of the same images with ``activations`` {tap: (B, h, w, c)} in the place of the taps' own."""

  def class_weights(self, cotangent: jax.Array) -> jax.Array:
    """Weights (B, C) of the pooled features in the scalar whose gradient at the logits is ``cotangent`` (B, K)."""


@dataclasses.dataclass(frozen=True)
class Tap:
  """A layer's activation and how the logits depend on it: all that a kind of attribution sees."""

  name: str  # For messages.
  activation: jax.Array  # (B, h, w, c).
  gradient: Callable[[jax.Array], jax.Array]  # Pulls a cotangent (B, K) on the logits back to the activation.
  logits: Callable[[jax.Array], jax.Array]  # The logits (B, K) of another activation (B, h, w, c) of the same images.
  class_weights: Callable[[jax.Array], jax.Array] | None = None  # As ``Forward``'s; None where nobody knows.
  attention: jax.Array | None = None  # As ``Outputs``'.
