"""Attention: maps by head and layer, overlays on the image, distances and entropies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from vitjax.data.order import evenly
from vitjax.figures.charts import charts, number
from vitjax.figures.figure import Figure, balanced, styled
from vitjax.figures.panels import (
    Colors,
    Scale,
    overlay,
    panels,
    require_finite,
    show,
    table,
    trimmed,
)

# Weights are drawn as multiples of 1/N, the weight of each of N tokens under uniform attention. A
# scale that ends no earlier than at 3 leaves nearly uniform attention dim and flat.
UNIFORM = Scale('attention / uniform', least=3.0)
_ACROSS, _LAYERS = 8, 12  # heads side by side, and layers

Pictures = Sequence[np.ndarray] | np.ndarray  # [H, W, 3] each, in 0..1 or uint8, of any size
Query = tuple[int, int] | None


@styled
def heads(
    pictures: Pictures, maps: np.ndarray, scale: Scale, *, title: str, names: Sequence[str] = (),
    titles: Sequence[str] | Sequence[Sequence[str]] = (), query: Query = None,
) -> Figure:  # fmt: skip
    """For each image: the image, then a map for each head, in rows of at most eight.

    Args:
        pictures: B images.
        maps: [B, heads, rows, columns].
        scale: scale of the maps.
        title: layer, and the attending token.
        names: names of the images, or none.
        titles: titles of the maps, or one list per image; by default `head 1` and so on.
        query: row and column, from 0, of the attending patch, marked on the image.
    """
    count = maps.shape[1]
    columns = balanced(count, _ACROSS)
    rows = -(-count // columns)
    said: Any = titles or [f'head {head + 1}' for head in range(count)]
    if isinstance(said[0], str):
        said = [said, *[said if rows > 1 or names else [''] * count] * (len(maps) - 1)]
    colors = scale.colors(maps)
    figure, axes = panels(len(maps) * rows, 1 + columns, side=1.3)
    for image, block in enumerate(axes.reshape(len(maps), rows, -1)):
        name = names[image] if names else ''
        _picture(block[0, 0], pictures[image], maps.shape[2:], query, name)
        trimmed(block[:, 0], 1)
        own = trimmed(block[:, 1:].ravel(), count)
        for axis, values, above in zip(own, colors.maps[image], said[image], strict=True):
            _map(axis, values, colors, above)
    colors.bar(figure, axes)
    figure.suptitle(title)
    return figure


@styled
def heads_by_layer(
    picture: np.ndarray, maps: np.ndarray, scale: Scale, *, title: str, query: Query = None
) -> Figure:
    """An image, and below it a column a layer and a row a head.

    Arguments are those of `heads`, with maps [layers, heads, rows, columns] of one image. Of more
    than twelve layers, twelve evenly spaced are shown.
    """
    layers, colors = evenly(len(maps), _LAYERS), scale.colors(maps)
    names = [f'head {head + 1}' for head in range(maps.shape[1])]
    figure, axes, _ = table(len(layers), ['', *names], _LAYERS, side=1.2)
    _picture(axes[0, 0], picture, maps.shape[2:], query)
    trimmed(axes[0], 1)
    for axis, layer in zip(axes[1], layers, strict=True):
        axis.set_title(f'layer {layer + 1}')
    for column, layer in zip(axes[1:].T, layers, strict=True):
        for axis, values in zip(column, colors.maps[layer], strict=True):
            _map(axis, values, colors)
    colors.bar(figure, axes[1:])
    figure.suptitle(title)
    return figure


@styled
def overlays(
    pictures: Pictures, maps: Mapping[str, np.ndarray], scale: Scale, *, titles: Sequence[str],
    smooth: bool = True, title: str = '',
) -> Figure:  # fmt: skip
    """The images in rows of at most five, and below them a row of overlays for each kind of map.

    Args:
        pictures: B images.
        maps: maps by kind, the label of their row: [B, rows, columns], 0 or more.
        scale: scale of the maps.
        titles: titles of the images.
        smooth: interpolate maps (bicubic); False shows their cells.
        title: title of the figure.
    """
    colors = scale.colors(np.stack([*maps.values()]))
    figure, axes, _ = table(len(pictures), ['', *maps], 5)
    for axis, picture, said in zip(axes[0], pictures, titles, strict=True):
        show(axis, picture, said)
    for row, values in zip(axes[1:], colors.maps, strict=True):
        _overlay(row, pictures, values, colors, smooth)
    colors.bar(figure, axes)
    figure.suptitle(title)
    return figure


@styled
def over_depth(
    pictures: Pictures, maps: np.ndarray, scale: Scale, *, title: str, names: Sequence[str] = (),
    smooth: bool = True,
) -> list[Figure]:  # fmt: skip
    """Frames of an animation over depth, of equal size and on one scale: overlays of all images.

    Arguments are those of `heads` and `overlays`, with maps [layers, B, rows, columns].
    """
    colors, frames = scale.colors(maps), []
    for layer, values in enumerate(colors.maps, 1):
        # At the side, where the number's width moves nothing: frames are of one size.
        figure, axes, _ = table(len(pictures), [f'layer {layer} of {len(maps)}'], 5)
        _overlay(axes[0], pictures, values, colors, smooth)
        for axis, name in zip(axes[0], names, strict=False):
            axis.set_title(name)
        colors.bar(figure, axes)
        figure.suptitle(title)
        frames.append(figure)
    return frames


@styled
def distances(distance: np.ndarray, entropy: np.ndarray, *, largest: float) -> Figure:
    """Mean attention distance and entropy of each head (a dot) by layer, and the layers' means.

    Args:
        distance: distance in pixels, [layers, heads].
        entropy: entropy in nats, [layers, heads].
        largest: entropy of uniform attention, drawn as a line.
    """
    require_finite(distance, 'distance')
    require_finite(entropy, 'entropy')
    figure, (left, right) = charts(2)
    layers = np.arange(1, len(distance) + 1)
    for axis, values, title, unit in (
        (left, distance, 'mean attention distance', 'distance (pixels)'),
        (right, entropy, 'attention entropy', 'entropy (nats)'),
    ):
        dots = axis.plot(layers, values, 'o', color='C0', alpha=0.5, markeredgewidth=0)
        mean = axis.plot(layers, values.mean(1), color='C1')
        axis.set(title=title, xlabel='layer', ylabel=unit)
        number(axis)
    line = right.axhline(largest, color='0.4', linestyle=':')
    # Equal heads, as in a barely trained network, would put dots under the frame.
    left.set_ylim(0, 1.08 * distance.max() or 1)
    right.set_ylim(0, 1.08 * max(largest, entropy.max()) or 1)
    figure.key([dots[0], *mean, line], ['one head', 'mean of heads', 'uniform attention'])
    return figure


def _map(axis: Axes, values: np.ndarray, colors: Colors, title: str = '') -> None:
    show(axis, values, title, cmap=colors.name, norm=colors.norm)


def _overlay(
    row: Sequence[Axes], pictures: Pictures, maps: np.ndarray, colors: Colors, smooth: bool
) -> None:
    for axis, picture, values in zip(row, pictures, maps, strict=True):
        overlay(axis, picture, values, colors.norm, smooth=smooth)


def _picture(
    axis: Axes, picture: np.ndarray, grid: tuple[int, ...], query: Query, name: str = ''
) -> None:
    """Shows an image, with a square around the attending patch."""
    show(axis, picture, name)
    if query is None:
        return
    height, width = picture.shape[0] / grid[0], picture.shape[1] / grid[1]
    corner = (query[1] * width - 0.5, query[0] * height - 0.5)
    for color, thick in (('black', 2), ('white', 1)):
        axis.add_patch(Rectangle(corner, width, height, fill=False, color=color, lw=thick))
