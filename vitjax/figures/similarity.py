"""Similarity of layers, and accuracy of probes on them."""

from collections.abc import Mapping, Sequence

import numpy as np

from vitjax.figures.charts import band, charts, heat, percent, write_cells
from vitjax.figures.style import COLUMN, HEIGHT, WIDTH, Figure, styled
from vitjax.figures.text import LETTER, headed, named


@styled
def heat_map(
    matrix: np.ndarray, x_names: Sequence[str], y_names: Sequence[str], *, measure: str,
    x_label: str, y_label: str, title: str = '', span: tuple[float, float] | None = None,
) -> Figure:  # fmt: skip
    """Similarity of every layer with every layer; the first layers lie at the bottom left.

    Args:
        matrix: [layers of x, layers of y].
        x_names: layers of x, drawn from bottom to top.
        y_names: layers of y, drawn from left to right.
        measure: quantity of the colours.
        x_label: name of model x.
        y_label: name of model y.
        title: title of the figure.
        span: values of the first and the last colour; None fits them to the matrix.
    """
    rows, columns = matrix.shape
    side = min(0.3, (WIDTH - 1.8) / columns, (HEIGHT - 1.2) / rows)  # inches of a cell
    (x_ticks, x_said), (y_ticks, y_said) = numbered(x_names), numbered(y_names)
    wide, high = (LETTER * max(map(len, ticks)) for ticks in (x_ticks, y_ticks))
    figure, (axis,) = charts(
        max(COLUMN, 1.8 + side * columns + max(0, wide - 0.5)),
        max(2.6, 1.2 + side * rows + (0 if y_said else high)),
    )
    first, last = span or (None, None)
    image = heat(
        axis, matrix, (f'{named(y_label, 40)}{y_said}', y_ticks),
        (f'{named(x_label, 40)}{x_said}', x_ticks), rotation=0 if y_said else 90,
        most=max(rows, columns), aspect='equal', origin='lower', cmap='magma',
        vmin=first, vmax=last,
    )  # fmt: skip
    headed(figure, title)
    if side > 0.25:
        middle = float(np.mean(image.get_clim()))
        write_cells(axis, matrix, lambda *ij: f'{matrix[ij]:.2f}', middle=middle, size=6)
    figure.colorbar(image, label=measure, shrink=0.8)
    return figure


def numbered(names: Sequence[str]) -> tuple[list[str], str]:
    """Ticks of layers, numbers if all have one path, and the text that the axis label then adds."""
    paths, numbers = {name.rpartition(' ')[0] for name in names}, [n.split(' ')[-1] for n in names]
    if len(paths) > 1 or not all(number.isdecimal() for number in numbers):
        return [named(name, 30) for name in names], ''
    (path,) = paths
    return numbers, ', layer' if path == 'blocks' else f', layer of {path}'


@styled
def probe_accuracy(
    names: Sequence[str], accuracy: Mapping[str, np.ndarray],
    interval: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str = '',
) -> Figure:  # fmt: skip
    """Accuracy of each probe at every layer, its interval shaded.

    Args:
        names: layers.
        accuracy: accuracy by probe, [layers].
        interval: low and high by probe, [layers] each.
        title: title of the figure.
    """
    ticks, said = numbered(names)
    below = 0.0 if said else LETTER * max(map(len, ticks))
    figure, (axis,) = charts(min(WIDTH, max(COLUMN, 1.2 + 0.25 * len(names))), 2.6 + below)
    places = np.arange(len(names))
    for i, (probe, values) in enumerate(accuracy.items()):
        band(axis, places, (values, *interval[probe]), marker='o', color=f'C{i}', label=probe)
    axis.set_xticks(places, ticks, rotation=0 if said else 90)
    axis.set_xlabel(said.removeprefix(', '))
    percent(axis.yaxis)
    axis.set(ylabel='accuracy')
    headed(figure, title)
    axis.grid(True)
    axis.legend()
    return figure
