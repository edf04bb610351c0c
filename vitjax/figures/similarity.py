"""Similarity of layers, and what can be read off them."""

from collections.abc import Mapping, Sequence

import numpy as np

from vitjax.figures.panels import charts, percent, write_cells
from vitjax.figures.style import Figure, styled


@styled
def heat_map(
    matrix: np.ndarray, x_names: Sequence[str], y_names: Sequence[str], *, measure: str,
    x_label: str, y_label: str, title: str = '', span: tuple[float, float] | None = None,
) -> Figure:  # fmt: skip
    """Similarity of every layer with every layer; the first layers lie at the bottom left.

    Args:
        matrix: [layers of x, layers of y].
        x_names: the layers of x, drawn from bottom to top.
        y_names: the layers of y, drawn from left to right.
        measure: what the colours are.
        x_label: which model x is.
        y_label: which model y is.
        title: anything more.
        span: values of the first and the last colour; None fits them to the matrix.
    """
    rows, columns = matrix.shape
    side = 0.32 if max(rows, columns) <= 30 else 0.22
    figure, (axis,) = charts(max(4.5, 2.6 + side * columns), max(3.6, 1.7 + side * rows))
    low, high = span or (None, None)
    image = axis.imshow(matrix, origin='lower', cmap='magma', vmin=low, vmax=high)
    axis.set_xticks(range(columns), y_names, rotation=90)
    axis.set_yticks(range(rows), x_names)
    axis.set(xlabel=y_label, ylabel=x_label)
    axis.set_title(title)
    if rows * columns <= 200:
        middle = np.mean(image.get_clim())
        write_cells(axis, matrix, lambda *ij: f'{matrix[ij]:.2f}', middle=middle, size=6)
    figure.colorbar(image, label=measure, shrink=0.8)
    return figure


@styled
def probe_accuracy(
    names: Sequence[str], accuracy: Mapping[str, np.ndarray],
    interval: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str = '',
) -> Figure:  # fmt: skip
    """Accuracy of each probe at every layer, its interval shaded.

    Args:
        names: the layers.
        accuracy: of each probe, [layers].
        interval: of each probe, low and high, [layers] each.
        title: anything more.
    """
    figure, (axis,) = charts(max(5.0, 2 + 0.35 * len(names)), 4)
    places = np.arange(len(names))
    for i, (probe, values) in enumerate(accuracy.items()):
        axis.plot(places, values, marker='o', color=f'C{i}', label=probe)
        axis.fill_between(places, *interval[probe], color=f'C{i}', alpha=0.2, linewidth=0)
    axis.set_xticks(places, names, rotation=90)
    percent(axis.yaxis)
    axis.set(ylabel='accuracy')
    axis.set_title(title)
    axis.grid(True)
    axis.legend()
    return figure
