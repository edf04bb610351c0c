"""Training: learning curves, attention by epoch, the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import NullFormatter

from vitjax.data.order import evenly
from vitjax.figures.charts import charts, number, percent, write_cells
from vitjax.figures.panels import overlay, panels, scaled, show
from vitjax.figures.report import TITLES
from vitjax.figures.style import WIDTH, Figure, styled
from vitjax.figures.text import headed, named, short


@styled
def learning_curves(records: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy, top-5 accuracy and loss against epochs, training and validation.

    Top-5 accuracy is left out if it is 100% throughout, as with five classes or fewer.

    Args:
        records: lines of `metrics.jsonl`, with `epoch`, `split` and the values.
    """
    names = dict(TITLES)
    if all(record.get('top5', 1) == 1 for record in records):
        del names['top5']
    figure, axes = charts(WIDTH, 2.2, len(names))
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        for split, colour in (('train', 'C0'), ('validation', 'C1')):
            rows = [r for r in records if r['split'] == split and name in r]
            epochs, values = [r['epoch'] for r in rows], [r[name] for r in rows]
            marker = 'o' if len(rows) < 30 else None
            axis.plot(epochs, values, color=colour, label=split, marker=marker)
        axis.set(title=title, xlabel='epoch')
        number(axis)
        if name != 'loss':
            percent(axis.yaxis)
    axes[-1].legend()
    return figure


@styled
def attention_strip(
    images: np.ndarray, maps: np.ndarray, *, epochs: Sequence[float], true: Sequence[str],
    predicted: Sequence[Sequence[str]], title: str, label: str, least: float = 0.0,
) -> Figure:  # fmt: skip
    """Attention as a model trains: images with their true classes, then overlays by epoch.

    Args:
        images: [n, H, W, 3] in 0..1.
        maps: [epochs, n, rows, columns], 0 or more. Of more than eight epochs, eight are shown.
        epochs: epochs of the rows.
        true: classes of the images, above them.
        predicted: predicted class of each image by epoch, above its map.
        title: the attending token and its layer.
        label: quantity of the maps, at the colour bar.
        least: smallest end of the scale of colours.
    """
    shown: list[int] = evenly(len(maps), 8).tolist()
    count = len(images)
    colours = scaled(maps, label, least=least)
    side = min(0.9, (WIDTH - 0.7) / count)
    figure, axes = panels(1 + len(shown), count, side=side, top=0.12)
    axes[0, 0].set_ylabel('image')
    for axis, image, name in zip(axes[0], images, true, strict=True):
        show(axis, image, short(name, 12))
    for row, epoch in zip(axes[1:], shown, strict=True):
        row[0].set_ylabel(f'epoch {epochs[epoch]:.4g}')
        each = zip(row, images, maps[epoch], predicted[epoch], strict=True)
        for axis, image, values, name in each:
            overlay(axis, image, values, colours.norm)
            axis.set_title(short(name, 12))
    colours.bar(figure, axes)
    above = 'true class above each image, predicted class above each map'
    headed(figure, f'{title}; {above}')
    return figure


@styled
def confusion(matrix: np.ndarray, classes: Sequence[str], *, normalised: bool = False) -> Figure:
    """Confusion matrix; it shows numbers for up to 20 classes, and names for up to 120.

    Args:
        matrix: counts [true, predicted].
        classes: names in the same order.
        normalised: show percent of each true class instead of counts on a logarithmic scale.
    """
    count = len(classes)
    side = min(WIDTH - 0.8, max(2.4, 1.2 + 0.32 * count))
    figure, (axis,) = charts(side + 0.8, side)
    most = max(2, matrix.max())
    values, norm, middle, label = matrix, LogNorm(1, most), np.sqrt(most), 'images'
    if normalised:
        values = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        norm, middle, label = Normalize(0, 100), 50, '% of the true class'
    image = axis.imshow(np.ma.masked_where(matrix < 1, values), cmap='viridis', norm=norm)
    axis.set(xlabel='predicted', ylabel='true')
    if count <= 120:
        size = min(7, 72 * 0.9 * (side - 1) / count)  # points of a row
        axis.tick_params(labelsize=size, length=1 if count > 50 else 2.5)
        for one, turned in ((axis.xaxis, 90), (axis.yaxis, 0)):
            one.set_ticks(range(count), [named(name, 24) for name in classes], rotation=turned)
    if count <= 20:
        write_cells(
            axis, values, lambda *cell: f'{values[cell]:.0f}' if matrix[cell] else '',
            middle=middle, size=7,
        )  # fmt: skip
    else:  # lines for the eye
        places = np.arange(5, count, 5) - 0.5
        lines = {'color': '0.6', 'linewidth': 0.25}
        axis.hlines(places, -0.5, count - 0.5, **lines)
        axis.vlines(places, -0.5, count - 0.5, **lines)
    bar = figure.colorbar(image, label=label, shrink=0.8, fraction=0.05, pad=0.02, format='{x:.0f}')
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return figure
