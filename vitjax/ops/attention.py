"""Attention of a step: every implementation, with hand-written gradients.

`attend` runs one of them for every platform; the platform's file says what `auto` is and how
`chunked` cuts. Shapes are those of `plain`.
"""

import functools
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vitjax.base.types import DType, Key
from vitjax.ops import plain
from vitjax.ops.gradients import gather, gather_packed, talk
from vitjax.ops.plain import Mixing, Tap


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, *, choose: Callable[..., str],
    block: Callable[..., tuple[int, int]], implementation: str = 'auto',
    mixing: Mixing | None = None, dropout: float = 0.0, key: Key | None = None,
    tap: Tap | None = None,
) -> jax.Array:  # fmt: skip
    """`plain.attend` in a step.

    Args:
        q: queries.
        k: keys.
        v: values.
        choose: `(q, keys, talking=, dropout=) -> implementation` for `auto`.
        block: `(batch, heads, queries, keys) -> (images, rows)` that `chunked` takes at a time.
        implementation: name of the implementation.
        mixing: talking heads' parameters.
        dropout: probability of dropping a weight.
        key: random key of the dropout.
        tap: sees the intermediates of `explicit`.
    """
    plain.require(implementation, dropout, key)
    key = key if dropout else None
    if implementation == 'auto' and q.shape[1] == 1:  # a class token: one row of scores
        implementation = 'explicit'
    elif implementation == 'auto':
        talking, dropping = mixing is not None, key is not None
        implementation = choose(q, k.shape[1], talking=talking, dropout=dropping)
    if implementation == 'explicit':
        return explicit(q, k, v, key, mixing=mixing, dropout=dropout, tap=tap)
    if implementation == 'chunked':
        return chunked(q, k, v, key, block=block, mixing=mixing, dropout=dropout)
    if implementation == 'packed' and mixing is None:
        return packed(q, k, v)
    if implementation == 'fused' and has_kernel(_kernel_width(q, mixing), q.dtype):
        if mixing is None:
            return at_even_lengths(q, k, v, implementation='cudnn')
        return multi_query(q, k, v, mixing, implementation='cudnn')
    if implementation == 'fused':
        return chunked(q, k, v, block=block, mixing=mixing)
    if implementation == 'multi_query' and mixing is not None:
        return multi_query(q, k, v, mixing)
    return explicit(q, k, v, mixing=mixing)


def explicit(
    q: jax.Array, k: jax.Array, v: jax.Array, key: Key | None = None, *,
    mixing: Mixing | None = None, dropout: float = 0.0, tap: Tap | None = None,
) -> jax.Array:  # fmt: skip
    """`plain.explicit`; its gradients are hand-written unless a tap needs the intermediates."""
    if tap or not (mixing or key is None):
        return plain.explicit(q, k, v, key, mixing=mixing, dropout=dropout, tap=tap)
    q, k, v = plain.heads_first(q, k, v)
    if mixing is None:
        return gather(q, k, v).swapaxes(1, 2)
    weights: Any = talk(plain.scores(q, k), *mixing)
    if key is not None:
        weights = plain.drop(key, weights, dropout)
    return plain.weighted(weights, v).swapaxes(1, 2)


def chunked(
    q: jax.Array, k: jax.Array, v: jax.Array, key: Key | None = None, *,
    block: Callable[..., tuple[int, int]], mixing: Mixing | None = None, dropout: float = 0.0,
) -> jax.Array:  # fmt: skip
    """`explicit` on a block of images and rows at a time, as `block` cuts them."""
    batch, queries, heads, _ = q.shape
    run = functools.partial(explicit, mixing=mixing, dropout=dropout)
    if mixing or dropout:  # `gather` recomputes by itself
        run = jax.checkpoint(run)
    return plain.in_blocks(run, *block(batch, heads, queries, k.shape[1]), q, k, v, key)


def rows(batch: int, heads: int, queries: int, keys: int) -> tuple[int, int]:
    """Blocks of `chunked` on accelerators: the whole batch and at most 128 rows."""
    return batch, plain.even(queries, 128)


def packed(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """`explicit` with heads side by side as the projections have them: `gather_packed`."""
    heads, shape = q.shape[2], q.shape
    q, k, v = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
    gathered: Any = gather_packed(q, k, v, heads)
    return gathered.reshape(shape)


def multi_query(
    q: jax.Array, k: jax.Array, v: jax.Array, mixing: Mixing, *,
    implementation: Literal['xla', 'cudnn'] | None = None,
) -> jax.Array:  # fmt: skip
    """Talking heads as multi-query attention (Shazeer 2019).

    A mixed logit is a product of wider vectors, Σ_h m_hg q_h·k_h = [m_hg q_h]_h · k, with the keys
    of all heads side by side in k. The second mixing, being linear, applies as well to the sums of
    values. The bias of the logits cancels in the softmax. So no scores are mixed, and no single
    heads' queries or values are transposed. Attention's two products take `heads` times the
    arithmetic, which fills matrix units: a v5e's are 128 wide, a head of CaiT 48. `gather` computes
    it, or the `implementation` of `jax.nn.dot_product_attention`. The backward pass keeps q, k and
    v alone.
    """
    width = q.shape[-1]

    # The passes of a scan over depth cannot share what one of them computes.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def attend(q, k, v, before, after):
        before, after = (jnp.repeat(x, width, axis=1) for x in (before.T, after))
        wide = q[:, None] * before[:, None].astype(q.dtype)
        if implementation is None:
            # Copies that products read in place. Merging the axes of heads and queries costs
            # relayouts if the number of tokens is no multiple of 8.
            k, v = (jnp.broadcast_to(x[:, None], (*wide.shape[:2], *x.shape[1:])) for x in (k, v))
            gathered = gather(wide, k, v)
        else:
            gathered = at_even_lengths(
                wide.swapaxes(1, 2), k[:, :, None], v[:, :, None], scale=1.0,
                implementation=implementation,
            ).swapaxes(1, 2)  # fmt: skip
        return (gathered * after[:, None]).sum(1)

    flat, keys, values = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
    flat = flat * jnp.asarray(width**-0.5, q.dtype)
    out = attend(flat, keys, values, mixing.logits_kernel, mixing.weights_kernel).reshape(q.shape)
    # A bias of the mixed weights adds its multiple of the sum of all values.
    bias = mixing.weights_bias
    return (out + bias[:, None] * v.sum(1, keepdims=True, dtype=bias.dtype)).astype(v.dtype)


def at_even_lengths(
    q: jax.Array, k: jax.Array, v: jax.Array, *, scale: float | None = None,
    implementation: Literal['xla', 'cudnn'] | None = None,
) -> jax.Array:  # fmt: skip
    """`jax.nn.dot_product_attention` with one more query or key if their number is odd.

    In a gradient jax's wrapper of cuDNN refuses odd lengths (jax 0.10 to 0.12): cuDNN has that rule
    for attention with a bias, and the wrapper takes its own placeholder for one. No query sees the
    key that is added, and the result of the query that is added is cut off, so the result is exact.
    """
    queries, keys = q.shape[1], k.shape[1]
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    seen = read = None
    if keys % 2:
        # Numbers that depend on k: under `vmap` (over seeds) the wrapper takes all lengths for
        # mapped, and fails on those that are not.
        none = 0 * k[:, 0, 0, 0].astype(jnp.int32)
        seen, read = keys + none, q.shape[1] + none
    return jax.nn.dot_product_attention(
        q, k, v, scale=scale, implementation=implementation,
        query_seq_lengths=read, key_value_seq_lengths=seen,
    )[:, :queries]  # fmt: skip


def device() -> Any:
    """Device that is traced for: `jax.default_device`, or else the first.

    It may be absent: `vitjax.plan.target` traces for devices that are only described.
    """
    config: Any = jax.config
    chosen = config.jax_default_device
    if chosen is None or isinstance(chosen, str):
        return jax.devices(chosen)[0]
    return chosen


def _kernel_width(q: jax.Array, mixing: Mixing | None) -> int:
    """Width of the heads that a kernel would take: talking heads run as `multi_query`."""
    return q.shape[-1] if mixing is None else q.shape[2] * q.shape[3]


def has_kernel(width: int, dtype: DType) -> bool:
    """True if cuDNN's flash attention takes heads of this width.

    It requires an NVIDIA GPU of compute capability 8 or more, 16-bit numbers, and a width that is a
    multiple of 8, up to 128, or 256 from capability 9 on.
    """
    # AMD's GPUs name their architecture there: 'gfx942'.
    named = str(getattr(device(), 'compute_capability', ''))
    if not re.fullmatch(r'\d+\.\d+', named):
        return False
    capability = float(named)
    widest = 256 if capability >= 9 else 128 if capability >= 8 else 0
    half = dtype in (jnp.bfloat16, jnp.float16)
    return half and width % 8 == 0 and width <= widest
