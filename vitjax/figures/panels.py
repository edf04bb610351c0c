"""Rows and columns of pictures, which most figures are, and what charts share."""

import math
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, YAxis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vitjax.figures.style import WIDTH, Figure


def panels(
    rows: int, columns: int, *, side: float | None = None, aspect: float = 1.0, top: float = 0.2,
    right: float = 0.0,
) -> tuple[Figure, np.ndarray]:  # fmt: skip
    """A figure of equal panels without ticks, and its axes [rows, columns].

    Args:
        rows: of panels.
        columns: of panels.
        side: width of a panel in inches; None divides the full width.
        aspect: height of a panel over its width.
        top: inches left above each row for titles.
        right: inches left for a colour bar.
    """
    side = side or min(1.8, WIDTH / columns)
    size = (max(columns * side + right, 2.4), rows * (side * aspect + top))
    figure = Figure(figsize=size, layout='constrained')
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.04, wspace=0.02, hspace=0.02)  # type: ignore
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, axes


def wrapped(count: int, most: int, **layout: Any) -> tuple[Figure, np.ndarray]:
    """A figure of `count` panels in rows of at most `most`, and their axes [count]."""
    columns = min(most, count)
    figure, axes = panels(-(-count // columns), columns, **layout)
    for axis in axes.flat[count:]:
        axis.axis('off')
    return figure, axes.flat[:count]


def charts(width: float, height: float, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure of charts side by side, its sides in inches, and their axes [columns]."""
    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def number(axis: Axes) -> None:
    """Marks whole numbers alone along x, as layers and epochs are, on a grid."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axis.grid(True)


class Percent(PercentFormatter):
    """Shares as percent, with the decimals that the step between ticks needs."""

    def format_ticks(self, values: Any) -> list[str]:
        """The ticks' labels."""
        parts = 100 * np.asarray(values)
        fits = [np.allclose(parts, parts.round(d), rtol=0, atol=0.5e-5) for d in range(5)]
        self.decimals = fits.index(True) if any(fits) else 5
        return super().format_ticks(values)


def unclip(axes: Axes) -> None:
    """Draws lines and markers that lie on the frame whole."""
    for line in axes.lines:
        line.set_clip_on(not np.size(line.get_xdata()))  # an empty one would have no extent


def percent(axis: Axis) -> None:
    """Marks shares as percent; once they are drawn, the axis ends at 0 and 100% at the latest."""
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


def show(axis: Axes, picture: np.ndarray, title: str = '', **options: Any) -> Any:
    """A picture [H, W, 3] in 0..1 (or uint8), or a map [H, W], on an axis with a title."""
    if title:
        axis.set_title(title)
    return axis.imshow(picture, **{'interpolation': 'nearest', **options})


class Scale(NamedTuple):
    """Maps with the limits of their colours.

    Attributes:
        maps: [..., rows, columns].
        norm: the values of the first and the last colour.
        label: what they are, beside the colour bar.
        colours: the colour map's name.
    """

    maps: np.ndarray
    norm: Normalize
    label: str
    colours: str

    def bar(self, figure: Figure, axes: Any, **options: Any) -> None:
        """A colour bar beside the panels; it ends in a point where values go on beyond it."""
        beyond = self.maps.max() > self.norm.vmax, self.maps.min() < self.norm.vmin  # type: ignore
        extend = {(0, 0): 'neither', (1, 0): 'max', (0, 1): 'min', (1, 1): 'both'}[beyond]
        drawn = ScalarMappable(self.norm, self.colours)
        figure.colorbar(drawn, ax=axes, label=self.label, extend=extend, **{**_BAR, **options})


_BAR = {'aspect': 30, 'pad': 0.01, 'fraction': 0.05}


def scaled(
    maps: np.ndarray, label: str, how: str = 'shared', *, signed: bool = False, least: float = 0.0
) -> Scale:
    """One scale of colours for all maps, or for each its own.

    A scale ends at the 99th percentile of sizes: a single patch that gathers all attention would
    otherwise leave the rest black.

    Args:
        maps: [..., rows, columns].
        label: what they are.
        how: `shared`, or `each`: each map over its own end of scale.
        signed: maps may be negative: colours are centred on 0.
        least: where a shared scale ends at the earliest, so that maps as good as flat look flat.
    """
    if how == 'each':
        most = np.percentile(np.abs(maps), 99, axis=(-2, -1), keepdims=True)
        maps, end, label = maps / np.maximum(most, 1e-30), 1.0, f'{label},\nshare of own largest'
    else:
        end = max(float(np.percentile(np.abs(maps), 99)), least, 1e-30)
    return Scale(maps, Normalize(-end if signed else 0, end), label, COLOURS[signed])


COLOURS = {False: 'inferno', True: 'coolwarm'}


def overlay(
    axis: Axes, picture: np.ndarray, values: np.ndarray, norm: Normalize, *, smooth: bool = True
) -> None:
    """A map [rows, columns] of 0 or more over its picture in grey: bright and solid where large.

    `smooth` interpolates the map (bicubic); False shows its cells.
    """
    height, width = picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    show(axis, picture.mean(-1), extent=extent, cmap='gray', vmin=0, vmax=1)
    axis.imshow(
        values, extent=extent, cmap=COLOURS[False], norm=norm,
        alpha=0.3 + 0.5 * np.clip(norm(values), 0, 1),
        interpolation='bicubic' if smooth else 'nearest',
    )  # fmt: skip
    axis.set(xlim=extent[:2], ylim=extent[2:])


GAP = (0.62, 0.79, 0.88)  # a light blue: neither white nor grey, as pictures may be


def montage(
    pictures: np.ndarray, columns: int | None = None, *, gap: int = 1, fill: Any = 1.0
) -> np.ndarray:
    """Pictures [n, h, w] or [n, h, w, 3] side by side with gaps between them, as one picture.

    Without `columns` it is about square.
    """
    columns = columns or math.ceil(len(pictures) ** 0.5)
    rows = -(-len(pictures) // columns)
    height, width = pictures.shape[1:3]
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *pictures.shape[3:])
    out = np.full(shape, fill, np.float32)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        out[y : y + height, x : x + width] = picture
    return out


def fitted(title: str, width: float) -> str:
    """A title in lines that `width` inches have room for: no word, nor `a, b`, is taken apart."""
    most = max(1, int(width / 0.068))  # of letters of 8 points, as wide as they are on average
    lines = (line.replace(', ', ',\xa0') for line in title.splitlines())
    parts = (textwrap.wrap(line, most, break_long_words=False) for line in lines)
    return '\n'.join('\n'.join(part) for part in parts).replace('\xa0', ' ')


def short(name: str, most: int = 22) -> str:
    """The first of a class's names, cut to so many characters."""
    name = name.split(',')[0]
    return name if len(name) <= most else name[: most - 1] + '…'


def some(count: int, most: int) -> list[int]:
    """At most `most` indices of `count`, evenly spaced, with the first and the last one."""
    if not count:
        return []
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
