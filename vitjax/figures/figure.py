"""Figures whose size follows from their axes, which have sizes in inches, and from their texts."""

import functools
import io
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

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
Place = tuple[int, int]


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


class _Grid(NamedTuple):
    """Axes of equal size by row and column: their sides and the gap between them in inches.

    Color bars stand to the right of a column, from a first row to a last: `(bar, first, last,
    column)`.
    """

    axes: dict[Place, Axes]
    shape: Place
    size: tuple[float, float]
    gap: float
    bars: list[tuple[Axes, int, int, int]]


class _Key(NamedTuple):
    """A legend to be made: of axes, or of the whole figure."""

    axis: Axes | None
    handles: Sequence[Any]
    names: Sequence[str]
    title: str | None


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
        self._keys: list[_Key] = []

    def grid(
        self, rows: int, columns: int, *, width: float, height: float, gap: float = 2 * PAD
    ) -> np.ndarray:
        """Adds a grid of axes of this size in inches below all others; returns [rows, columns].

        Axes that are removed leave their place empty.
        """
        axes = np.empty((rows, columns), object)
        for place in np.ndindex(rows, columns):
            axes[place] = self._add(width, height, f'{len(self.axes)}')
        known = dict(np.ndenumerate(axes))
        self._grids.append(_Grid(known, (rows, columns), (width, height), gap, []))
        return axes

    def bar(self, drawn: Any, axes: Any, label: str, **options: Any) -> Colorbar:
        """Adds a color bar to the right of axes in neighboring rows of a grid."""
        own = self._add(BAR, TALL, '<colorbar>')
        owners = {id(axis) for axis in np.ravel(axes)}
        for grid in self._grids:
            if places := [place for place, axis in grid.axes.items() if id(axis) in owners]:
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
        self._keys.append(_Key(axis, handles, names, title))

    def lay_out(self) -> None:
        """Fits texts to their axes, and places and sizes everything; once, when all is drawn."""
        found = [_Layout(self, grid) for grid in self._grids]
        found = [layout.narrowed(WIDTH - 2 * PAD) for layout in found]
        width = max(2.4, *(layout.width for layout in found)) + 2 * PAD
        title = fitted(self.get_suptitle(), width - 2 * PAD, lines=20)
        keys = [self._legend(key, width - 2 * PAD) for key in self._keys if key.axis is None]
        below = [self.inches(key)[1] + PAD for key in keys]
        above = LINE * (title.count('\n') + 1) + PAD if title else 0
        between = 2 * PAD * (len(found) - 1)
        height = 2 * PAD + above + sum(layout.height for layout in found) + between + sum(below)
        self.set_size_inches(width, height)
        if title:
            self.suptitle(title, y=1 - PAD / height)
        y = height - PAD - above
        for layout in found:
            layout.place((width - layout.width) / 2, y)
            y -= layout.height + 2 * PAD
        y += PAD
        for key, tall in zip(keys, below, strict=True):
            key.set_loc('upper center')
            self.pin(key, width / 2, y)
            y -= tall

    def inches(self, drawn: Any) -> tuple[float, float]:
        """Width and height of a legend or of axes."""
        box = drawn.get_window_extent(self.canvas.get_renderer())  # type: ignore[attr-defined]
        return box.width / self.dpi, box.height / self.dpi

    def pin(self, key: Legend, x: float, y: float) -> None:
        """Puts a legend at a place, in inches from the figure's lower left corner."""
        width, height = self.get_size_inches()
        key.set_bbox_to_anchor((x / width, y / height), self.transFigure)

    def _add(self, width: float, height: float, label: str) -> Axes:
        across, up = self.get_size_inches()
        return self.add_axes((0, 0, width / across, height / up), label=label)

    def _legend(self, key: _Key, room: float) -> Legend:
        """Makes a legend with as many columns as fit in `room` inches."""
        names = [fitted(named(name, 48), room - 0.5, size=7, lines=1) for name in key.names]
        columns = int(room / (max((inches(name, 7) for name in names), default=0) + 0.5))
        made = (self if key.axis is None else key.axis).legend(
            key.handles, [f'{i}' for i in range(len(names))], title=key.title, loc='upper left',
            ncols=balanced(len(names), max(1, columns)), borderpad=0, borderaxespad=0,
        )  # fmt: skip
        made.set_in_layout(False)  # placed by `pin`
        for text, name in zip(made.get_texts(), names, strict=True):
            text.set_text(name)
        return made

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


class _Layout:
    """Measured margins of a grid with its color bars and legends, and its size in inches."""

    def __init__(self, figure: Figure, grid: _Grid) -> None:
        self.figure, self.grid = figure, grid
        self.axes = {place: axis for place, axis in grid.axes.items() if axis.figure is not None}
        self.keys: dict[Place, tuple[Legend, float]] = {}  # and inches below the axes
        left, below, right, above = margins = np.zeros((4, *grid.shape))
        for place, axis in self.axes.items():
            margins[:, *place] = self._margins(axis, *grid.size)
            if key := next((key for key in figure._keys if key.axis is axis), None):
                made = figure._legend(key, grid.size[0])
                self.keys[place] = made, below[place] + PAD
                below[place] += PAD + figure.inches(made)[1]
        self.left, self.right = left.max(0), right.max(0)
        self.below, self.above = below.max(1), above.max(1)
        self.bars = [*map(self._bar, *zip(*grid.bars, strict=True))] if grid.bars else []
        for _, (_, column), off, _, wide in self.bars:
            self.right[column] = max(self.right[column], off + wide)
        self.width = self._span(self.left, self.right, 0)
        self.height = self._span(self.above, self.below, 1)

    def narrowed(self, width: float) -> '_Layout':
        """The same grid with axes so narrow that it fits into a width, but of 0.6 inch or more."""
        over = (self.width - width) / self.grid.shape[1]
        least = min(0.6, self.grid.size[0])
        if over < 0.01 or self.grid.size[0] == least:
            return self
        size = max(least, self.grid.size[0] - over), self.grid.size[1]
        return _Layout(self.figure, self.grid._replace(size=size))

    def _span(self, before: np.ndarray, after: np.ndarray, side: int) -> float:
        return float((before + after + self.grid.size[side] + self.grid.gap).sum() - self.grid.gap)

    def _margins(self, axis: Axes, width: float, height: float) -> np.ndarray:
        """Inches that texts take to the left of axes, below, to the right and above."""
        axis.set_position((0, 0, *np.array([width, height]) / self.figure.get_size_inches()))
        axis.apply_aspect()
        _fit(axis, width, height)
        box = axis.get_tightbbox(self.figure.canvas.get_renderer())  # type: ignore
        ends = np.zeros(4) if box is None else np.array(box.extents) / self.figure.dpi
        return np.maximum(0, ends * (-1, -1, 1, 1) - (0, 0, width, height))

    def _bar(self, bar: Axes, first: int, last: int, column: int) -> Any:
        """Makes room for a color bar: its upper place, inches from the axes, height and width."""
        rows = slice(first, last + 1)
        tall = self._span(self.above[rows], self.below[rows], 1)
        tall = min(tall - self.above[first] - self.below[last], max(TALL, self.grid.size[1]))
        _, low, right, high = self._margins(bar, BAR, tall)
        self.above[first] = max(self.above[first], high)
        self.below[last] = max(self.below[last], low)
        return bar, (first, column), self.right[column] + PAD, tall, BAR + right

    def place(self, x: float, y: float) -> None:
        """Places everything, from the upper left corner in inches."""
        (width, height), gap = self.grid.size, self.grid.gap
        across = x + np.cumsum(self.left + self.right + width + gap) - self.right - width - gap
        down = y - np.cumsum(self.above + self.below + height + gap) + self.below + gap
        size = np.tile(self.figure.get_size_inches(), 2)
        for (row, column), axis in self.axes.items():
            axis.set_position((across[column], down[row], width, height) / size)
        for bar, (row, column), off, tall, _ in self.bars:
            corner = across[column] + width + off, down[row] + height - tall
            bar.set_position((*corner, BAR, tall) / size)
        for (row, column), (key, off) in self.keys.items():
            self.figure.pin(key, across[column], down[row] - off)


def _fit(axis: Axes, width: float, height: float) -> None:
    """Breaks and cuts a title and labels of axes to their sides, and thins labels of ticks."""
    for text, room in ((axis.title, width), (axis.xaxis.label, width), (axis.yaxis.label, height)):
        text.set_text(fitted(text.get_text(), room, size=float(text.get_fontsize())))
    _thin(axis.xaxis, 0)
    _thin(axis.yaxis, 1)


def _thin(axis: Axis, side: int) -> None:
    """Leaves every second label of ticks, every third or so on, until none covers another."""
    renderer = axis.get_figure().canvas.get_renderer()  # type: ignore

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
