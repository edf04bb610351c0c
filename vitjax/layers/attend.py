"""Attention: pure functions with interchangeable implementations, and who picks which.

`attend` runs one of `IMPLEMENTATIONS`; `choose` says what `auto` is, `block_shape` how `chunked`
cuts and `has_kernel` what `fused` takes. `explicit` shows every intermediate, the others are for
speed or memory, and all agree to rounding.

Shapes: queries [B, Q, heads, head_width], keys and values [B, K, heads, head_width], attention
weights [B, heads, Q, K].
"""

import functools
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp

from vitjax.base.types import DType, Key
from vitjax.layers.backward import gather, gather_packed, scores, talk, weighted
from vitjax.layers.dropout import drop

Implementation = Literal['auto', 'explicit', 'chunked', 'packed', 'multi_query', 'fused', 'pallas']
IMPLEMENTATIONS = get_args(Implementation)

Tap: TypeAlias = Callable[[str, jax.Array], jax.Array]  # (name, value) -> value, maybe another


class Mixing(NamedTuple):
    """Talking heads (Shazeer et al. 2020): linear maps across heads around the softmax."""

    logits_kernel: jax.Array  # [heads, heads]
    logits_bias: jax.Array  # [heads]
    weights_kernel: jax.Array  # [heads, heads]
    weights_bias: jax.Array  # [heads]


def explicit(
    q: jax.Array, k: jax.Array, v: jax.Array, *, mixing: Mixing | None = None,
    dropout: float = 0.0, key: Key | None = None, tap: Tap | None = None,
) -> jax.Array:  # fmt: skip
    """softmax(q kᵀ / √head_width) v with every intermediate written out: [B, Q, heads, head_width].

    With `mixing`, heads are mixed before and after the softmax (Touvron et al. 2021, section 3).
    Scores and softmax are float32 at least, whatever the inputs. `tap(name, value)` sees, and may
    replace, `mixed_logits`, `weights` and `mixed_weights`; without it gradients are hand-written
    (`gather`, `talk`). Attention dropout falls on what multiplies v.
    """
    tap, seen = tap or (lambda name, value: value), tap is not None
    # Heads before rows: XLA's CPU backend multiplies that layout twice as fast.
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    q = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    key = key if dropout else None
    if not (mixing or seen) and key is None:
        return gather(q, k, v).swapaxes(1, 2)
    weights = scores(q, k)
    if mixing and not seen:
        weights = talk(weights, *mixing)
    else:
        if mixing:
            weights = jnp.einsum('bhqk,hg->bgqk', weights, mixing.logits_kernel)
            weights = tap('mixed_logits', weights + mixing.logits_bias[:, None, None])
        weights = tap('weights', jax.nn.softmax(weights))
        if mixing:
            weights = jnp.einsum('bhqk,hg->bgqk', weights, mixing.weights_kernel)
            weights = tap('mixed_weights', weights + mixing.weights_bias[:, None, None])
    if key is not None:
        weights = drop(key, weights, dropout)
    return weighted(weights, v).swapaxes(1, 2)


def chunked(
    q: jax.Array, k: jax.Array, v: jax.Array, *, mixing: Mixing | None = None,
    dropout: float = 0.0, key: Key | None = None,
) -> jax.Array:  # fmt: skip
    """`explicit` on one block of rows at a time, exact because softmax rows are independent.

    The backward pass recomputes each block, so one block's scores bound the memory of both passes.
    Each block draws dropout bits of its own.
    """
    batch, queries, heads, _ = q.shape
    images, rows = block_shape(batch, heads, queries, k.shape[1])
    across, down = -(-batch // images), -(-queries // rows)

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, across * images - batch), *[(0, 0)] * (x.ndim - 1)))
        return x.reshape(across, images, *x.shape[1:])

    def attend(block):
        qs, k, v, key = block
        return explicit(qs, k, v, mixing=mixing, dropout=dropout, key=key)

    if mixing or dropout:  # `gather` recomputes by itself
        attend = jax.checkpoint(attend)

    def attend_images(block):
        if down == 1:
            return attend(block)
        q, k, v, key = block
        q = jnp.pad(q, ((0, 0), (0, down * rows - queries), (0, 0), (0, 0)))
        qs = q.reshape(images, down, rows, heads, -1).swapaxes(0, 1)
        keys = None if key is None else jax.random.split(key, down)
        out = jax.lax.map(lambda a: attend((a[0], k, v, a[1])), (qs, keys))
        return out.swapaxes(0, 1).reshape(images, down * rows, heads, -1)[:, :queries]

    if across == 1:
        return attend_images((q, k, v, key))
    keys = None if key is None else jax.random.split(key, across)
    out = jax.lax.map(attend_images, (split(q), split(k), split(v), keys))
    return out.reshape(-1, *out.shape[2:])[:batch]


def block_shape(batch: int, heads: int, queries: int, keys: int) -> tuple[int, int]:
    """Images and query rows that `chunked` takes at a time.

    On accelerators the whole batch and at most 128 rows. On CPU as many whole images as keep a
    block's scores within 2 MiB, a core's cache, or at most 128 rows of one. Blocks are as equal as
    possible, which pads little.
    """
    image = 4 * heads * queries * keys  # bytes of one image's scores
    if device().platform != 'cpu':
        return batch, _even(queries, 128)
    if image <= 2**21:
        return _divisor(batch, 2**21 // image), queries
    return 1, _even(queries, 128)


def _divisor(count: int, most: int) -> int:
    """The size of equal blocks, of `most` at most: a divisor of `count` where one is near."""
    whole = max(size for size in range(1, min(count, most) + 1) if count % size == 0)
    return whole if 2 * whole > most or whole == count else _even(count, most)


def _even(count: int, most: int) -> int:
    """The size of the fewest equal blocks, of `most` at most, that cover `count`."""
    return -(-count // -(-count // most))


def fused(q: jax.Array, k: jax.Array, v: jax.Array, *, mixing: Mixing | None = None) -> jax.Array:
    """CuDNN's fused attention where `has_kernel`, else `chunked`.

    Talking heads run on it as `multi_query` where it takes heads of heads · head_width.
    """
    heads, width = q.shape[2:]
    if mixing is None and has_kernel(width, q.dtype):
        return at_even_lengths(q, k, v, implementation='cudnn')
    if mixing and has_kernel(heads * width, q.dtype):
        return multi_query(q, k, v, mixing=mixing, implementation='cudnn')
    return chunked(q, k, v, mixing=mixing)


def pallas(q: jax.Array, k: jax.Array, v: jax.Array, *, mixing: Mixing | None = None) -> jax.Array:
    """Talking heads by `talking.talking_heads`, interpreted where there is no GPU; else `fused`."""
    if mixing is None:
        return fused(q, k, v)
    from vitjax.layers.talking import talking_heads  # Pallas is slow to import

    out = talking_heads(q, k, v, *mixing[::2], interpret=device().platform != 'gpu')
    return _add_bias(out, v, mixing.weights_bias)


def packed(q: jax.Array, k: jax.Array, v: jax.Array, *, mixing: Mixing | None = None) -> jax.Array:
    """`explicit` with heads side by side as the projections have them: `gather_packed`."""
    if mixing is not None:
        return explicit(q, k, v, mixing=mixing)
    heads, shape = q.shape[2], q.shape
    q, k, v = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
    gathered: Any = gather_packed(q, k, v, heads)
    return gathered.reshape(shape)


def multi_query(
    q: jax.Array, k: jax.Array, v: jax.Array, *, mixing: Mixing | None = None,
    implementation: Literal['xla', 'cudnn'] | None = None,
) -> jax.Array:  # fmt: skip
    """Talking heads as multi-query attention (Shazeer 2019); without `mixing`, `explicit`.

    A mixed logit is a product of wider vectors, Σ_h m_hg q_h·k_h = [m_hg q_h]_h · k, where k holds
    the keys of all heads side by side; and the second mixing, being linear, applies as well to what
    the weights gather. The bias of the logits cancels in the softmax. So no scores are mixed, and
    there is no array of single heads' queries or values to transpose. Costs `heads` times the
    arithmetic of attention's two products, which fills matrix units: a v5e's are 128 wide, a head
    of CaiT 48. `gather` computes it, and the backward pass keeps q, k and v alone; or
    `implementation` of `jax.nn.dot_product_attention` does.
    """
    if mixing is None:
        return explicit(q, k, v)
    width = q.shape[-1]

    # Within a scan over depth, whose passes cannot share what one of them computes.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def attend(q, k, v, before, after):
        before, after = (jnp.repeat(x, width, axis=1) for x in (before.T, after))
        wide = q[:, None] * before[:, None].astype(q.dtype)
        if implementation is None:
            # Copies that products read in place; merged with the queries' axis, the heads' costs
            # relayouts wherever the number of tokens is no multiple of 8.
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
    out = attend(flat, keys, values, mixing.logits_kernel, mixing.weights_kernel)
    return _add_bias(out.reshape(q.shape), v, mixing.weights_bias)


def at_even_lengths(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    scale: float | None = None,
    implementation: Literal['xla', 'cudnn'] | None = None,
) -> jax.Array:
    """`jax.nn.dot_product_attention` with one more query or key where their number is odd.

    In a gradient jax's wrapper of cuDNN refuses odd lengths (jax 0.10 to 0.12): cuDNN has that rule
    for attention with a bias, and the wrapper takes its own placeholder for one. No query sees the
    key that is added, and the result of the query that is added is cut off, so the result is exact.
    """
    queries, keys = q.shape[1], k.shape[1]
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    seen = read = None
    if keys % 2:
        # Numbers that depend on k, because under `vmap` (over seeds) the wrapper takes all lengths
        # for mapped, and fails on those that are not.
        none = 0 * k[:, 0, 0, 0].astype(jnp.int32)
        seen, read = keys + none, q.shape[1] + none
    return jax.nn.dot_product_attention(
        q, k, v, scale=scale, implementation=implementation,
        query_seq_lengths=read, key_value_seq_lengths=seen,
    )[:, :queries]  # fmt: skip


def _add_bias(out: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds what a bias of the mixed weights contributes: bias times the sum of all values."""
    return (out + bias[:, None] * v.sum(1, keepdims=True, dtype=bias.dtype)).astype(v.dtype)


def device() -> Any:
    """The device that what is being traced will run on: `jax.default_device`'s, else the first.

    It need not be here: `vitjax.plan.target` traces for devices that are only described.
    """
    config: Any = jax.config
    chosen = config.jax_default_device
    if chosen is None or isinstance(chosen, str):
        return jax.devices(chosen)[0]
    return chosen


def in_thirds() -> bool:
    """Whether queries, keys and values are three products, else one that is cut: on TPU.

    There a cut is a copy.
    """
    return device().platform == 'tpu'


def has_kernel(width: int, dtype: DType) -> bool:
    """Whether cuDNN's flash attention takes heads of this width.

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


def choose(q: jax.Array, keys: int, *, talking: bool, dropout: bool) -> str:
    """The implementation that `auto` picks, by platform, length, width and dropout.

    - one query, a class token: `explicit`; there is one row of scores.
    - GPU with a fused kernel for this width and dtype, no talking heads, no dropout: `fused`.
    - CPU: `chunked` with talking heads, and where the batch's scores exceed 8 MiB and so leave the
      caches. Speed against `explicit`, a layer's forward and backward pass on two cores: 1.4 times
      for 2 images of 1,024 tokens and 4 heads; 1.0 for 64 images of 144 tokens; 1.0 for 8 images of
      196 tokens (5 MiB), and 1.9 with talking heads.
    - elsewhere: `chunked` from 1,024 keys on, to bound memory; below, `multi_query` with talking
      heads and no dropout. The gradient of CaiT-XXS24 in bfloat16 on 64 images of 224 pixels, as
      compilers estimate: 85 M cycles of a v5e (194 M `explicit`), and 2.0 GB of temporaries on an
      H100 (4.3 `explicit`, 2.0 `chunked`, which moves 1.4 times the bytes).
    - TPU, without either: `packed` where whole groups of heads fill 128 channels. The gradients of
      ViT-S/16 and ViT-B/16 on such images: 54 M cycles (66 M `explicit`) and 137 M (182 M).
    - else `explicit`.
    """
    batch, rows, heads, _ = q.shape
    if rows == 1:
        return 'explicit'
    if not talking and not dropout and has_kernel(q.shape[-1], q.dtype):
        return 'fused'
    if device().platform == 'cpu':
        large = 4 * batch * heads * rows * keys > 2**23
        return 'chunked' if talking or large else 'explicit'
    if keys >= 1024:
        return 'chunked'
    if dropout:
        return 'explicit'
    if talking:
        return 'multi_query'
    fills = 128 % q.shape[-1] == 0 and heads * q.shape[-1] % 128 == 0
    return 'packed' if in_thirds() and fills else 'explicit'


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, *, implementation: str = 'auto',
    mixing: Mixing | None = None, dropout: float = 0.0, key: Key | None = None,
    tap: Tap | None = None,
) -> jax.Array:  # fmt: skip
    """Attention by one of `IMPLEMENTATIONS`, which agree to rounding: [B, Q, heads, head_width].

    Args:
        q: queries [B, Q, heads, head_width].
        k: keys [B, K, heads, head_width].
        v: values, as keys.
        implementation: what computes it; `auto` is what `choose` says.
        mixing: talking heads' parameters; None has ordinary heads.
        dropout: probability of dropping a weight, where there is a `key`.
        key: of the dropout.
        tap: sees and may replace the intermediates of `explicit`; others ignore it.

    Raises:
        ValueError: for an unknown implementation; for attention dropout with one that has none,
            which `explicit` and `chunked` have.

    Example:
        One query that is equally near to two keys takes the mean of their values.

        >>> q, k = jnp.zeros((1, 1, 1, 2)), jnp.ones((1, 2, 1, 2))
        >>> v = jnp.array([[1.0, 3.0], [5.0, 7.0]]).reshape(1, 2, 1, 2)
        >>> print(attend(q, k, v)[0, 0])
        [[3. 5.]]
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f'attention must be one of {IMPLEMENTATIONS}: {implementation!r}.')
    dropping = dropout > 0 and key is not None
    if implementation == 'auto':
        implementation = choose(q, k.shape[1], talking=mixing is not None, dropout=dropping)
    if implementation == 'explicit':
        return explicit(q, k, v, mixing=mixing, dropout=dropout, key=key, tap=tap)
    if implementation == 'chunked':
        return chunked(q, k, v, mixing=mixing, dropout=dropout, key=key)
    if dropping:
        raise ValueError(
            f'attention={implementation!r} has no attention dropout: '
            f"attention_dropout={dropout}; take 'chunked' or 'auto', or set it to 0."
        )
    others = {'packed': packed, 'multi_query': multi_query, 'fused': fused, 'pallas': pallas}
    return others[implementation](q, k, v, mixing=mixing)
