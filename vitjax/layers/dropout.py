"""Dropout and stochastic depth."""

import flax.linen as nn
import jax

from vitjax.ops.plain import drop


def dropout(module: nn.Module, x: jax.Array, rate: float, train: bool) -> jax.Array:
    """Dropout inside a module, from its `dropout` stream; `x` itself in evaluation or at rate 0."""
    return drop(module.make_rng('dropout'), x, rate) if train and rate else x


def drop_path(module: nn.Module, x: jax.Array, rate: jax.Array | None, train: bool) -> jax.Array:
    """Stochastic depth (Huang et al. 2016): drops a residual branch for whole examples.

    `rate` may be traced, as one that varies along the scanned depth is; None drops nothing.
    """
    if not train or rate is None:
        return x
    return drop(module.make_rng('dropout'), x, rate, (x.shape[0], *[1] * (x.ndim - 1)))
