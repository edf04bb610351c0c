"""Tokens: positions, predictions over depth, rank, norms, patches and activations."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from vitjax.data.order import evenly
from vitjax.figures.charts import charts, heat, legend, number, write_cells
from vitjax.figures.panels import GAP, montage, panels, require_finite, show
from vitjax.figures.style import WIDTH, Figure, styled
from vitjax.figures.text import headed, named, short


@styled
def positions(similarity: np.ndarray, *, grid: tuple[int, int], title: str = '') -> Figure:
    """A grid of grids: for each place, the cosine of its position embedding to every other.

    Args:
        similarity: [N, N], -1 to 1.
        grid: rows and columns of places; of more than 16, every second, third or so on is shown.
        title: kind of embedding.
    """
    rows, columns = (range(0, n, -(-n // 16)) for n in grid)
    places = [row * grid[1] + column for row in rows for column in columns]
    maps = similarity.reshape(-1, *grid)[np.array(places)]
    gap = max(1, grid[0] // 10)
    picture = montage(maps, len(columns), gap=gap, fill=np.nan)
    figure, (axis,) = charts(0.75 * WIDTH, 4.9)
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
        values: unit and values [layers, images] by title of the panel.
        labels: names of the images.
        layers: names of the layers; by default numbers from 1.
    """
    figure, axes = charts(min(WIDTH, 4.5 * len(values)), 2.6, len(values))
    for axis, (title, (unit, quantity)) in zip(axes, values.items(), strict=True):
        steps = np.arange(1, len(quantity) + 1)
        for line in quantity.T:
            marker = 'o' if len(steps) <= 16 else None
            axis.plot(steps, line, marker=marker, clip_on=False)
        axis.set(title=title, xlabel='' if layers else 'layer', ylabel=unit)
        number(axis)
        if layers:
            axis.set_xticks(steps, [named(layer, 24) for layer in layers], rotation=90)
    if len(labels) <= 8:
        legend(axes[-1], axes[-1].lines, labels)
    return figure


@styled
def lens(
    probability: np.ndarray, names: list[list[str]], *, labels: Sequence[str], decided: np.ndarray
) -> Figure:
    """Prediction read from each layer, one column an image, the last layer on top.

    Args:
        probability: probability of the predicted class, [layers, images]: the colour.
        names: names of the predicted classes, [layers][images]: the text.
        labels: names of the images.
        decided: index of the layer from which the final class stays, [images]; a line marks it.
    """
    shown = evenly(len(probability), 16)
    figure, (axis,) = charts(min(WIDTH, 1.5 + 1.5 * len(labels)), 0.8 + 0.22 * len(shown))
    columns = [named(label, 22) for label in labels]
    image = heat(
        axis, probability[shown], ('', columns), ('layer', shown + 1), most=99, vmin=0, vmax=1
    )
    said = [[*map(short, names[layer])] for layer in shown]
    write_cells(axis, probability[shown], lambda row, column: said[row][column], middle=0.6)
    for x, layer in enumerate(decided):
        y = np.searchsorted(shown, layer) - 0.5
        for colour, thick in (('white', 3), ('C3', 1.5)):
            # At the first layer the frame would cover half of it.
            axis.plot([x - 0.48, x + 0.48], [y, y], color=colour, lw=thick, clip_on=False, zorder=3)
    axis.set_ylim(-0.5, len(shown) - 0.5)
    headed(figure, 'prediction read from each layer; red line: the final class from here on')
    axis.tick_params(length=0)
    figure.colorbar(image, label='probability')
    return figure


@styled
def norms(pictures: np.ndarray, maps: np.ndarray, *, layers: Sequence[int]) -> Figure:
    """Norms of patch tokens over the image at some layers, and their histogram at the last.

    Args:
        pictures: [B, H, W, 3] in 0..1.
        maps: norms, [layers shown, B, rows, columns]; one colour scale a column.
        layers: indices of these layers.
    """
    require_finite(maps, 'norms')
    figure, axes = panels(len(pictures), 2 + len(layers), side=WIDTH / (2 + len(layers)), top=0)
    low, high = maps[-1].min(), maps[-1].max()
    edges = np.linspace(low, max(high, low + 1e-3 * (1 + low)), 31)  # all norms may be equal
    for image, row in enumerate(axes):
        show(row[0], pictures[image])
        for axis, values in zip(row[1:-1], maps, strict=True):
            show(axis, values[image], cmap='viridis', vmin=values.min(), vmax=values.max())
        row[-1].hist(maps[-1, image].ravel(), edges, color='C0')
        row[-1].set_yscale('symlog', linthresh=1)
        row[-1].set(yticks=[0, 1, 10, 100], yticklabels=['0', '1', '10', '100'], box_aspect=0.9)
        row[-1].spines[['left', 'bottom']].set_visible(True)
        row[-1].set_xlim(edges[0], edges[-1])
        row[-1].xaxis.set_major_locator(MaxNLocator(4))
    for column, layer in zip(axes.T[1:-1], layers, strict=True):
        column[0].set_title(f'norm, layer {layer + 1}')
        drawn = column[0].images[0]
        figure.colorbar(drawn, ax=column, location='bottom', aspect=15, pad=0.01)
    axes[0, -1].set_title(f'patches, layer {layers[-1] + 1}')
    axes[-1, -1].set_xlabel('norm')
    return figure


@styled
def patches(
    picture: np.ndarray, cut: np.ndarray, rebuilt: np.ndarray, *, columns: int, name: str
) -> Figure:
    """An image by its name, its patches [N, P, P, 3] with gaps, and the image rebuilt from them."""
    figure, ((whole, pieces, again),) = panels(1, 3, side=WIDTH / 3)
    size = cut.shape[1]
    title = f'{len(cut) // columns}x{columns} patches of {size}x{size} pixels'
    show(whole, picture, named(name, 30))
    show(pieces, montage(cut, columns, gap=max(1, size // 5), fill=GAP), title)
    show(again, rebuilt, 'rebuilt from the patches')
    return figure


STANDARDISED = 'channels, each standardised over the image'


@styled
def channels(
    layers: Mapping[str, np.ndarray], counts: Mapping[str, int], *, title: str, columns: int = 16
) -> Figure:
    """Feature maps side by side, channel by channel.

    Args:
        layers: uint8 maps [H, W, shown] by layer.
        counts: number of all channels by layer.
        title: title of the figure.
        columns: maps in a row.
    """
    pictures = [
        montage(np.moveaxis(m, -1, 0), columns, gap=max(1, len(m) // 16), fill=np.nan)
        for m in layers.values()
    ]
    heights = [picture.shape[0] / picture.shape[1] for picture in pictures]
    size = (WIDTH, sum(WIDTH * h + 0.3 for h in heights) + 0.4)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(pictures), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, picture, (name, maps) in zip(axes, pictures, layers.items(), strict=True):
        height, width, shown = maps.shape
        said = f'{name}: {counts[name]} channels of {height}x{width}'
        said += f', the {shown} that vary most' if counts[name] > shown else ''
        show(axis, picture, said, vmin=0, vmax=255, interpolation='antialiased')
        axis.axis('off')
    headed(figure, title)
    return figure


@styled
def large_channels(
    picture: np.ndarray, layers: Mapping[str, np.ndarray], *, channels: Sequence[int], title: str
) -> Figure:
    """An image, and chosen channels [h, w, n] of layers: a row each, on one scale."""
    columns = 1 + len(channels)
    side = min(2.6, (WIDTH - 0.7) / columns)
    figure, axes = panels(len(layers), columns, side=side, top=0.1)
    show(axes[0, 0], picture)
    for row, (name, maps) in zip(axes, layers.items(), strict=True):
        row[1].set_ylabel(named(name, 24))
        norm = Normalize(float(maps.min()), float(maps.max()))
        for axis, values in zip(row[1:], np.moveaxis(maps, -1, 0), strict=True):
            show(axis, values, norm=norm)
        figure.colorbar(ScalarMappable(norm), ax=row, label='activation', aspect=15, pad=0.01)
    for axis, channel in zip(axes[0, 1:], channels, strict=True):
        axis.set_title(f'channel {channel}')
    headed(figure, title)
    return figure
