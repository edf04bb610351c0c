"""Normalization of each token."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax import ops

Normalization = Literal['layer', 'rms']


class LayerNorm(nn.Module):
    """`ops.layer_norm` with its learned scale and bias, [D] each."""

    dtype: str = 'float32'
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
        bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
        return ops.layer_norm(x, scale, bias, self.epsilon).astype(self.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + epsilon) * scale (Zhang & Sennrich 2019), in float32 at least."""

    dtype: str = 'float32'
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        inverse = jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.epsilon)
        return (wide * inverse * scale).astype(self.dtype)


def norm(kind: Normalization, dtype: str, epsilon: float) -> Callable[..., Any]:
    """Class of a normalization with its settings; called with a `name`, and `parent` if any."""
    return functools.partial(RMSNorm if kind == 'rms' else LayerNorm, dtype, epsilon)
