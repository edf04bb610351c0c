"""Dropout and stochastic depth."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def drop(
    key: jax.Array, x: jax.Array, rate: float | jax.Array, shape: tuple[int, ...] | None = None
) -> jax.Array:
    """Inverted dropout: zero with probability `rate`, else divided by the probability to stay.

    Compares one random byte an element, a quarter of what `jax.random.bernoulli` draws, with a
    threshold that each row of the last axis rounds up or down at random, which makes the
    probability exact. `shape` broadcasts one draw over axes of `x`, which stochastic depth uses;
    `rate` may be traced.
    """
    shape = x.shape if shape is None else shape
    rate = jnp.asarray(rate, jnp.float32)
    byte_key, row_key = jax.random.split(key)
    words = jax.random.bits(byte_key, (*shape[:-1], -(-shape[-1] // 4)), 'uint32')
    bits = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(*shape[:-1], -1)
    threshold = jnp.floor(256 * rate + jax.random.uniform(row_key, (*shape[:-1], 1)))
    stays = bits[..., : shape[-1]] >= threshold.astype(jnp.uint16)
    return jnp.where(stays, x / (1 - rate).astype(x.dtype), jnp.zeros_like(x))


def dropout(module: nn.Module, x: jax.Array, rate: float, train: bool) -> jax.Array:
    """Dropout inside a module, from its `dropout` stream; nothing in evaluation or at rate 0."""
    return drop(module.make_rng('dropout'), x, rate) if train and rate else x


def drop_path(module: nn.Module, x: jax.Array, rate: jax.Array | None, train: bool) -> jax.Array:
    """Stochastic depth (Huang et al. 2016): drops a residual branch for whole examples.

    `rate` may be traced, for it varies along the scanned depth; None leaves it out of the program.
    """
    if not train or rate is None:
        return x
    return drop(module.make_rng('dropout'), x, rate, (x.shape[0], *[1] * (x.ndim - 1)))
