"""Effects of interventions: on heads, places, regions and layers, of directions, over seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import BoundaryNorm
from matplotlib.ticker import SymmetricalLogLocator

from vitjax.data.order import evenly
from vitjax.figures.charts import (
    band,
    charts,
    diverging,
    heat,
    number,
    percent,
    powers,
    unclip,
    write_cells,
)
from vitjax.figures.figure import Figure, styled
from vitjax.figures.panels import panels, require_finite, show
from vitjax.figures.text import short


@styled
def heads(
    exact: Mapping[str, np.ndarray], size: np.ndarray, estimate: np.ndarray, *, measure: str,
    title: str,
) -> Figure:  # fmt: skip
    """Effects of each head by kind of ablation, and their size against the estimate.

    Args:
        exact: mean effects by kind of ablation, [layers, heads].
        size: mean size of the effects of `zero`, [layers, heads].
        estimate: first-order estimate of the same.
        measure: quantity of the effects.
        title: title of the figure.
    """
    for values in exact.values():
        require_finite(values, measure)
    figure, axes = charts(len(exact) + 1, height=1.6)
    colors = diverging(np.stack([*exact.values()]))
    most = colors['vmax']
    decimals = max(0, 2 - math.floor(math.log10(most))) if most > 1e-30 else 2
    layers, columns = (range(1, count + 1) for count in size.shape)
    for axis, (kind, values) in zip(axes, exact.items(), strict=False):
        image = heat(axis, values, ('head', columns), ('layer', layers), **colors)
        axis.set_title(f'{kind} ablation')
        said = [[f'{value:z.{decimals}f}' for value in row] for row in values]
        write_cells(axis, -np.abs(values), said, middle=-0.6 * most)
    figure.bar(image, axes[-2], measure)
    axis, of_layer = axes[-1], np.repeat(layers, size.shape[1])
    edges = np.arange(len(size) + 1) + 0.5
    look: Any = {'cmap': matplotlib.colormaps['viridis'].resampled(len(size)), 's': 14}
    dots = axis.scatter(
        estimate.ravel(), size.ravel(), c=of_layer, norm=BoundaryNorm(edges, len(size)), **look
    )
    figure.bar(dots, axis, 'layer', ticks=[*layers])
    axis.set(title='size, zero ablation', xlabel='first-order estimate', ylabel='exact')
    if (estimate > 0).any():  # effects may all be 0
        axis.set_xscale('log')
        powers(axis.xaxis)  # labels between the powers of ten would collide
    if (size > 0).any():
        axis.set_yscale('log')
        powers(axis.yaxis, between=True)
    axis.grid(True)
    figure.suptitle(title)
    return figure


@styled
def places(
    exact: np.ndarray, estimate: np.ndarray, prefix: int, shape: tuple[int, int], *, measure: str,
    title: str,
) -> Figure:  # fmt: skip
    """Effects of places: maps of the patches at some layers, exact above estimated, and curves.

    Args:
        exact: mean effects [layers, places].
        estimate: first-order estimate of the same.
        prefix: number of places before the squares of patches.
        shape: rows and columns of squares.
        measure: quantity of the effects.
        title: title of the figure.
    """
    shown = evenly(len(exact), 6)
    figure, maps = panels(2, len(shown), side=1.2, aspect=shape[0] / shape[1])
    for row, (name, values) in zip(maps, (('exact', exact), ('estimated', estimate)), strict=True):
        row[0].set_ylabel(name)
        patches = values[:, prefix:]
        for axis, layer in zip(row, shown, strict=True):
            image = show(axis, patches[layer].reshape(shape), **diverging(patches))
        figure.bar(image, row, measure)
    for axis, layer in zip(maps[0], shown, strict=True):
        axis.set_title(f'layer {layer + 1}')
    _, (axis,) = charts(width=5.4, figure=figure)
    layers = np.arange(1, len(exact) + 1)
    names = [f'token {i + 1}' if i else 'class token' for i in range(prefix)]
    lines = [*axis.plot(layers, exact[:, :prefix], 'o-')]
    lines += axis.plot(layers, exact[:, prefix:].max(1), 's-')
    lines += axis.plot(layers, exact[:, prefix:].mean(1), '^-')
    axis.set(xlabel='layer', ylabel=measure)
    number(axis)
    figure.key(lines, [*names, 'largest patch', 'mean patch'])
    figure.suptitle(title)
    return figure


@styled
def regions(
    values: tuple[np.ndarray, ...], names: Sequence[str], side: int, *, measure: str, title: str
) -> Figure:
    """Effects of cutting regions, by layer.

    The first side x side regions are cells of a grid, whose means are a map over layers; the others
    are curves.

    Args:
        values: mean, low and high, [layers, regions] each.
        names: names of the regions.
        side: cells of the grid each way.
        measure: quantity of the effects.
        title: title of the figure.
    """
    mean = values[0]
    require_finite(mean, measure)
    cells, layers = side * side, np.arange(1, len(mean) + 1)
    figure, (left, right) = charts(2, height=2.2)
    image = heat(
        left, mean[:, :cells], ('cell of the image (row,column)', names[:cells]),
        ('layer', layers), origin='lower', **diverging(mean[:, :cells]),
    )  # fmt: skip
    left.set_title('cells')
    figure.bar(image, left, measure)
    lines = [
        band(right, layers, [x[:, i] for x in values], marker='o') for i in range(cells, len(names))
    ]
    # The effect of a few patches may be a thousandth of that of all.
    largest = max(float(np.abs(mean[:, cells:]).max()), 1e-26)
    small = 10 ** (math.floor(math.log10(largest)) - 3)
    right.set_yscale('symlog', linthresh=small)
    locator = SymmetricalLogLocator(base=10, linthresh=small)
    locator.set_params(numticks=6)
    right.yaxis.set_major_locator(locator)
    powers(right.yaxis, linear=small)
    right.set(title='patches', xlabel='layer', ylabel=measure)
    number(right)
    figure.key(lines, names[cells:])
    figure.suptitle(title)
    return figure


@styled
def lesions(
    what: Sequence[Mapping[str, Any]], mean: np.ndarray, low: np.ndarray, high: np.ndarray,
    means: Sequence[Mapping[str, Any]], *, measure: str, title: str,
) -> Figure:  # fmt: skip
    """A measure with single layers skipped, swapped or repeated, and with several removed.

    Args:
        what: rows with `kind`, and `layer` or `removed`, one per lesion.
        mean: mean of the measure, by lesion.
        low: low end of its interval.
        high: high end of its interval.
        means: a row for each number of layers `removed`: the measure, its `_low` and `_high` end
            over sets and images, the number of sets `drawn`, and the number of all sets, `of`.
        measure: name of the measure.
        title: title of the figure.
    """
    figure, (left, right) = charts(2)
    lines = {}
    for kind, mark in (('skipped', 'o'), ('swapped', 's'), ('repeated', '^')):
        rows = [i for i, row in enumerate(what) if row['kind'] == kind]
        layers = [what[i]['layer'] for i in rows]
        name = 'swapped with the next' if kind == 'swapped' else kind
        lines[name] = band(left, layers, (mean[rows], low[rows], high[rows]), marker=mark)
    left.set(title='one layer', xlabel='layer', ylabel=measure)
    removed = np.array([row.get('removed', 0) for row in what])
    sets = right.plot(removed[removed > 0], mean[removed > 0], '.', color='C4', alpha=0.5)
    counts, own, lows, highs = (
        np.array([first, *(row[key] for row in means)])
        for first, key in zip(
            (0, mean[0], low[0], high[0]),
            ('removed', measure, f'{measure}_low', f'{measure}_high'), strict=True
        )
    )  # fmt: skip
    known = ', 95% over images and sets' if np.isfinite(lows).all() else ''
    lines['one random set'] = sets[0]
    lines[f'mean of sets{known}'] = band(right, counts, (own, lows, highs), marker='o', color='C4')
    right.set(title='layers removed at random', ylabel=measure)
    right.set_xlabel('layers removed\n(sets drawn of sets there are)')
    for axis in (left, right):
        lines['whole'] = axis.axhline(mean[0], color='grey', linewidth=0.8, linestyle=':')
        axis.set_ylim(min(0.0, float(mean.min())), 1)
        unclip(axis)
        number(axis)
    figure.key([*lines.values()], [*lines])
    drawn = [f'{row["removed"]} ({row["drawn"]} of {_count(row["of"])})' for row in means]
    turned = 90 if len(means) > 3 else 0
    right.set_xticks([0, *(row['removed'] for row in means)], ['0', *drawn], rotation=turned)
    figure.suptitle(title)
    return figure


def _count(sets: int) -> str:
    """A number of sets in five characters or fewer."""
    return f'{sets}' if sets < 100_000 else f'{sets:.0e}'.replace('e+0', 'e').replace('e+', 'e')


@styled
def steering(
    mean: np.ndarray, low: np.ndarray, high: np.ndarray, strengths: Sequence[float], *,
    toward: str, title: str,
) -> Figure:  # fmt: skip
    """Fraction of images that are predicted as another class.

    Args:
        mean: fraction of images, [layers, strengths].
        low: low end of its interval.
        high: high end of its interval.
        strengths: factors of the direction.
        toward: the other class.
        title: title of the figure.
    """
    figure, (left, right) = charts(2)
    columns, layers = [f'{s:g}' for s in strengths], range(1, len(mean) + 1)
    label = f'predicted as {short(toward)}'
    image = heat(
        left, mean, ('strength', columns), ('layer', layers), vmin=0, vmax=1, origin='lower'
    )
    write_cells(left, mean, [[f'{value:.0%}' for value in row] for row in mean], middle=0.5)
    percent(figure.bar(image, left, label).ax.yaxis)
    shown = evenly(len(mean), 5)
    lines = [
        band(right, strengths, (mean[layer], low[layer], high[layer]), marker='o')
        for layer in shown
    ]
    right.set(xlabel='strength', ylabel=label, ylim=(0, 1))
    percent(right.yaxis)
    right.grid(True)
    figure.key(lines, [f'layer {layer + 1}' for layer in shown])
    figure.suptitle(title)
    return figure


@styled
def over_seeds(
    curves: Mapping[str, tuple[np.ndarray, ...]],
    *,
    measure: str,
    title: str,
    fraction: bool = False,
) -> Figure:
    """Effects against layers: a thin line a seed, their mean, its interval shaded.

    Args:
        curves: by title of the panel: layers [n] or numbers of removed layers, values [n, seeds],
            and their mean, low and high, [n] each.
        measure: quantity of the values.
        title: title of the figure.
        fraction: values are fractions, 0 to 1.
    """
    figure, axes = charts(len(curves), height=1.5)
    known = False
    for axis, (name, (places, values, *interval)) in zip(axes, curves.items(), strict=True):
        seeds = axis.plot(places, values, color='grey', linewidth=0.8)
        mean = band(axis, places, interval, marker='o', color='C0')
        known |= bool(np.isfinite(interval[1]).any())
        axis.set(title=name, xlabel='layers removed' if 'removed' in name else 'layer')
        axis.set_ylabel(measure)
        number(axis)
        if fraction:
            axis.set_ylim(0, 1)
            percent(axis.yaxis)
    figure.key([seeds[0], mean], ['one seed', 'mean' + ', 95% interval shaded' * known])
    figure.suptitle(title)
    return figure
