"""heads: which patches the class token, or one patch, attends to."""

import functools
from typing import Any

import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import (
    DIM,
    MIXED,
    UNIFORM,
    WEIGHTS,
    Drawing,
    Drawings,
    Seen,
    View,
    layer_index,
)


def draw(
    seen: Seen, *, layer: int | None = None, query: tuple[int, int] | None = None, image: int = 1,
    smooth: bool = True, scale: str | None = None,
) -> Drawings:  # fmt: skip
    """Each head of a layer, each layer of one image, and the heads' mean over depth.

    Arrays are weights; figures show them over those of uniform attention.

    Args:
        seen: with the trunk's attention weights.
        layer: from 1 on; the last by default.
        query: row and column, from 1 on, of the attending patch. By default the class token
            attends, or the central patch where the trunk has none.
        image: of all layers, from 1 on.
        smooth: interpolate maps over images.
        scale: of colours, `shared`, as by default, or `each` map's own.
    """
    weights = seen.trunk_weights()
    rows, columns = seen.grid
    if query is None:
        patch = None if seen.trunk.class_token else seen.centre
    elif 1 <= query[0] <= rows and 1 <= query[1] <= columns:
        patch = query[0] - 1, query[1] - 1
    else:
        rule = f'a row and column of {rows}x{columns} patches, from 1 on'
        raise ValueError(f'query must be {rule}: got {query[0]} {query[1]}.')
    token, who = 0, "the class token's attention"
    if patch is not None:
        token, (row, column) = seen.token(patch), patch
        who = f'attention of the patch in row {row + 1}, column {column + 1}'
    head_maps = functools.partial(
        attention.head_maps, grid=seen.grid, prefix=seen.trunk.prefix, query=token
    )
    maps, uniform = np.asarray(head_maps(weights)), weights.shape[-1]
    index, one, pictures = layer_index(layer, len(maps)), seen.image(image), seen.pictures
    look: Any = {'label': UNIFORM, 'scale': scale or 'shared', 'least': DIM}
    at = f'layer {index + 1} of {len(maps)}'

    own = maps[index]
    figure = figures.heads(pictures, uniform * own, title=f'{who}, {at}', query=patch, **look)
    yield Drawing('heads', figure, {'maps': own})
    own = maps[:, one]
    figure = figures.heads_by_layer(
        pictures[one], uniform * own, title=f'{who}, {seen.names[one]}', query=patch, **look
    )
    yield Drawing('heads_by_layer', figure, {'maps': own})
    mean = maps.mean(2)
    frames = figures.over_depth(
        pictures, uniform * mean, title=f'{who}, mean of heads', smooth=smooth, **look
    )
    yield Drawing('heads_over_depth', frames, {'maps': mean})
    if MIXED in seen.found:
        mixed = np.asarray(head_maps(seen.found[MIXED][index]))
        look |= {'label': 'attention (uniform = 1)\nblue: below 0'}
        title = f'{who} after heads are mixed, {at}'
        figure = figures.heads(
            pictures, uniform * mixed, title=title, signed=True, query=patch, **look
        )
        yield Drawing('heads_mixed', figure, {'maps': mixed})


VIEW = View('attention', draw, f'{WEIGHTS}|{MIXED}')
