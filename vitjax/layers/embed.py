"""Tokens of images: patches, the convolutional stem, position embeddings."""

import math
from collections.abc import Sequence
from typing import Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.layers.dense import Conv, kernel_init
from vitjax.layers.dropout import dropout
from vitjax.layers.norm import Normalization, norm

PrefixPositions = Literal['class', 'all', 'none']


def grid_of(image_shape: Sequence[int], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches of an image `(height, width, ...)`.

    Raises:
        ValueError: if `patch_size` does not divide the height and the width.
    """
    height, width = image_shape[:2]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f'patch_size must divide the image: {patch_size=}, image is {height}x{width} pixels.'
        )
    return height // patch_size, width // patch_size


def patchify(images: jax.Array, patch_size: int) -> jax.Array:
    """Cuts images [B, H, W, C] into patches [B, N, patch_size² · C], row by row of the grid.

    Raises:
        ValueError: if `patch_size` does not divide the height and the width.
    """
    grid_of(images.shape[1:3], patch_size)
    sides = {'p': patch_size, 'q': patch_size}
    return einops.rearrange(images, 'b (h p) (w q) c -> b (h w) (p q c)', **sides)


def unpatchify(patches: jax.Array, grid: tuple[int, int], channels: int = 3) -> jax.Array:
    """Inverse of `patchify`: patches [B, N, P² · C] on a grid (rows, columns) to images."""
    side = round((patches.shape[-1] / channels) ** 0.5)
    sizes = {'h': grid[0], 'w': grid[1], 'p': side, 'q': side}
    return einops.rearrange(patches, 'b (h w) (p q c) -> b (h p) (w q) c', **sizes)


class PatchEmbed(nn.Module):
    """Images [B, H, W, C] to tokens [B, N, width]: patchify and a dense layer.

    Equals a convolution with kernel and stride `patch_size` (Dosovitskiy et al. 2021, eq. 1),
    whose kernel is this one reshaped to `[patch, patch, C, width]`.
    """

    patch_size: int
    width: int
    dtype: str = 'float32'
    bias: bool = True

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        dense = nn.Dense(
            self.width, self.bias, dtype=self.dtype, kernel_init=kernel_init, name='projection'
        )
        return dense(patchify(images, self.patch_size))


class ConvStem(nn.Module):
    """Images to tokens by 3x3 convolutions of stride 2, GELU between them (Touvron et al. 2021b).

    It has `log2(patch_size)` convolutions. The last has `width` channels, each before it half as
    many as the next. `bias` and `last_gelu` are off in the published models and on in the CIFAR
    tutorial's.
    """

    patch_size: int
    width: int
    bias: bool = False
    last_gelu: bool = False
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        layers = self.patch_size.bit_length() - 1
        if 2**layers != self.patch_size or layers == 0:
            rule = 'patch_size must be a power of two for a stem of stride-2 convolutions'
            raise ValueError(f'{rule}: {self.patch_size=}.')
        if self.width < 2 ** (layers - 1):
            raise ValueError(
                f'width must leave the first of {layers} convolutions a channel: {self.width=}.'
            )
        grid_of(images.shape[1:3], self.patch_size)
        x = images
        for i in range(layers):
            features = self.width // 2 ** (layers - 1 - i)
            # Padded as PyTorch does: XLA's SAME pads (0, 1) at stride 2.
            conv = Conv(features, 2, use_bias=self.bias, dtype=self.dtype, name=f'conv_{i + 1}')
            x = conv(x)
            if i < layers - 1 or self.last_gelu:
                x = nn.gelu(x, approximate=False)
        return einops.rearrange(x, 'b h w d -> b (h w) d')


def sincos_positions(grid: tuple[int, int], width: int) -> jax.Array:
    """Fixed two-dimensional sine-cosine positions [N, width] (Beyer et al. 2022, arXiv:2205.01580).

    The first quarter is the sine of the column times each frequency, then its cosine, then the
    same for the row; frequencies fall from 1 to 1/10,000 geometrically.
    """
    if width % 4:
        raise ValueError(f'width must be a multiple of 4 for sine-cosine positions: {width=}.')
    rows, columns = jnp.mgrid[: grid[0], : grid[1]].reshape(2, -1)
    omega = 1.0 / 10_000 ** (jnp.arange(width // 4) / max(width // 4 - 1, 1))
    angles = [axis[:, None] * omega for axis in (columns, rows)]
    return jnp.concatenate([f(a) for a in angles for f in (jnp.sin, jnp.cos)], axis=1)


def square_grid(count: int) -> tuple[int, int] | None:
    """Rows and columns of the square grid of `count` patches; None if they make no square."""
    side = math.isqrt(count)
    return (side, side) if side**2 == count else None


class PositionEmbedding(nn.Module):
    """Adds a position embedding to tokens [B, N, width].

    Attributes:
        kind: `learned`, one vector for each of the `prefix` tokens and each patch; `sincos`, fixed
            and for the patches alone; `none`.
        prefix: tokens before the patches.
        known: rows and columns of the patches that learned embeddings are for, whose number leaves
            the grid open: 16 fit 4x4 and 2x8 patches. None is the square, or the image's grid if no
            square has as many patches. `resample_positions` makes another grid's.
    """

    kind: str = 'learned'
    prefix: int = 0
    known: tuple[int, int] | None = None

    @nn.compact
    def __call__(self, tokens: jax.Array, grid: tuple[int, int]) -> jax.Array:
        count, width = tokens.shape[1:]
        if self.kind == 'none':
            return tokens
        if self.kind == 'sincos':
            table = sincos_positions(grid, width)
            return tokens.at[:, self.prefix :].add(table.astype(tokens.dtype))
        if self.kind != 'learned':
            rule = "position must be 'learned', 'sincos' or 'none'"
            raise ValueError(f'{rule}: position={self.kind!r}.')
        rows = count - self.prefix
        if self.has_variable('params', 'table'):
            rows = self.get_variable('params', 'table').shape[0] - self.prefix
        if rows != grid[0] * grid[1]:
            raise ValueError(
                f'position embeddings are for {rows} patches, this image has '
                f'{grid[0] * grid[1]} ({grid[0]}x{grid[1]}): resample them with '
                'vitjax.pretrained.resize.'
            )
        known = self.known or square_grid(rows) or grid
        if known != grid:
            raise ValueError(
                f'position embeddings are for {known[0]}x{known[1]} patches, this image has '
                f'{grid[0]}x{grid[1]}: resample them with vitjax.pretrained.resize, or give the '
                f'model position_grid=({grid[0]}, {grid[1]}) if they were learned there.'
            )
        table = self.param('table', kernel_init, (count, width))
        return tokens + table.astype(tokens.dtype)


class TokenEmbed(nn.Module):
    """Images to the tokens that enter the first block: `[class, registers, patches]`.

    Attributes:
        patch_size: side of a patch in pixels.
        width: channels of a token.
        class_tokens: number of class tokens.
        registers: number of registers (Darcet et al. 2024).
        position: position embedding.
        dropout: rate at the end.
        dtype: compute type.
        position_grid: grid that learned positions are for.
        prefix_positions: learned positions of tokens before the patches: of the `class` tokens, of
            `all`, or of `none`.
        patch_bias: bias of the patch embedding.
        patch_norm: normalization of the patches before positions are added (AIMv2's).
        norm: normalization of all tokens at the end (CLIP's).
        norm_epsilon: that of both.
    """

    patch_size: int
    width: int
    class_tokens: int = 0
    registers: int = 0
    position: str = 'learned'
    dropout: float = 0.0
    dtype: str = 'float32'
    position_grid: tuple[int, int] | None = None
    prefix_positions: PrefixPositions = 'class'
    patch_bias: bool = True
    patch_norm: Normalization | None = None
    norm: Normalization | None = None
    norm_epsilon: float = 1e-6

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        embed = PatchEmbed(self.patch_size, self.width, self.dtype, self.patch_bias, name='patch')
        patches = embed(images)
        if self.patch_norm:
            normalize = norm(self.patch_norm, self.dtype, self.norm_epsilon)
            patches = normalize(name='patch_norm')(patches)
        prefix = {
            name: repeated(self.param(name, kernel_init, (count, self.width)), patches)
            for name, count in (('class_token', self.class_tokens), ('registers', self.registers))
            if count
        }
        placed = {'class': ['class_token'], 'all': [*prefix], 'none': []}[self.prefix_positions]
        tokens = [prefix.pop(name) for name in placed if name in prefix]
        tokens = jnp.concatenate([*tokens, patches], axis=1) if tokens else patches
        known = tokens.shape[1] - patches.shape[1]
        grid = grid_of(images.shape[1:3], self.patch_size)
        positions = PositionEmbedding(self.position, known, self.position_grid, name='position')
        tokens = positions(tokens, grid)
        if prefix:
            parts = tokens[:, :known], *prefix.values(), tokens[:, known:]
            tokens = jnp.concatenate(parts, axis=1)
        tokens = dropout(self, tokens, self.dropout, train)
        if self.norm:
            tokens = norm(self.norm, self.dtype, self.norm_epsilon)(name='norm')(tokens)
        return tokens


def repeated(token: jax.Array, like: jax.Array) -> jax.Array:
    """Learned tokens [K, width] for each image of tokens [B, N, width]: [B, K, width]."""
    return jnp.broadcast_to(token.astype(like.dtype), (like.shape[0], *token.shape))
