"""Talking heads on chip: Pallas kernels that mix heads where their scores are made.

Neither scores nor weights reach memory, forward or backward, so memory is linear in tokens. A block
of queries goes over the keys twice, for the softmax's sums and for its results, because the second
mixing needs the normalised weights of all heads. Written for Triton and checked in interpret mode;
no GPU has run it yet. Compiled for compute capability 9, 4 heads of width 48 stay in registers; of
8 heads the forward pass does too, and the backward passes spill 1 to 2 KiB a thread. jax 0.12
accepts the kernels with a warning that Triton will leave Pallas.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

ROWS, KEYS = 16, 32  # of a block: small enough that all heads' tiles stay in registers

Tiles = Sequence[Any]  # one a head
Scalars = Sequence[Sequence[Any]]  # [heads][heads]


def talking_heads(
    q: jax.Array, k: jax.Array, v: jax.Array, logits_kernel: jax.Array, weights_kernel: jax.Array,
    *, interpret: bool = False,
) -> jax.Array:  # fmt: skip
    """Σ_g weights_kernel[g, f] softmax(Σ_h logits_kernel[h, g] q_h k_hᵀ / √head_width)_g v_f.

    Queries are [B, Q, heads, head_width], keys and values [B, K, heads, head_width]; the result is
    shaped as the queries. The biases of talking heads are left out: that of the logits cancels in
    the softmax, and the caller adds that of the weights. `interpret` runs anywhere, slowly.
    """
    queries, keys, width = q.shape[1], k.shape[1], q.shape[-1]
    wide = max(16, 1 << (width - 1).bit_length())  # Triton's products take powers of two

    def pad(x: jax.Array, block: int) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % block), (0, 0), (0, wide - width)))
        return x.swapaxes(1, 2)

    before = logits_kernel.astype(jnp.float32) * width**-0.5
    after = weights_kernel.astype(jnp.float32)
    out: Any = _talk(pad(q, ROWS), pad(k, KEYS), pad(v, KEYS), before, after, keys, interpret)
    return out.swapaxes(1, 2)[:, :queries, :, :width]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _talk(q, k, v, before, after, keys: int, interpret: bool) -> jax.Array:
    return _forward(q, k, v, before, after, keys, interpret)[0]


def _forward(q, k, v, before, after, keys: int, interpret: bool) -> tuple[jax.Array, Any]:
    rows = jax.ShapeDtypeStruct(q.shape[:3], jnp.float32)
    out, sums = _call(_gather, ROWS, keys, interpret, (q,), (k, v, before, after), (q, rows))
    return out, (q, k, v, before, after, sums)


def _backward(keys: int, interpret: bool, kept: Any, grad: jax.Array) -> tuple[jax.Array, ...]:
    q, k, v, before, after, sums = kept
    batch, heads, tokens, _ = q.shape
    parts = jax.ShapeDtypeStruct((batch, heads, tokens // ROWS * heads), jnp.float32)
    dq, along, *mixes = _call(
        _to_queries, ROWS, keys, interpret,
        (q, grad, sums), (k, v, before, after), (q, sums, parts, parts),
    )  # fmt: skip
    dk, dv = _call(
        _to_keys, KEYS, keys, interpret, (k, v), (q, grad, sums, along, before, after), (k, v)
    )
    return dq, dk, dv, *(x.reshape(batch, heads, -1, heads).sum((0, 2)) for x in mixes)


_talk.defvjp(_forward, _backward)


def _call(
    kernel: Any, block: int, keys: int, interpret: bool, blocks: Any, whole: Any, out: Any
) -> Any:
    """Runs `kernel` on every image and block of tokens.

    The kernel's arguments are `block` tokens (the third axis) of each array of `blocks`, the whole
    image's share of each of `whole` (matrices are common to all images), and `block` tokens of each
    result, which are shaped as `out`.
    """
    count = blocks[0].shape[2] // block

    def cut(x: Any) -> pl.BlockSpec:
        shape = (None, x.shape[1], x.shape[2] // count, *x.shape[3:])
        return pl.BlockSpec(shape, lambda b, i: (b, 0, i, *[0] * (x.ndim - 3)))

    def keep(x: Any) -> pl.BlockSpec:
        if x.ndim == 2:
            return pl.BlockSpec(x.shape, lambda b, i: (0, 0))
        return pl.BlockSpec((None, *x.shape[1:]), lambda b, i: (b, *[0] * (x.ndim - 1)))

    run = pl.pallas_call(
        functools.partial(kernel, keys=keys), grid=(blocks[0].shape[0], count), interpret=interpret,
        in_specs=[*map(cut, blocks), *map(keep, whole)], out_specs=[*map(cut, out)],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out],
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
    )  # fmt: skip
    return run(*blocks, *whole)


# ---- Kernels: arguments are references, `i` and `j` number blocks of queries and of keys --------


def _gather(q, k, v, before, after, out, sums, *, keys: int) -> None:
    """The result of a block of queries, and log Σ exp of its mixed logits."""
    heads = range(q.shape[0])
    qs, before, after = [q[h] for h in heads], _scalars(before), _scalars(after)

    def logits(j):
        return _masked(_mix(_scores(qs, _block(k, j, KEYS)), before), j, keys)

    def grow(j, carry):
        new = []
        for x, (top, total) in zip(logits(j), carry, strict=True):
            higher = jnp.maximum(top, x.max(1))
            total = total * jnp.exp(top - higher) + jnp.exp(x - higher[:, None]).sum(1)
            new.append((higher, total))
        return tuple(new)

    blocks, zero = k.shape[1] // KEYS, jnp.zeros(ROWS, jnp.float32)
    carry = jax.lax.fori_loop(0, blocks, grow, tuple((zero - jnp.inf, zero) for _ in heads))
    logs = [top + jnp.log(total) for top, total in carry]

    def gather(j, carry):
        weights = [jnp.exp(x - log[:, None]) for x, log in zip(logits(j), logs, strict=True)]
        mixed = _mix(weights, after)
        return tuple(
            total + _dot(x.astype(v.dtype), value)
            for total, x, value in zip(carry, mixed, _block(v, j, KEYS), strict=True)
        )

    empty = jnp.zeros(q.shape[1:], jnp.float32)
    for h, total in enumerate(jax.lax.fori_loop(0, blocks, gather, (empty,) * len(heads))):
        out[h], sums[h] = total.astype(out.dtype), logs[h]


def _to_queries(
    q, grad, sums, k, v, before, after, dq, along, dbefore, dafter, *, keys: int
) -> None:
    """Gradients at a block of queries, its share of the mixing kernels' gradients, and Σ p dp."""
    heads = range(q.shape[0])
    before, after = _scalars(before), _scalars(after)
    qs, grads, logs = ([x[h] for h in heads] for x in (q, grad, sums))
    blocks, zero = k.shape[1] // KEYS, jnp.zeros(ROWS, jnp.float32)

    def total(j, carry):
        ks, vs = _block(k, j, KEYS), _block(v, j, KEYS)
        _, weights, _, inner = _again(qs, grads, logs, ks, vs, before, after, j, keys)
        return tuple(a + (p * dp).sum(1) for a, p, dp in zip(carry, weights, inner, strict=True))

    totals = jax.lax.fori_loop(0, blocks, total, (zero,) * len(heads))

    def gather(j, carry):
        queries, befores, afters = carry
        ks, vs = _block(k, j, KEYS), _block(v, j, KEYS)
        scores, weights, outer, inner = _again(qs, grads, logs, ks, vs, before, after, j, keys)
        inner = _through_softmax(weights, inner, totals)
        queries = tuple(
            x + _dot(d.astype(k.dtype), key)
            for x, d, key in zip(queries, _mix_back(inner, before), ks, strict=True)
        )
        return queries, _grown(befores, scores, inner), _grown(afters, weights, outer)

    empty = jnp.zeros(q.shape[1:], jnp.float32)
    nothing = ((jnp.float32(0),) * len(heads),) * len(heads)
    start = ((empty,) * len(heads), nothing, nothing)
    queries, befores, afters = jax.lax.fori_loop(0, blocks, gather, start)
    for h in heads:
        dq[h], along[h] = queries[h].astype(dq.dtype), totals[h]
        for g in heads:
            dbefore[h, g], dafter[h, g] = befores[h][g], afters[h][g]


def _to_keys(k, v, q, grad, sums, along, before, after, dk, dv, *, keys: int) -> None:
    """Gradients at a block of keys and values."""
    heads, j = range(k.shape[0]), pl.program_id(1)
    before, after = _scalars(before), _scalars(after)
    ks, vs = ([x[h] for h in heads] for x in (k, v))

    def gather(i, carry):
        qs, grads, logs, totals = (_block(x, i, ROWS) for x in (q, grad, sums, along))
        _, weights, _, inner = _again(qs, grads, logs, ks, vs, before, after, j, keys)
        inner = _through_softmax(weights, inner, totals)
        scores, mixed = _mix_back(inner, before), _mix(weights, after)
        return tuple(
            (x + _dot(d.astype(q.dtype).T, a), y + _dot(w.astype(grad.dtype).T, b))
            for (x, y), d, a, w, b in zip(carry, scores, qs, mixed, grads, strict=True)
        )

    empty = jnp.zeros(k.shape[1:], jnp.float32)
    start = ((empty, empty),) * len(heads)
    for h, (x, y) in enumerate(jax.lax.fori_loop(0, q.shape[1] // ROWS, gather, start)):
        dk[h], dv[h] = x.astype(dk.dtype), y.astype(dv.dtype)


def _again(
    qs: Tiles, grads: Tiles, logs: Tiles, ks: Tiles, vs: Tiles, before, after, j, keys: int
) -> tuple[Tiles, Tiles, Tiles, Tiles]:
    """Recomputes scores and weights; with them the gradients at mixed weights and at weights."""
    scores, outer = _scores(qs, ks), _scores(grads, vs)
    logits = _masked(_mix(scores, before), j, keys)
    weights = [jnp.exp(x - log[:, None]) for x, log in zip(logits, logs, strict=True)]
    return scores, weights, outer, _mix_back(outer, after)


def _grown(totals: Scalars, x: Tiles, y: Tiles) -> Scalars:
    """Totals [heads][heads] and the inner products of every two tiles."""
    zipped = zip(totals, x, strict=True)
    return tuple(tuple(t + (a * b).sum() for t, b in zip(row, y, strict=True)) for row, a in zipped)


def _through_softmax(weights: Tiles, inner: Tiles, totals: Tiles) -> Tiles:
    zipped = zip(weights, inner, totals, strict=True)
    return [p * (dp - total[:, None]) for p, dp, total in zipped]


def _masked(logits: Tiles, j: Any, keys: int) -> Tiles:
    """No weight to keys that only pad."""
    seen = j * KEYS + jax.lax.broadcasted_iota(jnp.int32, (ROWS, KEYS), 1) < keys
    return [jnp.where(seen, x, -jnp.inf) for x in logits]


def _scores(a: Tiles, b: Tiles) -> Tiles:
    return [_dot(x, y.T) for x, y in zip(a, b, strict=True)]


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _mix(x: Tiles, kernel: Scalars) -> Tiles:
    """Σ_h kernel[h][g] x_h."""
    return [
        sum((m[g] * y for m, y in zip(kernel[1:], x[1:], strict=True)), kernel[0][g] * x[0])
        for g in range(len(x))
    ]


def _mix_back(x: Tiles, kernel: Scalars) -> Tiles:
    """Σ_g kernel[h][g] x_g."""
    return _mix(x, list(zip(*kernel, strict=True)))


def _scalars(kernel: Any) -> Scalars:
    return [[kernel[h, g] for g in range(kernel.shape[1])] for h in range(kernel.shape[0])]


def _block(x: Any, i: Any, size: int) -> Tiles:
    """Of each head, block `i` of tokens."""
    return [x[h, pl.ds(i * size, size)] for h in range(x.shape[0])]
