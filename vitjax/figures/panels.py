"""Rows and columns of pictures, which most figures are, and what charts share."""

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, YAxis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import LogFormatter, MaxNLocator, NullFormatter, PercentFormatter

from vitjax.data.order import evenly
from vitjax.figures.style import WIDTH, Figure, cut


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
    # Images keep their aspect: the constrained layout then misjudges where their labels end.
    figure = Figure(figsize=size, layout='compressed')
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


def powers(axis: Axis, *, between: bool = False, linear: float | None = None) -> None:
    """Labels a logarithmic axis without formulas, which the style does not parse: `1e-05`.

    Args:
        axis: the axis.
        between: label ticks between powers of ten too, if there are few powers.
        linear: end of the linear part of a `symlog` axis.
    """
    axis.set_major_formatter(LogFormatter(linthresh=linear))
    axis.set_minor_formatter(LogFormatter() if between else NullFormatter())


def legend(owner: Axes | Figure, handles: Sequence[Any], names: Sequence[str], **options: Any):
    """A legend of these handles and names, whatever the names are.

    Matplotlib leaves out names that are empty or begin with an underscore, which it reserves.
    """
    made = owner.legend(handles, [f'{i}' for i in range(len(names))], **options)
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_text(named(name, 48))
    return made


class Percent(PercentFormatter):
    """Fractions as percent, with the decimals that the step between ticks needs."""

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
    """Maps, the limits of their colours and the label of their colour bar.

    Attributes:
        maps: [..., rows, columns].
        norm: the values of the first and the last colour.
        label: the quantity, beside the colour bar.
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

    A shared scale ends at the 99th percentile of magnitudes, with a point on its colour bar: a
    single patch that gathers all attention would otherwise leave the rest black.

    Args:
        maps: [..., rows, columns].
        label: the quantity.
        how: `shared`, or `each`: every map as `fractions` of its own maximum.
        signed: maps may be negative: colours are centred on 0.
        least: smallest end of a shared scale, so that maps as good as flat look flat.

    Raises:
        ValueError: if a value is NaN or infinite.
    """
    if how == 'each':
        (maps, label), end = fractions(maps, label, signed=signed), 1.0
    else:
        require_finite(maps, label)
        end = max(float(np.percentile(np.abs(maps), 99)), least, TINY)
    return Scale(maps, Normalize(-end if signed else 0, end), label, COLOURS[signed])


TINY = 1e-30  # divides maps of zeros


def fractions(
    maps: np.ndarray, label: str, *, axis: int | tuple[int, ...] | None = (-2, -1),
    of: str = "each map's", signed: bool = False,
) -> tuple[np.ndarray, str]:  # fmt: skip
    """Maps divided by their maximum, and the label that says so: its colours end at 1.

    Args:
        maps: of any shape; maps of zeros stay zeros.
        label: the quantity.
        axis: axes over which a maximum is taken; None is one maximum for all.
        of: owner of the maximum, for the label.
        signed: divide by the largest magnitude, and say so.

    Raises:
        ValueError: if a value is NaN or infinite.
    """
    require_finite(maps, label)
    most = np.max(np.abs(maps) if signed else maps, axis=axis, keepdims=True)
    what = 'largest magnitude' if signed else 'maximum'
    return maps / np.maximum(most, TINY), f'{label}\n(fraction of {of} {what})'


def require_finite(maps: np.ndarray, label: str) -> None:
    """Refuses values that no colour or place stands for.

    Raises:
        ValueError: if a value is NaN or infinite, with how many are.
    """
    if not np.isfinite(maps).all():
        wrong = f'{np.size(maps) - np.isfinite(maps).sum()} of {np.size(maps)} values'
        raise ValueError(
            f'what is drawn must be finite: {wrong} of {" ".join(label.split())} are not.'
        )


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


def headed(figure: Any, title: str) -> None:
    """Gives a figure a title in as many lines as it needs, and the height for them.

    Matplotlib breaks lines as it draws, but then takes what is between two `$` for a formula,
    whatever `text.parse_math` says.
    """
    most = max(8, int(figure.bbox.width / figure.dpi / LETTER))
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, most)]
    if len(lines) > 2 and isinstance(figure, Figure):
        figure.set_figheight(figure.get_figheight() + 0.14 * (len(lines) - 2))
    if title.count('$') < 2:
        figure.suptitle(title, wrap=True)
    else:
        figure.suptitle('\n'.join(lines))


LETTER = 0.068  # inches of an average letter of 8 points


def fitted(title: str, width: float) -> str:
    """A title in lines that fit in `width` inches: neither a word nor `a, b` is taken apart."""
    most = max(1, int(width / LETTER))
    lines = (line.replace(', ', ',\xa0') for line in title.splitlines())
    parts = (textwrap.wrap(line, most, break_long_words=False) for line in lines)
    return '\n'.join('\n'.join(part) for part in parts).replace('\xa0', ' ')


def short(name: str, most: int = 22) -> str:
    """The first of a class's names, separated by commas, cut to `most` characters."""
    name = name.split(',')[0].strip() or name
    return named(name if len(name) <= most else name[: most - 1] + '…', most)


def named(name: str, most: int) -> str:
    """A name for a tick or legend: cut in the middle; a stand-in if there is nothing to see."""
    return cut(name, most) if name.strip() else '(no name)'


def some(count: int, most: int) -> list[int]:
    """At most `most` indices of `count`, evenly spread, the first and the last among them."""
    return evenly(count, most).tolist()
