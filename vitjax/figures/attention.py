"""What attention shows: maps by head and layer, over the image, distances and entropies."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from vitjax.figures.panels import WIDTH, brightest, overlay, panels, row_labels, show, some

_MOST = 12  # with more panels a row each is too small to read


def heads(
    pictures: np.ndarray,
    maps: np.ndarray,
    *,
    titles: Sequence[str] = (),
    signed: bool = False,
    query: tuple[int, int] | None = None,
) -> Figure:
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
    figure, axes = panels(len(maps), 1 + len(shown), side=_side(1 + len(shown)), top=0.1)
    for image, row in enumerate(axes):
        show(row[0], pictures[image])
        if query is not None:
            _mark(row[0], pictures[image], maps.shape[2:], query)
        for axis, head in zip(row[1:], shown, strict=True):
            title = titles[head] if image == 0 else ''
            _map(axis, maps[image, head], title, signed=signed)
    return figure


def heads_by_layer(
    picture: np.ndarray, maps: np.ndarray, *, query: tuple[int, int] | None = None
) -> Figure:
    """One column a layer, one row a head, for one image: maps [layers, heads, rows, columns].

    At most twelve layers and twelve heads, evenly spread; each panel has its own scale.
    """
    layers, shown = some(len(maps), 12), some(maps.shape[1], _MOST)
    side = min(1.4, WIDTH / (1 + len(layers)))
    figure, axes = panels(len(shown), 1 + len(layers), side=side, top=0.05)
    show(axes[0, 0], picture)
    if query is not None:
        _mark(axes[0, 0], picture, maps.shape[2:], query)
    for row, head in zip(axes, shown, strict=True):
        row[1].set_ylabel(f'head {head + 1}', fontsize=9)
        for axis, layer in zip(row[1:], layers, strict=True):
            title = f'layer {layer + 1}' if head == shown[0] else ''
            _map(axis, maps[layer, head], title)
    return figure


def overlays(
    pictures: np.ndarray,
    maps: Sequence[np.ndarray],
    *,
    labels: Sequence[str],
    titles: Sequence[str] = (),
    smooth: bool = True,
) -> Figure:
    """The images in a row, and below them one row of overlays for each of several kinds of map.

    Args:
        pictures: [B, H, W, 3] in 0..1.
        maps: each [B, rows, columns], 0 or more; every panel has its own scale.
        labels: of the kinds, one a row.
        titles: one for each image.
        smooth: interpolate maps (bicubic) or show their cells.
    """
    count = len(pictures)
    figure, axes = panels(1 + len(maps), count, side=min(2.4, WIDTH / count), top=0.12)
    for column in range(count):
        title = titles[column] if titles else ''
        show(axes[0, column], pictures[column], title)
        for axis, kind in zip(axes[1:, column], maps, strict=True):
            overlay(axis, pictures[column], kind[column], smooth=smooth)
    row_labels(axes, ['', *labels])
    return figure


def frame(pictures: np.ndarray, maps: np.ndarray, title: str, *, smooth: bool = True) -> Figure:
    """One frame of an animation over depth: overlays [B, rows, columns] of all images in a row."""
    figure, axes = panels(1, len(pictures), side=min(2.0, 8 / len(pictures)), top=0.4)
    for axis, picture, values in zip(axes[0], pictures, maps, strict=True):
        overlay(axis, picture, values, smooth=smooth)
    figure.suptitle(title, fontsize=11)
    return figure


def distances(distance: np.ndarray, entropy: np.ndarray, *, largest: float) -> Figure:
    """Mean attention distance and entropy of each head (a dot) by layer, and the layers' means.

    Args:
        distance: pixels, [layers, heads].
        entropy: nats, [layers, heads].
        largest: the entropy of uniform attention, drawn as a line.
    """
    figure = Figure(figsize=(10, 3.6), layout='constrained')
    left, right = figure.subplots(1, 2)
    layers = np.arange(1, len(distance) + 1)
    for axis, values, title, unit in (
        (left, distance, 'mean attention distance', 'pixels'),
        (right, entropy, 'attention entropy', 'nats'),
    ):
        axis.plot(layers, values, 'o', color='C0', alpha=0.5, markersize=5, markeredgewidth=0)
        axis.plot(layers, values.mean(1), color='C1', label='mean of heads')
        axis.set(title=title, xlabel='layer', ylabel=unit)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    right.axhline(largest, color='0.4', linestyle=':', label='uniform attention')
    # Where all heads are alike, as in a barely trained network, dots would hide under the frame.
    left.set_ylim(0, 1.08 * distance.max())
    right.set_ylim(0, 1.08 * max(largest, entropy.max()))
    left.plot([], [], 'o', color='C0', alpha=0.5, markeredgewidth=0, label='one head')
    left.legend(frameon=False)
    right.legend(frameon=False, loc='lower right')
    return figure


def _side(columns: int) -> float:
    return min(1.7, WIDTH / columns)


def _map(axis, values: np.ndarray, title: str = '', *, signed: bool = False) -> None:
    if signed:
        most = brightest(np.abs(values))
        show(axis, values, title, cmap='coolwarm', vmin=-most, vmax=most)
    else:
        show(axis, values, title, cmap='inferno', vmin=0, vmax=brightest(values))


def _mark(axis, picture: np.ndarray, grid: tuple[int, ...], query: tuple[int, int]) -> None:
    """A square around the attending patch."""
    height, width = picture.shape[0] / grid[0], picture.shape[1] / grid[1]
    corner = (query[1] * width - 0.5, query[0] * height - 0.5)
    for colour, thick in (('black', 3), ('white', 1.5)):
        axis.add_patch(Rectangle(corner, width, height, fill=False, color=colour, lw=thick))
