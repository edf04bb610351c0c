"""heads: which patches the class token, or one patch, attends to."""

import functools

import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import MIXED, WEIGHTS, Drawing, Drawings, Seen, View, layer_index


def draw(
    seen: Seen, *, layer: int | None = None, query: tuple[int, int] | None = None,
    smooth: bool = True,
) -> Drawings:  # fmt: skip
    """Each head of a layer, each layer, and the heads' mean over depth.

    Args:
        seen: with the trunk's attention weights.
        layer: from 1 on; the last by default.
        query: row and column of the attending patch. By default the class token attends, or the
            central patch where the trunk has none.
        smooth: interpolate maps over images.
    """
    weights = seen.trunk_weights()
    rows, columns = seen.grid
    if query is None and not seen.trunk.class_token:
        query = seen.centre
    if query is not None and not (0 <= query[0] < rows and 0 <= query[1] < columns):
        rule = f'a row and column of {rows}x{columns} patches, from 0 on'
        raise ValueError(f'query must be {rule}: got {query[0]} {query[1]}.')
    token = 0 if query is None else seen.token(query)
    head_maps = functools.partial(
        attention.head_maps, grid=seen.grid, prefix=seen.trunk.prefix, query=token
    )
    maps = np.asarray(head_maps(weights))
    index, pictures = layer_index(layer, len(maps)), seen.pictures

    figure = figures.heads(pictures, maps[index], query=query)
    yield Drawing('heads', figure, {'maps': maps[index]})
    figure = figures.heads_by_layer(pictures[0], maps[:, 0], query=query)
    yield Drawing('heads_by_layer', figure, {'maps': maps[:, 0]})
    mean = maps.mean(2)
    frames = [
        figures.frame(pictures, m, f'layer {i} of {len(mean)}', smooth=smooth)
        for i, m in enumerate(mean, 1)
    ]
    yield Drawing('heads_over_depth', frames, {'maps': mean})
    if MIXED in seen.found:
        mixed = np.asarray(head_maps(seen.found[MIXED][index]))
        figure = figures.heads(pictures, mixed, signed=True, query=query)
        yield Drawing('heads_mixed', figure, {'maps': mixed})


VIEW = View('attention', draw, f'{WEIGHTS}|{MIXED}')
