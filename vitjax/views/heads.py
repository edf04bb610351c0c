"""Where each head looks, over the image."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as attention_figures
from vitjax.views.seen import MIXED, Result, Seen


def heads(seen: Seen) -> Iterator[Result]:
    """Where the class token, or a patch, looks: each head, each layer, over the image."""
    weights = seen.trunk_weights()
    patch, query = seen.options.query, 0
    if patch is None and getattr(seen.model, 'pool', '') != 'class':
        patch = seen.centre
    if patch is not None:
        if not (0 <= patch[0] < seen.grid[0] and 0 <= patch[1] < seen.grid[1]):
            raise ValueError(
                f'--query must be a row and column of {seen.grid[0]}x{seen.grid[1]} patches, '
                f'from 0 on: got {patch[0]} {patch[1]}.'
            )
        query = seen.prefix + patch[0] * seen.grid[1] + patch[1]
    options: Any = {'grid': seen.grid, 'prefix': seen.prefix, 'query': query}
    maps = np.asarray(attention.head_maps(weights, **options))
    layer = seen.layer(len(maps))
    pictures = seen.pictures
    mark: Any = {'query': patch}
    yield 'heads', attention_figures.heads(pictures, maps[layer], **mark), {'maps': maps[layer]}
    by_layer = attention_figures.heads_by_layer(pictures[0], maps[:, 0], **mark)
    yield 'heads_by_layer', by_layer, {'maps': maps[:, 0]}
    mean = maps.mean(2)
    frames = [
        attention_figures.frame(pictures, m, f'layer {i + 1} of {len(mean)}', smooth=seen.smooth)
        for i, m in enumerate(mean)
    ]
    yield 'heads_over_depth', frames, {'maps': mean}
    if MIXED in seen.found:
        mixed = np.asarray(attention.head_maps(seen.found[MIXED][layer], **options))
        figure = attention_figures.heads(pictures, mixed, signed=True, **mark)
        yield 'heads_mixed', figure, {'maps': mixed}
