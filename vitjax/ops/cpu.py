"""Operations on a CPU.

XLA's CPU backend is slow at 3x3 convolutions, in a scan above all, at the gradient of max pooling,
and at products that read a transposed array.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.ops import attention, plain, winograd
from vitjax.ops.gradients import layer_norm, recomputed, typed

__all__ = ['attend', 'convolve', 'layer_norm', 'pool', 'product', 'recomputed']

# ---- Attention and dense layers -----------------------------------------------------------------


def choose(q: jax.Array, keys: int, *, talking: bool, dropout: bool) -> str:
    """The implementation that `auto` is.

    `chunked` for talking heads, and if the batch's scores exceed 8 MiB and so leave the caches.
    Speed against `explicit`, a layer's forward and backward pass on two cores:

    | images | tokens | heads | speed |
    | --- | --- | --- | --- |
    | 2 | 1,024 | 4 | 1.4 |
    | 64 | 144 | 4 | 1.0 |
    | 8 | 196 | 4 | 1.0; talking 1.9 |
    """
    batch, rows, heads, _ = q.shape
    large = 4 * batch * heads * rows * keys > 2**23
    return 'chunked' if talking or large else 'explicit'


def block(batch: int, heads: int, queries: int, keys: int) -> tuple[int, int]:
    """Images and query rows that `chunked` takes at a time.

    As many whole images as keep a block's scores within 2 MiB, a core's cache, or at most 128 rows
    of one. Blocks are as equal as possible, which pads little.
    """
    image = 4 * heads * queries * keys  # bytes of one image's scores
    if image > 2**21:
        return 1, plain.even(queries, 128)
    most = 2**21 // image
    whole = max(size for size in range(1, min(batch, most) + 1) if batch % size == 0)
    near = 2 * whole > most or whole == batch  # else a divisor would leave the cache half empty
    return whole if near else plain.even(batch, most), queries


attend = functools.partial(attention.attend, choose=choose, block=block)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Rows x [..., D] times kernel [D, C].

    The derived gradient at the kernel is a product [C, D], transposed, for which XLA copies the
    rows: with 4,096 rows of 128 channels both gradients take 1.5 times as long.
    """
    return x @ kernel


def _product_back(kept: tuple[jax.Array, ...], grad: jax.Array) -> tuple[jax.Array, ...]:
    x, kernel = kept
    rows, grads = (y.reshape(math.prod(y.shape[:-1]), y.shape[-1]) for y in (x, grad))
    return typed((grad @ kernel.T, rows.T @ grads), kept)


product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_back)

# ---- Convolutions -------------------------------------------------------------------------------


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 1, groups: int = 1
) -> jax.Array:
    """`plain.convolve`, faster for two kinds.

    A dense one has hand-written gradients. A depthwise one with a kernel of 3x3 and one pixel of
    padding is a sum of nine shifted products: forward 30 times and backward 4 times as fast as
    XLA's (32 maps of 14x14x384).
    """
    if groups == 1:
        found: Any = _dense(x, kernel, stride, padding)
        return found
    if kernel.shape == (3, 3, 1, groups) and (stride, padding) == (1, 1):
        return _depthwise(x, kernel)
    return plain.convolve(x, kernel, stride, padding, groups)


def _depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + height, j : j + width] * kernel[i, j, 0] for i, j in np.ndindex(3, 3)
    )  # pyright: ignore[reportReturnType]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """A convolution without groups, by Winograd's products if they are faster.

    XLA's gradients are slow inside a scan or a while loop: the kernel's takes 20 to 30 times as
    long as the products here on 8 maps of 12x12x256, the maps' 5.8 times on 64 such maps.
    """
    if _tiled(x, kernel, stride, padding):
        return winograd.convolve(x, kernel, padding)
    return plain.convolve(x, kernel, stride, padding)


def _dense_back(
    stride: int, padding: int, kept: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _at_maps(*kept, grad, stride, padding), _at_kernel(*kept, grad, stride, padding)


_dense.defvjp(lambda *args: (_dense(*args), args[:2]), _dense_back)


def _at_maps(
    x: jax.Array, kernel: jax.Array, grad: jax.Array, stride: int, padding: int
) -> jax.Array:
    """Gradient at the maps: a convolution with the kernel turned by half a turn."""
    end = len(kernel) - 1 - padding
    if stride > 1 or kernel.shape[0] != kernel.shape[1] or end < 0 or not grad.size:
        maps = jax.ShapeDtypeStruct(x.shape, x.dtype)
        run = functools.partial(plain.convolve, kernel=kernel, stride=stride, padding=padding)
        return jax.linear_transpose(run, maps)(grad)[0]
    # An input meets kernel[i, j] at the output i rows above it: what the kernel reads, turned by
    # half a turn, reads back, its ends padded by as much as the kernel overlapped them.
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    tiled = _tiled(x, kernel, stride, padding)
    return (winograd.convolve if tiled else plain.convolve)(grad, turned, padding=end)


def _at_kernel(
    x: jax.Array, kernel: jax.Array, grad: jax.Array, stride: int, padding: int
) -> jax.Array:
    """Gradient at the kernel: a matrix product for each of its pixels."""
    if _tiled(x, kernel, stride, padding):
        return winograd.kernel_gradient(x, grad, padding)
    # out[r, c] = Σ_ij x[r s + i, c s + j] kernel[i, j] at stride s, so the gradient of kernel[i, j]
    # is the inputs that it met, every s-th from (i, j) on, times those outputs'.
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = grad.shape[1:3]
    flat = grad.reshape(len(x) * rows * columns, grad.shape[3])
    met = [
        x[:, i::stride, j::stride][:, :rows, :columns].reshape(len(flat), x.shape[3])
        for i, j in np.ndindex(*kernel.shape[:2])
    ]
    return jnp.stack([x.T @ flat for x in met]).reshape(kernel.shape)


def _tiled(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> bool:
    return stride == 1 and winograd.pays(x, kernel, padding)


@jax.custom_vjp
def pool(x: jax.Array) -> jax.Array:
    """`plain.pool`, whose written-out gradient takes an eighth of the time of XLA's."""
    return plain.pool(x)


def _pool_backward(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    height, width = (2 * side for side in grad.shape[1:3])
    corners = [x[:, i:height:2, j:width:2] for i, j in np.ndindex(2, 2)]
    largest = functools.reduce(jnp.maximum, corners)
    parts, free = [], jnp.ones(grad.shape, bool)
    for corner in corners:
        here = free & ~(corner < largest)  # so that NaN has its gradient too
        parts.append(jnp.where(here, grad, 0))
        free &= ~here
    # From [row of two, column of two, B, H/2, W/2, C] to the maps that they were cut from.
    square = jnp.stack(parts).reshape(2, 2, *grad.shape).transpose(2, 3, 0, 4, 1, 5)
    found = square.reshape(len(x), height, width, x.shape[-1])
    ends = [(0, side - read) for side, read in zip(x.shape, found.shape, strict=True)]
    return (jnp.pad(found, ends),)


pool.defvjp(lambda x: (pool(x), x), _pool_backward)
