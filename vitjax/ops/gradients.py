"""Hand-written gradients, each with its reason, and the recomputation of dense layers.

What jax derives from the forward pass is right everywhere; here it is slower or keeps more for the
backward pass than necessary. Every function equals its derived gradient to rounding. Below, dx
stands for the gradient of the loss with respect to x.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from vitjax.ops.plain import layer_norm as plain_layer_norm
from vitjax.ops.plain import moments, scores, weighted


def typed(grads: Iterable[jax.Array], args: Iterable[jax.Array]) -> tuple[jax.Array, ...]:
    """Gradients in the types of their arguments, as jax's own are."""
    return tuple(grad.astype(arg.dtype) for grad, arg in zip(grads, args, strict=True))


def recomputed(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method(module, ...)` whose intermediates the backward pass computes again.

    A dense layer casts its kernel to the compute type again instead of keeping a copy. If
    parameters are sharded it also gathers each layer's again: kept, the copies would be the whole
    model on every device. A step of ViT-H/14 in bfloat16 with `fsdp`, compiled for eight absent
    H100s, 4 images each: 1.57 GB of temporaries a GPU, and 2.74 with the copies.
    """
    return nn.remat(method, prevent_cse=False)


# ---- Softmax attention: all of shape [B, heads, tokens, head_width] ------------------------------


@jax.custom_vjp
def gather(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q kᵀ) v, all [B, heads, tokens, head_width].

    The backward pass recomputes the weights instead of keeping them. It takes the softmax's sum
    over every row from the result (Dao et al. 2022, appendix B.4): XLA's CPU backend is slow at
    sums over long rows. Forward and backward of 2 images, 4,096 tokens and 8 heads in blocks of 128
    rows: 3.1 s, against 5.8 s with the derived gradient.
    """
    return weighted(jax.nn.softmax(scores(q, k)), v)


def _gather(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    out = gather(q, k, v)
    return out, (q, k, v, out)


def _gather_back(kept: tuple[jax.Array, ...], grad: jax.Array) -> tuple[jax.Array, ...]:
    # With p = softmax(s) and o = p v: dp_k = do·v_k and ds_k = p_k (dp_k - Σ_j p_j dp_j), where
    # Σ_j p_j dp_j = do · Σ_j p_j v_j = do · o: a sum over head_width instead of one over all keys.
    q, k, v, out = kept
    weights, inner = jax.nn.softmax(scores(q, k)), scores(grad, v)
    along = (grad.astype(inner.dtype) * out).sum(-1, keepdims=True)
    inner = weights * (inner - along)
    dk, dv = weighted(inner.swapaxes(2, 3), q), weighted(weights.swapaxes(2, 3), grad)
    return typed((weighted(inner, k), dk, dv), (q, k, v))


gather.defvjp(_gather, _gather_back)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def gather_packed(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """softmax(q kᵀ / √head_width) v of all heads side by side: all [B, tokens, heads · head_width].

    As many heads as fit into 128 channels are taken at a time. Their products run over all of those
    channels, and one side holds zeros outside of the head. So no array of single heads' rows is
    ever laid out. Matrix units of 128 by 128 multiply the zeros in the time of the rest, and to
    lanes of 128 numbers a slice of 128 channels is a view. The backward pass keeps the arguments
    and the result, as that of `gather` does.

    Raises:
        ValueError: if `heads` does not divide the channels.
    """
    return _gather_packed(q, k, v, heads)[0]


def _gather_packed(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: int
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    if q.shape[-1] % heads:
        raise ValueError(f'heads must divide the channels: {heads=}, {q.shape[-1]} channels.')
    groups = [_gather_group(*group) for group in _groups(heads, q, k, v)]
    out = jnp.concatenate(groups, axis=-1)
    return out, (q, k, v, out)


def _gather_packed_back(
    heads: int, kept: tuple[jax.Array, ...], grad: jax.Array
) -> tuple[jax.Array, ...]:
    grads = [_gather_group_back(*group) for group in _groups(heads, *kept, grad)]
    whole = (jnp.concatenate(parts, axis=-1) for parts in zip(*grads, strict=True))
    return typed(whole, kept[:3])


gather_packed.defvjp(_gather_packed, _gather_packed_back)


def _groups(heads: int, *arrays: jax.Array) -> Iterator[tuple[Any, ...]]:
    """For each group the number of its heads, then the arrays' channels of these heads."""
    width = arrays[0].shape[-1] // heads
    size = max(1, 128 // width)
    for first in range(0, heads, size):
        last = min(first + size, heads)
        yield last - first, *(x[..., first * width : last * width] for x in arrays)


def _of_heads(heads: int, x: jax.Array) -> jax.Array:
    """A group's channels [B, N, C] once a head, zero outside of it: [B, heads, N, C]."""
    return x[:, None] * _masks(heads, x)[:, None]


def _masks(heads: int, x: jax.Array) -> jax.Array:
    return jnp.repeat(jnp.eye(heads, dtype=x.dtype), x.shape[-1] // heads, axis=1)


def _group_scores(heads: int, q: jax.Array, k: jax.Array) -> jax.Array:
    precise = jnp.promote_types(q.dtype, jnp.float32)
    q = _of_heads(heads, q)
    return jnp.einsum('bhqc,bkc->bhqk', q, k, preferred_element_type=precise)


def _group_sums(heads: int, weights: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.einsum('bhqk,bhkc->bqc', weights.astype(v.dtype), _of_heads(heads, v))


def _group_weights(heads: int, q: jax.Array, k: jax.Array) -> jax.Array:
    return jax.nn.softmax(_group_scores(heads, q, k) * (q.shape[-1] // heads) ** -0.5)


def _gather_group(heads: int, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return _group_sums(heads, _group_weights(heads, q, k), v)


def _gather_group_back(
    heads: int, q: jax.Array, k: jax.Array, v: jax.Array, out: jax.Array, grad: jax.Array
) -> tuple[jax.Array, ...]:
    # The sums of `_gather_back`; those over a head's channels are a product too.
    weights, inner = _group_weights(heads, q, k), _group_scores(heads, grad, v)
    along = grad.astype(inner.dtype) * out
    along = jnp.einsum('bqc,hc->bhq', along, _masks(heads, along), precision='highest')
    inner = weights * (inner - along[..., None]) * (q.shape[-1] // heads) ** -0.5
    weights, inner = weights.astype(q.dtype), inner.astype(q.dtype)
    dk = jnp.einsum('bhqk,bhqc->bkc', inner, _of_heads(heads, q))
    dv = jnp.einsum('bhqk,bhqc->bkc', weights, _of_heads(heads, grad))
    return _group_sums(heads, inner, k), dk, dv


@jax.custom_vjp
def talk(logits: jax.Array, *mixing: jax.Array) -> jax.Array:
    """Mixed weights of talking heads from the logits of the heads, both [B, heads, Q, K].

    `mixing` has the arrays of `Mixing`: kernel and bias before the softmax, and after it.

    In the gradient derived from these sums over heads XLA's CPU backend computes the softmax again
    and again. A layer of CaiT-XXS24, forward and backward on 8 images of 196 tokens: 26 ms, against
    61 with the derived gradient and 43 with einsums over heads.
    """
    return _talk(logits, *mixing)[0]


def _talk(logits: jax.Array, *mixing: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    logits_kernel, logits_bias, weights_kernel, weights_bias = mixing
    weights = jax.nn.softmax(_over_heads(logits, logits_kernel) + logits_bias[:, None, None])
    mixed = _over_heads(weights, weights_kernel) + weights_bias[:, None, None]
    return mixed, (weights, logits, *mixing)


def _talk_back(kept: tuple[jax.Array, ...], grad: jax.Array) -> tuple[jax.Array, ...]:
    # A mixing is linear: its input's gradient goes back through the transposed kernel, its kernel's
    # is input times output's. In between the softmax: ds = p (dp - Σ p dp) in each row.
    weights, *args = kept
    logits, logits_kernel, _, weights_kernel, _ = args
    inner = _over_heads(grad, weights_kernel.T)
    inner = weights * (inner - (weights * inner).sum(-1, keepdims=True))
    before = _between_heads(logits, inner), inner.sum((0, 2, 3))
    after = _between_heads(weights, grad), grad.sum((0, 2, 3))
    return typed((_over_heads(inner, logits_kernel.T), *before, *after), args)


talk.defvjp(_talk, _talk_back)


def _over_heads(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Σ_h x[:, h] kernel[h, g]: sums that fuse; a product would transpose x twice."""
    heads = range(len(kernel))
    mixed = [[kernel[h, g] * x[:, h] for h in heads] for g in heads]
    return jnp.stack([functools.reduce(jnp.add, terms) for terms in mixed], axis=1)


def _between_heads(a: jax.Array, b: jax.Array) -> jax.Array:
    """Σ over images, queries and keys of a[:, h] b[:, g]: [heads, heads]."""
    a, b = (x.reshape(*x.shape[:2], math.prod(x.shape[2:])) for x in (a, b))
    return jnp.einsum('bhn,bgn->bhg', a, b).sum(0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """`plain.layer_norm`.

    The derived gradient keeps four arrays of the size of `x`. With `x` and two numbers a row
    instead, CaiT-XXS24's step takes 0.94 of the time on CPU.
    """
    return plain_layer_norm(x, scale, bias, epsilon)


def _layer_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mean, inverse, centred = moments(x, epsilon)
    return centred * (inverse * scale) + bias, (mean, inverse, x, scale, bias)


def _layer_norm_back(
    epsilon: float, kept: tuple[jax.Array, ...], grad: jax.Array
) -> tuple[jax.Array, ...]:
    # With n = (x - mean) / deviation and dn = grad * scale, x acts directly, through the mean and
    # through the deviation: dx = (dn - mean(dn) - n mean(dn n)) / deviation. The subtracted parts
    # are those along 1 and n: adding to x or multiplying it leaves n as it is.
    mean, inverse, *args = kept
    x, scale, _ = args
    normal, inner = (x - mean) * inverse, grad * scale
    along = normal * (inner * normal).mean(-1, keepdims=True)
    dx = inverse * (inner - inner.mean(-1, keepdims=True) - along)
    others = tuple(range(x.ndim - 1))
    return typed((dx, (grad * normal).sum(others), grad.sum(others)), args)


layer_norm.defvjp(_layer_norm, _layer_norm_back)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def gathered(value: jax.Array, whole: Sharding, split: Sharding) -> jax.Array:
    """An array in the sharding `whole`, whose gradient is added up in the sharding `split`."""
    return jax.lax.with_sharding_constraint(value, whole)


gathered.defvjp(
    lambda value, whole, split: (gathered(value, whole, split), None),
    lambda whole, split, _, grad: (jax.lax.with_sharding_constraint(grad, split),),
)
