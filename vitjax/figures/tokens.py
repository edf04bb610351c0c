"""What tokens show: positions, the answer over depth, rank, norms, patches and activations."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from vitjax.figures.panels import charts, montage, number, panels, show, some, wrapped, write_cells
from vitjax.figures.style import Figure, styled


@styled
def positions(similarity: np.ndarray, *, grid: tuple[int, int], title: str = '') -> Figure:
    """A grid of grids: for each place, the cosine of its position embedding to every other.

    Args:
        similarity: [N, N], -1 to 1.
        grid: rows and columns of places. Where there are more than 16, every second, third or so
            on is shown.
        title: what kind of embedding it is.
    """
    rows, columns = (range(0, n, -(-n // 16)) for n in grid)
    places = [row * grid[1] + column for row in rows for column in columns]
    maps = similarity.reshape(-1, *grid)[np.array(places)]
    gap = max(1, grid[0] // 10)
    picture = montage(maps, len(columns), gap=gap, fill=np.nan)
    figure, (axis,) = charts(7.2, 6.6)
    image = show(axis, picture, title, cmap='viridis', vmin=min(0.0, similarity.min()), vmax=1)
    for side, shown, size in ((axis.yaxis, rows, grid[0]), (axis.xaxis, columns, grid[1])):
        middles = np.arange(len(shown)) * (size + gap) + (size - 1) / 2
        side.set_ticks(middles, [f'{place + 1}' for place in shown])
    axis.set(xlabel='column of the patch', ylabel='row of the patch')
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, label='cosine similarity', shrink=0.85)
    return figure


@styled
def over_depth(
    values: dict[str, tuple[str, np.ndarray]], *, labels: Sequence[str], layers: Sequence[str] = ()
) -> Figure:
    """Quantities by layer side by side, one line an image.

    Args:
        values: by title of the panel: the unit, and values [layers, images].
        labels: of the images.
        layers: names of the layers; numbers from 1 on without them.
    """
    width = 5.0 if len(values) > 1 else 6.5
    figure, axes = charts(width * len(values), 3.4, len(values))
    for axis, (title, (unit, quantity)) in zip(axes, values.items(), strict=True):
        steps = np.arange(1, len(quantity) + 1)
        for line, label in zip(quantity.T, labels, strict=True):
            marker = 'o' if len(steps) <= 16 else None
            axis.plot(steps, line, label=label, marker=marker)
        axis.set(title=title, xlabel='' if layers else 'layer', ylabel=unit)
        number(axis)
        if layers:
            axis.set_xticks(steps, layers, rotation=90)
    if len(labels) <= 8:
        axes[-1].legend()
    return figure


@styled
def lens(
    probability: np.ndarray, names: list[list[str]], *, labels: Sequence[str], decided: np.ndarray
) -> Figure:
    """The class that each layer would answer, one column an image, the last layer on top.

    Args:
        probability: of that class, [layers, images], 0 to 1: the colour.
        names: of that class, [layers][images]: the text.
        labels: of the images.
        decided: the layer from which the final class stays, [images]; a line marks it.
    """
    shown = some(len(probability), 16)
    figure, (axis,) = charts(min(10.0, 2 + 2.0 * len(labels)), 1.2 + 0.3 * len(shown))
    image = axis.imshow(probability[shown], cmap='viridis', vmin=0, vmax=1, aspect='auto')
    short = np.array([[*map(_short, names[layer])] for layer in shown])
    write_cells(axis, probability[shown], lambda *cell: short[cell], middle=0.6)
    for x, layer in enumerate(decided):
        y = np.searchsorted(shown, layer) - 0.5
        for colour, thick in (('white', 4), ('C3', 2)):
            axis.plot([x - 0.48, x + 0.48], [y, y], color=colour, lw=thick)
    axis.set_xticks(range(len(labels)), map(_short, labels))
    axis.set_yticks(range(len(shown)), [f'{layer + 1}' for layer in shown])
    axis.set(ylabel='layer', ylim=(-0.5, len(shown) - 0.5))
    axis.set_title('what each layer would answer; from the red line on, the final class')
    axis.tick_params(length=0)
    figure.colorbar(image, label='probability')
    return figure


@styled
def norms(pictures: np.ndarray, maps: np.ndarray, *, layers: Sequence[int]) -> Figure:
    """Norms of patch tokens over the image at some layers, and how they spread at the last.

    Args:
        pictures: [B, H, W, 3] in 0..1.
        maps: norms, [layers shown, B, rows, columns]; one colour scale a column.
        layers: indices of those layers.
    """
    figure, axes = panels(len(pictures), 2 + len(layers), top=0.05)
    edges = np.linspace(maps[-1].min(), maps[-1].max(), 31)
    for image, row in enumerate(axes):
        show(row[0], pictures[image])
        for axis, values in zip(row[1:-1], maps, strict=True):
            show(axis, values[image], cmap='viridis', vmin=values.min(), vmax=values.max())
        row[-1].hist(maps[-1, image].ravel(), edges, color='C0')
        row[-1].set_yscale('symlog', linthresh=1)
        row[-1].set(yticks=[0, 1, 10, 100], yticklabels=['0', '1', '10', '100'], box_aspect=0.9)
        row[-1].spines[['left', 'bottom']].set_visible(True)
        row[-1].tick_params(labelsize=8)
        row[-1].set_xlim(edges[0], edges[-1])
        row[-1].xaxis.set_major_locator(MaxNLocator(4))
    for column, layer in zip(axes.T[1:-1], layers, strict=True):
        column[0].set_title(f'norm, layer {layer + 1}')
        drawn = column[0].images[0]
        bar = figure.colorbar(drawn, ax=column, location='bottom', aspect=15, pad=0.01)
        bar.ax.tick_params(labelsize=8)
    axes[0, -1].set_title(f'patches, layer {layers[-1] + 1}')
    axes[-1, -1].set_xlabel('norm')
    return figure


@styled
def patches(picture: np.ndarray, cut: np.ndarray, rebuilt: np.ndarray, *, columns: int) -> Figure:
    """An image, its patches [N, P, P, 3] with gaps, and the image rebuilt from them."""
    figure, ((whole, pieces, again),) = panels(1, 3, side=3.3, top=0.35)
    size = cut.shape[1]
    title = f'{len(cut) // columns}x{columns} patches of {size}x{size} pixels'
    show(whole, picture, 'image')
    show(pieces, montage(cut, columns, gap=max(1, size // 5)), title)
    show(again, rebuilt, 'rebuilt from the patches')
    return figure


@styled
def activations(
    picture: np.ndarray, tiles: np.ndarray, *, grid: tuple[int, int], titles: Sequence[str]
) -> Figure:
    """An image, and the activations of some layers patch by patch, with gaps between patches.

    Args:
        picture: [H, W, 3] in 0..1.
        tiles: [layers, rows * h, columns * w]; colours are cut off at 2% and 98%.
        grid: rows and columns of patches.
        titles: of the layers.
    """
    height, width = tiles.shape[1] // grid[0], tiles.shape[2] // grid[1]
    figure, axes = wrapped(1 + len(tiles), 2, side=5.0, aspect=tiles.shape[1] / tiles.shape[2])
    show(axes[0], picture, 'image')
    for axis, values, title in zip(axes[1:], tiles, titles, strict=True):
        low, high = np.percentile(values, (2, 98))
        cut = values.reshape(grid[0], height, grid[1], width).swapaxes(1, 2)
        shown = montage(cut.reshape(-1, height, width), grid[1], gap=2, fill=np.nan)
        show(axis, shown, title, cmap='viridis', vmin=low, vmax=high, interpolation='antialiased')
    return figure


@styled
def channels(layers: dict[str, np.ndarray], *, columns: int = 16) -> Figure:
    """Feature maps channel by channel: uint8 [H, W, C] by layer, at most 64 channels each."""
    pictures = [
        montage(np.moveaxis(m[..., :64], -1, 0), columns, gap=max(1, len(m) // 16), fill=np.nan)
        for m in layers.values()
    ]
    heights = [picture.shape[0] / picture.shape[1] for picture in pictures]
    figure = Figure(figsize=(10, sum(10 * h + 0.3 for h in heights)), layout='constrained')
    axes = figure.subplots(len(pictures), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, picture, (name, maps) in zip(axes, pictures, layers.items(), strict=True):
        height, width, count = maps.shape
        title = f'{name}: {count} channels of {height}x{width}'
        title += ', the first 64' if count > 64 else ''
        show(axis, picture, title, cmap='viridis', vmin=0, vmax=255, interpolation='antialiased')
        axis.axis('off')
    return figure


def _short(name: str) -> str:
    name = name.split(',')[0]
    return name if len(name) <= 22 else name[:21] + '…'
