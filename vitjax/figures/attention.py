"""Attention: maps by head and layer, overlays on the image, distances and entropies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from vitjax.data.order import evenly
from vitjax.figures.charts import charts, number
from vitjax.figures.panels import Scale, overlay, panels, require_finite, scaled, show
from vitjax.figures.style import WIDTH, Figure, styled
from vitjax.figures.text import fitted, headed

# Weights are drawn as multiples of 1/N, the weight of each of N tokens under uniform attention. A
# scale that ends no earlier than at DIM leaves nearly uniform attention dim and flat.
UNIFORM, DIM = 'attention / uniform', 3.0
BAR = 0.7  # inches of a colour bar
_MOST = 12  # panels in a row; more would be too small to read


@styled
def heads(
    pictures: np.ndarray, maps: np.ndarray, *, title: str, label: str,
    titles: Sequence[str] | Sequence[Sequence[str]] = (), signed: bool = False,
    query: tuple[int, int] | None = None, scale: str = 'shared', least: float = 0.0,
) -> Figure:  # fmt: skip
    """One row an image: the image, then one map for each head.

    Args:
        pictures: [B, H, W, 3] in 0..1.
        maps: [B, heads, rows, columns]. Of more than twelve heads, twelve evenly spaced are shown.
        title: layer, and the attending token.
        label: quantity of the maps, at the colour bar.
        titles: titles of the maps, or one list per image; by default `head 1` and so on.
        signed: maps may be negative, and colours are centred on 0.
        query: row and column, from 0, of the attending patch, marked on the image.
        scale: scale of colours, `shared` or `each` map's own.
        least: smallest end of a shared scale.
    """
    count = maps.shape[1]
    shown, own = evenly(count, _MOST), bool(titles) and not isinstance(titles[0], str)
    said: Any = titles or [f'head {head + 1}' for head in range(count)]
    colours = scaled(maps, label, scale, signed=signed, least=least)
    side = min(1.3, (WIDTH - BAR) / (1 + len(shown)))
    top = 0.2 if own else 0.05
    figure, axes = panels(len(maps), 1 + len(shown), side=side, top=top, right=BAR)
    for image, row in enumerate(axes):
        _picture(row[0], pictures[image], maps.shape[2:], query)
        for axis, head in zip(row[1:], shown, strict=True):
            above = said[image][head] if own else '' if image else said[head]
            _map(axis, colours, (image, head), above)
    colours.bar(figure, axes)
    headed(figure, title)
    return figure


@styled
def heads_by_layer(
    picture: np.ndarray, maps: np.ndarray, *, title: str, label: str,
    query: tuple[int, int] | None = None, scale: str = 'shared', least: float = 0.0,
) -> Figure:  # fmt: skip
    """One column a layer, one row a head, for one image: maps [layers, heads, rows, columns].

    At most twelve layers and twelve heads, evenly spaced. Other arguments are those of `heads`.
    """
    layers, shown = evenly(len(maps), _MOST), evenly(maps.shape[1], _MOST)
    colours = scaled(maps, label, scale, least=least)
    side = min(1.2, (WIDTH - BAR) / (1 + len(layers)))
    figure, axes = panels(len(shown), 1 + len(layers), side=side, top=0.05, right=BAR)
    _picture(axes[0, 0], picture, maps.shape[2:], query)
    names = [f'layer {layer + 1}' for layer in layers]
    if len(layers) > 8:  # too narrow for the word
        names[1:] = [f'{layer + 1}' for layer in layers[1:]]
    for row, head in zip(axes, shown, strict=True):
        row[1].set_ylabel(f'head {head + 1}')
        for axis, layer, name in zip(row[1:], layers, names, strict=True):
            _map(axis, colours, (layer, head), '' if head else name)
    colours.bar(figure, axes)
    headed(figure, title)
    return figure


@styled
def overlays(
    pictures: np.ndarray, maps: Mapping[str, np.ndarray], *, titles: Sequence[str], label: str,
    smooth: bool, title: str = '', scale: str = 'shared', least: float = 0.0,
) -> Figure:  # fmt: skip
    """The images in a row, and below them a row of overlays for each kind of map.

    Args:
        pictures: [B, H, W, 3] in 0..1.
        maps: maps by kind, the label of their row: [B, rows, columns], 0 or more.
        titles: titles of the images.
        label: quantity of the maps, at the colour bar.
        smooth: interpolate maps (bicubic); False shows their cells.
        title: title of the figure.
        scale: scale of colours, `shared` or `each` map's own.
        least: smallest end of a shared scale.
    """
    count = len(pictures)
    side = min(1.9, (WIDTH - BAR) / count)
    titles = [fitted(said, side) for said in titles]
    lines = max(said.count('\n') for said in titles) + 1
    top = 0.15 * lines / (1 + len(maps))
    figure, axes = panels(1 + len(maps), count, side=side, top=top, right=BAR)
    for axis, picture, said in zip(axes[0], pictures, titles, strict=True):
        show(axis, picture, said)
    colours = scaled(np.stack([*maps.values()]), label, scale, least=least)
    for row, kind, values in zip(axes[1:], maps, colours.maps, strict=True):
        row[0].set_ylabel(kind)
        for axis, picture, value in zip(row, pictures, values, strict=True):
            overlay(axis, picture, value, colours.norm, smooth=smooth)
    colours.bar(figure, axes)
    headed(figure, title)
    return figure


@styled
def over_depth(
    pictures: np.ndarray, maps: np.ndarray, *, title: str, label: str, smooth: bool = True,
    scale: str = 'shared', least: float = 0.0,
) -> list[Figure]:  # fmt: skip
    """Frames of an animation over depth, on one scale: overlays of all images in a row.

    Arguments are those of `overlays`, with maps [layers, B, rows, columns].
    """
    colours, frames = scaled(maps, label, scale, least=least), []
    for layer, values in enumerate(colours.maps, 1):
        side = min(1.6, (WIDTH - BAR) / len(pictures))
        figure, axes = panels(1, len(pictures), side=side, top=0.4, right=BAR)
        for axis, picture, value in zip(axes[0], pictures, values, strict=True):
            overlay(axis, picture, value, colours.norm, smooth=smooth)
        colours.bar(figure, axes, aspect=15)
        headed(figure, f'{title}, layer {layer} of {len(maps)}')
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
    figure, (left, right) = charts(WIDTH, 2.6, 2)
    layers = np.arange(1, len(distance) + 1)
    for axis, values, title, unit in (
        (left, distance, 'mean attention distance', 'distance (pixels)'),
        (right, entropy, 'attention entropy', 'entropy (nats)'),
    ):
        axis.plot(layers, values, 'o', color='C0', alpha=0.5, markeredgewidth=0)
        axis.plot(layers, values.mean(1), color='C1', label='mean of heads')
        axis.set(title=title, xlabel='layer', ylabel=unit)
        number(axis)
    right.axhline(largest, color='0.4', linestyle=':', label='uniform attention')
    # Equal heads, as in a barely trained network, would put dots under the frame.
    left.set_ylim(0, 1.08 * distance.max() or 1)
    right.set_ylim(0, 1.08 * max(largest, entropy.max()) or 1)
    left.plot([], [], 'o', color='C0', alpha=0.5, markeredgewidth=0, label='one head')
    left.legend()
    right.legend(loc='lower right')
    return figure


def _map(axis, colours: Scale, place: tuple[int, int], title: str) -> None:
    show(axis, colours.maps[place], title, cmap=colours.colours, norm=colours.norm)


def _picture(axis, picture: np.ndarray, grid: tuple[int, ...], query: tuple[int, int] | None):
    """Shows an image, with a square around the attending patch."""
    show(axis, picture)
    if query is None:
        return
    height, width = picture.shape[0] / grid[0], picture.shape[1] / grid[1]
    corner = (query[1] * width - 0.5, query[0] * height - 0.5)
    for colour, thick in (('black', 2), ('white', 1)):
        axis.add_patch(Rectangle(corner, width, height, fill=False, color=colour, lw=thick))
