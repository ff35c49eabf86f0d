"""What convolutional backbones share: the options that are no part of their architecture, layers and taps."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.models.convolution import convolve
from fer_jax.models.norm import EPSILON, batch_norm
from fer_jax.models.taps import tapping

he = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')  # He et al., arXiv 1502.01852, as torchvision does it.


class Block(nn.Module):
  """Layers made with a network's ``ConvNet.parts``; what a repeated one returns is named 'block', for ``remat``."""

  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]


class ConvNet(nn.Module):
  """A network of convolutions: images (N, H, W, 3), train -> features (N, h, w, C), ``{tap: activation}``, None."""

  dtype: Any = jnp.float32  # Of the computation; parameters and batch statistics stay float32.
  axis_name: str | None = None  # Mapped axis over which BatchNorm averages in training, for parallel = 'pmap'.
  regions: int = 1  # See ``models.norm.batch_norm``; so ``devices``.
  devices: int = 1
  epsilon = EPSILON  # Of its BatchNorm: part of the architecture, no option.

  def parts(self, train: bool) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module], dict, Callable]:
    """``conv(width, kernel, stride, ...)`` without bias, ``norm(name=...)``, and what ``tapping`` returns."""
    conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=he, conv_general_dilated=convolve)
    norm = batch_norm(train, self.dtype, self.axis_name, self.regions, self.epsilon, self.devices)
    return conv, norm, *tapping(self)
