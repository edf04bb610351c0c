"""The one scan over depth."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn


def stack(
    block: type[nn.Module], depth: int, axis: Any, *, static: int = 1, remat: bool = False
) -> Callable[..., Any]:
    """The one scan over depth: `depth` equal blocks whose parameters carry a leading depth axis.

    Returns what is called as the block's class and makes the whole stack.

    Args:
        block: class of a module called as `block(tokens, extra, *settings)`, which returns
            `(tokens, None)`.
        depth: number of blocks.
        axis: 0 where `extra` is an array with one slice for each layer, `nn.broadcast` where it is
            the same in all layers.
        static: how many settings follow, Python values such as `train` or a grid.
        remat: recompute each block in the backward pass, for memory.
    """
    if remat:
        settings = tuple(range(3, 3 + static))  # counted from self
        block = nn.remat(block, prevent_cse=False, static_argnums=settings)
    axes: Any = (axis, *[nn.broadcast] * static)
    return nn.scan(
        block,
        # Without the last three, `capture`, `gradients` and `intervene` would lose the blocks.
        variable_axes={'params': 0, 'intermediates': 0, 'perturbations': 0, 'edits': 0},
        split_rngs={'params': True, 'dropout': True}, in_axes=axes, length=depth,
    )  # fmt: skip
