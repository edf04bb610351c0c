"""Similarity of layers, and accuracy of probes on them."""

from collections.abc import Mapping, Sequence

import numpy as np

from vitjax.figures.charts import band, charts, heat, hues, name_ticks, percent, write_cells
from vitjax.figures.figure import Figure, styled
from vitjax.figures.text import named


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
        measure: quantity of the colors.
        x_label: name of model x.
        y_label: name of model y.
        title: title of the figure.
        span: values of the first and the last color; None fits them to the matrix.
    """
    rows, columns = matrix.shape
    side = min(max(0.3, 1.2 / rows, 1.2 / columns), 5.0 / columns, 7.0 / rows)  # inches of a cell
    (x_ticks, x_said), (y_ticks, y_said) = numbered(x_names), numbered(y_names)
    figure, (axis,) = charts(width=max(0.6, side * columns), height=max(0.6, side * rows))
    first, last = span or (None, None)
    image = heat(
        axis, matrix, (f'{named(y_label, 40)}{y_said}', y_ticks),
        (f'{named(x_label, 40)}{x_said}', x_ticks), origin='lower', cmap='magma',
        vmin=first, vmax=last,
    )  # fmt: skip
    figure.suptitle(title)
    middle = float(np.mean(image.get_clim()))
    write_cells(axis, matrix, np.char.mod('%.2f', matrix), middle=middle)
    figure.bar(image, axis, measure)
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
    figure, (axis,) = charts(width=min(5.6, max(2.6, 0.25 * len(names))))
    places = np.arange(len(names))
    lines = [
        band(axis, places, (values, *interval[probe]), marker='o', color=color, label=probe)
        for (probe, values), color in zip(accuracy.items(), hues(len(accuracy)), strict=True)
    ]
    name_ticks(axis.xaxis, ticks)
    axis.set_xlabel(said.removeprefix(', '))
    percent(axis.yaxis)
    axis.set(ylabel='accuracy')
    figure.suptitle(title)
    axis.grid(True)
    figure.key(lines, [*accuracy])
    return figure
