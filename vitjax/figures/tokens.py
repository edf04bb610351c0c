"""What tokens show: positions, the answer over depth, rank, norms, patches and activations."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitjax.figures.panels import montage, panels, show, some


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
    figure = Figure(figsize=(7.2, 6.6), layout='constrained')
    axis = figure.subplots()
    image = show(axis, picture, title, cmap='viridis', vmin=min(0.0, similarity.min()), vmax=1)
    axis.set_xticks(np.arange(len(columns)) * (grid[1] + gap) + (grid[1] - 1) / 2)
    axis.set_yticks(np.arange(len(rows)) * (grid[0] + gap) + (grid[0] - 1) / 2)
    axis.set_xticklabels([f'{c + 1}' for c in columns])
    axis.set_yticklabels([f'{r + 1}' for r in rows])
    axis.set(xlabel='column of the patch', ylabel='row of the patch')
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, label='cosine similarity', shrink=0.85)
    return figure


def over_depth(
    values: Sequence[np.ndarray],
    *,
    titles: Sequence[str],
    ylabels: Sequence[str],
    labels: Sequence[str],
    layers: Sequence[str] = (),
) -> Figure:
    """Quantities by layer side by side, one line an image.

    Args:
        values: each [layers, images].
        titles: of the panels, one for each quantity.
        ylabels: units.
        labels: of the images.
        layers: names of the layers; numbers from 1 on without them.
    """
    width = 5.0 if len(values) > 1 else 6.5
    figure = Figure(figsize=(width * len(values), 3.4), layout='constrained')
    axes = figure.subplots(1, len(values), squeeze=False)[0]
    for axis, quantity, title, ylabel in zip(axes, values, titles, ylabels, strict=True):
        steps = np.arange(1, len(quantity) + 1)
        for image, label in enumerate(labels):
            marker = 'o' if len(steps) <= 16 else None
            axis.plot(steps, quantity[:, image], label=label, marker=marker, markersize=3.5)
        axis.set(title=title, xlabel='layer', ylabel=ylabel)
        _layers(axis, layers)
    if len(labels) <= 8:
        axes[-1].legend(frameon=False, fontsize=9)
    return figure


def lens(
    probability: np.ndarray,
    names: Sequence[Sequence[str]],
    *,
    labels: Sequence[str],
    decided: np.ndarray,
) -> Figure:
    """The class that each layer would answer, one column an image, the last layer on top.

    Args:
        probability: of that class, [layers, images], 0 to 1: the colour.
        names: of that class, [layers][images]: the text.
        labels: of the images.
        decided: the layer from which the final class stays, [images]; a line marks it.
    """
    shown = some(len(probability), 16)
    figure = Figure(
        figsize=(min(10.0, 2 + 2.0 * len(labels)), 1.2 + 0.3 * len(shown)), layout='constrained'
    )
    axis = figure.subplots()
    image = axis.imshow(probability[shown], cmap='viridis', vmin=0, vmax=1, aspect='auto')
    for y, layer in enumerate(shown):
        for x in range(len(labels)):
            colour = 'black' if probability[layer, x] > 0.6 else 'white'
            name = _short(names[layer][x], 22)
            axis.text(x, y, name, ha='center', va='center', color=colour, fontsize=8)
    for x, layer in enumerate(decided):
        y = np.searchsorted(shown, layer) - 0.5
        axis.plot([x - 0.48, x + 0.48], [y, y], color='white', lw=4)
        axis.plot([x - 0.48, x + 0.48], [y, y], color='C3', lw=2)
    axis.set_xticks(range(len(labels)), [_short(label, 22) for label in labels])
    axis.set_yticks(range(len(shown)), [f'{layer + 1}' for layer in shown])
    axis.set(ylabel='layer', ylim=(-0.5, len(shown) - 0.5))
    axis.set_title('what each layer would answer; from the red line on, the final class', size=10)
    axis.tick_params(length=0)
    figure.colorbar(image, label='probability')
    return figure


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
    for column, layer in enumerate(layers):
        axes[0, 1 + column].set_title(f'norm, layer {layer + 1}', fontsize=10)
        drawn = axes[0, 1 + column].images[0]
        bar = figure.colorbar(drawn, ax=axes[:, 1 + column], location='bottom', aspect=15, pad=0.01)
        bar.ax.tick_params(labelsize=8)
    axes[0, -1].set_title(f'patches, layer {layers[-1] + 1}', fontsize=10)
    for axis in axes[:, -1]:
        axis.xaxis.set_major_locator(MaxNLocator(4))
    axes[-1, -1].set_xlabel('norm', fontsize=9)
    return figure


def patches(picture: np.ndarray, cut: np.ndarray, rebuilt: np.ndarray, *, columns: int) -> Figure:
    """An image, its patches [N, P, P, 3] with gaps, and the image rebuilt from them."""
    figure, axes = panels(1, 3, side=3.3, top=0.35)
    gap = max(1, cut.shape[1] // 5)
    show(axes[0, 0], picture, 'image')
    size = cut.shape[1]
    title = f'{len(cut) // columns}x{columns} patches of {size}x{size} pixels'
    show(axes[0, 1], montage(cut, columns, gap=gap), title)
    show(axes[0, 2], rebuilt, 'rebuilt from the patches')
    return figure


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
    count = 1 + len(tiles)
    height, width = tiles.shape[1] // grid[0], tiles.shape[2] // grid[1]
    figure, axes = panels(-(-count // 2), 2, side=5.0, aspect=tiles.shape[1] / tiles.shape[2])
    show(axes.flat[0], picture, 'image')
    for axis in axes.flat[count:]:
        axis.axis('off')
    for axis, values, title in zip(axes.flat[1:], tiles, titles, strict=False):
        low, high = np.percentile(values, (2, 98))
        cut = values.reshape(grid[0], height, grid[1], width).swapaxes(1, 2)
        shown = montage(cut.reshape(-1, height, width), grid[1], gap=2, fill=np.nan)
        show(axis, shown, title, cmap='viridis', vmin=low, vmax=high, interpolation='antialiased')
    return figure


def channels(layers: Sequence[np.ndarray], *, titles: Sequence[str], columns: int = 16) -> Figure:
    """Feature maps channel by channel: uint8 [H, W, C] for each layer, at most 64 channels each."""
    pictures = [
        montage(
            np.moveaxis(maps[..., :64], -1, 0),
            columns,
            gap=max(1, maps.shape[0] // 16),
            fill=np.nan,
        )
        for maps in layers
    ]
    heights = [picture.shape[0] / picture.shape[1] for picture in pictures]
    figure = Figure(figsize=(10, sum(10 * h + 0.3 for h in heights)), layout='constrained')
    axes = figure.subplots(len(pictures), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, picture, title in zip(axes, pictures, titles, strict=True):
        show(axis, picture, title, cmap='viridis', vmin=0, vmax=255, interpolation='antialiased')
        axis.axis('off')
    return figure


def _layers(axis: Axes, names: Sequence[str]) -> None:
    if names:
        axis.set_xticks(range(1, len(names) + 1), names, rotation=90, fontsize=8)
        axis.set_xlabel('')
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)


def _short(name: str, most: int) -> str:
    name = name.split(',')[0]
    return name if len(name) <= most else name[: most - 1] + '…'
