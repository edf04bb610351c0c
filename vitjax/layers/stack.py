"""The one scan over depth."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn


def stack(
    block: type[nn.Module], depth: int, axis: Any, *, static: int = 1, remat: bool = False
) -> Callable[..., Any]:
    """Class of a stack: `depth` equal blocks whose parameters carry a leading depth axis.

    Args:
        block: class of a module called as `block(tokens, extra, *settings)`, which returns
            `(tokens, None)`.
        depth: number of blocks.
        axis: 0 if `extra` is an array with one slice a layer, `nn.broadcast` if all layers share
            it.
        static: number of settings, Python values such as `train` or a grid.
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
