"""Overviews: photographs, maps over them, and their features as colors."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from vitjax.figures.attention import Pictures
from vitjax.figures.figure import Figure, styled
from vitjax.figures.panels import TINY, Scale, overlay, panels, require_finite, show, table


def as_colors(components: np.ndarray) -> np.ndarray:
    """Three components [B, rows, columns, 3] as red, green and blue, 0 to 1 over all images."""
    require_finite(components, 'components')
    low, high = (each((0, 1, 2), keepdims=True) for each in (components.min, components.max))
    return (components - low) / np.maximum(high - low, TINY)


@styled
def features(
    pictures: Pictures, components: np.ndarray, *, names: Sequence[str], title: str,
    smooth: bool = True,
) -> Figure:  # fmt: skip
    """The images in rows of at most five, and below them their components as colors.

    Args:
        pictures: B images.
        components: [B, rows, columns, 3].
        names: names of the images.
        title: layer of the features, and the variance of the components.
        smooth: interpolate the colors (bicubic); False shows the patches.
    """
    figure, axes, _ = table(len(pictures), ['', ''], 5)
    shown = zip(axes.T, pictures, as_colors(components), names, strict=True)
    for (above, below), picture, colors, name in shown:
        show(above, picture, name)
        _colored(below, colors, smooth)
    figure.suptitle(title)
    return figure


@styled
def overview(
    pictures: Pictures, maps: Mapping[str, tuple[np.ndarray, Scale]], components: np.ndarray, *,
    names: Sequence[str], smooth: bool = True,
) -> Figure:  # fmt: skip
    """One row an image: the image, each kind of map over it, and its components as colors.

    Args:
        pictures: B images.
        maps: maps by title, [B, rows, columns], 0 or more, and their scale.
        components: [B, rows, columns, 3].
        names: labels of the rows.
        smooth: interpolate maps and colors (bicubic); False shows the patches.
    """
    figure, axes = panels(len(pictures), 2 + len(maps), side=1.6)
    titles = ['', *maps, 'features: principal\ncomponents 1 to 3']
    for title, axis in zip(titles, axes[0], strict=True):
        axis.set_title(title)
    shown = zip(axes, pictures, as_colors(components), names, strict=True)
    for row, picture, colors, name in shown:
        show(row[0], picture)
        row[0].set_ylabel(name)
        _colored(row[-1], colors, smooth)
    for column, (values, scale) in zip(axes[:, 1:-1].T, maps.values(), strict=True):
        drawn = scale.colors(values)
        for axis, picture, one in zip(column, pictures, drawn.maps, strict=True):
            overlay(axis, picture, one, drawn.norm, smooth=smooth)
        drawn.bar(figure, column)
    return figure


def _colored(axis: Axes, colors: np.ndarray, smooth: bool) -> None:
    show(axis, colors, interpolation='bicubic' if smooth else 'nearest')
