"""Dropout and stochastic depth."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.base.types import Key


def drop(
    key: Key, x: jax.Array, rate: float | jax.Array, shape: tuple[int, ...] | None = None
) -> jax.Array:
    """Inverted dropout: zero with probability `rate`, else divided by the probability to stay.

    Args:
        key: of the random bits.
        x: any array.
        rate: probability of zero; may be traced.
        shape: that of the draw, broadcast to `x`; stochastic depth draws `[B, 1, 1]`.
    """
    # One random byte an element, a quarter of what `jax.random.bernoulli` draws. A byte knows 256
    # rates: each row of the last axis rounds its threshold up or down at random, which makes the
    # probability exact.
    shape = x.shape if shape is None else shape
    rate = jnp.asarray(rate, jnp.float32)
    byte_key, row_key = jax.random.split(key)
    words = jax.random.bits(byte_key, (*shape[:-1], -(-shape[-1] // 4)), 'uint32')
    bits = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(*shape[:-1], 4 * words.shape[-1])
    threshold = jnp.floor(256 * rate + jax.random.uniform(row_key, (*shape[:-1], 1)))
    stays = bits[..., : shape[-1]] >= threshold.astype(jnp.uint16)
    # A rate within 3e-8 of 1 is 1 in float32: all is dropped, and nothing divided by zero.
    kept = jnp.maximum((1 - rate).astype(x.dtype), jnp.finfo(x.dtype).smallest_normal)
    return jnp.where(stays, x / kept, jnp.zeros_like(x))


def dropout(module: nn.Module, x: jax.Array, rate: float, train: bool) -> jax.Array:
    """Dropout inside a module, from its `dropout` stream; `x` itself in evaluation or at rate 0."""
    return drop(module.make_rng('dropout'), x, rate) if train and rate else x


def drop_path(module: nn.Module, x: jax.Array, rate: jax.Array | None, train: bool) -> jax.Array:
    """Stochastic depth (Huang et al. 2016): drops a residual branch for whole examples.

    `rate` may be traced, as it is where it varies along the scanned depth; None drops nothing.
    """
    if not train or rate is None:
        return x
    return drop(module.make_rng('dropout'), x, rate, (x.shape[0], *[1] * (x.ndim - 1)))
