"""Classification heads."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.layers.dense import gelu, kernel_init
from vitjax.layers.dropout import dropout


class Head(nn.Module):
    """Features [B, D] to logits [B, num_classes] through `hidden` dense GELU layers, with dropout.

    `num_classes=0` returns the features.
    """

    num_classes: int
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    dtype: str = 'float32'
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        dense = functools.partial(
            nn.Dense, use_bias=self.bias, dtype=self.dtype, kernel_init=kernel_init
        )
        x = dropout(self, x, self.dropout, train)
        for i, width in enumerate(self.hidden):
            x = gelu(dense(width, name=f'hidden_{i + 1}')(x))
            x = dropout(self, x, self.dropout, train)
        if self.num_classes:
            x = dense(self.num_classes, name='output')(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class PerClassHead(nn.Module):
    """One linear output for each class token (Touvron et al. 2021b): [B, K, D] to [B, K]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param('kernel', kernel_init, x.shape[1:])
        bias = self.param('bias', nn.initializers.zeros, x.shape[1:2])
        return jnp.einsum('bkd,kd->bk', x.astype(kernel.dtype), kernel) + bias
