"""Layer normalisation."""

from typing import Any

import flax.linen as nn
import jax

from vitjax.layers.backward import layer_norm


class LayerNorm(nn.Module):
    """`layer_norm` with its learned scale and bias, [D] each."""

    dtype: str = 'float32'
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
        bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
        out: Any = layer_norm(x, scale, bias, self.epsilon)
        return out.astype(self.dtype)
