"""Residual blocks and their stack over depth."""

import functools
import math
from collections.abc import Callable
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.layers.attention import ClassAttention, MultiHeadAttention
from vitjax.layers.convolution import convolve, depthwise
from vitjax.layers.dropout import drop_path, dropout
from vitjax.layers.init import conv_init, kernel_init


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU, x Φ(x) (Hendrycks & Gimpel 2016, eq. 1); linen's default is the tanh form.

    Its slope is written out, Φ(x) + x φ(x), to share Φ with the value.
    """
    return x * _normal_cdf(x)


@gelu.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    cdf = _normal_cdf(x)
    return x * cdf, dx * (cdf + x * jnp.exp(-x * x / 2) * (1 / math.sqrt(2 * math.pi)))


def _normal_cdf(x: jax.Array) -> jax.Array:
    """Φ by erf, as PyTorch has it; `jax.scipy.stats` refuses bfloat16."""
    return (1 + jax.lax.erf(x * math.sqrt(1 / 2))) / 2


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) / deviation * scale + bias over the last axis (Ba et al. 2016, eq. 4).

    In float32 at least. The variance is the two-pass one: the one-pass form loses digits on
    DINOv2's outlier tokens. The gradient is written out and made again from `x`, where a derived
    one stores four arrays of its size: CaiT-XXS24's takes 0.94 of the time on CPU.
    """
    return _layer_norm(x, scale, bias)[0]


def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, Any]:
    centred = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = centred.mean(-1, keepdims=True)
    centred = centred - mean
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
    return centred * (inverse * scale) + bias, (x, mean, inverse, scale)


def _layer_norm_back(kept: Any, grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = kept
    normal, inner = (x - mean) * inverse, grad * scale
    along = normal * (inner * normal).mean(-1, keepdims=True)
    dx = inverse * (inner - inner.mean(-1, keepdims=True) - along)
    others = tuple(range(x.ndim - 1))
    return (
        dx.astype(x.dtype),
        (grad * normal).sum(others).astype(scale.dtype),
        grad.sum(others).astype(scale.dtype),
    )


layer_norm.defvjp(_layer_norm, _layer_norm_back)


class LayerNorm(nn.Module):
    """`layer_norm` with its learned scale and bias, [D] each."""

    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
        bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x, scale, bias).astype(self.dtype)


def stack(
    block: Callable[..., Any], depth: int, axis: Any, *, static: int = 1, remat: bool = False
):
    """The one scan over depth: `depth` equal blocks whose parameters carry a leading depth axis.

    A block is called as `block(tokens, extra, *settings)` and returns `(tokens, None)`. `axis` says
    what `extra` is: 0 for an array with one slice a layer, `nn.broadcast` for the same in all
    layers. Then come `static` Python values (`train`, a grid). `remat` recomputes each block in the
    backward pass, for memory.
    """
    if remat:
        settings = tuple(range(3, 3 + static))  # counted from self
        block = nn.remat(block, prevent_cse=False, static_argnums=settings)
    axes: Any = (axis, *[nn.broadcast] * static)
    return nn.scan(
        block,
        variable_axes={'params': 0, 'intermediates': 0, 'perturbations': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=axes,
        length=depth,
    )


class Mlp(nn.Module):
    """Dense, GELU, dense on the last axis; `last_gelu` puts a GELU after the second one too."""

    ratio: float = 4.0
    dropout: float = 0.0
    last_gelu: bool = False
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        width = x.shape[-1]
        settings: Any = {'dtype': self.dtype, 'kernel_init': kernel_init}
        x = nn.Dense(int(width * self.ratio), name='hidden', **settings)(x)
        # Of the widest arrays of a block one is kept for the backward pass, not two.
        last = nn.remat(_GeluDense, prevent_cse=False)
        x = last(width, dropout=self.dropout, train=train, name='output', **settings)(x)
        x = gelu(x) if self.last_gelu else x
        return dropout(self, x, self.dropout, train)


class _GeluDense(nn.Dense):
    """GELU, dropout, dense."""

    dropout: float = 0.0
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(dropout(self, gelu(x), self.dropout, self.train))


class LayerScale(nn.Module):
    """Multiplies each channel by a learned number (Touvron et al. 2021, eq. 4); None has none."""

    initial: float | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.initial is None:
            return x
        scale = self.param('scale', nn.initializers.constant(self.initial), x.shape[-1:])
        return x * scale.astype(x.dtype)


class Block(nn.Module):
    """A pre-norm transformer block on tokens [B, N, D]: attention, then the MLP, each residual."""

    attention: MultiHeadAttention
    mlp: Mlp
    layer_scale: float | None = None
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, tokens: jax.Array, rate: jax.Array | None, train: bool):
        branch = self.attention(LayerNorm(dtype=self.dtype, name='norm_1')(tokens), train)
        branch = LayerScale(self.layer_scale, name='scale_1')(branch)
        tokens = tokens + drop_path(self, branch, rate, train)
        branch = self.mlp(LayerNorm(dtype=self.dtype, name='norm_2')(tokens), train)
        branch = LayerScale(self.layer_scale, name='scale_2')(branch)
        return tokens + drop_path(self, branch, rate, train), None


class ClassBlock(nn.Module):
    """A class-attention block (Touvron et al. 2021, eq. 6-7): updates class tokens [B, K, D] alone.

    CaiT's last blocks and PatchConvNet's pooling are this one piece of code.
    """

    attention: ClassAttention
    mlp: Mlp
    layer_scale: float | None = None
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, tokens: jax.Array, patches: jax.Array, train: bool):
        norm = LayerNorm(dtype=self.dtype, name='norm_1')
        branch = self.attention(norm(tokens), norm(patches), train)
        tokens = tokens + LayerScale(self.layer_scale, name='scale_1')(branch)
        branch = self.mlp(LayerNorm(dtype=self.dtype, name='norm_2')(tokens), train)
        return tokens + LayerScale(self.layer_scale, name='scale_2')(branch), None


class SqueezeExcite(nn.Module):
    """Scales the channels of maps [B, H, W, D] by what their means say (Hu et al. 2018)."""

    ratio: int = 4
    bias: bool = True
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(
            nn.Dense, use_bias=self.bias, dtype=self.dtype, kernel_init=conv_init
        )
        squeezed = x.mean((1, 2), dtype=jnp.float32).astype(x.dtype)
        hidden = nn.relu(dense(round(x.shape[-1] / self.ratio), name='reduce')(squeezed))
        return x * nn.sigmoid(dense(x.shape[-1], name='expand')(hidden))[:, None, None]


class ConvBlock(nn.Module):
    """PatchConvNet's residual trunk block on tokens [B, N, D] (Touvron et al. 2021b, figure 2).

    LayerNorm, 1x1 convolution, 3x3 convolution (depthwise, or full), squeeze-excite, 1x1
    convolution. `grid` gives the tokens' rows and columns.
    """

    depthwise: bool = True
    se_ratio: int = 4
    se_bias: bool = True
    layer_scale: float | None = None
    dtype: str = 'float32'

    @nn.compact
    def __call__(
        self, tokens: jax.Array, rate: jax.Array | None, grid: tuple[int, int], train: bool
    ):
        width = tokens.shape[-1]
        dense = functools.partial(nn.Dense, width, dtype=self.dtype, kernel_init=conv_init)
        x = LayerNorm(dtype=self.dtype, name='norm')(tokens)
        x = gelu(dense(name='conv_1')(x))  # a 1x1 convolution is a dense layer
        x = einops.rearrange(x, 'b (h w) d -> b h w d', h=grid[0])
        x = nn.Conv(
            width,
            (3, 3),
            padding=1,
            feature_group_count=width if self.depthwise else 1,
            conv_general_dilated=depthwise if self.depthwise else convolve,
            dtype=self.dtype,
            kernel_init=conv_init,
            name='conv_2',
        )(x)
        x = SqueezeExcite(self.se_ratio, self.se_bias, self.dtype, name='se')(gelu(x))
        x = dense(name='conv_3')(einops.rearrange(x, 'b h w d -> b (h w) d'))
        x = LayerScale(self.layer_scale, name='scale')(x)
        return tokens + drop_path(self, x, rate, train), None


class Head(nn.Module):
    """Features [B, D] to logits [B, num_classes] through `hidden` dense GELU layers, with dropout.

    `num_classes=0` returns the features.
    """

    num_classes: int
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=kernel_init)
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
