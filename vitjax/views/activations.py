"""Activations of some layers."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as token_figures
from vitjax.figures.panels import some
from vitjax.views.seen import Result, Seen


def activations(seen: Seen) -> Iterator[Result]:
    """Activations of some layers, patch by patch or channel by channel."""
    maps = seen.feature_maps()
    if maps:
        paths = [list(maps)[i] for i in some(len(maps), 4)]
        grey = [np.asarray(tokens.channels(maps[path][0])) for path in paths]
        titles = [
            f'{path}: {m.shape[2]} channels of {m.shape[0]}x{m.shape[1]}'
            + (', the first 64' if m.shape[2] > 64 else '')
            for path, m in zip(paths, grey, strict=True)
        ]
        arrays = dict(zip(paths, grey, strict=True))
        yield 'activations', token_figures.channels(grey, titles=titles), arrays
        return
    blocks = seen.tokens()[:, 0, seen.prefix :]
    layers = some(len(blocks), 3)
    blocks = blocks[jnp.array(layers)]
    spread = jnp.maximum(blocks.std(1, keepdims=True), tokens.TINY)
    alike = (
        blocks - blocks.mean(1, keepdims=True)
    ) / spread  # what is in all patches hides the rest
    tiles = np.asarray(tokens.tiles(alike, grid=seen.grid))
    titles = [f'layer {i + 1}, each channel standardised over patches' for i in layers]
    figure = token_figures.activations(seen.pictures[0], tiles, grid=seen.grid, titles=titles)
    yield 'activations', figure, {'tiles': tiles}
