"""What XLA's CPU backend is slow at: 3x3 convolutions, in a scan above all, and max pooling.

The convolutions are for `nn.Conv(conv_general_dilated=...)`. On accelerators all are the vendor's.
`platform_dependent` keeps both in the jaxpr, so that `flops` counts the convolution.
"""

import functools
import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vitjax.layers import winograd
from vitjax.layers.winograd import Padding


def convolve(x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """A convolution of maps [B, H, W, C] with a kernel [h, w, C, D], called as lax's.

    On CPU both gradients are written out, because XLA's own are slow inside a scan or a while loop:
    the kernel's as a matrix product for each pixel of the kernel (XLA's takes 20 to 30 times as
    long on 8 maps of 12x12x256), that of the maps as a convolution with the kernel turned around
    (5.8 times on 64 such maps). Where Winograd's way is faster, it and its gradients replace them.
    They are derived for any strides and padding of at least 0. With another argument of lax's
    (dilation, groups, another layout or precision) it is lax's convolution, with jax's gradients.
    """
    asked, shape = _asked(x, kernel, *args, **kwargs), kernel.shape
    if asked is None or asked[2] != 1:
        return lax.conv_general_dilated(x, kernel, *args, **kwargs)
    strides, padding, _ = asked
    kernel_like = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
    maps_like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    dense = set(strides) == {1}
    tiled = dense and winograd.pays(x, kernel, padding)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT)

    def products(x: jax.Array, grad: jax.Array) -> jax.Array:
        if tiled:
            return winograd.kernel_gradient(x, grad, padding)
        # out[r, c] = Σ_ij x[r s + i, c s + j] kernel[i, j] at stride s, so the gradient of
        # kernel[i, j] is the inputs that it met, every s-th from (i, j) on, times those outputs'.
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        rows, columns = grad.shape[1:3]
        flat = grad.reshape(len(x) * rows * columns, shape[3])
        met = [
            x[:, i :: strides[0], j :: strides[1]][:, :rows, :columns].reshape(len(flat), shape[2])
            for i, j in np.ndindex(*shape[:2])
        ]
        return jnp.stack([x.T @ flat for x in met]).reshape(shape)

    def transposed(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.linear_transpose(functools.partial(plain, x), kernel_like)(grad)[0]

    def at_input(kernel: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: plain(x, kernel), maps_like)(grad)[0]

    def turned(kernel: jax.Array, grad: jax.Array) -> jax.Array:
        if not (dense and grad.size):  # a kernel larger than the maps has no result
            return at_input(kernel, grad)
        # An input meets kernel[i, j] at the output i rows above it: what the kernel reads, turned
        # by half a turn, reads back, its ends padded by as much as the kernel overlapped them.
        ends = [(n - 1 - a, n - 1 - b) for n, (a, b) in zip(shape[:2], padding, strict=True)]
        kernel = kernel[::-1, ::-1].swapaxes(2, 3)
        return (
            winograd.convolve(grad, kernel, ends)
            if tiled
            else lax.conv_general_dilated(grad, kernel, strides, ends, dimension_numbers=_LAYOUT)
        )

    def value(x: jax.Array, kernel: jax.Array) -> jax.Array:
        if not tiled:
            return plain(x, kernel)
        tiles = functools.partial(winograd.convolve, padding=padding)
        return lax.platform_dependent(x, kernel, cpu=tiles, default=plain)

    def forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return value(x, kernel), (x, kernel)

    def backward(saved: tuple[jax.Array, ...], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = saved
        at_x = lax.platform_dependent(kernel, grad, cpu=turned, default=at_input)
        return at_x, lax.platform_dependent(x, grad, cpu=products, default=transposed)

    run = jax.custom_vjp(value)
    run.defvjp(forward, backward)
    return run(x, kernel)


def depthwise(x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """A 3x3 depthwise convolution with one pixel of padding, called as linen calls lax's.

    On CPU it is a sum of nine shifted products: forward 30 times and backward 4 times as fast as
    XLA's grouped convolution (32 maps of 14x14x384). With other arguments it is lax's convolution.
    """

    def shifts(x: jax.Array, kernel: jax.Array) -> jax.Array:
        height, width = x.shape[1:3]
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return sum(
            padded[:, i : i + height, j : j + width] * kernel[i, j, 0] for i, j in np.ndindex(3, 3)
        )  # pyright: ignore[reportReturnType]

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, *args, **kwargs)

    channels, asked = x.shape[-1], _asked(x, kernel, *args, **kwargs)
    if kernel.shape != (3, 3, 1, channels) or asked != ((1, 1), [(1, 1)] * 2, channels):
        return convolution(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=shifts, default=convolution)


_LAYOUT = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))  # NHWC, HWIO, NHWC
_SIGNATURE = inspect.signature(lax.conv_general_dilated)


def _asked(
    x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any
) -> tuple[tuple[int, ...], Padding, int] | None:
    """Strides, padding and groups of a convolution as lax is called for it.

    None for any other setting: a layout besides [B, H, W, C] and [h, w, C, D], dilation, negative
    padding, groups of the batch, a precision, another type of the result.
    """
    given = _SIGNATURE.bind(x, kernel, *args, **kwargs).arguments
    strides, padding = (given.pop(name) for name in ('window_strides', 'padding'))
    groups = given.pop('feature_group_count', 1)
    layout = given.pop('dimension_numbers', None)
    del given['lhs'], given['rhs']
    off = {'lhs_dilation': (1, 1), 'rhs_dilation': (1, 1), 'batch_group_count': 1}
    other = [v for name, v in given.items() if v is not None and v != off.get(name)]
    if lax.conv_dimension_numbers(x.shape, kernel.shape, layout) != _LAYOUT or other:
        return None
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    if min(end for ends in padding for end in ends) < 0:
        return None
    return tuple(strides), [(a, b) for a, b in padding], groups


@jax.custom_vjp
def pool(x: jax.Array) -> jax.Array:
    """The largest of each 2x2 values of maps [B, H, W, C]; of an odd side the last is left out.

    The gradient goes to the first of equal values, row by row, as XLA's and PyTorch's does. On CPU
    it is written out, which takes an eighth of the time of XLA's. Forwards XLA's is the faster one.
    """
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def _pool_backward(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    def to_the_first(x: jax.Array, grad: jax.Array) -> jax.Array:
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
        return jnp.pad(found, ends)

    def plain(x: jax.Array, grad: jax.Array) -> jax.Array:
        pool = functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
        return jax.vjp(pool, x)[1](grad)[0]

    return (lax.platform_dependent(x, grad, cpu=to_the_first, default=plain),)


pool.defvjp(lambda x: (pool(x), x), _pool_backward)
