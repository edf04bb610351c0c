"""Hand-written gradients, each with the reason it is written.

What jax derives from the forward pass is right everywhere; these are the places where it is slower
or keeps more for the backward pass than necessary. Every function here equals its derived gradient
to rounding. Below, dx stands for the gradient of the loss with respect to x.
"""

import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp


def _typed(grads: Iterable[jax.Array], args: Iterable[jax.Array]) -> tuple[jax.Array, ...]:
    """Gradients in the types of what they belong to, as jax's own would be."""
    return tuple(grad.astype(arg.dtype) for grad, arg in zip(grads, args, strict=True))


# ---- Softmax attention: all of shape [B, heads, tokens, head_width] ------------------------------


def scores(q: jax.Array, k: jax.Array) -> jax.Array:
    """Products q kᵀ, [B, heads, Q, K], in float32 at least."""
    precise = jnp.promote_types(q.dtype, jnp.float32)
    return jnp.einsum('bhqd,bhkd->bhqk', q, k, preferred_element_type=precise)


def weighted(weights: jax.Array, v: jax.Array) -> jax.Array:
    """Sums of values [B, heads, K, head_width] with weights [B, heads, Q, K]."""
    return jnp.einsum('bhqk,bhkd->bhqd', weights.astype(v.dtype), v)


@jax.custom_vjp
def gather(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q kᵀ) v, all [B, heads, tokens, head_width].

    The backward pass recomputes the weights instead of keeping them, and takes the sum that a
    softmax needs over every row from the result (Dao et al. 2022, appendix B.4), because XLA's CPU
    backend is slow at sums over long rows. Forward and backward of 2 images, 4,096 tokens and 8
    heads in blocks of 128 rows: 3.1 s, against 5.8 s with the derived gradient.
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
    return _typed((weighted(inner, k), dk, dv), (q, k, v))


gather.defvjp(_gather, _gather_back)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def gather_packed(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """softmax(q kᵀ / √head_width) v of all heads side by side: all [B, tokens, heads · head_width].

    As many heads as fit into 128 channels are taken at a time. Their products run over all of those
    channels, where one side holds zeros outside of the head, so that no array of single heads' rows
    is ever laid out: matrix units of 128 by 128 multiply the zeros in the time of the rest, and
    lanes of 128 numbers make a slice of 128 channels a view. The backward pass keeps its arguments
    and the result, as `gather`'s does.

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
    return _typed(whole, kept[:3])


gather_packed.defvjp(_gather_packed, _gather_packed_back)


def _groups(heads: int, *arrays: jax.Array) -> Iterator[tuple[Any, ...]]:
    """The arrays' channels of the heads of each group, after how many those are."""
    width = arrays[0].shape[-1] // heads
    size = max(1, 128 // width)
    for first in range(0, heads, size):
        last = min(first + size, heads)
        yield last - first, *(x[..., first * width : last * width] for x in arrays)


def _of_heads(heads: int, x: jax.Array) -> jax.Array:
    """A group's channels [B, N, C] once for each head, zero outside of it: [B, heads, N, C]."""
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

    `mixing` is what `attend.Mixing` holds: kernel and bias before the softmax, and after it.

    Written out because in the gradient derived from these sums over heads XLA's CPU backend
    computes the softmax again and again. A layer of CaiT-XXS24, forward and backward on 8 images of
    196 tokens: 26 ms, against 61 with the derived gradient and 43 with einsums over heads.
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
    return _typed((_over_heads(inner, logits_kernel.T), *before, *after), args)


talk.defvjp(_talk, _talk_back)


def _over_heads(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Σ_h x[:, h] kernel[h, g]: sums that fuse, where a product would transpose x twice."""
    heads = range(len(kernel))
    mixed = [[kernel[h, g] * x[:, h] for h in heads] for g in heads]
    return jnp.stack([functools.reduce(jnp.add, terms) for terms in mixed], axis=1)


def _between_heads(a: jax.Array, b: jax.Array) -> jax.Array:
    """Σ over images, queries and keys of a[:, h] b[:, g]: [heads, heads]."""
    a, b = (x.reshape(*x.shape[:2], math.prod(x.shape[2:])) for x in (a, b))
    return jnp.einsum('bhn,bgn->bhg', a, b).sum(0)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Rows x [..., D] times kernel [D, C].

    The derived gradient at the kernel is a product [C, D], transposed, for which XLA's CPU backend
    copies the rows: with 4,096 rows of 128 channels both gradients take 1.5 times as long.
    """
    return x @ kernel


def _product_back(kept: tuple[jax.Array, ...], grad: jax.Array) -> tuple[jax.Array, ...]:
    x, kernel = kept
    return _typed((grad @ kernel.T, _between_rows(x, grad)), kept)


product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_back)


@jax.custom_vjp
def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """A dense layer: x [..., D] times kernel [D, C], plus bias [C].

    The gradient treats the bias as one more row of the kernel, whose input is always 1: one product
    instead of a product and a sum over all rows, which on a TPU costs as much as the product. On a
    CPU the sum is almost free, and the rows would take as long as 128 more channels.
    """
    return x @ kernel + bias


def _affine(
    x: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return affine(x, kernel, bias), (x, kernel, bias)


def _affine_back(kept: tuple[jax.Array, ...], grad: jax.Array) -> tuple[jax.Array, ...]:
    x, kernel, _ = kept

    def together(x: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        ones = [(0, 0)] * (x.ndim - 1) + [(0, 128)]  # a tile of them, because a TPU would fill it
        rows = _between_rows(jnp.pad(x, ones, constant_values=1), grad)
        return rows[: len(kernel)], rows[len(kernel)]

    def apart(x: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _between_rows(x, grad), grad.sum(tuple(range(grad.ndim - 1)))

    others = jax.lax.platform_dependent(x, grad, cpu=apart, default=together)
    return _typed((grad @ kernel.T, *others), kept)


affine.defvjp(_affine, _affine_back)


def _between_rows(x: jax.Array, grad: jax.Array) -> jax.Array:
    """Σ over all rows of x[..., d] grad[..., c]: [D, C]."""

    def flat(x: jax.Array, grad: jax.Array) -> jax.Array:  # copies on a TPU, whose rows are tiles
        a, b = (y.reshape(math.prod(y.shape[:-1]), y.shape[-1]) for y in (x, grad))
        return a.T @ b

    def whole(x: jax.Array, grad: jax.Array) -> jax.Array:  # copies on a CPU, transposing x
        return jnp.einsum('...d,...c->dc', x, grad)

    return jax.lax.platform_dependent(x, grad, cpu=flat, default=whole)


# ---- Elementwise and by row ----------------------------------------------------------------------


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis (Ba et al. 2016).

    In float32 at least. The variance is computed in two passes: the one-pass form loses digits on
    DINOv2's outlier tokens. The gradient is written out because the derived one keeps four arrays
    of the size of `x`, where `x` and two numbers a row suffice: CaiT-XXS24's step takes 0.94 of the
    time on CPU.
    """
    return _layer_norm(x, scale, bias, epsilon)[0]


def _layer_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    centred = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = centred.mean(-1, keepdims=True)
    centred = centred - mean
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
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
    return _typed((dx, (grad * normal).sum(others), grad.sum(others)), args)


layer_norm.defvjp(_layer_norm, _layer_norm_back)
