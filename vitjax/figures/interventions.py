"""Effects of interventions: on heads, places, regions and layers, of directions, over seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from vitjax.data.order import evenly
from vitjax.figures.charts import (
    band,
    charts,
    diverging,
    heat,
    legend,
    number,
    percent,
    powers,
    unclip,
    write_cells,
)
from vitjax.figures.panels import require_finite
from vitjax.figures.style import WIDTH, Figure, styled
from vitjax.figures.text import fitted, headed, short


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
    figure, axes = charts(WIDTH, 2.6, len(exact) + 1)
    colours = diverging(np.stack([*exact.values()]))
    most = colours['vmax']
    layers, columns = (range(1, count + 1) for count in size.shape)
    for axis, (kind, values) in zip(axes, exact.items(), strict=False):
        heat(axis, values, ('head', columns), ('layer', layers), most=12, **colours)
        axis.set(title=f'{kind} ablation')
        if values.shape[1] <= 6 and len(values) <= 16:
            decimals = max(0, 2 - math.floor(math.log10(most))) if most > 1e-30 else 2
            for (row, column), value in np.ndenumerate(values):
                colour = 'white' if abs(value) > 0.6 * most else 'black'
                said = f'{value:z.{decimals}f}'
                axis.text(column, row, said, ha='center', va='center', size=6, color=colour)
    figure.colorbar(axes[0].images[0], ax=axes[:-1], label=measure)
    axis, whole = axes[-1], MaxNLocator(integer=True, min_n_ticks=1)
    of_layer = np.repeat(layers, size.shape[1])
    dots = axis.scatter(estimate.ravel(), size.ravel(), c=of_layer, cmap='viridis', s=14)
    figure.colorbar(dots, ax=axis, label='layer', ticks=whole)
    axis.set(title='size, zero ablation', xlabel='first-order estimate', ylabel='exact')
    if (estimate > 0).any():  # effects may all be 0
        axis.set_xscale('log')
        powers(axis.xaxis)  # labels between the powers of ten would collide
    if (size > 0).any():
        axis.set_yscale('log')
        powers(axis.yaxis, between=True)
    axis.grid(True)
    headed(figure, title)
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
    figure = Figure(figsize=(WIDTH, 4.4), layout='constrained')
    grid = figure.add_gridspec(3, len(shown), height_ratios=[1, 1, 1.1])
    for row, (name, values) in enumerate((('exact', exact), ('estimated', estimate))):
        patches = values[:, prefix:]
        for column, layer in enumerate(shown):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(patches[layer].reshape(shape), **diverging(patches))
            axis.set(xticks=[], yticks=[])
            axis.set_title(f'layer {layer + 1}' if row == 0 else '')
            if column == 0:
                axis.set_ylabel(name)
        own = figure.axes[-len(shown) :]
        figure.colorbar(own[0].images[0], ax=own, shrink=0.9, label=fitted(measure, 1.2))
    axis = figure.add_subplot(grid[2, :])
    layers = np.arange(1, len(exact) + 1)
    for i in range(prefix):
        name = 'class token' if i == 0 else f'token {i + 1}'
        axis.plot(layers, exact[:, i], 'o-', label=name)
    axis.plot(layers, exact[:, prefix:].max(1), 's-', label='largest patch')
    axis.plot(layers, exact[:, prefix:].mean(1), '^-', label='mean patch')
    axis.set(xlabel='layer', ylabel=fitted(measure, 1.2))
    number(axis)
    axis.legend(loc='center left', bbox_to_anchor=(1, 0.5))
    headed(figure, title)
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
    figure, (left, right) = charts(WIDTH, 2.8, 2)
    image = heat(
        left, mean[:, :cells], ('cell of the image (row,column)', names[:cells]),
        ('layer', layers), rotation=90, most=32, origin='lower', **diverging(mean[:, :cells]),
    )  # fmt: skip
    left.set_title('cells')
    figure.colorbar(image, ax=left, label=measure)
    handles = [
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
    legend(right, handles, names[cells:])
    headed(figure, title)
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
    figure, (left, right) = charts(WIDTH, 2.8, 2)
    for kind, mark in (('skipped', 'o'), ('swapped', 's'), ('repeated', '^')):
        rows = [i for i, row in enumerate(what) if row['kind'] == kind]
        layers = [what[i]['layer'] for i in rows]
        name = 'swapped with the next' if kind == 'swapped' else kind
        band(left, layers, (mean[rows], low[rows], high[rows]), marker=mark, label=name)
    left.set(title='one layer', xlabel='layer', ylabel=measure)
    removed = np.array([row.get('removed', 0) for row in what])
    right.plot(removed[removed > 0], mean[removed > 0], '.', color='C0', alpha=0.5, label='one set')
    counts, own, lows, highs = (
        np.array([first, *(row[key] for row in means)])
        for first, key in zip(
            (0, mean[0], low[0], high[0]),
            ('removed', measure, f'{measure}_low', f'{measure}_high'), strict=True
        )
    )  # fmt: skip
    known = 'mean, 95% over images and sets' if np.isfinite(lows).all() else 'mean'
    band(right, counts, (own, lows, highs), marker='o', color='C0', label=known)
    right.set(title='layers removed at random', ylabel=measure)
    right.set_xlabel('layers removed\n(sets drawn of sets there are)')
    for axis in (left, right):
        axis.axhline(mean[0], color='grey', linewidth=0.8, linestyle=':', label='whole')
        axis.set_ylim(min(0.0, float(mean.min())), 1)
        unclip(axis)
        number(axis)
        axis.legend()
    chosen, flat = [means[i] for i in evenly(len(means), 12)], len(means) <= 5
    between = '\n' if flat else ' '
    drawn = [f'{row["removed"]}{between}({row["drawn"]} of {_count(row["of"])})' for row in chosen]
    places = [0, *(row['removed'] for row in chosen)]
    right.set_xticks(places, ['0', *drawn], rotation=0 if flat else 90)
    headed(figure, title)
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
    figure, (left, right) = charts(WIDTH, 2.6, 2)
    columns, layers = [f'{s:g}' for s in strengths], range(1, len(mean) + 1)
    label = f'predicted as {short(toward)}'
    image = heat(
        left, mean, ('strength', columns), ('layer', layers), vmin=0, vmax=1, origin='lower'
    )
    if len(mean) <= 14:  # taller rows than text
        write_cells(left, mean, lambda *ij: f'{mean[ij]:.0%}', middle=0.5)
    percent(figure.colorbar(image, ax=left, label=label).ax.yaxis)
    for layer in evenly(len(mean), 5):
        values = mean[layer], low[layer], high[layer]
        band(right, strengths, values, marker='o', label=f'layer {layer + 1}')
    right.set(xlabel='strength', ylabel=label, ylim=(0, 1))
    percent(right.yaxis)
    right.grid(True)
    right.legend()
    headed(figure, title)
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
    columns = 3 if len(curves) == 3 or len(curves) > 4 else min(2, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(WIDTH, 2.0 * rows + 0.3), layout='constrained')
    axes = [*figure.subplots(rows, columns, squeeze=False).flat]
    for i, (name, (places, values, *interval)) in enumerate(curves.items()):
        axis = axes[i]
        axis.plot(places, values, color='grey', linewidth=0.8)
        band(axis, places, interval, marker='o', color='C0')
        axis.set_title(name)
        axis.set_xlabel('layers removed' if 'removed' in name else 'layer')
        axis.set_ylabel('' if i % columns else fitted(measure, 1.6))
        number(axis)
        if fraction:
            axis.set_ylim(0, 1)
            percent(axis.yaxis)
    for axis in axes[len(curves) :]:
        axis.axis('off')
    headed(figure, title)
    return figure
