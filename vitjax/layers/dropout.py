"""Dropout and stochastic depth."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def drop(
    key: jax.Array, x: jax.Array, rate: float | jax.Array, shape: tuple[int, ...] | None = None
) -> jax.Array:
    """Inverted dropout: zero with probability `rate`, else divided by the probability to stay.

    Draws 16 random bits an element, half of what `jax.random.bernoulli` does: the rate is
    rounded to a multiple of 2⁻¹⁶. `shape` broadcasts one draw over axes of `x`, which stochastic
    depth uses; `rate` may be traced.
    """
    threshold = jnp.round(jnp.asarray(rate, jnp.float32) * 65_536).astype(jnp.uint32)
    bits = jax.random.bits(key, x.shape if shape is None else shape, 'uint16')
    kept = x / (1 - threshold / 65_536).astype(x.dtype)
    return jnp.where(bits >= threshold, kept, jnp.zeros_like(x))


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
