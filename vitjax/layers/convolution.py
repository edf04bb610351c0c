"""What XLA's CPU backend is slow at: 3x3 convolutions, in a scan above all, and max pooling.

The convolutions are for `nn.Conv(conv_general_dilated=...)`. On accelerators all are the vendor's.
`platform_dependent` keeps both in the jaxpr, so that `flops` counts the convolution.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vitjax.layers import winograd


def convolve(x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """A convolution of maps [B, H, W, C] with a kernel [h, w, C, D], called as lax's.

    On CPU both gradients are written out, because XLA's own are slow inside a scan or a while loop:
    the kernel's as a matrix product for each pixel of the kernel (XLA's takes 20 to 30 times as
    long on 8 maps of 12x12x256), that of the maps as a convolution with the kernel turned around
    (5.8 times on 64 such maps). Where Winograd's way is faster, it and its gradients replace them.
    """
    strides, padding, *rest = args
    shape, kernel_like = kernel.shape, jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
    maps_like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    call = functools.partial(lax.conv_general_dilated, **kwargs)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], shape[:2], strides, padding)
    dilated = {*kwargs.get('lhs_dilation', ()), *kwargs.get('rhs_dilation', ())} - {1}
    dense = kwargs.get('feature_group_count', 1) == 1 and set(strides) == {1} and not dilated
    tiled = dense and winograd.pays(x, kernel, padding)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return call(x, kernel, strides, padding, *rest)

    def products(x: jax.Array, grad: jax.Array) -> jax.Array:
        if tiled:
            return winograd.kernel_gradient(x, grad, padding)
        # out[r, c] = Σ_ij x[r s + i, c s + j] kernel[i, j] at stride s, so the gradient of
        # kernel[i, j] is the inputs that it met, every s-th from (i, j) on, times those outputs'.
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        rows, columns = ((n - 1) * s + 1 for n, s in zip(grad.shape[1:3], strides, strict=True))
        flat = grad.reshape(-1, grad.shape[-1])
        met = [
            x[:, i : i + rows : strides[0], j : j + columns : strides[1]].reshape(len(flat), -1)
            for i, j in np.ndindex(*shape[:2])
        ]
        return jnp.stack([x.T @ flat for x in met]).reshape(shape)

    def transposed(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.linear_transpose(functools.partial(plain, x), kernel_like)(grad)[0]

    def at_input(kernel: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: plain(x, kernel), maps_like)(grad)[0]

    def turned(kernel: jax.Array, grad: jax.Array) -> jax.Array:
        if not dense:
            return at_input(kernel, grad)
        # An input meets kernel[i, j] at the output i rows above it: what the kernel reads, turned
        # by half a turn, reads back, its ends padded by as much as the kernel overlapped them.
        ends = [(n - 1 - a, n - 1 - b) for n, (a, b) in zip(shape, padding, strict=False)]
        kernel = kernel[::-1, ::-1].swapaxes(2, 3)
        return (
            winograd.convolve(grad, kernel, ends)
            if tiled
            else call(grad, kernel, strides, ends, *rest)
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
    XLA's grouped convolution (32 maps of 14x14x384).
    """

    def shifts(x: jax.Array, kernel: jax.Array) -> jax.Array:
        height, width = x.shape[1:3]
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return sum(
            padded[:, i : i + height, j : j + width] * kernel[i, j, 0] for i, j in np.ndindex(3, 3)
        )  # pyright: ignore[reportReturnType]

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, *args, **kwargs)

    return lax.platform_dependent(x, kernel, cpu=shifts, default=convolution)


@jax.custom_vjp
def pool(x: jax.Array) -> jax.Array:
    """The largest of each 2x2 values of maps [B, H, W, C]; of an odd side the last is left out.

    On CPU the gradient is that of the largest of four slices, equal values sharing it, which takes
    an eighth of the time of XLA's own. Forwards XLA's is the faster one.
    """
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def _largest(x: jax.Array) -> jax.Array:
    height, width = (side // 2 * 2 for side in x.shape[1:3])
    corners = [x[:, i:height:2, j:width:2] for i, j in np.ndindex(2, 2)]
    return functools.reduce(jnp.maximum, corners)


def _pool_backward(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    def of(function: Any) -> Any:
        return lambda x, grad: jax.vjp(function, x)[1](grad)[0]

    plain = functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
    return (lax.platform_dependent(x, grad, cpu=of(_largest), default=of(plain)),)


pool.defvjp(lambda x: (pool(x), x), _pool_backward)
