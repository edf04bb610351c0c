"""What attention shows: maps by head and layer, over the image, distances and entropies."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle

from vitjax.figures.panels import brightest, charts, number, overlay, panels, show, some
from vitjax.figures.style import WIDTH, Figure, styled

_MOST = 12  # with more panels a row each is too small to read


@styled
def heads(
    pictures: np.ndarray, maps: np.ndarray, *, titles: Sequence[str] = (), signed: bool = False,
    query: tuple[int, int] | None = None,
) -> Figure:  # fmt: skip
    """One row an image: the image, then one map for each head.

    Args:
        pictures: [B, H, W, 3] in 0..1.
        maps: [B, heads, rows, columns]; each panel has its own scale. Of more than twelve heads,
            twelve are shown, evenly spread.
        titles: of the maps; `head 1` and so on without them.
        signed: maps may be negative: colours are centred on 0.
        query: row and column of the attending patch, marked on the image.
    """
    shown = some(maps.shape[1], _MOST)
    titles = titles or [f'head {head + 1}' for head in range(maps.shape[1])]
    side = min(1.7, WIDTH / (1 + len(shown)))
    figure, axes = panels(len(maps), 1 + len(shown), side=side, top=0.1)
    for image, row in enumerate(axes):
        _picture(row[0], pictures[image], maps.shape[2:], query)
        for axis, head in zip(row[1:], shown, strict=True):
            _map(axis, maps[image, head], '' if image else titles[head], signed=signed)
    return figure


@styled
def heads_by_layer(
    picture: np.ndarray, maps: np.ndarray, *, query: tuple[int, int] | None = None
) -> Figure:
    """One column a layer, one row a head, for one image: maps [layers, heads, rows, columns].

    At most twelve layers and twelve heads, evenly spread; each panel has its own scale.
    """
    layers, shown = some(len(maps), _MOST), some(maps.shape[1], _MOST)
    side = min(1.4, WIDTH / (1 + len(layers)))
    figure, axes = panels(len(shown), 1 + len(layers), side=side, top=0.05)
    _picture(axes[0, 0], picture, maps.shape[2:], query)
    for row, head in zip(axes, shown, strict=True):
        row[1].set_ylabel(f'head {head + 1}')
        for axis, layer in zip(row[1:], layers, strict=True):
            _map(axis, maps[layer, head], '' if head else f'layer {layer + 1}')
    return figure


@styled
def overlays(
    pictures: np.ndarray, maps: Mapping[str, np.ndarray], *, titles: Sequence[str], smooth: bool
) -> Figure:
    """The images in a row, and below them one row of overlays for each of several kinds of map.

    Args:
        pictures: [B, H, W, 3] in 0..1.
        maps: by kind, which labels its row: [B, rows, columns], 0 or more; every panel has its own
            scale.
        titles: one for each image.
        smooth: interpolate maps (bicubic) or show their cells.
    """
    count = len(pictures)
    figure, axes = panels(1 + len(maps), count, side=min(2.4, WIDTH / count), top=0.12)
    for axis, picture, title in zip(axes[0], pictures, titles, strict=True):
        show(axis, picture, title)
    for row, (label, values) in zip(axes[1:], maps.items(), strict=True):
        row[0].set_ylabel(label)
        for axis, picture, value in zip(row, pictures, values, strict=True):
            overlay(axis, picture, value, smooth=smooth)
    return figure


@styled
def frame(pictures: np.ndarray, maps: np.ndarray, title: str, *, smooth: bool = True) -> Figure:
    """One frame of an animation over depth: overlays [B, rows, columns] of all images in a row."""
    figure, axes = panels(1, len(pictures), side=min(2.0, 8 / len(pictures)), top=0.4)
    for axis, picture, values in zip(axes[0], pictures, maps, strict=True):
        overlay(axis, picture, values, smooth=smooth)
    figure.suptitle(title)
    return figure


@styled
def distances(distance: np.ndarray, entropy: np.ndarray, *, largest: float) -> Figure:
    """Mean attention distance and entropy of each head (a dot) by layer, and the layers' means.

    Args:
        distance: pixels, [layers, heads].
        entropy: nats, [layers, heads].
        largest: the entropy of uniform attention, drawn as a line.
    """
    figure, (left, right) = charts(WIDTH, 3.6, 2)
    layers = np.arange(1, len(distance) + 1)
    for axis, values, title, unit in (
        (left, distance, 'mean attention distance', 'pixels'),
        (right, entropy, 'attention entropy', 'nats'),
    ):
        axis.plot(layers, values, 'o', color='C0', alpha=0.5, markersize=5, markeredgewidth=0)
        axis.plot(layers, values.mean(1), color='C1', label='mean of heads')
        axis.set(title=title, xlabel='layer', ylabel=unit)
        number(axis)
    right.axhline(largest, color='0.4', linestyle=':', label='uniform attention')
    # Where all heads are alike, as in a barely trained network, dots would hide under the frame.
    left.set_ylim(0, 1.08 * distance.max())
    right.set_ylim(0, 1.08 * max(largest, entropy.max()))
    left.plot([], [], 'o', color='C0', alpha=0.5, markeredgewidth=0, label='one head')
    left.legend()
    right.legend(loc='lower right')
    return figure


def _map(axis, values: np.ndarray, title: str = '', *, signed: bool = False) -> None:
    most = brightest(np.abs(values))
    low, colours = (-most, 'coolwarm') if signed else (0, 'inferno')
    show(axis, values, title, cmap=colours, vmin=low, vmax=most)


def _picture(axis, picture: np.ndarray, grid: tuple[int, ...], query: tuple[int, int] | None):
    """An image, with a square around the attending patch."""
    show(axis, picture)
    if query is None:
        return
    height, width = picture.shape[0] / grid[0], picture.shape[1] / grid[1]
    corner = (query[1] * width - 0.5, query[0] * height - 0.5)
    for colour, thick in (('black', 3), ('white', 1.5)):
        axis.add_patch(Rectangle(corner, width, height, fill=False, color=colour, lw=thick))
