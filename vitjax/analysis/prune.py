"""Importance of heads, and parameters without some heads or layers."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vitjax.base.types import Array, Params


def head_importance(weights: Array, grads: Array) -> jax.Array:
    """Importance of each head for the target (Michel et al. 2019, eq. 2): [L, heads], 0 or more.

    |Σ A ⊙ ∂y/∂A| over queries and keys, averaged over images: the derivative with respect to a gate
    on the head's output.

    Args:
        weights: factors of the values, [L, B, heads, Q, K]: `weights`, and for CaiT's trunk
            `mixed_weights`, since it mixes heads before. PatchConvNet's trunk has none; its pooling
            has `class_blocks/attention/weights`.
        grads: gradient of the target there; the same shape.
    """
    return jnp.abs((weights * grads).sum((-2, -1))).mean(1)


def remove_heads(params: Params, removed: Array, *, stack: str = 'blocks') -> Params:
    """Parameters in which heads add nothing: their slice of the output projection is zero.

    Args:
        params: parameters of a ViT or CaiT. PatchConvNet's heads are in its `class_blocks`.
        removed: [L, heads], True for heads to remove.
        stack: stack of the heads, `blocks` or `class_blocks`.
    """
    attention = params[stack]['attention']
    kernel = attention['projection']['kernel']  # [L, heads * head_width, D]
    depth, heads = removed.shape
    split = kernel.reshape(depth, heads, -1, kernel.shape[-1])
    kernel = jnp.where(removed[:, :, None, None], 0, split).reshape(kernel.shape)
    projection = {**attention['projection'], 'kernel': kernel}
    block = {**params[stack], 'attention': {**attention, 'projection': projection}}
    return {**params, stack: block}


def keep_layers(params: Params, layers: Sequence[int]) -> Params:
    """Parameters of a shorter stack, for `model.clone(depth=len(layers))`.

    Args:
        params: parameters of a ViT, CaiT or PatchConvNet.
        layers: indices of the blocks to keep, in order.
    """
    index = jnp.asarray(layers)
    return {**params, 'blocks': jax.tree.map(lambda leaf: leaf[index], params['blocks'])}
