"""Vision transformers, parameter for parameter timm's DeiT (``deit_small_patch16_224`` and its siblings).

A state dict maps to parameter names by one rule: '.' before a number becomes '_', any other '.' a path level:
``blocks.3.attn.qkv.weight`` is ``blocks_3/attn/qkv/kernel``. Dosovitskiy et al., arXiv 2010.11929; Touvron et al.,
"Training data-efficient image transformers", arXiv 2012.12877 (without distillation, dropout or stochastic depth).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fer_jax.errors import UserError
from fer_jax.models.taps import tapping

SIZES = {'tiny': (192, 3), 'small': (384, 6), 'base': (768, 12)}  # Width, heads.


def _dense(features: int, dtype: Any, name: str) -> nn.Dense:
  return nn.Dense(features, dtype=dtype, kernel_init=nn.initializers.normal(0.02), name=name)


class PatchEmbed(nn.Module):
  """Images (N, H, W, 3) to patches (N, h, w, width)."""

  width: int
  patch: int
  dtype: Any

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    side = (self.patch, self.patch)
    return nn.Conv(self.width, side, side, padding=0, dtype=self.dtype, name='proj')(images)


class Attention(nn.Module):
  """Self-attention of tokens (N, T, C); also returns the attention (N, T, T), averaged over heads."""

  heads: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows, tokens, width = x.shape
    qkv = _dense(3 * width, self.dtype, 'qkv')(x).reshape(rows, tokens, 3, self.heads, width // self.heads)
    query, key, value = jnp.moveaxis(qkv, 2, 0)
    scores = jnp.einsum('nqhd,nkhd->nhqk', query, key, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
    attention = nn.softmax(scores * (width // self.heads) ** -0.5)
    y = jnp.einsum('nhqk,nkhd->nqhd', attention.astype(value.dtype), value).reshape(x.shape)
    return _dense(width, self.dtype, 'proj')(y), attention.mean(axis=1)


class Mlp(nn.Module):
  """Two dense layers with four times the width between them."""

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = nn.gelu(_dense(4 * x.shape[-1], self.dtype, 'fc1')(x), approximate=False)
    return _dense(x.shape[-1], self.dtype, 'fc2')(y)


class Block(nn.Module):
  """Attention and MLP, each normalised before and added to its input."""

  heads: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    norm = functools.partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
    y, attention = Attention(self.heads, self.dtype, name='attn')(norm(name='norm1')(x))
    x = x + y
    return checkpoint_name(x + Mlp(self.dtype, name='mlp')(norm(name='norm2')(x)), 'block'), attention


class ViT(nn.Module):
  """A vision transformer; its position embedding is for the image size at initialisation.

  Taps, patch tokens as a grid (N, h, w, C): 'stem' (embedded, with position), 'stage1' to 'stage4' after each quarter
  of the blocks; 'stage4' is after the final normalisation and equals the features.

  Attributes:
    size: 'tiny', 'small' or 'base': 192, 384 or 768 channels, 3, 6 or 12 heads.
    patch: side of a patch in pixels.
    depth: number of blocks, a multiple of 4.
    width: channels C, a multiple of ``heads``; None: that of ``size``, as for the next one.
    heads: of the attention.
    dtype: of the computation; parameters stay float32 and attention is float32.
  """

  size: str = 'small'
  patch: int = 16
  depth: int = 12
  width: int | None = None
  heads: int | None = None
  dtype: Any = jnp.float32

  def __post_init__(self):
    if self.size not in SIZES:
      raise UserError(f"model.backbone.size='{self.size}': choose {', '.join(map(repr, SIZES))}.")
    self.width, self.heads = self.width or SIZES[self.size][0], self.heads or SIZES[self.size][1]
    if self.depth % 4:
      raise UserError(f'model.backbone.depth={self.depth}: choose a multiple of 4, for a tap after each quarter.')
    if self.width % self.heads:
      raise UserError(f'model.backbone.width={self.width}: choose a multiple of heads={self.heads}.')
    super().__post_init__()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
    """Maps normalised images (N, H, W, 3) to patch tokens (N, h, w, C), taps and attention (N, L, 1 + h w, 1 + h w).

    Raises:
      UserError: the image side is no multiple of the patch side.
    """
    if images.shape[1] % self.patch or images.shape[2] % self.patch:
      raise UserError(f'model.backbone.patch={self.patch}: images of {images.shape[1]} x {images.shape[2]} pixels '
                      '(config.image_size) do not divide into such patches; change one of the two.')
    patches = PatchEmbed(self.width, self.patch, self.dtype, name='patch_embed')(images.astype(self.dtype))
    grid = patches.shape
    (taps, tap), attention = tapping(self), []

    def tap_patches(name: str, tokens: jax.Array) -> jax.Array:
      tapped, first = tap(name, tokens[:, 1:].reshape(grid), tokens[:, :1])
      return jnp.concatenate([first, tapped.reshape(tokens[:, 1:].shape)], axis=1)

    first = self.param('cls_token', nn.initializers.normal(1e-6), (1, 1, self.width))
    position = self.param('pos_embed', nn.initializers.normal(0.02), (1, 1 + grid[1] * grid[2], self.width))
    first = jnp.broadcast_to(first.astype(self.dtype), (grid[0], 1, self.width))
    x = jnp.concatenate([first, patches.reshape(grid[0], -1, self.width)], axis=1) + position.astype(self.dtype)
    x = tap_patches('stem', x)
    for i in range(self.depth):
      x, weights = Block(self.heads, self.dtype, name=f'blocks_{i}')(x)
      attention.append(weights)
      quarter, rest = divmod(4 * (i + 1), self.depth)
      if quarter < 4 and not rest:
        x = tap_patches(f'stage{quarter}', x)
    tap_patches('stage4', nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')(x))
    return taps['stage4'], taps, jnp.stack(attention, axis=1)
