"""What ablations show: accuracy over pairs of settings, and against the operations it took."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from vitjax.figures.panels import WIDTH, charts, write_cells

Axis = tuple[str, Sequence[Any]]  # a setting and its values


def pair(table: np.ndarray, x: Axis, y: Axis | None, axes: int = 2) -> Figure:
    """Test accuracy over two settings: lines with their 95% intervals, and a heat map of the same.

    Args:
        table: [values of y, values of x, 2]: mean and half interval; NaN where nothing is known.
        x: the setting along the lines.
        y: the setting that tells lines apart; None for one line and no heat map.
        axes: settings that vary in all; the others are averaged over, which the title says.
    """
    figure, (lines, *heat) = charts(WIDTH if y else 0.6 * WIDTH, 4.0, 2 if y else 1)
    place = np.arange(len(x[1]))
    for i, (mean, half) in enumerate(table.swapaxes(1, 2)):
        if not np.isfinite(mean).any():
            continue
        label = _short(y[0], y[1][i]) if y else None
        at = place + 0.02 * (i - (len(table) - 1) / 2)  # so that intervals do not hide each other
        lines.errorbar(at, mean, np.nan_to_num(half), label=label, marker='o', ms=4, capsize=3)
    lines.set_xticks(place, map(str, x[1]))
    lines.set(xlabel=x[0], ylabel='test accuracy', xlim=(-0.3, len(place) - 0.7))
    lines.yaxis.set_major_formatter('{x:.0%}')
    lines.grid(alpha=0.3)
    if y:
        lines.legend(frameon=False, fontsize=9)
        _heat(figure, heat[0], table, x, y)
    over = '' if axes <= 2 else ', mean over the other settings'
    figure.suptitle(f'Test accuracy, mean and 95% interval over seeds{over}', fontsize=11)
    return figure


def _heat(figure: Figure, axis: Any, table: np.ndarray, x: Axis, y: Axis) -> None:
    image = axis.imshow(table[..., 0], cmap='viridis', aspect='auto')
    axis.set_xticks(range(len(x[1])), map(str, x[1]))
    axis.set_yticks(range(len(y[1])), map(str, y[1]))
    axis.set(xlabel=x[0], ylabel=y[0])

    def text(*cell: int) -> str:
        mean, half = table[cell]
        interval = '' if np.isnan(half) else f'\n±{half:.1%}'
        return '' if np.isnan(mean) else f'{mean:.1%}{interval}'

    write_cells(axis, table[..., 0], text, middle=np.mean(image.get_clim()), size=9)
    figure.colorbar(image, ax=axis, format='{x:.0%}')


def against_flops(
    flops: Sequence[float], accuracy: Sequence[tuple[float, float]],
    points: Sequence[Mapping[str, Any]], axes: Sequence[str],
) -> Figure:  # fmt: skip
    """Test accuracy against the operations of training one seed, a point for each cell.

    Args:
        flops: [cells].
        accuracy: [cells] of mean and half interval.
        points: [cells] settings.
        axes: settings that vary: the first gives the colour, the second the marker.
    """
    figure, (axis,) = charts(0.75 * WIDTH, 4.4)
    values = {name: [*dict.fromkeys(point[name] for point in points)] for name in axes[:2]}
    markers = 'osD^vP*X<>'
    for x, (mean, half), point in zip(flops, accuracy, points, strict=True):
        colour, marker, *_ = *(known.index(point[n]) for n, known in values.items()), 0, 0
        label = ', '.join(_short(name, point[name]) for name in axes)
        axis.errorbar(
            x, mean, np.nan_to_num(half), color=f'C{colour % 10}', capsize=3, ms=6,
            marker=markers[marker % len(markers)], linestyle='none', label=label,
        )  # fmt: skip
    axis.set(xscale='log', xlabel='FLOPs of training one seed', ylabel='test accuracy')
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.EngFormatter())
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.yaxis.set_major_formatter('{x:.0%}')
    axis.grid(alpha=0.3)
    axis.set_title('Test accuracy against training compute, 95% interval over seeds', fontsize=11)
    if len(points) <= 24:
        axis.legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def _short(name: str, value: Any) -> str:
    return f'{name.rsplit(".", 1)[-1]} {value}'
