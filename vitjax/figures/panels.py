"""Panels: rows and columns of pictures and maps, with one scale of colours."""

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from vitjax.figures.style import WIDTH, Figure


def panels(
    rows: int, columns: int, *, side: float | None = None, aspect: float = 1.0, top: float = 0.2,
    right: float = 0.0,
) -> tuple[Figure, np.ndarray]:  # fmt: skip
    """A figure of equal panels without ticks, and its axes [rows, columns].

    Args:
        rows: number of rows.
        columns: number of columns.
        side: width of a panel in inches; None divides the full width.
        aspect: height of a panel over its width.
        top: inches above each row, for titles.
        right: inches for a colour bar.
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


def show(axis: Axes, picture: np.ndarray, title: str = '', **options: Any) -> Any:
    """Shows a picture [H, W, 3] in 0..1 or uint8, or a map [H, W], with a title."""
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
        """Adds a colour bar; it ends in a point if there are values beyond it."""
        beyond = self.maps.max() > self.norm.vmax, self.maps.min() < self.norm.vmin  # type: ignore
        extend = {(0, 0): 'neither', (1, 0): 'max', (0, 1): 'min', (1, 1): 'both'}[beyond]
        drawn = ScalarMappable(self.norm, self.colours)
        figure.colorbar(drawn, ax=axes, label=self.label, extend=extend, **{**_BAR, **options})


_BAR = {'aspect': 30, 'pad': 0.01, 'fraction': 0.05}


def scaled(
    maps: np.ndarray, label: str, how: str = 'shared', *, signed: bool = False, least: float = 0.0
) -> Scale:
    """One scale of colours for all maps, or one for each.

    A shared scale ends at the 99th percentile of magnitudes: a single patch with all of the
    attention would otherwise leave the rest black.

    Args:
        maps: [..., rows, columns].
        label: the quantity.
        how: `shared`; or `each`, for maps as `fractions` of their own maximum.
        signed: maps may be negative, and colours are centred on 0.
        least: smallest end of a shared scale, so that nearly flat maps look flat.

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


COLOURS = {False: 'inferno', True: 'coolwarm'}


def overlay(
    axis: Axes, picture: np.ndarray, values: np.ndarray, norm: Normalize, *, smooth: bool = True
) -> None:
    """Shows a map [rows, columns] of 0 or more over its picture in grey, opaque at large values.

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
    """One picture of pictures [n, h, w] or [n, h, w, 3] side by side, with gaps between them.

    Without `columns` it is nearly square.
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
