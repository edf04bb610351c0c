"""Panels: rows and columns of pictures and maps, with one scale of colors."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from vitjax.figures.figure import Figure, balanced
from vitjax.figures.style import WIDTH

SIDES = 0.8  # inches that color bars and labels of rows take of the width


def panels(
    rows: int, columns: int, *, side: float = 1.8, aspect: float = 1.0, figure: Figure | None = None
) -> tuple[Figure, np.ndarray]:
    """A figure of equal panels without ticks, and its axes [rows, columns].

    Args:
        rows: number of rows.
        columns: number of columns.
        side: largest width of a panel in inches.
        aspect: height of a panel over its width.
        figure: figure to which the panels are added, below all others.
    """
    figure = figure or Figure()
    side = min(side, (WIDTH - SIDES) / columns - 0.03)
    axes = figure.grid(rows, columns, width=side, height=side * aspect, gap=0.03)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, axes


def table(
    count: int, names: Sequence[str], most: int, **layout: Any
) -> tuple[Figure, np.ndarray, int]:
    """A figure of `count` columns of panels, of which those beyond `most` continue below.

    Args:
        count: number of columns.
        names: names of the rows.
        most: columns side by side.
        **layout: arguments of `panels`.

    Returns:
        the figure, its axes [rows, count], and the number of columns side by side.
    """
    columns, rows = balanced(count, most), len(names)
    blocks = -(-count // columns)
    figure, axes = panels(blocks * rows, columns, **layout)
    for axis, name in zip(axes[:, 0], [*names] * blocks, strict=True):
        axis.set_ylabel(name)
    axes = np.moveaxis(axes.reshape(blocks, rows, columns), 1, 0).reshape(rows, -1)
    return figure, np.stack([trimmed(row, count) for row in axes]), columns


def trimmed(axes: np.ndarray, count: int) -> np.ndarray:
    """The first `count` axes; the others are removed."""
    for axis in axes[count:]:
        axis.remove()
    return axes[:count]


def show(axis: Axes, picture: np.ndarray, title: str = '', **options: Any) -> Any:
    """Shows a picture [H, W, 3] in 0..1 or uint8, or a map [H, W], with a title."""
    if title:
        axis.set_title(title)
    return axis.imshow(picture, **{'interpolation': 'nearest', **options})


class Colors(NamedTuple):
    """Maps, the limits of their colors and the label of their color bar.

    Attributes:
        maps: [..., rows, columns].
        norm: the values of the first and the last color.
        label: the quantity, beside the color bar.
        name: the color map's name.
    """

    maps: np.ndarray
    norm: Normalize
    label: str
    name: str

    def bar(self, figure: Figure, axes: Any) -> None:
        """Adds a color bar; it ends in a point if there are values beyond it."""
        beyond = self.maps.max() > self.norm.vmax, self.maps.min() < self.norm.vmin  # type: ignore
        extend = {(0, 0): 'neither', (1, 0): 'max', (0, 1): 'min', (1, 1): 'both'}[beyond]
        figure.bar(ScalarMappable(self.norm, self.name), axes, self.label, extend=extend)


class Scale(NamedTuple):
    """Scale of colors of several maps: one for all, or one for each.

    A shared scale ends at the 99th percentile of magnitudes: a single patch with all of the
    attention would otherwise leave the rest black.

    Attributes:
        label: the quantity.
        how: `shared`; or `each`, for maps as `fractions` of their own maximum.
        signed: maps may be negative, and colors are centered on 0.
        least: smallest end of a shared scale, so that nearly flat maps look flat.
    """

    label: str
    how: str = 'shared'
    signed: bool = False
    least: float = 0.0

    def colors(self, maps: np.ndarray) -> Colors:
        """Colors of maps [..., rows, columns].

        Raises:
            ValueError: if a value is NaN or infinite.
        """
        if self.how == 'each':
            (maps, label), end = fractions(maps, self.label, signed=self.signed), 1.0
        else:
            require_finite(maps, self.label)
            label, end = self.label, max(float(np.percentile(np.abs(maps), 99)), self.least, TINY)
        return Colors(maps, Normalize(-end * self.signed, end), label, COLORS[self.signed])


TINY = 1e-30  # divides maps of zeros


def fractions(
    maps: np.ndarray, label: str, *, axis: int | tuple[int, ...] | None = (-2, -1),
    of: str = "each map's", signed: bool = False,
) -> tuple[np.ndarray, str]:  # fmt: skip
    """Maps divided by their maximum, which is then 1, and the label that says so.

    Args:
        maps: any shape; maps of zeros stay zeros.
        label: the quantity.
        axis: axes over which a maximum is taken; None is one maximum for all.
        of: owner of the maximum, for the label.
        signed: divide by the largest magnitude instead.

    Raises:
        ValueError: if a value is NaN or infinite.
    """
    require_finite(maps, label)
    most = np.max(np.abs(maps) if signed else maps, axis=axis, keepdims=True)
    what = 'largest magnitude' if signed else 'maximum'
    return maps / np.maximum(most, TINY), f'{label}\n(fraction of {of} {what})'


def require_finite(maps: np.ndarray, label: str) -> None:
    """Refuses values that cannot be drawn.

    Raises:
        ValueError: if a value is NaN or infinite, with how many are.
    """
    if not np.isfinite(maps).all():
        wrong = f'{np.size(maps) - np.isfinite(maps).sum()} of {np.size(maps)} values'
        raise ValueError(
            f'what is drawn must be finite: {wrong} of {" ".join(label.split())} are not.'
        )


COLORS = {False: 'inferno', True: 'coolwarm'}


def overlay(
    axis: Axes, picture: np.ndarray, values: np.ndarray, norm: Normalize, *, smooth: bool = True
) -> None:
    """Shows a map [rows, columns] of 0 or more over its picture in grey, opaque at large values.

    The picture, [H, W, 3] in 0..1 or uint8, may have any size: the map is enlarged to it.
    `smooth` interpolates the map (bicubic); False shows its cells. A map of zeros says so.
    """
    height, width = picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    most = 255 if picture.dtype == np.uint8 else 1
    show(axis, picture.mean(-1), extent=extent, cmap='gray', vmin=0, vmax=most)
    axis.imshow(
        values, extent=extent, cmap=COLORS[False], norm=norm,
        alpha=0.3 + 0.5 * np.clip(norm(values), 0, 1),
        interpolation='bicubic' if smooth else 'nearest',
    )  # fmt: skip
    axis.set(xlim=extent[:2], ylim=extent[2:])
    if not values.any():
        middle = {'ha': 'center', 'va': 'center', 'transform': axis.transAxes}
        axis.text(0.5, 0.5, 'none\nabove 0', color='white', size=7, **middle)


GAP = (0.62, 0.79, 0.88)  # a light blue: neither white nor grey, as pictures may be


def montage(
    pictures: np.ndarray, columns: int | None = None, *, gap: int | tuple[int, int] = 1,
    fill: Any = 1.0,
) -> np.ndarray:  # fmt: skip
    """One picture of pictures [n, h, w] or [n, h, w, 3] side by side.

    Args:
        pictures: the pictures.
        columns: pictures in a row; by default it is nearly square.
        gap: pixels between pictures, or those below and beside each.
        fill: value of the gaps.
    """
    columns = columns or math.ceil(len(pictures) ** 0.5)
    rows, sides = -(-len(pictures) // columns), np.array(pictures.shape[1:3])
    steps = sides + gap
    shape = *(steps * (rows, columns) - gap), *pictures.shape[3:]
    out = np.full(shape, fill, np.float32)
    for i, picture in enumerate(pictures):
        (y, x), (height, width) = steps * divmod(i, columns), sides
        out[y : y + height, x : x + width] = picture
    return out
