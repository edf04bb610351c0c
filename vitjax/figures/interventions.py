"""What interventions did, drawn."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from vitjax.figures.panels import (
    charts,
    headed,
    legend,
    number,
    percent,
    powers,
    require_finite,
    short,
    some,
    unclip,
    write_cells,
)
from vitjax.figures.style import WIDTH, Figure, styled


@styled
def heads(
    exact: Mapping[str, np.ndarray], size: np.ndarray, estimate: np.ndarray, *, measure: str,
    title: str,
) -> Figure:  # fmt: skip
    """Effects of each head by kind of ablation [layers, heads], and size against its estimate."""
    for values in exact.values():
        require_finite(values, measure)
    figure, axes = charts(WIDTH, 2.6, len(exact) + 1)
    most = max(float(np.abs(values).max()) for values in exact.values()) or 1.0
    for axis, (kind, values) in zip(axes, exact.items(), strict=False):
        axis.imshow(values, cmap='RdBu_r', vmin=-most, vmax=most, aspect='auto')
        axis.set(title=f'{kind} ablation', xlabel='head', ylabel='layer')
        axis.set_xticks(range(values.shape[1]), range(1, values.shape[1] + 1))
        axis.set_yticks(range(len(values)), range(1, len(values) + 1))
        if values.shape[1] <= 6 and len(values) <= 16:
            decimals = max(0, 2 - math.floor(math.log10(most)))
            for (row, column), value in np.ndenumerate(values):
                colour = 'white' if abs(value) > 0.6 * most else 'black'
                said = f'{value:z.{decimals}f}'
                axis.text(column, row, said, ha='center', va='center', size=6, color=colour)
    figure.colorbar(axes[0].images[0], ax=axes[:-1], label=measure)
    layers = np.repeat(np.arange(1, len(size) + 1), size.shape[1])
    dots = axes[-1].scatter(estimate.ravel(), size.ravel(), c=layers, cmap='viridis', s=14)
    figure.colorbar(
        dots, ax=axes[-1], label='layer', ticks=MaxNLocator(integer=True, min_n_ticks=1)
    )
    axes[-1].set(title='size, zero ablation', xlabel='first-order estimate', ylabel='exact')
    for values, scale, own in (
        (estimate, axes[-1].set_xscale, axes[-1].xaxis),
        (size, axes[-1].set_yscale, axes[-1].yaxis),
    ):
        if (values > 0).any():  # effects may all be 0
            scale('log')
            powers(own)  # labels between the powers of ten would collide
    axes[-1].grid(True)
    headed(figure, title)
    return figure


@styled
def places(
    exact: np.ndarray, estimate: np.ndarray, prefix: int, shape: tuple[int, int], *, measure: str,
    title: str,
) -> Figure:  # fmt: skip
    """Effects over places: maps of the patches at some layers, exact above estimated, and sums.

    Args:
        exact: [layers, places].
        estimate: the same.
        prefix: places that are no squares of patches.
        shape: rows and columns of squares.
        measure: what effects are.
        title: anything more.
    """
    shown = some(len(exact), 6)
    figure = Figure(figsize=(WIDTH, 4.4), layout='constrained')
    grid = figure.add_gridspec(3, len(shown), height_ratios=[1, 1, 1.1])
    for row, (name, values) in enumerate((('exact', exact), ('estimated', estimate))):
        patches = values[:, prefix:]
        most = max(float(np.abs(patches).max()), 1e-30)
        for column, layer in enumerate(shown):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(patches[layer].reshape(shape), cmap='RdBu_r', vmin=-most, vmax=most)
            axis.set(xticks=[], yticks=[])
            axis.set_title(f'layer {layer + 1}' if row == 0 else '')
            if column == 0:
                axis.set_ylabel(name)
        own = figure.axes[-len(shown) :]
        figure.colorbar(own[0].images[0], ax=own, shrink=0.9, label=measure)
    axis = figure.add_subplot(grid[2, :])
    layers = np.arange(1, len(exact) + 1)
    for i in range(prefix):
        name = 'class token' if i == 0 else f'token {i + 1}'
        axis.plot(layers, exact[:, i], 'o-', label=name)
    axis.plot(layers, exact[:, prefix:].max(1), 's-', label='largest patch')
    axis.plot(layers, exact[:, prefix:].mean(1), '^-', label='mean patch')
    axis.set(xlabel='layer', ylabel=measure)
    number(axis)
    axis.legend()
    headed(figure, title)
    return figure


@styled
def regions(
    values: tuple[np.ndarray, ...], names: Sequence[str], side: int, *, measure: str, title: str
) -> Figure:
    """Effects of regions cut by layer: mean, low and high [layers, regions] each.

    The first side x side regions are cells of a grid, whose means are a map over layers; the others
    are curves.
    """
    mean, low, high = values
    require_finite(mean, measure)
    cells, layers = side * side, np.arange(1, len(mean) + 1)
    figure, (left, right) = charts(WIDTH, 2.8, 2)
    most = max(float(np.abs(mean[:, :cells]).max()), 1e-30)
    image = left.imshow(
        mean[:, :cells], cmap='RdBu_r', vmin=-most, vmax=most, aspect='auto', origin='lower'
    )
    left.set_xticks(range(cells), names[:cells], rotation=90)
    left.set_yticks(range(len(mean)), layers)
    left.set(title='cells', xlabel='row,column of the cell', ylabel='layer')
    figure.colorbar(image, ax=left, label=measure)
    handles = []
    for i in range(cells, len(names)):
        handles += right.plot(layers, mean[:, i], 'o-')
        right.fill_between(layers, low[:, i], high[:, i], alpha=0.2, linewidth=0)
    # Of a few patches it may be a thousandth of what it is of all.
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
        what: `kind`, and `layer` or `removed`, of each lesion.
        mean: mean of the measure, by lesion.
        low: low end of its interval.
        high: high end of its interval.
        means: for each number of layers `removed`, the measure, its `_low` and `_high` end over the
            sets that were `drawn` and the images, and the number of sets there are, `of`.
        measure: name of the measure.
        title: title of the figure.
    """
    figure, (left, right) = charts(WIDTH, 2.8, 2)
    for kind, mark in (('skipped', 'o-'), ('swapped', 's-'), ('repeated', '^-')):
        rows = [i for i, row in enumerate(what) if row['kind'] == kind]
        layers = [what[i]['layer'] for i in rows]
        name = 'swapped with the next' if kind == 'swapped' else kind
        (line,) = left.plot(layers, mean[rows], mark, label=name)
        left.fill_between(layers, low[rows], high[rows], color=line.get_color(), alpha=0.15)
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
    right.plot(counts, own, 'o-', color='C0', label=known)
    right.fill_between(counts, lows, highs, color='C0', alpha=0.15, linewidth=0)
    right.set(title='layers removed at random', ylabel=measure)
    right.set_xlabel('layers removed\n(sets drawn of sets there are)')
    for axis in (left, right):
        axis.axhline(mean[0], color='grey', linewidth=0.8, linestyle=':', label='whole')
        axis.set_ylim(min(0.0, float(mean.min())), 1)
        unclip(axis)
        number(axis)
        axis.legend()
    chosen, flat = [means[i] for i in some(len(means), 12)], len(means) <= 5
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
    """Share of images that are answered as another class, [layers, strengths]."""
    figure, (left, right) = charts(WIDTH, 2.6, 2)
    image = left.imshow(mean, cmap='viridis', vmin=0, vmax=1, aspect='auto', origin='lower')
    left.set_xticks(range(len(strengths)), [f'{s:g}' for s in strengths])
    left.set_yticks(range(len(mean)), range(1, len(mean) + 1))
    left.set(xlabel='strength', ylabel='layer')
    write_cells(left, mean, lambda *ij: f'{mean[ij]:.0%}', middle=0.5)
    percent(figure.colorbar(image, ax=left, label=f'answered as {short(toward)}').ax.yaxis)
    for layer in some(len(mean), 5):
        (line,) = right.plot(strengths, mean[layer], 'o-', label=f'layer {layer + 1}')
        right.fill_between(
            strengths, low[layer], high[layer], color=line.get_color(), alpha=0.15, linewidth=0
        )
    right.set(xlabel='strength', ylabel=f'answered as {short(toward)}', ylim=(0, 1))
    percent(right.yaxis)
    right.grid(True)
    right.legend()
    headed(figure, title)
    return figure


@styled
def over_seeds(
    curves: Mapping[str, tuple[np.ndarray, ...]], *, measure: str, title: str, fraction: bool = False
) -> Figure:
    """Effects against layers: a thin line a seed, their mean, its interval shaded.

    Args:
        curves: by title of the panel: layers [n] or how many are removed, values [n, seeds], and
            mean, low and high of these, [n] each.
        measure: what values are.
        title: of the figure.
        fraction: values are fractions, 0 to 1.
    """
    columns = 3 if len(curves) == 3 or len(curves) > 4 else min(2, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(WIDTH, 2.0 * rows + 0.3), layout='constrained')
    axes = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axis, (name, (places, values, mean, low, high)) in zip(axes, curves.items(), strict=False):
        axis.plot(places, values, color='grey', linewidth=0.8)
        axis.plot(places, mean, 'o-', color='C0')
        axis.fill_between(places, low, high, color='C0', alpha=0.2, linewidth=0)
        axis.set_title(name)
        axis.set(xlabel='how many' if 'removed' in name else 'layer', ylabel=measure)
        number(axis)
        if fraction:
            axis.set_ylim(0, 1)
            percent(axis.yaxis)
    for axis in axes[len(curves) :]:
        axis.axis('off')
    headed(figure, title)
    return figure
