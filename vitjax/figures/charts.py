"""Charts: figures of axes side by side, and the ticks, legends, bands and maps on them."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, YAxis
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator, NullFormatter, PercentFormatter

from vitjax.base.types import Array
from vitjax.figures.style import Figure
from vitjax.figures.text import named


def charts(width: float, height: float, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure of charts side by side, its sides in inches, and their axes [columns]."""
    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots(1, columns, squeeze=False)[0]


Names: TypeAlias = tuple[str, Sequence[Any] | np.ndarray]  # label of an axis, and its ticks


def number(axis: Axes) -> None:
    """Puts ticks at whole numbers of x, such as layers or epochs, and a grid."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axis.grid(True)


def powers(axis: Axis, *, between: bool = False, linear: float | None = None) -> None:
    """Labels a logarithmic axis with plain numbers: the style parses no formulas.

    Args:
        axis: the axis.
        between: label ticks between powers of ten too, if there are few powers.
        linear: end of the linear part of a `symlog` axis.
    """
    axis.set_major_formatter(Powers(linthresh=linear))
    axis.set_minor_formatter(Powers() if between else NullFormatter())


def legend(owner: Axes | Figure, handles: Sequence[Any], names: Sequence[str], **options: Any):
    """Adds a legend of these handles with any names.

    Matplotlib leaves out names that are empty or begin with an underscore.
    """
    made = owner.legend(handles, [f'{i}' for i in range(len(names))], **options)
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_text(named(name, 48))
    return made


class Powers(LogFormatter):
    """Plain numbers on a logarithmic axis.

    Matplotlib's own lose the sign below zero of a `symlog` axis, and round to one digit, so that
    neighboring ticks within a power of ten have the same label.
    """

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Label of a tick."""
        shown = super().__call__(x, pos)
        return self.fix_minus(f'-{shown}') if shown and x < 0 else shown

    def _num_to_string(self, x: float, vmin: float, vmax: float) -> str:
        return f'{x:.3g}'


class Percent(PercentFormatter):
    """Fractions as percent, with the decimals that the step between ticks needs."""

    def format_ticks(self, values: Any) -> list[str]:
        """Labels of the ticks."""
        parts = 100 * np.asarray(values)
        fits = [np.allclose(parts, parts.round(d), rtol=0, atol=0.5e-5) for d in range(5)]
        self.decimals = fits.index(True) if any(fits) else 5
        return super().format_ticks(values)


def unclip(axes: Axes) -> None:
    """Draws lines and markers on the frame in full."""
    for line in axes.lines:
        line.set_clip_on(not np.size(line.get_xdata()))  # an empty one would have no extent


def percent(axis: Axis) -> None:
    """Labels fractions, already drawn, in percent; the axis stays within 0 and 100%."""
    axis.set_major_formatter(Percent(1))
    low, high = axis.get_view_interval()
    setting = axis.axes.set_ylim if isinstance(axis, YAxis) else axis.axes.set_xlim
    setting(max(0.0, low), min(1.0, high))
    unclip(axis.axes)


def write_cells(
    axis: Axes, values: np.ndarray, text: Callable, *, middle: float, size: float = 7
) -> None:
    """Writes `text(row, column)` on the cells of a map, black where values are above `middle`."""
    for (row, column), value in np.ndenumerate(values):
        if words := text(row, column):
            colour = 'black' if value > middle else 'white'
            axis.text(column, row, words, ha='center', va='center', color=colour, size=size)


def band(axis: Axes, x: Any, values: Sequence[Any], *, alpha: float = 0.15, **line: Any) -> Line2D:
    """Draws a mean as a line and its interval as a band.

    Args:
        axis: the axis.
        x: places [n].
        values: mean, low and high, [n] each; no band if all ends are NaN.
        alpha: opacity of the band.
        **line: options of the line.
    """
    mean, low, high = values
    (drawn,) = axis.plot(x, mean, **line)
    if np.isfinite(low).any():
        axis.fill_between(x, low, high, color=drawn.get_color(), alpha=alpha, linewidth=0)
    return drawn


def heat(
    axis: Axes, values: np.ndarray, x: Names, y: Names, *,
    rotation: float = 0, most: int = 16, **options: Any,
) -> AxesImage:  # fmt: skip
    """Draws a matrix as colours, with names of its columns and rows.

    Args:
        axis: the axis.
        values: [rows, columns].
        x: label of the axis, and names of the columns.
        y: label of the axis, and names of the rows.
        rotation: degrees by which the names of columns are turned.
        most: names on an axis; of more, every second, third or so on is shown.
        **options: options of `imshow`.
    """
    for axis_of, (label, names), turned in ((axis.xaxis, x, rotation), (axis.yaxis, y, 0)):
        shown = range(0, len(names), -(-len(names) // most) or 1)
        axis_of.set_ticks(shown, [str(names[i]) for i in shown], rotation=turned)
        axis_of.set_label_text(label)
    return axis.imshow(values, **{'aspect': 'auto', **options})


def diverging(values: Array) -> dict[str, Any]:
    """Options of `imshow` for signed values: white at 0, the same range on both sides."""
    most = max(float(np.abs(values).max()), 1e-30)
    return {'cmap': 'RdBu_r', 'vmin': -most, 'vmax': most}
