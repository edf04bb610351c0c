"""Layers by epoch as a model trains: a strip of pictures, and a film."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation

from vitjax.data.order import evenly
from vitjax.figures.charts import heat, number
from vitjax.figures.style import COLUMN, WIDTH, Figure, ours, styled
from vitjax.figures.text import headed

Records = Sequence[dict[str, Any]]  # `epoch`, and `cka` [L, L], `rank` [L] or both


@styled
def strip(records: Records) -> Figure:
    """CKA of depth with depth at some epochs in a row, and effective rank over all epochs."""
    with_cka, with_rank = ('cka' in records[0], 'rank' in records[0])
    figure = Figure(figsize=(WIDTH, 1.7 * with_cka + 2.2 * with_rank), layout='constrained')
    heights = [1.7] * with_cka + [2.2] * with_rank
    parts = [*figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]]
    if with_cka:
        part, shown = parts.pop(0), evenly(len(records), 6)
        axes = part.subplots(1, len(shown), squeeze=False)[0]
        images = [_similarity(axis, records[i]) for axis, i in zip(axes, shown, strict=True)]
        axes[0].set_ylabel('layer')
        part.colorbar(images[0], ax=axes, label='CKA', shrink=0.8)
        headed(part, _policy(records[0]))
    if with_rank:
        axis = parts[0].subplots()
        epochs = [record['epoch'] for record in records]
        ranks = np.array([record['rank'] for record in records])
        shown = evenly(ranks.shape[1], 8)
        for layer in shown:
            axis.plot(epochs, ranks[:, layer], label=f'layer {layer + 1}')
        axis.set(xlabel='epoch', ylabel='effective rank of the patches')
        number(axis)
        axis.legend(loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


@styled
def film(records: Records) -> FuncAnimation:
    """A frame for each record: CKA of depth with depth, and effective rank by layer."""
    kinds = [kind for kind in ('cka', 'rank') if kind in records[0]]
    figure = Figure(figsize=(COLUMN * len(kinds), 2.9), layout='constrained')
    axes = dict(zip(kinds, figure.subplots(1, len(kinds), squeeze=False)[0], strict=True))
    ranks = np.array([record.get('rank', [0]) for record in records])
    image = None
    if 'cka' in axes:
        image = _similarity(axes['cka'], records[0])
        axes['cka'].set_ylabel('layer')
        figure.colorbar(image, ax=axes['cka'], label='CKA', shrink=0.8)
    line: Any = None
    if 'rank' in axes:
        axis = axes['rank']
        (line,) = axis.plot(np.arange(1, ranks.shape[1] + 1), ranks[0], 'o-')
        axis.set(xlabel='layer', ylabel='effective rank of the patches')
        axis.set_ylim(0, 1.05 * ranks.max())
        number(axis)

    @ours()
    def draw(index: int) -> list[Any]:
        record = records[index]
        if image is not None:
            image.set_data(record['cka'])
            axes['cka'].set_title('')
        if line is not None:
            line.set_ydata(record['rank'])
        headed(figure, f'epoch {record["epoch"]:.4g}')
        return [artist for artist in (image, line) if artist is not None]

    return FuncAnimation(figure, draw, frames=len(records), interval=250)


def _similarity(axis: Any, record: dict[str, Any]) -> Any:
    """CKA of every layer with every layer, the first at the bottom left."""
    matrix = np.array(record['cka'])
    axis.set_title(f'epoch {record["epoch"]:.4g}')
    layers = range(1, len(matrix) + 1)
    look: Any = {'most': 4, 'aspect': 'equal', 'origin': 'lower', 'cmap': 'magma'}
    return heat(axis, matrix, ('layer', layers), ('', layers), vmin=0, vmax=1, **look)


def _policy(record: dict[str, Any]) -> str:
    taken = {'class': 'class token', 'mean': 'mean of the patches'}[record['tokens']]
    return f'CKA of depth with depth: {taken}, {record["images"]} validation images'
