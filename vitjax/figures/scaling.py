"""How time and memory grow: log-log curves with the exponents fitted to them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from vitjax.figures.panels import WIDTH

# By panel, then by curve: the first of a curve's two names sets its colour, the second its line.
Curves = Mapping[str, Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]]


def exponent(x: np.ndarray, y: np.ndarray) -> float:
    """The b of y = a xᵇ, fitted by least squares in logarithms; NaN below two finite points."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    there = np.isfinite(y) & (y > 0)
    if len(np.unique(x[there])) < 2:
        return float('nan')
    return float(np.polyfit(np.log(x[there]), np.log(y[there]), 1)[0])


def scaling(curves: Curves, *, x_label: str, title: str = '') -> Figure:
    """One log-log panel for each quantity; the legend gives each curve's exponent.

    Args:
        curves: `{panel: {(colour, line): (x, y)}}`, x and y [n]. A y that is not finite ran out of
            memory: a cross at the top of the panel.
        x_label: of all panels.
        title: above all panels.
    """
    columns = 2
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(1.3 * WIDTH, 3.6 * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    names = [name for panel in curves.values() for name in panel]
    colours = {c: f'C{i}' for i, c in enumerate(dict.fromkeys(colour for colour, _ in names))}
    styles: Any = ['-', '--', ':', '-.', (0, (5, 1, 1, 1, 1, 1))]
    lines = {
        line: styles[i % len(styles)] for i, line in enumerate(dict.fromkeys(n[1] for n in names))
    }
    for axis, (panel, named) in zip(axes.flat, curves.items(), strict=False):
        axis.set(xscale='log', yscale='log', xlabel=x_label, ylabel=panel)
        for (colour, line), (x, y) in named.items():
            label = f'{colour}, {line}' if line else colour
            slope = exponent(x, y)
            axis.plot(
                x,
                np.where(np.isfinite(y), y, np.nan),
                color=colours[colour],
                linestyle=lines[line],
                marker='o',
                markersize=3.5,
                label=label if np.isnan(slope) else f'{label}: {slope:.2f}',
            )
            out = np.asarray(x)[~np.isfinite(y)]
            top = axis.get_xaxis_transform()
            if len(out):
                axis.plot(
                    out, np.full(len(out), 0.97), 'x', color=colours[colour], transform=top,
                    label='out of memory',
                )  # fmt: skip
        ticks = sorted({float(v) for x, _ in named.values() for v in x})
        axis.set_xticks(ticks, [f'{v:g}' for v in ticks], minor=False)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(alpha=0.3)
        axis.legend(
            frameon=False, fontsize=8, title='exponent', title_fontsize=8,
            loc='center left', bbox_to_anchor=(1, 0.5),
        )  # fmt: skip
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    figure.suptitle(title, fontsize=11)
    return figure
