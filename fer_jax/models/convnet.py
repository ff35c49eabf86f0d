"""What convolutional backbones share: the options that are no part of their architecture, layers and taps."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from fer_jax.models.norm import batch_norm
from fer_jax.models.taps import tapping

he = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')  # He et al., arXiv 1502.01852, as torchvision does it.


class ConvNet(nn.Module):
  """A convolutional network: images (N, H, W, 3), train -> features (N, h, w, C), ``{tap: activation}``, no attention.

  Attributes:
    dtype: of the computation; parameters and batch statistics stay float32.
    axis_name: mapped axis over which BatchNorm averages in training, for the mapped form of data parallelism.
    regions: see ``models.norm.batch_norm``.
  """

  dtype: Any
  axis_name: str | None
  regions: int

  def parts(self, train: bool) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module], dict, Callable]:
    """``conv(width, kernel, stride, ...)`` without bias, ``norm(name=...)``, and what ``tapping`` returns."""
    conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=he)
    return conv, batch_norm(train, self.dtype, self.axis_name, self.regions), *tapping(self)
