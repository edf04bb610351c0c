"""Winograd's 3x3 convolution on CPU, F(2x2, 3x3) (Lavin & Gray 2016, arXiv:1509.09308)."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_ROWS = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_KERNEL = np.kron(_ROWS, _ROWS)  # [16, 9]: transforms a kernel's pixels


def pays(x: jax.Array, kernel: jax.Array, padding: int) -> bool:
    """True if the 16 products are faster on a CPU than the plain convolution, as far as measured.

    They are in float32, with 32 channels or more and enough tiles to pay for the transform of the
    kernel. Unless the cache holds the maps' transforms, 128 channels must pay for memory traffic.
    """
    channels, features = kernel.shape[2:]
    tiles = len(x) * math.prod(-(-size // 2) for size in _sizes(x, padding))
    return (
        kernel.shape[:2] == (3, 3)
        and padding <= 2  # the gradient's is 2 - padding
        and x.dtype == kernel.dtype == np.float32
        and min(channels, features) >= 32
        and 2 * tiles >= max(channels, features)
        and (tiles * (channels + features) <= 2**20 or min(channels, features) >= 128)
    )


def convolve(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """Maps [B, H, W, C], padded, convolved at stride 1 with a kernel [3, 3, C, D].

    The output is cut into tiles of 2x2. Each needs 4x4 of the input, whose transform takes 16
    products with the kernel's in place of 36: 16 matrix products over all tiles. The transforms
    are sums and differences, and the rounding error about that of the plain sum.
    """
    kernels = jnp.asarray(_KERNEL, kernel.dtype) @ kernel.reshape(9, -1)
    return _tiled(x, jnp.unstack(kernels.reshape(16, *kernel.shape[2:])), padding)


def kernel_gradient(x: jax.Array, grad: jax.Array, padding: int) -> jax.Array:
    """Gradient [3, 3, C, D] at `convolve`'s kernel, from that [B, H', W', D] at its result."""
    shape = x.shape[-1], grad.shape[-1]
    like = [jax.ShapeDtypeStruct(shape, x.dtype)] * 16
    (grads,) = jax.linear_transpose(functools.partial(_tiled, x, padding=padding), like)(grad)
    grads = jnp.stack(grads).reshape(16, -1)
    return (jnp.asarray(_KERNEL.T, x.dtype) @ grads).reshape(3, 3, *shape)


def _tiled(x: jax.Array, kernels: Sequence[jax.Array], padding: int) -> jax.Array:
    height, width = _sizes(x, padding)
    rows, columns = -(-height // 2), -(-width // 2)
    ends = ((padding, padding + size % 2) for size in (height, width))
    x = jnp.pad(x, ((0, 0), *ends, (0, 0)))
    lines = _input(*(x[:, i : i + 2 * rows - 1 : 2] for i in range(4)))
    tiles = [
        tile.reshape(-1, x.shape[-1])
        for line in lines
        for tile in _input(*(line[:, :, j : j + 2 * columns - 1 : 2] for j in range(4)))
    ]
    products = [
        (tile @ kernel).reshape(-1, rows, columns, kernel.shape[-1])
        for tile, kernel in zip(tiles, kernels, strict=True)
    ]
    lines = [_output(*products[j::4]) for j in range(4)]  # [column of the tile][row of the output]
    pixels = [jnp.stack(_output(*line), 3) for line in zip(*lines, strict=True)]
    out = jnp.stack(pixels, 2).reshape(-1, 2 * rows, 2 * columns, kernels[0].shape[-1])
    return out[:, :height, :width]


def _sizes(x: jax.Array, padding: int) -> list[int]:
    return [side + 2 * padding - 2 for side in x.shape[1:3]]


def _input(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> tuple[jax.Array, ...]:
    return a - c, b + c, c - b, b - d


def _output(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> tuple[jax.Array, ...]:
    return a + b + c, b - c - d
