"""Analyses of attention weights: maps, rollout, relevance, distance and entropy.

Weights are softmax outputs, `[..., heads, queries, keys]` with rows that sum to 1, as `capture`
returns them at `blocks/attention/weights` and `class_blocks/attention/weights`. CaiT's
`mixed_weights`, taken after the second head mixing, are not distributions: `head_maps` accepts
them, all other functions require `weights`.

ViT's trunk has `prefix` tokens (class, registers) before the patches. CaiT and PatchConvNet have
only patches in the trunk, and class-attention weights over `[class, patches]`; PatchConvNet's own
trunk has no attention at all, so only the class-attention functions apply to it. Convolutional
networks have no attention, and none of this applies.
"""

import jax
import jax.numpy as jnp

from vitjax.analysis.gradients import stretch
from vitjax.analysis.tokens import TINY


def to_grid(rows: jax.Array, *, grid: tuple[int, int], prefix: int = 0) -> jax.Array:
    """Values over keys [..., prefix + N] as maps [..., grid rows, grid columns] without the prefix.

    Raises:
        ValueError: if the number of keys is not prefix + rows x columns.
    """
    if rows.shape[-1] != prefix + grid[0] * grid[1]:
        raise ValueError(
            f'keys must be prefix + rows x columns = {prefix} + {grid[0]}x{grid[1]}: '
            f'got {rows.shape[-1]}.'
        )
    return rows[..., prefix:].reshape(*rows.shape[:-1], *grid)


def head_maps(
    weights: jax.Array, *, grid: tuple[int, int], prefix: int = 0, query: int | None = None
) -> jax.Array:
    """Attention of a query: weights [..., heads, Q, K] to maps [..., heads, rows, columns], 0 to 1.

    Maps sum to 1 minus the weight on the prefix. They are the pictures of Caron et al. 2021 (DINO,
    figure 1) and, from class-attention weights, of Touvron et al. 2021 (CaiT, figure 6).

    Args:
        weights: attention weights.
        grid: rows and columns of patches.
        prefix: keys before the patches: `model.prefix_tokens` in ViT's trunk; 1 in class
            attention (the class token itself), 0 with one class token per class. In attention
            pooling it is the trunk's prefix.
        query: index among the Q queries: 0 for a class token, `prefix + row * columns + column`
            for a patch; None is the mean over all patches, for trunks without a class token.

    Raises:
        ValueError: if the keys do not fit the grid or there is no such query; for the mean over
            patches, if the queries are not the keys.
    """
    queries, keys = weights.shape[-2:]
    if query is None:
        if queries != keys:
            raise ValueError(
                f'the mean over patches needs as many queries as keys: got {queries} and {keys}.'
            )
        rows = weights[..., prefix:, :].mean(-2)
    elif 0 <= query < queries:
        rows = weights[..., query, :]
    else:
        raise ValueError(f'query must be one of the {queries} queries, from 0 on: {query=}.')
    return to_grid(rows, grid=grid, prefix=prefix)


def saliency(class_weights: jax.Array, *, grid: tuple[int, int], token: int = 0) -> jax.Array:
    """The saliency of Touvron et al. 2021 (CaiT, figure 7): maps [B, rows, columns], 0 to 1.

    The response of the first class-attention layer to the patches, averaged over heads, each map
    stretched so that its largest value is 1 and its smallest 0.

    Args:
        class_weights: `class_blocks/attention/weights`, [Lc, B, heads, K, 1 + N], or [..., K, N]
            with one class token per class.
        grid: rows and columns of patches.
        token: index among the K class tokens.
    """
    prefix = class_weights.shape[-1] - grid[0] * grid[1]
    return stretch(head_maps(class_weights[0], grid=grid, prefix=prefix, query=token).mean(1))


def rollout(weights: jax.Array, *, discard: float = 0.0) -> jax.Array:
    """Attention rollout (Abnar and Zuidema 2020, eq. 1): [L, B, N, N], rows sum to 1.

    With W_l the mean over heads, A_l = (W_l + I) / 2 counts the residual connection, and
    R_l = A_l R_{l-1} from R_0 = I. Slice l is the rollout up to layer l; the last one is the
    paper's. Row q gives the weight of each input token in token q.

    >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])  # each of two tokens attends only to the other
    >>> rollout(jnp.broadcast_to(swap, (1, 1, 4, 2, 2)))[-1, 0]
    Array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)

    Args:
        weights: [L, B, heads, N, N]; for CaiT the row-stochastic `weights`.
        discard: fraction of each layer's N² averaged weights, the smallest, that is set to 0 before
            rows are scaled to sum to 1 again; 0 to 1 exclusive. Weights equal to the smallest kept
            one stay. Not in the paper; it removes the haze of many small weights.

    Raises:
        ValueError: if `discard` lies outside [0, 1).
    """
    if not 0 <= discard < 1:
        raise ValueError(f'discard must be at least 0 and below 1: {discard=}.')
    size = weights.shape[-1]
    identity = jnp.eye(size, dtype=weights.dtype)

    def layer(rolled: jax.Array, weights: jax.Array):
        mean = weights.mean(1)
        if discard:
            ordered = jnp.sort(mean.reshape(len(mean), -1))
            smallest = ordered[:, int(discard * size * size)]
            mean = jnp.where(mean >= smallest[:, None, None], mean, 0)
        mean = mean + identity
        rolled = mean / mean.sum(-1, keepdims=True) @ rolled
        return rolled, rolled

    start = jnp.broadcast_to(identity, (weights.shape[1], size, size))
    return jax.lax.scan(layer, start, weights)[1]


def class_rollout(class_weights: jax.Array, patches: jax.Array | None = None) -> jax.Array:
    """Rollout through class attention: [Lc, B, K, 1 + N], rows sum to 1.

    Abnar and Zuidema's rollout is for tokens that all attend to one another. This composition for
    class attention is ours: the class token's row c starts with all its mass on itself, and each
    layer does `c <- 1/2 c + 1/2 (a_class c + a_patches R)`, R being the rollout of the patch
    stack. Entry 0 of a row is the mass that remains on the class token, the other entries are the
    input patches. Attention pooling has no residual connection around its attention: its row is
    `a_patches R`.

    Args:
        class_weights: `class_blocks/attention/weights`, [Lc, B, heads, 1, 1 + N]; or
            [Lc, B, heads, K, N] with one class token per class, which attend to patches alone, and
            with attention pooling (K = 1), whose token attends to all N tokens of the trunk.
        patches: R, [B, N, N]: `rollout(weights)[-1]` for CaiT and attention pooling; None is the
            identity, for PatchConvNet, whose trunk is convolutional.
    """
    return _class_rows(class_weights.mean(2), patches, share=0.5)


def relevance(weights: jax.Array, grads: jax.Array) -> jax.Array:
    """Gradient-weighted relevance (Chefer et al. 2021, generic attention, eq. 5-6): [B, N, N].

    Ā = mean over heads of max(∂y/∂A ⊙ A, 0), and R <- R + Ā R from R = I, layer by layer. Row q
    gives the relevance of each input token to token q for the target y, 0 or more and unbounded.
    Read the class token's row, or the mean of all rows if the head reads the mean.

    Args:
        weights: [L, B, heads, N, N]; for CaiT `weights`, not `mixed_weights`.
        grads: gradient of the target at `weights`, from `capture.gradients`; the same shape.
    """
    size = weights.shape[-1]

    def layer(relevant: jax.Array, step):
        weights, grads = step
        return relevant + jax.nn.relu(weights * grads).mean(1) @ relevant, None

    start = jnp.broadcast_to(jnp.eye(size, dtype=weights.dtype), (weights.shape[1], size, size))
    return jax.lax.scan(layer, start, (weights, grads))[0]


def class_relevance(
    class_weights: jax.Array, grads: jax.Array, patches: jax.Array | None = None
) -> jax.Array:
    """`relevance` through class attention: [B, K, 1 + N], 0 or more.

    The same update on the block matrix of `[class, patches]` in which only the class token's row
    changes: c <- c + ā_class c + ā_patches R, with R the patch stack's relevance.

    Args:
        class_weights: as in `class_rollout`.
        grads: gradient of the target at `class_weights`; the same shape.
        patches: R, [B, N, N]: `relevance(weights, grads)` of CaiT's trunk; None is the identity,
            for PatchConvNet's.
    """
    return _class_rows(jax.nn.relu(class_weights * grads).mean(2), patches, share=1)[-1]


def _class_rows(rows: jax.Array, patches: jax.Array | None, *, share: float) -> jax.Array:
    """Class tokens' rows after every layer, `c <- share (c + a_class c + a_patches R)`.

    Args:
        rows: a, [Lc, B, K, 1 + N]; [Lc, B, K, N] if class tokens do not attend to themselves.
        patches: R, [B, N, N]; None is the identity.
        share: factor of the sum.
    """
    pooling = rows.shape[2] == 1 and patches is not None and rows.shape[-1] == patches.shape[-1]
    if pooling or rows.shape[2] > 1:  # class tokens that do not attend to themselves
        rows = jnp.pad(rows, [(0, 0)] * 3 + [(1, 0)])
    own, mean = rows[..., :1], rows[..., 1:]
    if patches is not None:
        mean = jnp.einsum('lbkn,bnm->lbkm', mean, patches)
    reached = jnp.concatenate(
        [jnp.zeros_like(own), mean], -1
    )  # input tokens, reached through patches
    if pooling:  # the attention's result replaces the token
        return reached

    def layer(row: jax.Array, step):
        own, reached = step
        row = (row + own * row + reached) * share
        return row, row

    start = jnp.zeros_like(reached[0]).at[..., 0].set(1)
    return jax.lax.scan(layer, start, (own, reached))[1]


def mean_distance(
    weights: jax.Array, *, grid: tuple[int, int], patch_size: int, prefix: int = 0,
    renormalize: bool = False,
) -> jax.Array:  # fmt: skip
    """Mean attention distance in pixels, [..., heads] (Dosovitskiy et al. 2021, figure 7).

    The distance between the centres of query and key patch, weighted by attention, averaged over
    query patches (see also Raghu et al. 2021, figure 3). The prefix (class token, registers) has
    no position in the image and is left out, as a query and as a key.

    Args:
        weights: [..., heads, prefix + N, prefix + N].
        grid: rows and columns of patches.
        patch_size: side of a patch in pixels.
        prefix: tokens before the patches.
        renormalize: True scales each query's weights on patches to sum to 1; False counts the
            weight on the prefix as distance 0.

    Returns:
        Distances from 0 to the image's diagonal.

    Raises:
        ValueError: if the keys do not fit the grid.
    """
    to_grid(weights[..., 0, :], grid=grid, prefix=prefix)  # checks the count
    places = jnp.indices(grid).reshape(2, -1)
    distance = jnp.hypot(*(places[:, :, None] - places[:, None])) * patch_size
    weights = weights[..., prefix:, prefix:]
    far = jnp.einsum('...qk,qk->...q', weights, distance)
    if renormalize:
        far = far / jnp.maximum(weights.sum(-1), TINY)
    return far.mean(-1)


def entropy(weights: jax.Array) -> jax.Array:
    """Entropy of attention rows in nats, averaged over queries: [..., heads], 0 to log(keys).

    0 attends to one token, log(keys) to all equally. Requires rows that sum to 1: for CaiT
    `weights`.

    >>> entropy(jnp.array([[[1.0, 0.0], [0.5, 0.5]]])).round(3)  # (0 + log 2) / 2
    Array([0.347], dtype=float32)
    """
    return jax.scipy.special.entr(weights).sum(-1).mean(-1)
