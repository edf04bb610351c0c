"""Figures whose size follows from their axes, which have sizes in inches, and from their texts."""

import functools
import io
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter

from vitjax.base import files
from vitjax.base.types import Format
from vitjax.figures.style import WIDTH, drawable, ours
from vitjax.figures.text import fitted, inches, named

P = ParamSpec('P')
R = TypeVar('R')

# Inches: round the figure and between its parts, of a line of text, and of color bars.
PAD, LINE, BAR, TALL = 0.07, 0.135, 0.09, 3.0


def balanced(count: int, most: int) -> int:
    """Columns of at most `most` that fill the rows of `count` panels evenly."""
    return -(-count // max(1, -(-count // most)))


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function that makes a figure, or a list: in the style, and laid out.

    Its texts get characters that fonts can draw.
    """

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        texts: Any = {name: drawable(value) for name, value in kwargs.items()}
        with ours():
            # `map` keeps the arguments' types, which P does not say.
            made = draw(*map(drawable, args), **texts)  # type: ignore[arg-type]
            for figure in made if isinstance(made, list) else [made]:
                if isinstance(figure, Figure):
                    figure.lay_out()
        return made

    return inside


class Figure(matplotlib.figure.Figure):
    """Figure in the style whoever draws it, of grids of axes below each other.

    Axes keep the size in inches that they are given. `lay_out` measures their texts, places all
    side by side and below each other, and sizes the figure. So no axes are squeezed, and no text
    leaves the figure or covers another.
    """

    def __init__(self) -> None:
        super().__init__(figsize=(WIDTH, WIDTH))
        FigureCanvasAgg(self)
        self._grids: list[_Grid] = []
        self._keys: dict[Axes | None, tuple[Sequence[Any], Sequence[str], str | None]] = {}

    def grid(
        self, rows: int, columns: int, *, width: float, height: float, gap: float = 2 * PAD
    ) -> np.ndarray:
        """Adds a grid of axes of this size in inches below all others; returns [rows, columns].

        Axes that are removed leave their place empty.
        """
        axes = np.empty((rows, columns), object)
        for place in np.ndindex(rows, columns):
            axes[place] = self.add_axes((0, 0, 1, 1), label=f'{len(self.axes)}')
            self.resize(axes[place], 0, 0, width, height)
        self._grids.append(_Grid(self, axes, (width, height), gap))
        return axes

    def bar(self, drawn: Any, axes: Any, label: str, **options: Any) -> Colorbar:
        """Adds a color bar to the right of axes in neighboring rows of a grid."""
        own, owners = self.add_axes((0, 0, 1, 1), label='<colorbar>'), {*np.ravel(axes)}
        for grid in self._grids:
            if places := [place for place, axis in grid.axes.items() if axis in owners]:
                rows, columns = zip(*places, strict=True)
                grid.bars.append((own, min(rows), max(rows), max(columns)))
        return self.colorbar(drawn, cax=own, label=label, **options)

    def key(
        self, handles: Sequence[Any], names: Sequence[str], axis: Axes | None = None,
        title: str | None = None,
    ) -> None:  # fmt: skip
        """Adds a legend below some axes, or below everything, with any names.

        Matplotlib's own leaves out names that are empty or begin with an underscore.
        """
        self._keys[axis] = handles, names, title

    def lay_out(self) -> None:
        """Fits texts to their axes, and places and sizes everything; once, when all is drawn."""
        for grid in self._grids:
            grid.measure(WIDTH - 2 * PAD)
        width = max(2.4, *(grid.width for grid in self._grids)) + 2 * PAD
        title = fitted(self.get_suptitle(), width - 2 * PAD, lines=20)
        key, below = self.legend_of(None, width - 2 * PAD)
        above = LINE * (title.count('\n') + 1) + PAD if title else 0
        height = above + below + sum(grid.height + 2 * PAD for grid in self._grids)
        self.set_size_inches(width, height)
        if title:
            self.suptitle(title, y=1 - PAD / height)
        y = height - PAD - above
        for grid in self._grids:
            grid.place((width - grid.width) / 2, y)
            y -= grid.height + 2 * PAD
        if key:
            key.set_loc('upper center')
            self.pin(key, width / 2, y + PAD)

    def resize(self, axis: Axes, x: float, y: float, width: float, height: float) -> None:
        """Places axes: their lower left corner and their sides in inches."""
        across, up = self.get_size_inches()
        axis.set_position((x / across, y / up, width / across, height / up))

    def pin(self, key: Legend, x: float, y: float) -> None:
        """Puts a legend at a place, in inches from the figure's lower left corner."""
        key.set_bbox_to_anchor((x, y), self.dpi_scale_trans)

    def legend_of(self, axis: Axes | None, room: float) -> tuple[Legend | None, float]:
        """Makes the legend of some axes or of the figure, as wide as `room` inches.

        Returns:
            the legend, and its height and distance in inches; None and 0 if there is none.
        """
        if axis not in self._keys:
            return None, 0.0
        handles, names, title = self._keys[axis]
        names = [fitted(named(name, 48), room - 0.5, size=7, lines=1) for name in names]
        columns = int(room / (max(map(inches, names, itertools.repeat(7)), default=0) + 0.5))
        made = (axis or self).legend(
            handles, [f'{i}' for i in range(len(names))], title=title, loc='upper left',
            ncols=balanced(len(names), max(1, columns)), borderpad=0, borderaxespad=0,
        )  # fmt: skip
        made.set_in_layout(False)  # placed by `pin`
        for text, name in zip(made.get_texts(), names, strict=True):
            text.set_text(name)
        return made, made.get_window_extent(_renderer(self)).height / self.dpi + PAD

    def draw(self, renderer: Any) -> None:
        """Draws the figure in the style."""
        with ours():
            super().draw(renderer)

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Saves the figure in the style."""
        with ours():
            super().savefig(*args, **kwargs)

    def png(self, dpi: float = 150) -> bytes:
        """The figure as a PNG file; a notebook shows it."""
        out = io.BytesIO()
        self.savefig(out, format='png', dpi=dpi)
        return out.getvalue()

    _repr_png_ = png

    def save(self, path: str | os.PathLike[str], formats: Sequence[Format] = ('png',)) -> list[str]:
        """Writes `PATH.FORMAT` for each format, atomically; returns the files' names."""
        paths = [f'{os.fspath(path)}.{kind}' for kind in formats]
        for kind, path in zip(formats, paths, strict=True):
            with files.writing(path) as file:
                self.savefig(file, format=kind)
        return [os.path.basename(path) for path in paths]


class _Grid:
    """Axes of equal size by row and column, and the margins that their texts take, in inches.

    Color bars stand to the right of a column, from a first row to a last: `(bar, first, last,
    column)`.
    """

    def __init__(
        self, figure: Figure, axes: np.ndarray, size: tuple[float, float], gap: float
    ) -> None:
        self.figure, self.shape, self.size, self.gap = figure, axes.shape, size, gap
        self.axes: dict[tuple[int, ...], Axes] = dict(np.ndenumerate(axes))
        self.bars: list[tuple[Axes, int, int, int]] = []

    def measure(self, page: float) -> None:
        """Measures all margins, with axes so narrow, but at least 0.6 inch, that `page` has room.

        It sets the grid's `width` and `height`.
        """
        self.axes = {place: axis for place, axis in self.axes.items() if axis.figure is not None}
        self.keys: dict[tuple[int, ...], tuple[Legend, float]] = {}  # and inches below the axes
        left, below, right, above = margins = np.zeros((4, *self.shape))
        for place, axis in self.axes.items():
            margins[:, *place] = self._margins(axis, *self.size)
            key, high = self.figure.legend_of(axis, self.size[0])
            if key:
                self.keys[place] = key, below[place] + PAD
                below[place] += high
        self.left, self.right = left.max(0), right.max(0)
        self.below, self.above = below.max(1), above.max(1)
        self.places = [*map(self._bar, self.bars)]
        for _, (_, column), off, _, wide in self.places:
            self.right[column] = max(self.right[column], off + wide)
        self.width = self._span(self.left, self.right, 0)
        self.height = self._span(self.above, self.below, 1)
        over = (self.width - page) / self.shape[1]
        if over > 0.01 and self.size[0] > 0.6:
            self.size = max(0.6, self.size[0] - over), self.size[1]
            self.measure(page)

    def _span(self, before: np.ndarray, after: np.ndarray, side: int) -> float:
        return float((before + after + self.size[side] + self.gap).sum() - self.gap)

    def _margins(self, axis: Axes, width: float, height: float) -> np.ndarray:
        """Inches that texts take to the left of axes, below, to the right and above."""
        self.figure.resize(axis, 0, 0, width, height)
        axis.apply_aspect()
        _fit(axis, width, height)
        box = axis.get_tightbbox(_renderer(self.figure))
        ends = np.zeros(4) if box is None else np.array(box.extents) / self.figure.dpi
        return np.maximum(0, ends * (-1, -1, 1, 1) - (0, 0, width, height))

    def _bar(self, bar: tuple[Axes, int, int, int]) -> Any:
        """Makes room for a color bar: its upper place, inches from the axes, height and width."""
        axis, first, last, column = bar
        rows = slice(first, last + 1)
        tall = self._span(self.above[rows], self.below[rows], 1)
        tall = min(tall - self.above[first] - self.below[last], max(TALL, self.size[1]))
        _, low, right, high = self._margins(axis, BAR, tall)
        self.above[first] = max(self.above[first], high)
        self.below[last] = max(self.below[last], low)
        return axis, (first, column), self.right[column] + PAD, tall, BAR + right

    def place(self, x: float, y: float) -> None:
        """Places everything, from the upper left corner in inches."""
        (width, height), gap = self.size, self.gap
        across = x + np.cumsum(self.left + self.right + width + gap) - self.right - width - gap
        down = y - np.cumsum(self.above + self.below + height + gap) + self.below + gap
        for (row, column), axis in self.axes.items():
            self.figure.resize(axis, across[column], down[row], width, height)
        for bar, (row, column), off, tall, _ in self.places:
            x, y = across[column] + width + off, down[row] + height - tall
            self.figure.resize(bar, x, y, BAR, tall)
        for (row, column), (key, off) in self.keys.items():
            self.figure.pin(key, across[column], down[row] - off)


def _renderer(figure: Any) -> Any:
    return figure.canvas.get_renderer()


def _fit(axis: Axes, width: float, height: float) -> None:
    """Breaks and cuts a title and labels of axes to their sides, and thins labels of ticks."""
    for text, room in ((axis.title, width), (axis.xaxis.label, width), (axis.yaxis.label, height)):
        text.set_text(fitted(text.get_text(), room, size=float(text.get_fontsize())))
    _thin(axis.xaxis, 0)
    _thin(axis.yaxis, 1)


def _thin(axis: Axis, side: int) -> None:
    """Leaves every second label of ticks, every third or so on, until none covers another."""
    renderer = _renderer(axis.get_figure())

    def labels(kind: str) -> dict[float, Text]:
        """Labels that are shown, by place."""
        getattr(axis, f'get_{kind}ticklabels')()  # makes them
        low, high = sorted(axis.get_view_interval())
        slack = 1e-9 * (high - low)
        ticks = getattr(axis, f'get_{kind}_ticks')()
        found = {t.get_loc(): t.label1 if t.label1.get_visible() else t.label2 for t in ticks}
        return {
            x: text
            for x, text in found.items()
            if low - slack <= x <= high + slack and text.get_text()
        }

    def crowded(texts: Sequence[Text]) -> bool:
        gap = 2 if side == 0 and texts and not texts[0].get_rotation() else 0  # pixels
        ends = sorted(tuple(t.get_window_extent(renderer).extents[side::2]) for t in texts)
        return any(b[0] < a[1] + gap for a, b in itertools.pairwise(ends))

    major = labels('major')
    if axis.get_major_formatter().get_offset():
        axis.set_major_formatter('{x:g}')  # a power of ten would stand where titles do
        major = labels('major')
    if crowded([*major.values(), *labels('minor').values()]):
        axis.set_minor_formatter(NullFormatter())
    for step in itertools.count(1):
        if not crowded([*major.values()][::step]):
            break
    if step > 1:
        told = {x: text.get_text() for x, text in [*major.items()][::step]}
        turned = next(iter(major.values())).get_rotation()
        axis.set_ticks([*told], [*told.values()], rotation=turned)
