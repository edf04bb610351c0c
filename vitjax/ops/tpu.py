"""Operations on a TPU: matrix units of 128 by 128, lanes of 128 numbers, and slices that copy."""

import functools

import jax
import jax.numpy as jnp

from vitjax.ops import attention
from vitjax.ops.gradients import layer_norm, recomputed, typed

__all__ = ['attend', 'in_thirds', 'layer_norm', 'recomputed', 'thirds']


def choose(q: jax.Array, keys: int, *, talking: bool, dropout: bool) -> str:
    """The implementation that `auto` is, by length, width and dropout.

    `chunked` from 1,024 keys on, to bound memory. Below, without dropout, `multi_query` for talking
    heads and `packed` for others if whole groups of heads fill 128 channels. Gradients in bfloat16
    on 64 images of 224 pixels, in million cycles of a v5e by the compiler's estimate:

    | model | chosen | `explicit` |
    | --- | --- | --- |
    | CaiT-XXS24 | 85 | 194 |
    | ViT-S/16 | 54 | 66 |
    | ViT-B/16 | 137 | 182 |
    """
    heads, width = q.shape[2:]
    if keys >= 1024:
        return 'chunked'
    if dropout:
        return 'explicit'
    if talking:
        return 'multi_query'
    return 'packed' if 128 % width == 0 and heads * width % 128 == 0 else 'explicit'


attend = functools.partial(attention.attend, choose=choose, block=attention.rows)


def in_thirds() -> bool:
    """True: cutting one product into queries, keys and values would copy it."""
    return True


def thirds(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> list[jax.Array]:
    """`plain.thirds` as three products."""
    kernels = jnp.split(kernel, 3, axis=1)
    if bias is None:
        return [x @ kernel for kernel in kernels]
    return [affine(x, *pair) for pair in zip(kernels, jnp.split(bias, 3), strict=True)]


@jax.custom_vjp
def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """A dense layer: x [..., D] times kernel [D, C], plus bias [C].

    The gradient treats the bias as one more row of the kernel, whose input is always 1: one product
    instead of a product and a sum over all rows, which costs as much as the product.
    """
    return x @ kernel + bias


def _affine_back(kept: tuple[jax.Array, ...], grad: jax.Array) -> tuple[jax.Array, ...]:
    x, kernel, _ = kept
    ones = [(0, 0)] * (x.ndim - 1) + [(0, 128)]  # a whole tile, to which a row would be padded
    padded = jnp.pad(x, ones, constant_values=1)
    rows = jnp.einsum('...d,...c->dc', padded, grad)
    return typed((grad @ kernel.T, rows[: len(kernel)], rows[len(kernel)]), kept)


affine.defvjp(lambda x, kernel, bias: (x @ kernel + bias, (x, kernel, bias)), _affine_back)
