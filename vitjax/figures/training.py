"""Training: learning curves, attention by epoch, the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.ticker import MaxNLocator

from vitjax.data.order import evenly
from vitjax.figures.charts import charts, heat, number, percent, write_cells
from vitjax.figures.figure import Figure, styled
from vitjax.figures.panels import GAP, Scale, overlay, show, table
from vitjax.figures.report import TITLES
from vitjax.figures.text import named, short

_LOOK = {'train': ('C0', 'o'), 'validation': ('C1', 's')}


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
    figure, axes = charts(len(names))
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        for split, (color, mark) in _LOOK.items():
            rows = [r for r in records if r['split'] == split and name in r]
            epochs, values = [r['epoch'] for r in rows], [r[name] for r in rows]
            axis.plot(epochs, values, color=color, marker=mark if len(rows) < 30 else None)
        axis.set(title=title, xlabel='epoch')
        number(axis)
        if name != 'loss':
            percent(axis.yaxis)
    figure.key(axes[-1].lines, [*_LOOK])
    return figure


@styled
def attention_strip(
    images: np.ndarray, maps: np.ndarray, scale: Scale, *, epochs: Sequence[float],
    true: Sequence[str], predicted: Sequence[Sequence[str]], title: str,
) -> Figure:  # fmt: skip
    """Attention as a model trains: images with their true classes, then overlays by epoch.

    Args:
        images: [n, H, W, 3] in 0..1.
        maps: [epochs, n, rows, columns], 0 or more. Of more than eight epochs, eight are shown.
        scale: scale of the maps.
        epochs: epochs of the rows.
        true: classes of the images, above them.
        predicted: predicted class of each image by epoch, above its map.
        title: the attending token and its layer.
    """
    shown: list[int] = evenly(len(maps), 8).tolist()
    colors = scale.colors(maps)
    names = ['image', *(f'epoch {epochs[epoch]:.4g}' for epoch in shown)]
    figure, axes, _ = table(len(images), names, 8, side=1.0)
    for axis, image, name in zip(axes[0], images, true, strict=True):
        show(axis, image, short(name, 12))
    for row, epoch in zip(axes[1:], shown, strict=True):
        each = zip(row, images, maps[epoch], predicted[epoch], strict=True)
        for axis, image, values, name in each:
            overlay(axis, image, values, colors.norm)
            axis.set_title(short(name, 12))
    colors.bar(figure, axes)
    above = 'true class above each image, predicted class above each map'
    figure.suptitle(f'{title}; {above}')
    return figure


@styled
def confusion(matrix: np.ndarray, classes: Sequence[str], *, normalised: bool = False) -> Figure:
    """Confusion matrix: errors the darker, the more there are; correct predictions light blue.

    It shows numbers if they fit, and names for up to 120 classes.

    Args:
        matrix: counts [true, predicted].
        classes: names in the same order.
        normalised: show percent of each true class instead of counts.
    """
    count, total = len(classes), max(1, int(matrix.sum()))
    side = min(5.8, max(1.6, 0.34 * count))
    figure, (axis,) = charts(width=side, height=side)
    values, label = matrix, 'images'
    if normalised:
        values = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        label = '% of the true class'
    right = np.eye(count, dtype=bool)
    errors = np.ma.masked_where(right | (matrix < 1), values)
    most = max(1, errors.max() if errors.count() else 1)
    names = [named(name, 24) for name in classes] if count <= 120 else [*range(count)]
    image = heat(
        axis,
        errors,
        ('predicted', names),
        ('true', names),
        cmap='Reds',
        norm=PowerNorm(0.5, 0, most),
    )
    show(axis, np.ma.masked_where(~right, right), cmap=ListedColormap([GAP]))
    if count <= 120:
        # A row's height in points: names of many classes are read in a vector format.
        size = min(7, 0.8 * 72 * side / count)
        axis.tick_params(labelsize=size, length=1 if count > 50 else 2.5)
    said = np.where(matrix, np.char.mod('%.0f', values), '')
    write_cells(axis, np.where(right, 0, -values), said, middle=-0.4 * most)
    if count > 20:  # lines for the eye
        places = np.arange(5, count, 5) - 0.5
        lines = {'color': '0.6', 'linewidth': 0.25}
        axis.hlines(places, -0.5, count - 0.5, **lines)
        axis.vlines(places, -0.5, count - 0.5, **lines)
    correct = f'{np.trace(matrix) / total:.1%} of {matrix.sum():,} images are correct (blue)'
    figure.suptitle(f'{correct}; errors are red')
    figure.bar(image, axis, f'errors ({label})', ticks=MaxNLocator(5, integer=True))
    return figure
