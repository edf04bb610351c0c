"""Position embeddings for another grid, and patch kernels for another patch size."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.image import ResizeMethod, resize

from vitjax.base.types import Array


def resample_positions(
    table: Array, old: tuple[int, int], new: tuple[int, int], *, prefix: int = 0,
    antialias: bool = True,
) -> jax.Array:  # fmt: skip
    """Position embeddings [prefix + N_old, D] on another grid, bicubic: [prefix + N_new, D].

    Args:
        table: embeddings; the first `prefix` rows have no place on the grid and stay.
        old: rows and columns of the grid that the embeddings were learned on.
        new: rows and columns of the other grid.
        prefix: number of rows before the patches'.
        antialias: True as timm and DINOv2 with registers do it (a = -0.5, antialiased when
            shrinking); False as the transformers library does it for DINOv2 (a = -0.75).

    Raises:
        ValueError: if the table's length is not `prefix` plus the old grid's size.
    """
    if len(table) != prefix + old[0] * old[1]:
        raise ValueError(
            f'position embeddings must have prefix + rows x columns = {prefix} + {old[0]}x{old[1]} '
            f'rows: got {len(table)}.'
        )
    table = jnp.asarray(table, jnp.float32)
    if old == new:
        return table
    patches, shape = table[prefix:].reshape(*old, -1), (*new, table.shape[1])
    if antialias:
        patches = resize(patches, shape, ResizeMethod.CUBIC, antialias=True)
    else:
        with jax.enable_x64(True):  # weights in float32 are off by up to 1e-5
            wide = patches.astype('float64')
            wide = resize(wide, shape, ResizeMethod.CUBIC_PYTORCH, antialias=False)
            patches = wide.astype('float32')
    return jnp.concatenate([table[:prefix], patches.reshape(-1, table.shape[1])])


def resample_patch_kernel(kernel: Array, old: int, new: int) -> jax.Array:
    """A patch embedding's kernel [old² · C, D] for another patch size: [new² · C, D].

    FlexiViT's pseudo-inverse resize (Beyer et al. 2023, eq. 5), as big_vision computes it: with B
    the matrix that resizes a patch from `old` to `new` pixels, the kernel is pinv(Bᵀ) w. B is
    bilinear with half-pixel centers and no antialiasing. (timm's B is bicubic and antialiased.) If
    `new` is larger, a resized patch keeps its embedding. If it is smaller, the kernel is the
    least-squares solution.
    """
    if old == new:
        return jnp.asarray(kernel, jnp.float32)
    # B resizes rows and columns alike: it is a Kronecker product, and so is its pseudo-inverse.
    inverse = np.linalg.pinv(_bilinear(old, new).T)
    weights = np.asarray(kernel, np.float64).reshape(old, old, -1)
    weights = np.einsum('ih,jw,hwd->ijd', inverse, inverse, weights)
    return jnp.asarray(weights.reshape(-1, np.shape(kernel)[-1]), jnp.float32)


def _bilinear(old: int, new: int) -> np.ndarray:
    """[new, old]: weights of a linear resize with half-pixel centers, edges clamped."""
    centers = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    return np.maximum(1 - np.abs(centers[:, None] - np.arange(old)), 0)
