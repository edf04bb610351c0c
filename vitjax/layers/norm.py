"""Layer normalization."""

import flax.linen as nn
import jax

from vitjax import ops


class LayerNorm(nn.Module):
    """`ops.layer_norm` with its learned scale and bias, [D] each."""

    dtype: str = 'float32'
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
        bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
        return ops.layer_norm(x, scale, bias, self.epsilon).astype(self.dtype)
