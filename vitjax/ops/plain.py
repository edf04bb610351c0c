"""References: every operation in plain jax, which any transformation takes.

Shapes of attention: queries [B, Q, heads, head_width], keys and values [B, K, heads, head_width],
attention weights [B, heads, Q, K].
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax import lax

from vitjax.base.types import Key

Implementation = Literal['auto', 'explicit', 'chunked', 'packed', 'multi_query', 'fused']
IMPLEMENTATIONS = get_args(Implementation)

Tap: TypeAlias = Callable[[str, jax.Array], jax.Array]  # (name, value) -> value, maybe another


class Mixing(NamedTuple):
    """Talking heads (Shazeer et al. 2020): linear maps across heads around the softmax."""

    logits_kernel: jax.Array  # [heads, heads]
    logits_bias: jax.Array  # [heads]
    weights_kernel: jax.Array  # [heads, heads]
    weights_bias: jax.Array  # [heads]


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, *, implementation: str = 'auto',
    mixing: Mixing | None = None, dropout: float = 0.0, key: Key | None = None,
    tap: Tap | None = None,
) -> jax.Array:  # fmt: skip
    """Attention by one of `IMPLEMENTATIONS`, which agree to rounding: [B, Q, heads, head_width].

    Outside of a step only `explicit` and `chunked` exist. There `auto`, and the names of faster
    ones, take `chunked` from 1,024 keys on, to bound memory, and `explicit` below.

    Args:
        q: queries [B, Q, heads, head_width].
        k: keys [B, K, heads, head_width].
        v: values, as keys.
        implementation: name of the implementation; in a step `auto` is the platform's choice.
        mixing: talking heads' parameters; None has ordinary heads.
        dropout: probability of dropping a weight, if there is a `key`.
        key: random key of the dropout.
        tap: sees and may replace the intermediates of `explicit`; others ignore it.

    Raises:
        ValueError: if the implementation is unknown, or has no attention dropout and is asked for
            it; `explicit` and `chunked` have it.

    Example:
        One query that is equally near to two keys takes the mean of their values.

        >>> q, k = jnp.zeros((1, 1, 1, 2)), jnp.ones((1, 2, 1, 2))
        >>> v = jnp.array([[1.0, 3.0], [5.0, 7.0]]).reshape(1, 2, 1, 2)
        >>> print(attend(q, k, v)[0, 0])
        [[3. 5.]]
    """
    require(implementation, dropout, key)
    large = k.shape[1] >= 1024 and q.shape[1] > 1 and implementation != 'explicit'
    if not (large or implementation == 'chunked'):
        return explicit(q, k, v, mixing=mixing, dropout=dropout, key=key, tap=tap)
    run = jax.checkpoint(functools.partial(explicit, mixing=mixing, dropout=dropout))
    return in_blocks(run, len(q), even(q.shape[1], 128), q, k, v, key)


def require(implementation: str, dropout: float, key: Key | None) -> None:
    """Checks an implementation's name, and that it has the dropout asked of it.

    Raises:
        ValueError: if it is unknown, or has no attention dropout; the message names the choices.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f'attention must be one of {IMPLEMENTATIONS}: {implementation!r}.')
    if dropout > 0 and key is not None and implementation in ('packed', 'multi_query', 'fused'):
        raise ValueError(
            f'attention={implementation!r} has no attention dropout: '
            f"attention_dropout={dropout}; take 'chunked' or 'auto', or set it to 0."
        )


def explicit(
    q: jax.Array, k: jax.Array, v: jax.Array, key: Key | None = None, *,
    mixing: Mixing | None = None, dropout: float = 0.0, tap: Tap | None = None,
) -> jax.Array:  # fmt: skip
    """softmax(q kᵀ / √head_width) v with every intermediate written out: [B, Q, heads, head_width].

    With `mixing`, heads are mixed before and after the softmax (Touvron et al. 2021, section 3).
    Scores and softmax are float32 at least, whatever the inputs. `tap(name, value)` sees, and may
    replace, `mixed_logits`, `weights` and `mixed_weights`. Attention dropout falls on the factor
    of v.
    """
    tap = tap or (lambda name, value: value)
    q, k, v = heads_first(q, k, v)
    weights = scores(q, k)
    if mixing:
        weights = jnp.einsum('bhqk,hg->bgqk', weights, mixing.logits_kernel)
        weights = tap('mixed_logits', weights + mixing.logits_bias[:, None, None])
    weights = tap('weights', jax.nn.softmax(weights))
    if mixing:
        weights = jnp.einsum('bhqk,hg->bgqk', weights, mixing.weights_kernel)
        weights = tap('mixed_weights', weights + mixing.weights_bias[:, None, None])
    if dropout and key is not None:
        weights = drop(key, weights, dropout)
    return weighted(weights, v).swapaxes(1, 2)


def heads_first(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
    """Queries / √head_width, keys and values as [B, heads, tokens, head_width].

    XLA's CPU backend multiplies this layout twice as fast.
    """
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    return q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k, v


def scores(q: jax.Array, k: jax.Array) -> jax.Array:
    """Products q kᵀ, [B, heads, Q, K], in float32 at least."""
    precise = jnp.promote_types(q.dtype, jnp.float32)
    return jnp.einsum('bhqd,bhkd->bhqk', q, k, preferred_element_type=precise)


def weighted(weights: jax.Array, v: jax.Array) -> jax.Array:
    """Sums of values [B, heads, K, head_width] with weights [B, heads, Q, K]."""
    return jnp.einsum('bhqk,bhkd->bhqd', weights.astype(v.dtype), v)


def in_blocks(
    run: Callable[..., jax.Array], images: int, rows: int,
    q: jax.Array, k: jax.Array, v: jax.Array, key: Key | None,
) -> jax.Array:  # fmt: skip
    """`run(q, k, v, key)` on one block of images and query rows at a time.

    Exact, because softmax rows are independent. If the backward pass recomputes `run`, one block's
    scores bound the memory of both passes. Each block draws dropout bits of its own.
    """
    batch, queries, heads, _ = q.shape
    across, down = -(-batch // images), -(-queries // rows)

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, across * images - batch), *[(0, 0)] * (x.ndim - 1)))
        return x.reshape(across, images, *x.shape[1:])

    def run_images(q, k, v, key):
        if down == 1:
            return run(q, k, v, key)
        q = jnp.pad(q, ((0, 0), (0, down * rows - queries), (0, 0), (0, 0)))
        qs = q.reshape(images, down, rows, heads, -1).swapaxes(0, 1)
        keys = None if key is None else jax.random.split(key, down)
        out = lax.map(lambda block: run(block[0], k, v, block[1]), (qs, keys))
        return out.swapaxes(0, 1).reshape(images, down * rows, heads, -1)[:, :queries]

    if across == 1:
        return run_images(q, k, v, key)
    keys = None if key is None else jax.random.split(key, across)
    out = lax.map(lambda block: run_images(*block), (split(q), split(k), split(v), keys))
    return out.reshape(-1, *out.shape[2:])[:batch]


def even(count: int, most: int) -> int:
    """Size, at most `most`, of the fewest equal blocks that cover `count`."""
    return -(-count // -(-count // most))


def drop(
    key: Key, x: jax.Array, rate: float | jax.Array, shape: tuple[int, ...] | None = None
) -> jax.Array:
    """Inverted dropout: zero with probability `rate`, else divided by the probability to stay.

    Args:
        key: random key.
        x: any array.
        rate: probability of zero; may be traced.
        shape: shape of the draw, broadcast to `x`; stochastic depth draws `[B, 1, 1]`.
    """
    # One random byte an element, a quarter of what `jax.random.bernoulli` draws. A byte knows 256
    # rates: each row of the last axis rounds its threshold up or down at random, which makes the
    # probability exact.
    shape = x.shape if shape is None else shape
    rate = jnp.asarray(rate, jnp.float32)
    byte_key, row_key = jax.random.split(key)
    words = jax.random.bits(byte_key, (*shape[:-1], -(-shape[-1] // 4)), 'uint32')
    bits = lax.bitcast_convert_type(words, jnp.uint8).reshape(*shape[:-1], 4 * words.shape[-1])
    threshold = jnp.floor(256 * rate + jax.random.uniform(row_key, (*shape[:-1], 1)))
    stays = bits[..., : shape[-1]] >= threshold.astype(jnp.uint16)
    # A rate within 3e-8 of 1 is 1 in float32: all is dropped, and nothing divided by zero.
    kept = jnp.maximum((1 - rate).astype(x.dtype), jnp.finfo(x.dtype).smallest_normal)
    return jnp.where(stays, x / kept, jnp.zeros_like(x))


# ---- Rows and maps ------------------------------------------------------------------------------


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Rows x [..., D] times kernel [D, C]."""
    return x @ kernel


def in_thirds() -> bool:
    """True if queries, keys and values are three products, else one product that is cut."""
    return False


def thirds(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> list[jax.Array]:
    """Three equal parts of the channels of x [..., D] times kernel [D, 3 C], plus bias [3 C]."""
    out = x @ kernel if bias is None else x @ kernel + bias
    return jnp.split(out, 3, axis=-1)


def recomputed(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method(module, ...)` whose intermediates the backward pass may recompute; here as it is."""
    return method


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis (Ba et al. 2016).

    In float32 at least. The variance is computed in two passes: the one-pass form loses digits on
    DINOv2's outlier tokens.
    """
    _, inverse, centred = moments(x, epsilon)
    return centred * (inverse * scale) + bias


def moments(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean and 1 / sqrt(variance + epsilon), [..., 1], and x - mean, in float32 at least."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean(-1, keepdims=True)
    wide = wide - mean
    return mean, lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + epsilon), wide


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 1, groups: int = 1
) -> jax.Array:
    """Maps [B, H, W, C] convolved with a kernel [h, w, C / groups, D], rows and columns alike.

    Args:
        x: the maps.
        kernel: the kernel.
        stride: pixels between two outputs.
        padding: pixels of zeros all round, 0 or more.
        groups: groups of channels that are convolved apart.
    """
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, feature_group_count=groups,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip


def pool(x: jax.Array) -> jax.Array:
    """Largest of each 2x2 values of maps [B, H, W, C]; the last of an odd side is left out.

    The gradient goes to the first of equal values, row by row, as PyTorch's does.
    """
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')
