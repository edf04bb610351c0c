"""The dense layer, the convolution, GELU, and initial values of the reference implementations."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from vitjax import ops

kernel_init = nn.initializers.truncated_normal(0.02)  # timm's and DeiT's for every dense layer
conv_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')  # PyTorch's default


class Dense(nn.Module):
    """Linen's dense layer; a step may recompute its casts, and `before`, in the backward pass."""

    features: int
    use_bias: bool = True
    dtype: str = 'float32'
    kernel_init: Any = kernel_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.recomputed(_whole)(self, x)

    @nn.compact
    def thirds(self, x: jax.Array) -> list[jax.Array]:
        """Three equal parts of the output's channels."""
        return ops.recomputed(_thirds)(self, x)

    @nn.nowrap
    def before(self, x: jax.Array) -> jax.Array:
        """Input of the product."""
        return x

    @nn.nowrap
    def parameters(self, x: jax.Array) -> list[Any]:
        """Input, kernel and bias in the compute type; None for a bias that is off."""
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
        bias = None
        if self.use_bias:
            bias = self.param('bias', nn.initializers.zeros, (self.features,))
        return promote_dtype(x, kernel, bias, dtype=self.dtype)


def _whole(module: Dense, x: jax.Array) -> jax.Array:
    x, kernel, bias = module.parameters(module.before(x))
    out = ops.product(x, kernel)
    return out if bias is None else out + bias


def _thirds(module: Dense, x: jax.Array) -> list[jax.Array]:
    return ops.thirds(*module.parameters(x))


def quick_gelu(x: jax.Array) -> jax.Array:
    """Returns x σ(1.702 x), the approximation of GELU that OpenAI's CLIP was trained with."""
    return x * nn.sigmoid(1.702 * x)


class Conv(nn.Module):
    """A 3x3 convolution of maps [B, H, W, C], by `ops.convolve`; parameters are linen's."""

    features: int
    stride: int = 1
    padding: int = 1
    groups: int = 1
    use_bias: bool = True
    dtype: str = 'float32'
    kernel_init: Any = conv_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = 3, 3, x.shape[-1] // self.groups, self.features
        kernel, bias = self.param('kernel', self.kernel_init, shape), None
        if self.use_bias:
            bias = self.param('bias', nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        out = ops.convolve(x, kernel, self.stride, self.padding, self.groups)
        return out if bias is None else out + bias.reshape(1, 1, 1, -1)


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU, x Φ(x) (Hendrycks & Gimpel 2016, eq. 1); linen's default is the tanh form.

    In float32 at least, rounded once to the type of `x`. Its slope is written out so that it shares
    Φ(x), the expensive part, with the value.
    """
    return (_wide(x) * _normal_cdf(x)).astype(x.dtype)


@gelu.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    # The product rule, with Φ' = φ, the normal density: (x Φ)' = Φ + x φ.
    (x,), (dx,) = primals, tangents
    wide, cdf = _wide(x), _normal_cdf(x)
    slope = cdf + wide * jnp.exp(-wide * wide / 2) * (1 / math.sqrt(2 * math.pi))
    return (wide * cdf).astype(x.dtype), (dx * slope).astype(x.dtype)


def _normal_cdf(x: jax.Array) -> jax.Array:
    """Φ by erf in float32 at least, as PyTorch has it: to 6e-8, which is 0.1% of Φ(-4).

    In 16 bits 1 + erf would lose all digits at -3. By erfc, which keeps those of the smallest Φ
    too, the gradients of ViT-S/16 and CaiT-XXS24 take 59.8 and 90.9 million cycles on a v5e, by
    estimate: more than `tests/target` allows.
    """
    return (1 + jax.lax.erf(_wide(x) * math.sqrt(1 / 2))) / 2


def _wide(x: jax.Array) -> jax.Array:
    return jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))


Activation = Literal['gelu', 'gelu_tanh', 'quick_gelu', 'swiglu']


def gated_silu(x: jax.Array) -> jax.Array:
    """SwiGLU: the first half of the channels, through SiLU, times the second (Shazeer 2020)."""
    gate, value = jnp.split(x, 2, axis=-1)
    return nn.silu(gate) * value


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    'gelu': gelu,
    'gelu_tanh': functools.partial(nn.gelu, approximate=True),
    'quick_gelu': quick_gelu,
    'swiglu': gated_silu,
}
