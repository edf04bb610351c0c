"""What training shows: learning curves, attention while it learns, the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm

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
def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """The confusion matrix, counts on a logarithmic scale; numbers are written in up to 20 classes.

    Args:
        matrix: [true, predicted] counts.
        classes: names in the same order.
    """
    count = len(classes)
    side = min(12.0, max(4.0, 2.5 + 0.45 * count))
    figure, (axis,) = charts(side + 1, side)
    shown = np.ma.masked_less(matrix, 1)
    image = axis.imshow(shown, cmap='viridis', norm=LogNorm(1, max(2, matrix.max())))
    axis.set(xlabel='predicted', ylabel='true')
    if count <= 50:
        axis.set_xticks(range(count), classes, rotation=90)
        axis.set_yticks(range(count), classes)
    if count <= 20:
        middle = np.sqrt(max(2, matrix.max()))  # of the logarithmic scale
        write_cells(axis, matrix, lambda *cell: str(matrix[cell] or ''), middle=middle)
    figure.colorbar(image, label='images', shrink=0.8)
    return figure
