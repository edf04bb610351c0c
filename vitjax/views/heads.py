"""heads: attention of the class token, or of one patch, to the patches."""

import functools

import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.forward import MIXED, WEIGHTS, Results
from vitjax.views.view import Drawing, Drawn, View


def draw(results: Results) -> Drawn:
    """Each head of a layer, each layer of one image, and the heads' mean over depth.

    Arrays are weights; figures show them divided by uniform attention.

    Args:
        results: results with the trunk's attention weights.
            Options: `layer`, `query`, `image`, `enlarge`, `scale`.
    """
    weights, options = results.trunk_weights(), results.options
    photographs, names, patch = results.photographs, results.names, _attending(results)
    token, who = 0, "the class token's attention"
    if patch is not None:
        token = results.token(patch)
        who = f'attention of the patch in row {patch[0] + 1}, column {patch[1] + 1}'
    head_maps = functools.partial(
        attention.head_maps, grid=results.grid, prefix=results.trunk.prefix, query=token
    )
    maps, uniform = np.asarray(head_maps(weights)), weights.shape[-1]
    index, one = results.layer(len(maps)), results.image()
    scale = figures.UNIFORM._replace(how=options.scale or 'shared')
    at = f'layer {index + 1} of {len(maps)}'

    own = maps[index]
    figure = figures.heads(
        photographs, uniform * own, scale, title=f'{who}, {at}', names=names, query=patch
    )
    yield Drawing('heads', figure, {'maps': own})
    own = maps[:, one]
    figure = figures.heads_by_layer(
        photographs[one], uniform * own, scale, title=f'{who}, {names[one]}', query=patch
    )
    yield Drawing('heads_by_layer', figure, {'maps': own, 'names': np.array(names[one : one + 1])})
    mean = maps.mean(2)
    frames = figures.over_depth(
        photographs, uniform * mean, scale, title=f'{who}, mean of heads', names=names,
        smooth=options.smooth,
    )  # fmt: skip
    yield Drawing('heads_over_depth', frames, {'maps': mean})
    if MIXED in results.found:
        mixed = np.asarray(head_maps(results.found[MIXED][index]))
        scale = scale._replace(label=f'{scale.label}\n(blue: below 0)', signed=True)
        title = f'{who} after heads are mixed, {at}'
        figure = figures.heads(
            photographs, uniform * mixed, scale, title=title, names=names, query=patch
        )
        yield Drawing('heads_mixed', figure, {'maps': mixed})


def _attending(results: Results) -> tuple[int, int] | None:
    """Row and column, from 0, of the attending patch; None for the class token.

    Raises:
        ValueError: if there is no such patch.
    """
    rows, columns = results.grid
    if results.options.query is None:
        return None if results.trunk.class_token else results.centre
    row, column = results.options.query
    if 1 <= row <= rows and 1 <= column <= columns:
        return row - 1, column - 1
    rule = f'a row and column of {rows}x{columns} patches, from 1 on'
    raise ValueError(f'query must be {rule}: got {row} {column}.')


VIEW = View('attention', draw, f'{WEIGHTS}|{MIXED}')
