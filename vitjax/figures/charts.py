"""Charts: figures of axes side by side, and the ticks, bands and maps on them."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, YAxis
from matplotlib.colors import to_hex
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator, NullFormatter, PercentFormatter

from vitjax.base.types import Array
from vitjax.figures.figure import LINE, Figure, balanced
from vitjax.figures.panels import trimmed
from vitjax.figures.style import WIDTH
from vitjax.figures.text import fitted, inches

Names: TypeAlias = tuple[str, Sequence[Any] | np.ndarray]  # label of an axis, and its ticks


def charts(
    count: int = 1, most: int = 3, *, width: float = 2.8, height: float = 1.9,
    figure: Figure | None = None,
) -> tuple[Figure, np.ndarray]:  # fmt: skip
    """A figure of `count` charts, at most `most` side by side, and their axes [count].

    Args:
        count: number of charts.
        most: charts in a row.
        width: largest width of a chart in inches, without texts around it.
        height: height of a chart in inches.
        figure: figure to which the charts are added, below all others.
    """
    figure = figure or Figure()
    columns = balanced(count, most)
    width = min(width, (WIDTH - 0.2) / columns - 0.65)
    axes = figure.grid(-(-count // columns), columns, width=width, height=height)
    return figure, trimmed(axes.ravel(), count)


def hues(count: int) -> list[Any]:
    """Colors for `count` lines, each its own."""
    few = count <= 10
    shades = np.arange(count) if few else np.linspace(0, 1, count)
    return [*map(to_hex, matplotlib.colormaps['tab10' if few else 'turbo'](shades))]


def number(axis: Axes) -> None:
    """Puts ticks at whole numbers of x, such as layers or epochs, and a grid."""
    axis.xaxis.set_major_locator(
        MaxNLocator('auto', integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
    )
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
    axis: Axes, values: np.ndarray, texts: Any, *, middle: float, shorten: bool = False
) -> None:
    """Writes on the cells of a map if they are large enough, black where it is above `middle`.

    Args:
        axis: axes of the map.
        values: [rows, columns].
        texts: texts [rows, columns]. In cells too small for several lines it is the first.
        middle: value of colors in between black and white.
        shorten: cut texts in the middle to the width of a cell.
    """
    high, wide = sides(axis)[::-1] / values.shape
    said = {cell: str(text) for cell, text in np.ndenumerate(np.array(texts, object))}
    if shorten:
        said = {cell: fitted(text, wide - 0.04, size=7, lines=1) for cell, text in said.items()}
    if LINE * max(text.count('\n') + 1 for text in said.values()) > high:
        said = {cell: text.split('\n')[0] for cell, text in said.items()}
    lines = [line for text in said.values() for line in text.split('\n')]
    if high < LINE or max(inches(line, 7) for line in lines) > wide:
        return
    for cell in filter(said.get, said):
        color = 'black' if values[cell] > middle else 'white'
        axis.text(*cell[::-1], said[cell], ha='center', va='center', color=color, size=7)


def sides(axis: Axes) -> np.ndarray:
    """Width and height of axes in inches."""
    figure: Any = axis.get_figure()
    return np.array(axis.get_position(original=True).size) * figure.get_size_inches()


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


def heat(axis: Axes, values: np.ndarray, x: Names, y: Names, **options: Any) -> AxesImage:
    """Draws a matrix as colors, with names of its columns and rows.

    Args:
        axis: the axis.
        values: [rows, columns].
        x: label of the axis, and names of the columns, turned if they are wider than a column.
        y: label of the axis, and names of the rows.
        **options: options of `imshow`.
    """
    for one, (label, names) in ((axis.xaxis, x), (axis.yaxis, y)):
        name_ticks(one, [str(name) for name in names])
        one.set_label_text(label)
    return axis.imshow(values, **{'aspect': 'auto', **options})


def name_ticks(axis: Axis, names: Sequence[str]) -> None:
    """Puts names at 0, 1 and so on; below axes they are turned if they are too wide.

    Numbers are never turned. Too many names are thinned when the figure is laid out.
    """
    widest = max((inches(name, 7) for name in names if not name.isdecimal()), default=0)
    turned = not isinstance(axis, YAxis) and widest > sides(axis.axes)[0] / len(names) - 0.05
    axis.set_ticks(range(len(names)), names, rotation=90 if turned else 0)


def diverging(values: Array) -> dict[str, Any]:
    """Options of `imshow` for signed values: white at 0, the same range on both sides."""
    most = max(float(np.abs(values).max()), 1e-30)
    return {'cmap': 'RdBu_r', 'vmin': -most, 'vmax': most}
