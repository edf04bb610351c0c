"""Attention as linen modules."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from vitjax import ops
from vitjax.layers import rope as ropes
from vitjax.layers.dense import Dense, kernel_init
from vitjax.layers.dropout import dropout
from vitjax.layers.norm import Normalization, norm
from vitjax.layers.rope import Rope
from vitjax.ops import Mixing, Tap


def tap(module: nn.Module) -> Tap | None:
    """Hook on attention weights and each head's output, for `capture` and `intervene`.

    None without a capture.
    """

    def hook(name: str, value: jax.Array) -> jax.Array:
        if written := module.get_variable('edits', name):
            value = written['__call__'](value)
        module.sow('intermediates', name, value)
        return value if module.is_initializing() else module.perturb(name, value)

    captures = module.is_mutable_collection('intermediates') or 'perturbations' in module.variables
    return hook if captures else None


class _Attention(nn.Module):
    """Settings of both kinds of attention, and what follows their projections.

    Attributes:
        num_heads: attention heads.
        qkv_bias: biases on queries, keys and values.
        dropout: rate after the projection.
        attention_dropout: rate on the attention weights.
        implementation: one of `ops.IMPLEMENTATIONS`; `capture` takes weights from `explicit` alone.
        dtype: compute type.
        bias: bias of the projection.
    """

    num_heads: int
    qkv_bias: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    implementation: str = 'auto'
    dtype: str = 'float32'
    bias: bool = True

    @nn.nowrap
    def project(self, features: int, name: str) -> Dense:
        return Dense(features, self.qkv_bias, self.dtype, name=name)

    @nn.nowrap
    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, width: int, train: bool,
        mixing: Mixing | None = None,
    ) -> jax.Array:  # fmt: skip
        """Attention, then its projection: [B, Q, width]."""
        rate, hook = self.attention_dropout, tap(self)
        out = ops.attend(
            q, k, v, implementation=self.implementation, mixing=mixing, dropout=rate,
            key=self.make_rng('dropout') if train and rate else None, tap=hook,
        )  # fmt: skip
        out = hook('heads', out) if hook else out
        dense = Dense(width, self.bias, self.dtype, name='projection')
        out = dense(out.reshape(*out.shape[:2], -1))
        return dropout(self, out, self.dropout, train)


class MultiHeadAttention(_Attention):
    """Self-attention over tokens [B, N, D] (Vaswani et al. 2017).

    Attributes:
        head_width: channels of a head; None is width / num_heads.
        talking: mix heads around the softmax, as CaiT's trunk does.
        key_bias: False leaves the keys' bias out, as EVA and DINOv3 do.
        qk_norm: normalization of each head's queries and keys (Dehghani et al. 2023); None has
            none.
        norm_epsilon: that of `qk_norm`.
        rope: rotary position embedding of the patches' queries and keys.
        prefix: tokens before the patches, which do not turn.
    """

    head_width: int | None = None
    talking: bool = False
    key_bias: bool = True
    qk_norm: Normalization | None = None
    norm_epsilon: float = 1e-6
    rope: Rope | None = None
    prefix: int = 0

    @nn.compact
    def __call__(
        self, tokens: jax.Array, train: bool = False, grid: tuple[int, int] | None = None
    ) -> jax.Array:
        """`grid` has the patches' rows and columns; only `rope` reads it."""
        heads, width = self.num_heads, tokens.shape[-1]
        size = self.head_width or head_width(width, heads)
        layer = Dense if self.key_bias else _WithoutKeyBias
        project = layer(3 * heads * size, self.qkv_bias, self.dtype, name='qkv')
        if ops.in_thirds() and tap(self) is None:
            q, k, v = (x.reshape(*x.shape[:2], heads, size) for x in project.thirds(tokens))
        else:
            qkv = project(tokens)
            q, k, v = jnp.moveaxis(qkv.reshape(*qkv.shape[:2], 3, heads, size), 2, 0)
        if self.qk_norm:
            normalize = norm(self.qk_norm, self.dtype, self.norm_epsilon)
            q, k = normalize(name='query_norm')(q), normalize(name='key_norm')(k)
        if self.rope and grid:
            q, k = self._rotated(q, k, grid)
        mixing = None
        if self.talking:
            mixes = [Mix(heads, name=name) for name in ('mix_logits', 'mix_weights')]
            mixing = Mixing(*mixes[0].parameters(), *mixes[1].parameters())
        return self.attend(q, k, v, width, train, mixing)

    def _rotated(
        self, q: jax.Array, k: jax.Array, grid: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array]:
        assert self.rope
        heads, size = q.shape[2:]
        turns = ropes.frequencies(self.rope, size)[:, None]
        if self.rope == 'mixed':
            turns = self.param('frequencies', ropes.mixed_init, (2, heads, size // 2))
        places = ropes.coordinates(self.rope, grid)
        angles = places[:, :1, None] * turns[0] + places[:, 1:, None] * turns[1]
        angles = jnp.asarray(angles, jnp.promote_types(q.dtype, jnp.float32))
        halves = ropes.KINDS[self.rope].halves
        q, k = (ropes.rotate(x, angles, prefix=self.prefix, halves=halves) for x in (q, k))
        return q, k


class _WithoutKeyBias(Dense):
    """Queries, keys and values by one product; the bias has no part for keys."""

    @nn.nowrap
    def parameters(self, x: jax.Array) -> list[Any]:
        x, kernel, _ = promote_dtype(
            x, self.param('kernel', self.kernel_init, (x.shape[-1], self.features)), None,
            dtype=self.dtype,
        )  # fmt: skip
        if not self.use_bias:
            return [x, kernel, None]
        third = self.features // 3
        bias = self.param('bias', nn.initializers.zeros, (2 * third,)).astype(x.dtype)
        return [
            x,
            kernel,
            jnp.concatenate([bias[:third], jnp.zeros_like(bias[:third]), bias[third:]]),
        ]


class Mix(nn.Module):
    """Parameters of one linear map across heads: kernel [heads, heads] and bias [heads].

    It has no `__call__`, whose result `capture` would take for an activation.
    """

    num_heads: int

    @nn.compact
    def parameters(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param('kernel', kernel_init, (self.num_heads, self.num_heads))
        return kernel, self.param('bias', nn.initializers.zeros, (self.num_heads,))


class ClassAttention(_Attention):
    """Class tokens [B, K, D] gather from patches [B, N, D] (Touvron et al. 2021, eq. 6): [B, K, D].

    One class token attends to itself and the patches, `[class, patches]`. Several, one a class,
    attend to the patches only (Touvron et al. 2021b, section 3.3), and so does a `latent` one, the
    probe of SigLIP's attention pooling (Zhai et al. 2022).
    """

    latent: bool = False

    @nn.compact
    def __call__(self, tokens: jax.Array, patches: jax.Array, train: bool = False) -> jax.Array:
        width, heads = tokens.shape[-1], self.num_heads
        size = head_width(width, heads)
        if tokens.shape[1] == 1 and not self.latent:
            patches = jnp.concatenate([tokens, patches], axis=1)
        sources = {'query': tokens, 'key': patches, 'value': patches}
        q, k, v = (
            self.project(width, name)(x).reshape(*x.shape[:2], heads, size)
            for name, x in sources.items()
        )
        return self.attend(q, k, v, width, train)


def head_width(width: int, num_heads: int) -> int:
    """Width of one head.

    Raises:
        ValueError: if `num_heads` does not divide `width`.
    """
    if width % num_heads:
        raise ValueError(f'num_heads must divide width: {num_heads=}, {width=}.')
    return width // num_heads
