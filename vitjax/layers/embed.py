"""From images to tokens: patches, the convolutional stem, position embeddings."""

import functools
from collections.abc import Sequence

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vitjax.layers.convolution import convolve
from vitjax.layers.dropout import dropout

kernel_init = nn.initializers.truncated_normal(0.02)  # timm's and DeiT's for every dense layer
conv_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')  # PyTorch's default


def patchify(images: jax.Array, patch_size: int) -> jax.Array:
    """Cuts images [B, H, W, C] into patches [B, N, patch_size² · C], row by row.

    Raises:
        ValueError: if `patch_size` does not divide the height and the width.
    """
    height, width = images.shape[1:3]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f'patch_size must divide the image: {patch_size=}, image is {height}x{width} pixels.'
        )
    return einops.rearrange(
        images, 'b (h p) (w q) c -> b (h w) (p q c)', p=patch_size, q=patch_size
    )


def unpatchify(patches: jax.Array, grid: tuple[int, int], channels: int = 3) -> jax.Array:
    """The inverse of `patchify`: patches [B, N, P² · C] on a grid (rows, columns) to images."""
    p = round((patches.shape[-1] / channels) ** 0.5)
    return einops.rearrange(
        patches, 'b (h w) (p q c) -> b (h p) (w q) c', h=grid[0], w=grid[1], p=p, q=p
    )


class PatchEmbed(nn.Module):
    """Images [B, H, W, C] to tokens [B, N, width]: patchify and a dense layer.

    The same numbers as a convolution with kernel and stride `patch_size` (Dosovitskiy et al.
    2021, eq. 1), whose kernel is this one reshaped to `[patch, patch, C, width]`.
    """

    patch_size: int
    width: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        dense = nn.Dense(self.width, dtype=self.dtype, kernel_init=kernel_init, name='projection')
        return dense(patchify(images, self.patch_size))


class ConvStem(nn.Module):
    """Images to tokens by 3x3 convolutions of stride 2, GELU between them (Touvron et al. 2021b).

    `log2(patch_size)` convolutions; the last has `width` channels, each before it half of the
    next. `bias` and `last_gelu` are off in the published models and on in the CIFAR tutorial's.
    """

    patch_size: int
    width: int
    bias: bool = False
    last_gelu: bool = False
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        height, width = images.shape[1:3]
        layers = self.patch_size.bit_length() - 1
        if 2**layers != self.patch_size or layers == 0:
            raise ValueError(
                f'patch_size must be a power of two for a stem of stride-2 convolutions: '
                f'{self.patch_size=}.'
            )
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f'patch_size must divide the image: patch_size={self.patch_size}, '
                f'image is {height}x{width} pixels.'
            )
        x = images
        for i in range(layers):
            x = nn.Conv(
                self.width // 2 ** (layers - 1 - i),
                (3, 3),
                strides=2,
                padding=1,  # PyTorch's; XLA's SAME pads (0, 1) at stride 2
                use_bias=self.bias,
                dtype=self.dtype,
                conv_general_dilated=convolve,
                kernel_init=conv_init,
                name=f'conv_{i + 1}',
            )(x)
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


class PositionEmbedding(nn.Module):
    """Adds a position embedding to tokens [B, N, width].

    Learned, one vector for each of the `prefix` tokens and each patch; or `sincos`, fixed, for the
    patches only. Learned embeddings belong to one grid: `resample_positions` moves them to another.
    """

    kind: str = 'learned'
    prefix: int = 0

    @nn.compact
    def __call__(self, tokens: jax.Array, grid: tuple[int, int]) -> jax.Array:
        count, width = tokens.shape[1:]
        if self.kind == 'sincos':
            table = sincos_positions(grid, width)
            return tokens.at[:, self.prefix :].add(table.astype(tokens.dtype))
        if self.kind != 'learned':
            raise ValueError(f"position must be 'learned' or 'sincos': position={self.kind!r}.")
        if self.has_variable('params', 'table'):
            known = self.get_variable('params', 'table').shape[0]
            if known != count:
                raise ValueError(
                    f'position embeddings are for {known - self.prefix} patches, this image has '
                    f'{count - self.prefix} ({grid[0]}x{grid[1]}): resample them with '
                    'vitjax.pretrained.resize.'
                )
        table = self.param('table', kernel_init, (count, width))
        return tokens + table.astype(tokens.dtype)


@functools.cache
def _torch_bicubic(old: int, new: int) -> np.ndarray:
    """[new, old]: PyTorch's bicubic weights without antialiasing (a = -0.75, edges clamped)."""
    a = -0.75
    matrix = np.zeros((new, old))
    for i, x in enumerate((np.arange(new) + 0.5) * old / new - 0.5):
        base = int(np.floor(x))
        for j in range(base - 1, base + 3):
            t = abs(x - j)
            near = (a + 2) * t**3 - (a + 3) * t**2 + 1
            far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
            matrix[i, min(max(j, 0), old - 1)] += near if t <= 1 else far
    return matrix


def resample_positions(
    table: jax.Array | np.ndarray,
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    prefix: int = 0,
    antialias: bool = True,
) -> jax.Array:
    """Position embeddings [prefix + N_old, D] on another grid, bicubic: [prefix + N_new, D].

    Args:
        table: the embeddings; the first `prefix` rows have no place on the grid and stay.
        old: rows and columns of the grid that the embeddings were learned on.
        new: rows and columns wanted.
        prefix: how many rows precede the patches'.
        antialias: True as timm and DINOv2 with registers do it (a = -0.5, antialiased when
            shrinking); False as the transformers library does it for DINOv2 (a = -0.75).

    Raises:
        ValueError: if the table's length is not `prefix` plus the old grid's size.
    """
    if table.shape[0] != prefix + old[0] * old[1]:
        raise ValueError(
            f'position embeddings must have prefix + rows x columns = {prefix} + {old[0]}x{old[1]} '
            f'rows: got {table.shape[0]}.'
        )
    table = jnp.asarray(table, jnp.float32)
    if old == new:
        return table
    patches = table[prefix:].reshape(*old, -1)
    if antialias:
        patches = jax.image.resize(patches, (*new, patches.shape[-1]), 'cubic', antialias=True)
    else:
        rows, columns = (_torch_bicubic(o, n) for o, n in zip(old, new, strict=True))
        patches = jnp.einsum('ih,jw,hwd->ijd', rows, columns, patches, precision='highest')
    return jnp.concatenate([table[:prefix], patches.reshape(new[0] * new[1], -1)])


def resample_patch_kernel(kernel: jax.Array | np.ndarray, old: int, new: int) -> jax.Array:
    """A patch embedding's kernel [old² · C, D] for another patch size: [new² · C, D].

    FlexiViT's pseudo-inverse resize (Beyer et al. 2023, eq. 5): with B the matrix that resizes a
    patch from `old` to `new` pixels, the kernel is pinv(Bᵀ) w, so that a resized patch has the same
    embedding where `new` is the larger, and the nearest one in the least-squares sense otherwise.
    """
    if old == new:
        return jnp.asarray(kernel, jnp.float32)
    # Column (i, j) of Bᵀ is what the bilinear resize makes of a patch that is 1 at pixel (i, j).
    basis = jnp.eye(old * old).reshape(old * old, old, old)
    resized = jax.image.resize(basis, (old * old, new, new), 'bilinear', antialias=True)
    inverse = np.linalg.pinv(np.asarray(resized, np.float64).reshape(old * old, new * new))
    weights = np.asarray(kernel, np.float64).reshape(old * old, -1)
    return jnp.asarray((inverse @ weights).reshape(-1, np.shape(kernel)[-1]), jnp.float32)


class TokenEmbed(nn.Module):
    """Images to the tokens that enter the first block: `[class, registers, patches]`.

    Position embeddings cover the class tokens and the patches, not the registers, which come in
    between afterwards (Darcet et al. 2024). Without class tokens and registers: patches alone.
    """

    patch_size: int
    width: int
    class_tokens: int = 0
    registers: int = 0
    position: str = 'learned'
    dropout: float = 0.0
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        tokens = PatchEmbed(self.patch_size, self.width, self.dtype, name='patch')(images)
        prefix = self.class_tokens
        if prefix:
            tokens = jnp.concatenate([self._token('class_token', prefix, tokens), tokens], axis=1)
        grid = grid_of(images.shape[1:3], self.patch_size)
        tokens = PositionEmbedding(self.position, prefix, name='position')(tokens, grid)
        if self.registers:
            added = self._token('registers', self.registers, tokens)
            tokens = jnp.concatenate([tokens[:, :prefix], added, tokens[:, prefix:]], axis=1)
        return dropout(self, tokens, self.dropout, train)

    def _token(self, name: str, count: int, like: jax.Array) -> jax.Array:
        token = self.param(name, kernel_init, (count, self.width)).astype(like.dtype)
        return jnp.broadcast_to(token, (like.shape[0], *token.shape))


def grid_of(image_shape: Sequence[int], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches of an image `(height, width, ...)`."""
    return image_shape[0] // patch_size, image_shape[1] // patch_size
