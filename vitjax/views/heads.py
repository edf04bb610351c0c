"""heads: attention of the class token, or of one patch, to the patches."""

import functools

import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.figures.attention import UNIFORM
from vitjax.views.forward import MIXED, WEIGHTS, Results, layer_index
from vitjax.views.view import Drawing, Drawings, View


def draw(
    results: Results, *, layer: int | None = None, query: tuple[int, int] | None = None,
    image: int = 1, smooth: bool = True, scale: str | None = None,
) -> Drawings:  # fmt: skip
    """Each head of a layer, each layer of one image, and the heads' mean over depth.

    Arrays are weights; figures show them divided by uniform attention.

    Args:
        results: results with the trunk's attention weights.
        layer: layer, from 1; by default the last.
        query: row and column, from 1, of the attending patch. By default the class token attends,
            or the central patch in a trunk without one.
        image: image of the figure of all layers, from 1.
        smooth: interpolate maps over images.
        scale: scale of colours, `shared` or `each` map's own; by default `shared`.
    """
    weights = results.trunk_weights()
    rows, columns = results.grid
    if query is None:
        patch = None if results.trunk.class_token else results.centre
    elif 1 <= query[0] <= rows and 1 <= query[1] <= columns:
        patch = query[0] - 1, query[1] - 1
    else:
        rule = f'a row and column of {rows}x{columns} patches, from 1 on'
        raise ValueError(f'query must be {rule}: got {query[0]} {query[1]}.')
    token, who = 0, "the class token's attention"
    if patch is not None:
        token, (row, column) = results.token(patch), patch
        who = f'attention of the patch in row {row + 1}, column {column + 1}'
    head_maps = functools.partial(
        attention.head_maps, grid=results.grid, prefix=results.trunk.prefix, query=token
    )
    maps, uniform = np.asarray(head_maps(weights)), weights.shape[-1]
    index, one, pictures = layer_index(layer, len(maps)), results.image(image), results.pictures
    look = UNIFORM._replace(how=scale or 'shared')
    at = f'layer {index + 1} of {len(maps)}'

    own = maps[index]
    figure = figures.heads(pictures, uniform * own, look, title=f'{who}, {at}', query=patch)
    yield Drawing('heads', figure, {'maps': own})
    own = maps[:, one]
    figure = figures.heads_by_layer(
        pictures[one], uniform * own, look, title=f'{who}, {results.names[one]}', query=patch
    )
    yield Drawing('heads_by_layer', figure, {'maps': own})
    mean = maps.mean(2)
    frames = figures.over_depth(
        pictures, uniform * mean, look, title=f'{who}, mean of heads', smooth=smooth
    )
    yield Drawing('heads_over_depth', frames, {'maps': mean})
    if MIXED in results.found:
        mixed = np.asarray(head_maps(results.found[MIXED][index]))
        look = look._replace(label=f'{look.label}\n(blue: below 0)', signed=True)
        title = f'{who} after heads are mixed, {at}'
        figure = figures.heads(pictures, uniform * mixed, look, title=title, query=patch)
        yield Drawing('heads_mixed', figure, {'maps': mixed})


VIEW = View('attention', draw, f'{WEIGHTS}|{MIXED}')
