"""Residual blocks and their parts."""

import functools
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.layers.attention import ClassAttention, MultiHeadAttention
from vitjax.layers.dense import ACTIVATIONS, Activation, Conv, Dense, conv_init, gelu
from vitjax.layers.dropout import drop_path, dropout
from vitjax.layers.norm import LayerNorm, Normalization, norm


class Mlp(nn.Module):
    """Two dense layers on the last axis, a nonlinearity between them.

    Attributes:
        ratio: hidden channels over those of the input.
        dropout: rate after the nonlinearity and at the end.
        last_gelu: a GELU after the second layer too.
        dtype: compute type.
        kind: the nonlinearity. `swiglu` makes its gate and its value, in this order, of a first
            layer of twice the hidden channels.
        bias: biases of both layers.
        norm: normalization before the second layer (EVA's inner one); None has none.
        norm_epsilon: that of `norm`.
    """

    ratio: float = 4.0
    dropout: float = 0.0
    last_gelu: bool = False
    dtype: str = 'float32'
    kind: Activation = 'gelu'
    bias: bool = True
    norm: Normalization | None = None
    norm_epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        width = x.shape[-1]
        hidden = int(width * self.ratio)
        if not hidden:
            raise ValueError(f'mlp_ratio must leave a channel: mlp_ratio={self.ratio}, {width=}.')
        parts = 2 if self.kind == 'swiglu' else 1
        x = Dense(parts * hidden, self.bias, self.dtype, name='hidden')(x)
        if self.norm:
            x = norm(self.norm, self.dtype, self.norm_epsilon)(name='norm')(
                ACTIVATIONS[self.kind](x)
            )
        x = _ActivatedDense(
            width, self.bias, self.dtype, kind=None if self.norm else self.kind,
            dropout=self.dropout, train=train, name='output',
        )(x)  # fmt: skip
        x = gelu(x) if self.last_gelu else x
        return dropout(self, x, self.dropout, train)


class _ActivatedDense(Dense):
    """Nonlinearity, dropout, dense.

    Recomputed from the nonlinearity's argument, its result need not be kept: the backward pass then
    keeps one array of the hidden width, the block's widest, instead of two.
    """

    kind: Activation | None = 'gelu'
    dropout: float = 0.0
    train: bool = False

    @nn.nowrap
    def before(self, x: jax.Array) -> jax.Array:
        x = ACTIVATIONS[self.kind](x) if self.kind else x
        return dropout(self, x, self.dropout, self.train)


class LayerScale(nn.Module):
    """Multiplies each channel by a learned number (Touvron et al. 2021, eq. 4).

    All start at `initial`; None returns the input and has no parameter.
    """

    initial: float | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.initial is None:
            return x
        scale = self.param('scale', nn.initializers.constant(self.initial), x.shape[-1:])
        return x * scale.astype(x.dtype)


class Block(nn.Module):
    """Pre-norm transformer block on tokens [B, N, D]: attention, then the MLP, each residual."""

    attention: MultiHeadAttention
    mlp: Mlp
    layer_scale: float | None = None
    dtype: str = 'float32'
    norm_epsilon: float = 1e-6
    norm: Normalization = 'layer'

    @nn.compact
    def __call__(
        self, tokens: jax.Array, rate: jax.Array | None, train: bool,
        grid: tuple[int, int] | None = None,
    ):  # fmt: skip
        normalize = norm(self.norm, self.dtype, self.norm_epsilon)
        branch = self.attention(normalize(name='norm_1')(tokens), train, grid)
        branch = LayerScale(self.layer_scale, name='scale_1')(branch)
        tokens = tokens + drop_path(self, branch, rate, train)
        branch = self.mlp(normalize(name='norm_2')(tokens), train)
        branch = LayerScale(self.layer_scale, name='scale_2')(branch)
        return tokens + drop_path(self, branch, rate, train), None


class ClassBlock(nn.Module):
    """Class-attention block (Touvron et al. 2021, eq. 6-7): updates only class tokens [B, K, D].

    CaiT's last blocks and PatchConvNet's pooling. With a `latent` token, SigLIP's attention
    pooling: there is no norm before the attention, whose result takes the token's place.
    """

    attention: ClassAttention
    mlp: Mlp
    layer_scale: float | None = None
    dtype: str = 'float32'
    norm_epsilon: float = 1e-6
    norm: Normalization = 'layer'

    @nn.compact
    def __call__(self, tokens: jax.Array, patches: jax.Array, train: bool):
        normalize = norm(self.norm, self.dtype, self.norm_epsilon)
        if self.attention.latent:
            tokens = self.attention(tokens, patches, train)
        else:
            before = normalize(name='norm_1')
            branch = self.attention(before(tokens), before(patches), train)
            tokens = tokens + LayerScale(self.layer_scale, name='scale_1')(branch)
        branch = self.mlp(normalize(name='norm_2')(tokens), train)
        return tokens + LayerScale(self.layer_scale, name='scale_2')(branch), None


class SqueezeExcite(nn.Module):
    """Scales channels of maps [B, H, W, D] by a small MLP of all their means (Hu et al. 2018)."""

    ratio: int = 4
    bias: bool = True
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        settings: Any = {'use_bias': self.bias, 'dtype': self.dtype, 'kernel_init': conv_init}
        dense = functools.partial(nn.Dense, **settings)
        squeezed = x.mean((1, 2), dtype=jnp.float32).astype(x.dtype)
        width = round(x.shape[-1] / self.ratio)
        if not width:
            rule = f'se_ratio={self.ratio}, width={x.shape[-1]}'
            raise ValueError(f'se_ratio must leave a channel: {rule}.')
        hidden = nn.relu(dense(width, name='reduce')(squeezed))
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
        dense = functools.partial(Dense, width, dtype=self.dtype, kernel_init=conv_init)
        x = LayerNorm(dtype=self.dtype, name='norm')(tokens)
        x = gelu(dense(name='conv_1')(x))  # a 1x1 convolution is a dense layer
        x = einops.rearrange(x, 'b (h w) d -> b h w d', h=grid[0])
        groups = width if self.depthwise else 1
        x = Conv(width, groups=groups, dtype=self.dtype, name='conv_2')(x)
        x = SqueezeExcite(self.se_ratio, self.se_bias, self.dtype, name='se')(gelu(x))
        x = dense(name='conv_3')(einops.rearrange(x, 'b h w d -> b (h w) d'))
        x = LayerScale(self.layer_scale, name='scale')(x)
        return tokens + drop_path(self, x, rate, train), None
