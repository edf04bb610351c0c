"""What training shows: learning curves, attention while it learns, the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize

from vitjax.figures.panels import charts, number, percent, write_cells
from vitjax.figures.style import WIDTH, Figure, styled


@styled
def learning_curves(records: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy, top-5 accuracy and loss against epochs, training and validation.

    Top-5 accuracy is left out where it is 100% throughout, as it is of five classes or fewer.

    Args:
        records: lines of `metrics.jsonl`: `epoch`, `split`, and the values.
    """
    names = {'accuracy': 'accuracy', 'top5': 'top-5 accuracy', 'loss': 'loss'}
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
def attention_pictures(images: np.ndarray, maps: np.ndarray, titles: Sequence[str]) -> Figure:
    """Images above, the class token's attention over them below.

    Args:
        images: [n, H, W, 3] in 0..1.
        maps: [n, rows, columns], not negative.
        titles: one for each image.
    """
    count = len(images)
    figure = Figure(figsize=(1.5 * count, 3.4), layout='constrained')
    axes = figure.subplots(2, count, squeeze=False)
    extent = (-0.5, images.shape[2] - 0.5, images.shape[1] - 0.5, -0.5)
    heat: Any = {'cmap': 'inferno', 'alpha': 0.65, 'interpolation': 'bicubic', 'vmin': 0}
    for column, image, values, title in zip(axes.T, images, maps, titles, strict=True):
        for axis in column:
            axis.imshow(image, extent=extent, interpolation='nearest')
            axis.axis('off')
        column[0].set_title(title)
        column[1].imshow(values, extent=extent, **heat)
    return figure


@styled
def confusion(matrix: np.ndarray, classes: Sequence[str], *, normalised: bool = False) -> Figure:
    """The confusion matrix; numbers are written in up to 20 classes, names in up to 120.

    Args:
        matrix: [true, predicted] counts.
        classes: names in the same order.
        normalised: percent of each true class in place of counts on a logarithmic scale.
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
        size = min(7, 72 * 0.9 * (side - 1) / count)  # of the points that a class has
        axis.tick_params(labelsize=size, length=1 if count > 50 else 2.5)
        for one, turned in ((axis.xaxis, 90), (axis.yaxis, 0)):
            one.set_ticks(range(count), classes, rotation=turned, parse_math=False)
    if count <= 20:
        write_cells(
            axis, values, lambda *cell: f'{values[cell]:.0f}' if matrix[cell] else '', middle=middle
        )
    else:  # lines for the eye
        places = np.arange(5, count, 5) - 0.5
        lines = {'color': '0.6', 'linewidth': 0.25}
        axis.hlines(places, -0.5, count - 0.5, **lines)
        axis.vlines(places, -0.5, count - 0.5, **lines)
    figure.colorbar(image, label=label, shrink=0.8, fraction=0.05, pad=0.02, format='{x:.0f}')
    return figure
