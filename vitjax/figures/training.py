"""What training shows: learning curves, attention while it learns, the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from vitjax.figures.panels import charts, number, write_cells


def learning_curves(records: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy, top-5 accuracy and loss against epochs, training and validation.

    Args:
        records: lines of `metrics.jsonl`: `epoch`, `split`, and the values.
    """
    figure, axes = charts(12, 3.6, 3)
    for axis, name in zip(axes, ('accuracy', 'top5', 'loss'), strict=True):
        for split, colour in (('train', 'C0'), ('validation', 'C1')):
            rows = [r for r in records if r['split'] == split and name in r]
            epochs, values = [r['epoch'] for r in rows], [r[name] for r in rows]
            marker = 'o' if len(rows) < 30 and split == 'validation' else None
            axis.plot(epochs, values, color=colour, label=split, marker=marker, markersize=3)
        title = {'top5': 'top-5 accuracy'}.get(name, name)
        axis.set(title=title, xlabel='epoch')
        if name != 'loss':
            axis.yaxis.set_major_formatter('{x:.0%}')
        number(axis)
    axes[0].legend(frameon=False)
    return figure


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
        column[0].set_title(title, fontsize=9)
        column[1].imshow(values, extent=extent, **heat)
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str], *, normalised: bool = False) -> Figure:
    """The confusion matrix; numbers are written in up to 20 classes, names in up to 120.

    Args:
        matrix: [true, predicted] counts.
        classes: names in the same order.
        normalised: shares of each true class in place of counts on a logarithmic scale.
    """
    count = len(classes)
    side = min(12.0, max(4.0, 2.5 + 0.45 * count))
    figure, (axis,) = charts(side + 1, side)
    most = max(2, matrix.max())
    norm, middle, label = LogNorm(1, most), np.sqrt(most), 'images'
    values, words = matrix, lambda *cell: str(matrix[cell] or '')
    if normalised:
        values = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        norm, middle, label = Normalize(0, 1), 0.5, 'share of the true class'
        words = lambda *cell: f'{100 * values[cell]:.0f}' if matrix[cell] else ''  # noqa: E731
    image = axis.imshow(np.ma.masked_where(matrix < 1, values), cmap='viridis', norm=norm)
    axis.set(xlabel='predicted', ylabel='true')
    if count <= 120:
        axis.tick_params(labelsize=min(10, 600 / count), length=2 if count > 50 else 3.5)
        for one, turned in ((axis.xaxis, 90), (axis.yaxis, 0)):
            one.set_ticks(range(count), classes, rotation=turned, parse_math=False)
    if count > 20:  # lines for the eye
        for place in range(5, count, 5):
            axis.axhline(place - 0.5, color='0.5', linewidth=0.3)
            axis.axvline(place - 0.5, color='0.5', linewidth=0.3)
    else:
        write_cells(axis, values, words, middle=middle, size=7)
    bar = figure.colorbar(image, label=label, shrink=0.8, fraction=0.05, pad=0.02)
    if normalised:
        bar.ax.yaxis.set_major_formatter('{x:.0%}')
    return figure
