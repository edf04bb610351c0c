"""The one scan over depth."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn


def stack(
    block: Callable[..., Any], depth: int, axis: Any, *, static: int = 1, remat: bool = False
):
    """The one scan over depth: `depth` equal blocks whose parameters carry a leading depth axis.

    A block is called as `block(tokens, extra, *settings)` and returns `(tokens, None)`. `axis` says
    what `extra` is: 0 for an array with one slice a layer, `nn.broadcast` for the same in all
    layers. Then come `static` Python values (`train`, a grid). `remat` recomputes each block in the
    backward pass, for memory.
    """
    if remat:
        settings = tuple(range(3, 3 + static))  # counted from self
        block = nn.remat(block, prevent_cse=False, static_argnums=settings)
    axes: Any = (axis, *[nn.broadcast] * static)
    return nn.scan(
        block,
        variable_axes={'params': 0, 'intermediates': 0, 'perturbations': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=axes,
        length=depth,
    )
