"""How time and memory grow: log-log curves with the exponents fitted to them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator

from vitjax.figures.style import WIDTH, Figure, styled

# By panel, then by curve: the first of a curve's two names sets its colour, the second its line.
Curves = Mapping[str, Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]]


def exponent(x: np.ndarray, y: np.ndarray) -> float:
    """The b of y = a xᵇ, fitted by least squares in logarithms; NaN below two finite points."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    there = np.isfinite(y) & (y > 0)
    if len(np.unique(x[there])) < 2:
        return float('nan')
    return float(np.polyfit(np.log(x[there]), np.log(y[there]), 1)[0])


@styled
def scaling(curves: Curves, *, x_label: str) -> Figure:
    """One log-log panel for each quantity; the legend gives each curve's exponent.

    Args:
        curves: `{panel: {(colour, line): (x, y)}}`, x and y [n]. A y that is not finite ran out of
            memory: a cross at the top of the panel.
        x_label: of all panels.
    """
    rows = -(-len(curves) // 2)
    figure = Figure(figsize=(WIDTH, 2.4 * rows), layout='constrained')
    axes = figure.subplots(rows, 2, squeeze=False)
    colours, lines = (
        list(dict.fromkeys(name[part] for panel in curves.values() for name in panel))
        for part in (0, 1)
    )
    styles: Any = ['-', '--', ':', '-.', (0, (5, 1, 1, 1, 1, 1))]
    for axis, (panel, named) in zip(axes.flat, curves.items(), strict=False):
        axis.set(xscale='log', yscale='log', xlabel=x_label, ylabel=panel)
        for (colour, line), (x, y) in named.items():
            label = f'{colour}, {line}' if line else colour
            slope, there = exponent(x, y), np.isfinite(y)
            label += '' if np.isnan(slope) else f': {slope:.2f}'
            style, hue = styles[lines.index(line) % len(styles)], f'C{colours.index(colour)}'
            known = np.where(there, y, np.nan)
            axis.plot(x, known, color=hue, ls=style, marker='o', label=label)
            if not there.all():
                top = {'transform': axis.get_xaxis_transform(), 'label': 'out of memory'}
                axis.plot(x[~there], [0.97] * sum(~there), 'x', color=hue, **top)
        ticks = sorted({float(v) for x, _ in named.values() for v in x})
        axis.set_xticks(ticks, [f'{v:g}' for v in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(True)
        axis.legend(
            title='exponent',
            loc='center left', bbox_to_anchor=(1, 0.5),
        )  # fmt: skip
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    return figure
