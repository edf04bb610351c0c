"""Hand-written gradients, each with the reason it is written."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Mixing(NamedTuple):
    """Talking heads (Shazeer et al. 2020): linear maps across heads around the softmax."""

    logits_kernel: jax.Array  # [heads, heads]
    logits_bias: jax.Array  # [heads]
    weights_kernel: jax.Array  # [heads, heads]
    weights_bias: jax.Array  # [heads]


def scores(q: jax.Array, k: jax.Array) -> jax.Array:
    """Q kᵀ, in float32 at least, of q and k [B, heads, tokens, head_width]."""
    precise = jnp.promote_types(q.dtype, jnp.float32)
    return jnp.einsum('bhqd,bhkd->bhqk', q, k, preferred_element_type=precise)


def weighted(weights: jax.Array, v: jax.Array) -> jax.Array:
    """Sums of values [B, heads, K, head_width] by weights [B, heads, Q, K]."""
    return jnp.einsum('bhqk,bhkd->bhqd', weights.astype(v.dtype), v)


@jax.custom_vjp
def gather(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q kᵀ) v, all [B, heads, tokens, head_width].

    Weights are not kept but made again for the gradient, where Σ_k p dp, which the softmax wants of
    every row, is the product of the result and its gradient (Dao et al. 2022, appendix B.4):
    XLA's CPU backend is slow at that sum over long rows. Forward and backward of 2 images, 4,096
    tokens and 8 heads in blocks of 128 rows: 3.1 s, 5.8 with the derived gradient.
    """
    return weighted(jax.nn.softmax(scores(q, k)), v)


def _gather(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
    out = gather(q, k, v)
    return out, (q, k, v, out)


def _gather_back(kept: Any, grad: jax.Array) -> tuple[jax.Array, ...]:
    q, k, v, out = kept
    weights, inner = jax.nn.softmax(scores(q, k)), scores(grad, v)
    along = (grad.astype(inner.dtype) * out).sum(-1, keepdims=True)
    inner = weights * (inner - along)
    return (
        weighted(inner, k),
        weighted(inner.swapaxes(2, 3), q),
        weighted(weights.swapaxes(2, 3), grad),
    )


gather.defvjp(_gather, _gather_back)


@jax.custom_vjp
def talk(logits: jax.Array, mixing: Mixing) -> jax.Array:
    """Mixed weights of talking heads from the logits of the heads, both [B, heads, Q, K].

    The gradient is written out: derived from the sums over heads, XLA's CPU backend computes the
    softmax over and over in it. A layer of CaiT-XXS24, forward and backward on 8 images of 196
    tokens: 26 ms, 43 with einsums over heads and 61 with derived sums.
    """
    return _talk(logits, mixing)[0]


def _talk(logits: jax.Array, mixing: Mixing) -> tuple[jax.Array, Any]:
    weights = jax.nn.softmax(
        _over_heads(logits, mixing.logits_kernel) + mixing.logits_bias[:, None, None]
    )
    mixed = _over_heads(weights, mixing.weights_kernel) + mixing.weights_bias[:, None, None]
    return mixed, (logits, weights, mixing)


def _talk_back(kept: Any, grad: jax.Array) -> tuple[jax.Array, Mixing]:
    logits, weights, mixing = kept
    inner = _over_heads(grad, mixing.weights_kernel.T)
    inner = weights * (inner - (weights * inner).sum(-1, keepdims=True))
    return _over_heads(inner, mixing.logits_kernel.T), Mixing(
        _between_heads(logits, inner),
        inner.sum((0, 2, 3)),
        _between_heads(weights, grad),
        grad.sum((0, 2, 3)),
    )


talk.defvjp(_talk, _talk_back)


def _over_heads(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Σ_h x[:, h] kernel[h, g]: sums that fuse, where a product would transpose x twice."""
    heads = range(len(kernel))
    mixed = [[kernel[h, g] * x[:, h] for h in heads] for g in heads]
    return jnp.stack([functools.reduce(jnp.add, terms) for terms in mixed], axis=1)


def _between_heads(a: jax.Array, b: jax.Array) -> jax.Array:
    """Σ over images, queries and keys of a[:, h] b[:, g]: [heads, heads]."""
    a, b = (x.reshape(*x.shape[:2], -1) for x in (a, b))
    return jnp.einsum('bhn,bgn->bhg', a, b).sum(0)


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
