"""Analyses of tokens: positions, predictions over depth, rank, similarity and norms.

Tokens are `[..., N, D]`, as `capture` returns them at `blocks` with a leading depth axis. The
functions that compare patches expect the prefix (class token, registers) sliced off:
`blocks[:, :, model.prefix_tokens:]`. They hold for ViT, CaiT and PatchConvNet alike; feature maps
`[B, H, W, C]` of convolutional networks become tokens by a reshape to `[B, H * W, C]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

TINY = 1e-30  # smallest divisor; its reciprocal is finite in float32


def cosines(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine of vectors along the last axis, -1 to 1; 0 if a vector is zero."""
    return (_unit(a) * _unit(b)).sum(-1)


def _unit(vectors: jax.Array) -> jax.Array:
    vectors = _wide(vectors)
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), TINY)


def _wide(x: jax.Array) -> jax.Array:
    """float32 at least: captures may have 16 bits, in which squares overflow."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def position_similarity(table: jax.Array, *, prefix: int = 0) -> jax.Array:
    """Cosines between the position embeddings of all patches: [N, N], -1 to 1.

    Dosovitskiy et al. 2021, figure 7 (centre), drawn as a grid of grids.

    Args:
        table: position embeddings [prefix + N, D]: learned, interpolated or sine-cosine.
            PatchConvNet and convolutional networks have none.
        prefix: number of rows without a place on the grid (the class token's).
    """
    table = table[prefix:]
    return cosines(table[:, None], table[None])


def evolution(class_tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Norm of a class token at every layer, and its cosine to the last layer's, both [L, B].

    Args:
        class_tokens: [L, B, D], `blocks[:, :, 0]` of a ViT. CaiT's and PatchConvNet's exist only in
            the class blocks (`class_blocks[:, :, 0]`); for their trunk, use `lens`.
    """
    last = jnp.broadcast_to(class_tokens[-1], class_tokens.shape)
    return norms(class_tokens), cosines(class_tokens, last)


def lens(readout: Callable[[jax.Array], jax.Array], tokens: jax.Array) -> jax.Array:
    """Logits of the model's own readout at every depth: [L, B, classes].

    The logit lens (nostalgebraist 2020): the final norm and head on the tokens of each layer. For
    CaiT and PatchConvNet the readout includes the class-attention stage, an early exit. The last
    slice is the model's output. Convolutional networks have none: their layers differ in shape.

    Args:
        readout: maps tokens [B, N, D] to logits [B, classes], as
            `lambda tokens: model.apply({'params': params}, tokens, method='readout')`.
        tokens: `blocks`, [L, B, N, D].
    """
    return jax.lax.map(readout, tokens)  # a layer at a time: class attention's memory stays small


def decided(logits: jax.Array) -> jax.Array:
    """First layer from which each image's final class stays top-1: [B], 0 to L - 1.

    Args:
        logits: logits of `lens`, [L, B, classes] with two classes or more.
    """
    top = logits.argmax(-1)
    held = jnp.cumprod(
        (top == top[-1])[::-1], 0
    )  # 1 from the last layer back to the first with another class
    return len(top) - held.sum(0)


def effective_rank(tokens: jax.Array) -> jax.Array:
    """Effective rank of token matrices [..., N, D] (Roy and Vetterli 2007): [...], 1 to min(N, D).

    exp of the entropy of the singular values, scaled to sum to 1: number of directions that the
    tokens use. An all-zero matrix has 1.

    >>> effective_rank(jnp.stack([jnp.eye(3), jnp.ones((3, 3))])).round(2)
    Array([3., 1.], dtype=float32)
    """
    tokens = _wide(tokens)
    tall = tokens if tokens.shape[-2] >= tokens.shape[-1] else tokens.mT
    # The triangle has the same singular values. Early feature maps have tens of thousands of
    # tokens, of which the CPU's SVD would allocate a square matrix.
    values = jnp.linalg.svd(jnp.linalg.qr(tall, mode='r'), compute_uv=False)
    share = values / jnp.maximum(values.sum(-1, keepdims=True), TINY)
    return jnp.exp(jax.scipy.special.entr(share).sum(-1))


def patch_cosine(tokens: jax.Array) -> jax.Array:
    """Mean cosine between different tokens of [..., N, D]: [...], 1 if all are parallel.

    A rise over depth is over-smoothing (Zhou et al. 2021, DeepViT; Gong et al. 2021). N is 2 or
    more; the smallest possible value is -1 / (N - 1).
    """
    count = tokens.shape[-2]
    unit = _unit(tokens)
    together = (unit.sum(-2) ** 2).sum(-1) - (unit**2).sum((-1, -2))
    return together / count / (count - 1)  # one by one: their product may overflow 32 bits


def norms(tokens: jax.Array) -> jax.Array:
    """Norm of every token of [..., N, D]: [..., N].

    Large pretrained ViTs store global information in a few patches of little content, whose norms
    are several times larger (Darcet et al. 2024, figures 3 and 4).
    """
    return jnp.linalg.norm(_wide(tokens), axis=-1)


def channels(maps: jax.Array) -> jax.Array:
    """Feature maps [..., H, W, C] as grey pictures, uint8 of the same shape.

    Each channel is standardised, multiplied by 64 and shifted by 128 (Chollet 2021, Deep Learning
    with Python, listing 9.20). Values are clipped to 0 to 255; a constant channel is 128.
    """
    maps = _wide(maps)
    centred = maps - maps.mean((-3, -2), keepdims=True)
    deviation = jnp.sqrt((centred**2).mean((-3, -2), keepdims=True))
    scaled = centred / jnp.maximum(deviation, TINY)
    return jnp.clip(jnp.round(64 * scaled + 128), 0, 255).astype(jnp.uint8)
