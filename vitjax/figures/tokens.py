"""Tokens: positions, predictions over depth, rank, norms, patches and activations."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from vitjax.data.order import evenly
from vitjax.figures.attention import Pictures
from vitjax.figures.charts import charts, heat, hues, number, write_cells
from vitjax.figures.figure import LINE, Figure, styled
from vitjax.figures.panels import GAP, balanced, montage, panels, require_finite, show, table
from vitjax.figures.text import named, short


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
    figure, (axis,) = charts(width=4.6, height=4.6 * len(rows) / len(columns))
    image = show(axis, picture, title, cmap='viridis', vmin=min(0.0, similarity.min()), vmax=1)
    for side, shown, size in ((axis.yaxis, rows, grid[0]), (axis.xaxis, columns, grid[1])):
        middles = np.arange(len(shown)) * (size + gap) + (size - 1) / 2
        side.set_ticks(middles, [f'{place + 1}' for place in shown])
    axis.set(xlabel='column of the patch', ylabel='row of the patch')
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.bar(image, axis, 'cosine similarity')
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
    figure, axes = charts(len(values), 2)
    for axis, (title, (unit, quantity)) in zip(axes, values.items(), strict=True):
        steps = np.arange(1, len(quantity) + 1)
        marker = 'o' if len(steps) <= 16 else None
        for line, color in zip(quantity.T, hues(len(labels)), strict=True):
            axis.plot(steps, line, marker=marker, color=color, clip_on=False)
        axis.set(title=title, xlabel='' if layers else 'layer', ylabel=unit)
        number(axis)
        if layers:
            axis.set_xticks(steps, [named(layer, 24) for layer in layers], rotation=90)
    figure.key(axes[-1].lines, labels)
    return figure


@styled
def lens(
    probability: np.ndarray, names: list[list[str]], *, labels: Sequence[str], decided: np.ndarray
) -> Figure:
    """Prediction read from each layer, one column an image, the last layer on top.

    Args:
        probability: probability of the predicted class, [layers, images]: the color.
        names: names of the predicted classes, [layers][images]: the text.
        labels: names of the images.
        decided: index of the layer from which the final class stays, [images]; a line marks it.
    """
    shown, columns = evenly(len(probability), 16), balanced(len(labels), 5)
    rows = -(-len(labels) // columns)
    figure, axes = charts(rows, 1, width=1.15 * columns, height=0.22 * len(shown))
    for i, axis in enumerate(axes):
        part = slice(i * columns, (i + 1) * columns)
        own = [named(label, 22) for label in labels[part]]
        values = probability[shown, part]
        image = heat(axis, values, ('', own), ('layer', shown + 1), vmin=0, vmax=1)
        axis.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, len(shown) - 0.5))
        said = [[*map(short, names[layer][part])] for layer in shown]
        write_cells(axis, values, said, middle=0.6, shorten=True)
        for x, layer in enumerate(decided[part]):
            y = np.searchsorted(shown, layer) - 0.5
            line: Any = {'clip_on': False, 'zorder': 3}  # the frame would cover half at layer 1
            for color, thick in (('white', 3), ('C3', 1.5)):
                axis.plot([x - 0.48, x + 0.48], [y, y], color=color, lw=thick, **line)
        axis.tick_params(length=0)
    figure.suptitle('prediction read from each layer; red line: the final class from here on')
    figure.bar(image, axes, 'probability')
    return figure


@styled
def norms(
    pictures: Pictures, maps: np.ndarray, *, layers: Sequence[int], names: Sequence[str] = ()
) -> Figure:
    """Images, below them norms of their patch tokens at some layers, and histograms at the last.

    Args:
        pictures: B images.
        maps: norms, [layers shown, B, rows, columns]; one color scale a layer.
        layers: indices of these layers.
        names: names of the images, or none.
    """
    require_finite(maps, 'norms')
    said = [f'layer {layer + 1}' for layer in layers]
    figure, axes, columns = table(len(pictures), ['', *said, 'patches'], 5, side=1.2)
    for axis, picture, name in zip(axes[0], pictures, names or [''] * len(pictures), strict=True):
        show(axis, picture, name)
    for row, values in zip(axes[1:-1], maps, strict=True):
        norm = Normalize(values.min(), values.max())
        for axis, each in zip(row, values, strict=True):
            show(axis, each, norm=norm)
        figure.bar(ScalarMappable(norm), row[:columns], 'norm')
    low, high = maps[-1].min(), maps[-1].max()
    bins = int(np.clip(maps[-1, 0].size ** 0.5, 5, 30))
    edges = np.linspace(low, max(high, low + 1e-3 * (1 + low)), bins + 1)  # all may be equal
    most = 1.3 * max(np.histogram(values, edges)[0].max() for values in maps[-1])
    for image, axis in enumerate(axes[-1]):
        axis.hist(maps[-1, image].ravel(), edges, color='C0')
        axis.set_yscale('symlog', linthresh=1)
        axis.set(xlim=(edges[0], edges[-1]), ylim=(0, most), xlabel=f'norm, {said[-1]}')
        ticks = (
            [tick for tick in (0, 1, 10, 100, 1000) if tick <= most] if image % columns == 0 else []
        )
        axis.set_yticks(ticks, [f'{tick}' for tick in ticks])
        axis.spines[['left', 'bottom']].set_visible(True)
        axis.xaxis.set_major_locator(MaxNLocator(3))
    return figure


@styled
def patches(
    picture: np.ndarray, cut: np.ndarray, rebuilt: np.ndarray, *, columns: int, name: str
) -> Figure:
    """An image by its name, its patches [N, P, P, 3] with gaps, and the image rebuilt from them."""
    figure, ((whole, pieces, again),) = panels(1, 3, side=2.3)
    size = cut.shape[1]
    title = f'{len(cut) // columns}x{columns} patches of {size}x{size} pixels'
    show(whole, picture, name)
    show(pieces, montage(cut, columns, gap=max(1, size // 5), fill=GAP), title)
    show(again, rebuilt, 'rebuilt from the patches')
    return figure


_ACROSS = 6.2  # inches of the feature maps of a layer
STANDARDISED = 'channels, each standardised over the image'


@styled
def channels(
    layers: Mapping[str, np.ndarray], numbers: Mapping[str, Sequence[int]],
    counts: Mapping[str, int], *, title: str, columns: int = 12,
) -> Figure:  # fmt: skip
    """Feature maps side by side, each below its channel's number.

    Args:
        layers: uint8 maps [H, W, shown] by layer.
        numbers: channels that are shown, by layer.
        counts: number of all channels by layer.
        title: title of the figure.
        columns: maps in a row.
    """
    figure = Figure()
    for name, maps in layers.items():
        height, width, shown = maps.shape
        gap, rows = max(1, width // 10), -(-shown // columns)
        across = columns * (width + gap)
        above = math.ceil(LINE * across / _ACROSS)  # pixels, for a number
        down = rows * (height + above)
        ((axis,),) = panels(1, 1, side=_ACROSS, aspect=down / across, figure=figure)[1]
        picture = montage(np.moveaxis(maps, -1, 0), columns, gap=(above, gap), fill=np.nan)
        said = f'{name}: {counts[name]} channels of {height}x{width}'
        said += f', the {shown} that vary most' * (counts[name] > shown)
        show(axis, picture, said, vmin=0, vmax=255, interpolation='antialiased')
        axis.set(xlim=(-0.5, across - 0.5), ylim=(down - above - 0.5, -above - 0.5))
        for i, channel in enumerate(numbers[name]):
            x = i % columns * (width + gap) + (width - 1) / 2
            y = i // columns * (height + above) - 0.5
            axis.text(x, y, f'{channel}', size=6, ha='center', va='bottom')
    figure.suptitle(title)
    return figure


@styled
def large_channels(
    picture: np.ndarray, layers: Mapping[str, np.ndarray], *, channels: Sequence[int], title: str
) -> Figure:
    """An image, and chosen channels [h, w, n] of layers: a row each, on one scale."""
    figure, axes = panels(len(layers), 1 + len(channels), side=2.2)
    show(axes[0, 0], picture)
    for axis in axes[1:, 0]:
        axis.remove()
    for row, (name, maps) in zip(axes, layers.items(), strict=True):
        row[1].set_ylabel(named(name, 24))
        norm = Normalize(float(maps.min()), float(maps.max()))
        for axis, values in zip(row[1:], np.moveaxis(maps, -1, 0), strict=True):
            show(axis, values, norm=norm)
        figure.bar(ScalarMappable(norm), row[1:], 'activation')
    for axis, channel in zip(axes[0, 1:], channels, strict=True):
        axis.set_title(f'channel {channel}')
    figure.suptitle(title)
    return figure
