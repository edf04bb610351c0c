"""Layers by epoch as a model trains: a strip of pictures, and a film."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation

from vitjax.data.order import evenly
from vitjax.figures.charts import charts, heat, hues, number
from vitjax.figures.figure import Figure, styled
from vitjax.figures.style import ours

Records = Sequence[dict[str, Any]]  # `epoch`, and `cka` [L, L], `rank` [L] or both


@styled
def strip(records: Records) -> Figure:
    """CKA of depth with depth at some epochs in a row, and effective rank over all epochs."""
    figure = Figure()
    if 'cka' in records[0]:
        shown = [records[i] for i in evenly(len(records), 6)]
        axes = figure.grid(1, len(shown), width=0.9, height=0.9)[0]
        images = [_similarity(axis, record) for axis, record in zip(axes, shown, strict=True)]
        for axis in axes[1:]:
            axis.set(yticks=[], ylabel='')
        figure.bar(images[0], axes, 'CKA')
        figure.suptitle(_policy(records[0]))
    if 'rank' in records[0]:
        _, (axis,) = charts(width=5.4, figure=figure)
        epochs = [record['epoch'] for record in records]
        ranks = np.array([record['rank'] for record in records])
        layers = evenly(ranks.shape[1], 8)
        axis.set_prop_cycle(color=hues(len(layers)))
        lines = axis.plot(epochs, ranks[:, layers])
        axis.set(xlabel='epoch', ylabel='effective rank of the patches')
        number(axis)
        figure.key(lines, [f'layer {layer + 1}' for layer in layers])
    return figure


@styled
def film(records: Records) -> FuncAnimation:
    """A frame for each record: CKA of depth with depth, and effective rank by layer."""
    kinds = [kind for kind in ('cka', 'rank') if kind in records[0]]
    figure, axes = charts(len(kinds), width=2.2, height=2.2)
    image: Any = None
    line: Any = None
    if 'cka' in kinds:
        image = _similarity(axes[0], records[0])
        axes[0].set_title('')
        figure.bar(image, axes[0], 'CKA')
    if 'rank' in kinds:
        axis, ranks = axes[-1], np.array([record['rank'] for record in records])
        (line,) = axis.plot(np.arange(1, ranks.shape[1] + 1), ranks[0], 'o-')
        axis.set(xlabel='layer', ylabel='effective rank of the patches')
        axis.set_ylim(0, 1.05 * np.nan_to_num(ranks).max() or 1)
        number(axis)
    title = figure.suptitle(f'epoch {records[0]["epoch"]:.4g}')
    figure.lay_out()

    @ours()
    def draw(index: int) -> list[Any]:
        record = records[index]
        if image is not None:
            image.set_data(record['cka'])
        if line is not None:
            line.set_ydata(record['rank'])
        title.set_text(f'epoch {record["epoch"]:.4g}')
        return [artist for artist in (image, line) if artist is not None]

    return FuncAnimation(figure, draw, frames=len(records), interval=250)


def _similarity(axis: Any, record: dict[str, Any]) -> Any:
    """CKA of every layer with every layer, the first at the bottom left."""
    matrix = np.array(record['cka'])
    axis.set_title(f'epoch {record["epoch"]:.4g}')
    layers = range(1, len(matrix) + 1)
    look: Any = {'aspect': 'equal', 'origin': 'lower', 'cmap': 'magma', 'vmin': 0, 'vmax': 1}
    return heat(axis, matrix, ('layer', layers), ('layer', layers), **look)


def _policy(record: dict[str, Any]) -> str:
    taken = {'class': 'class token', 'mean': 'mean of the patches'}[record['tokens']]
    return f'CKA of depth with depth: {taken}, {record["images"]} validation images'
