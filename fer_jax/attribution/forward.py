"""What attributions and losses see of a network: a forward pass, and one tap of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import jax

from fer_jax.errors import UserError
from fer_jax.models.classifier import Outputs


class Forward(Protocol):
  """One forward pass of a classifier; ``training.step.Context`` is one.

  Attributes:
    batch: the augmented batch.
    outputs: what the classifier answered.
    teacher: what a frozen teacher answered for the same faces, or None.
  """

  batch: Mapping[str, jax.Array]
  outputs: Outputs
  teacher: Outputs | None

  def gradient(self, cotangent: jax.Array) -> Mapping[str, jax.Array]:
    """Pulls a cotangent (B, K) on the logits back to every tap: {tap: (B, h, w, c)}."""

  def logits(self, perturbations: Mapping[str, jax.Array]) -> jax.Array:
    """Logits (B, K) of the same images with taps moved by ``perturbations`` {tap: (B, h, w, c)}."""

  def class_weights(self, cotangent: jax.Array) -> jax.Array:
    """Weights (B, C) of the pooled features in the scalar whose gradient at the logits is ``cotangent`` (B, K)."""


@dataclasses.dataclass(frozen=True)
class Tap:
  """A layer's activation and how the logits depend on it: all that a kind of attribution sees.

  Attributes:
    name: for messages.
    activation: (B, h, w, c).
    logits: (B, K).
    gradient: pulls a cotangent (B, K) on the logits back to the activation: (B, h, w, c).
    moved: the logits (B, K) with the activation moved by (B, h, w, c).
    class_weights: as ``Forward``'s, or None where there are none to be had.
    attention: as ``Outputs``' (B, L, 1 + h w, 1 + h w), or None.
  """

  name: str
  activation: jax.Array
  logits: jax.Array
  gradient: Callable[[jax.Array], jax.Array]
  moved: Callable[[jax.Array], jax.Array]
  class_weights: Callable[[jax.Array], jax.Array] | None = None
  attention: jax.Array | None = None

  @classmethod
  def of_pass(cls, forward: Forward, name: str) -> Tap:
    """The tap ``name`` of a forward pass."""
    outputs = forward.outputs
    return cls(name, outputs.taps[name], outputs.logits, lambda cotangent: forward.gradient(cotangent)[name],
               lambda change: forward.logits({name: change}), forward.class_weights, outputs.attention)

  @classmethod
  def of_function(cls, logits_of: Callable[[jax.Array], jax.Array], activation: jax.Array) -> Tap:
    """The value (B, h, w, c) of a layer, and the function that makes logits (B, K) of it.

    Raises:
      UserError: other shapes.
    """
    logits, pull_back = jax.vjp(logits_of, activation)
    if activation.ndim != 4 or getattr(logits, 'ndim', None) != 2:
      raise UserError(f'an attribution wants a tap (B, h, w, c) and logits (B, K), and got {activation.shape} and '
                      f'{jax.tree.map(jax.numpy.shape, logits)}; lay tokens out as h x w.')
    return cls('tap', activation, logits, lambda cotangent: pull_back(cotangent)[0],
               lambda change: logits_of(activation + change))
