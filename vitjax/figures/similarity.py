"""Similarity of layers, and what can be read off them."""

from collections.abc import Mapping, Sequence

import numpy as np

from vitjax.figures.panels import (
    LETTER,
    charts,
    headed,
    named,
    percent,
    write_cells,
)
from vitjax.figures.style import COLUMN, HEIGHT, WIDTH, Figure, styled


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
    side = min(0.3, (WIDTH - 1.8) / columns, (HEIGHT - 1.2) / rows)  # inches of a cell
    (x_ticks, x_said), (y_ticks, y_said) = numbered(x_names), numbered(y_names)
    wide, high = (LETTER * max(map(len, ticks)) for ticks in (x_ticks, y_ticks))
    figure, (axis,) = charts(
        max(COLUMN, 1.8 + side * columns + max(0, wide - 0.5)),
        max(2.6, 1.2 + side * rows + (0 if y_said else high)),
    )
    first, last = span or (None, None)
    image = axis.imshow(matrix, origin='lower', cmap='magma', vmin=first, vmax=last)
    axis.set_xticks(range(columns), y_ticks, rotation=0 if y_said else 90)
    axis.set_yticks(range(rows), x_ticks)
    axis.set(xlabel=f'{named(y_label, 40)}{y_said}', ylabel=f'{named(x_label, 40)}{x_said}')
    headed(figure, title)
    if side > 0.25:
        middle = np.mean(image.get_clim())
        write_cells(axis, matrix, lambda *ij: f'{matrix[ij]:.2f}', middle=middle, size=6)
    figure.colorbar(image, label=measure, shrink=0.8)
    return figure


def numbered(names: Sequence[str]) -> tuple[list[str], str]:
    """Ticks for layers: their numbers where all are of one path, and what the axis then adds."""
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
        names: the layers.
        accuracy: of each probe, [layers].
        interval: of each probe, low and high, [layers] each.
        title: anything more.
    """
    ticks, said = numbered(names)
    below = 0.0 if said else LETTER * max(map(len, ticks))
    figure, (axis,) = charts(min(WIDTH, max(COLUMN, 1.2 + 0.25 * len(names))), 2.6 + below)
    places = np.arange(len(names))
    for i, (probe, values) in enumerate(accuracy.items()):
        axis.plot(places, values, marker='o', color=f'C{i}', label=probe)
        axis.fill_between(places, *interval[probe], color=f'C{i}', alpha=0.2, linewidth=0)
    axis.set_xticks(places, ticks, rotation=0 if said else 90)
    axis.set_xlabel(said.removeprefix(', '))
    percent(axis.yaxis)
    axis.set(ylabel='accuracy')
    headed(figure, title)
    axis.grid(True)
    axis.legend()
    return figure
