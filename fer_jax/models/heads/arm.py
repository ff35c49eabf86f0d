"""ARM, the amending head: feature arrangement, de-albino, sharing affinity instead of pooling (arXiv 2103.10189)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax.errors import UserError
from fer_jax.models.norm import batch_norm

GLOBAL_MEANS = ('running', 'batch', 'none')


class Arm(nn.Module):
  """The head; the defaults are the paper's for 7 x 7 x 512 features, 1,883 parameters with 7 classes.

  Attributes:
    axis_name: mapped axis over which a training batch is split, or None under ``jax.jit``: the means of batch are those
      of the global one.
    devices: see ``models.norm.batch_norm``; the mean of affinity is that of all rows in any case.
    block: r of the feature arrangement.
    kernel: side of the one de-albino kernel, which all planes share. Without padding, pixels at the border enter fewer
      windows than those in the middle, and borders are what padding has eroded.
    stride: of that kernel.
    arrangement: rearrange the features; False leaves h x w planes of every channel, for ablations.
    de_albino: learn the kernel; False averages its window, for ablations.
    global_mean: what sharing affinity adds, times a learned alpha, to every face. In training it is the mean over the
      batch. In evaluation 'running' takes a moving average of it, frozen; 'batch' the mean over the test batch, as the
      released code does: then a prediction depends on the other images, and a test order with labels in blocks leaks
      them, so results are marked leaky. 'none' adds nothing. Another name is a UserError.
    decay: of the moving average.
  """

  classes: int
  axis_name: str | None = None
  devices: int = 1
  block: int = 16
  kernel: int = 32
  stride: int = 8
  arrangement: bool = True
  de_albino: bool = True
  global_mean: str = 'running'
  decay: float = 0.99
  takes_regions = False

  def __post_init__(self):
    if self.global_mean not in GLOBAL_MEANS:
      raise UserError(f"model.head.global_mean='{self.global_mean}': choose one of {', '.join(GLOBAL_MEANS)}.")
    super().__post_init__()

  @nn.compact
  def __call__(self, features: jax.Array, train: bool, mask: jax.Array | None = None
               ) -> tuple[jax.Array, jax.Array, None]:
    """Maps features (B, h, w, C) to logits (B, K), the amended map as embedding (B, h' w'), and None."""
    x = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    planes = arrange(x, self.block) if self.arrangement else x
    if self.kernel > min(planes.shape[1:3]):
      raise UserError(f'model.head.kernel={self.kernel} is larger than the {planes.shape[1]} x {planes.shape[2]} '
                      "planes of the features; the paper's 32 is for planes of 112 x 112.")
    # One kernel for all planes: they become images of one channel.
    rows, height, width, count = planes.shape
    images = planes.transpose(0, 3, 1, 2).reshape(-1, height, width, 1)
    window = (self.kernel, self.kernel)
    if self.de_albino:
      images = nn.Conv(1, window, self.stride, padding='VALID', use_bias=False, name='de_albino')(images)
    else:
      images = nn.avg_pool(images, window, (self.stride, self.stride))
    planes = images.reshape(rows, count, *images.shape[1:3]).transpose(0, 2, 3, 1)
    planes = batch_norm(train, planes.dtype, self.axis_name, devices=self.devices)(name='bn')(planes)
    amended = self._share_affinity(planes.mean(axis=-1), train, mask)
    embedding = amended.reshape(rows, -1)
    return nn.Dense(self.classes, name='fc')(embedding), embedding, None

  def _share_affinity(self, means: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    """Adds alpha times the mean over the batch to every face's mean over planes (B, h', w')."""
    # With every setting of global_mean there are the same variables, so that one net can be evaluated under all three.
    alpha = self.param('alpha', nn.initializers.ones, ())
    running = self.variable('batch_stats', 'global_mean', jnp.zeros, means.shape[1:])
    if train or self.global_mean == 'batch':
      kept = jnp.ones(len(means)) if mask is None else mask.astype(means.dtype)
      total, count = (kept[:, None, None] * means).sum(axis=0), kept.sum()
      if train and self.axis_name and not self.is_initializing():
        total, count = jax.lax.psum((total, count), self.axis_name)
      shared = total / jnp.maximum(count, 1)
    else:
      shared = running.value
    if train and not self.is_initializing():
      running.value = self.decay * running.value + (1 - self.decay) * jax.lax.stop_gradient(shared)
    return means if self.global_mean == 'none' else means + alpha * shared


def arrange(x: jax.Array, block: int) -> jax.Array:
  """Feature arrangement: channels become pixels. (B, h, w, p r^2) -> (B, h r, w r, p) with r = ``block``.

  Y[b, r i + u, r j + v, q] = X[b, i, j, r^2 q + r u + v]. With p = 1 this is PyTorch's pixel shuffle.

  Raises:
    UserError: r^2 does not divide the channels.
  """
  rows, height, width, channels = x.shape
  if channels % block**2:
    raise UserError(f'model.head.block={block}: its square {block**2} does not divide the {channels} channels of the '
                    "features; the paper's 16 is for 512 channels.")
  x = x.reshape(rows, height, width, -1, block, block)
  return x.transpose(0, 1, 4, 2, 5, 3).reshape(rows, height * block, width * block, -1)
