"""Growth of time and memory: log-log curves, and the exponents of their fits."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from matplotlib.ticker import NullLocator

from vitjax.figures.charts import charts, hues, powers
from vitjax.figures.figure import Figure, styled

# By panel, then by curve: the first of a curve's two names sets its color, the second its line.
Curves = Mapping[str, Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]]


class Fit(NamedTuple):
    """Exponent of a power law, and its interval.

    Attributes:
        exponent: NaN if there are too few points.
        half: half-width of its 95% interval, Student's with `points - 2` degrees of freedom.
        points: measurements that are fitted.
        fault: fault of the fit, in words; empty if it has none.
    """

    exponent: float
    half: float
    points: int
    fault: str = ''


def fit(x: np.ndarray, y: np.ndarray) -> Fit:
    """Fits y = a xᵇ by least squares in logarithms, to the points with a finite y above 0.

    A power law has two parameters, so two points cannot test it: three different sizes or more
    are required.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    there = np.isfinite(y) & (y > 0) & (x > 0)
    x, y = np.log(x[there]), np.log(y[there])
    if len(np.unique(x)) < 3:
        sizes = len(np.unique(x))
        return Fit(np.nan, np.nan, len(x), f'no exponent: 3 sizes are needed, {sizes} measured')
    found: Any = scipy.stats.linregress(x, y)
    half = float(scipy.stats.t.ppf(0.975, len(x) - 2) * found.stderr)
    slope, fault = float(found.slope), ''
    if slope < 0:
        fault = 'no growth: a negative exponent measures overheads or noise'
    elif half > max(abs(slope), 0.5):
        fault = f'no exponent to speak of: 95% interval {slope - half:.2f} to {slope + half:.2f}'
    if fault:
        fault += f' ({len(x)} points, {len(x) - 2} degree{"s" * (len(x) > 3)} of freedom)'
    return Fit(slope, half, len(x), fault)


def exponent(x: np.ndarray, y: np.ndarray) -> float:
    """The exponent of `fit`; NaN for fewer than three different sizes."""
    return fit(x, y).exponent


@styled
def scaling(curves: Curves, *, x_label: str) -> Figure:
    """One log-log panel for each quantity; the legend has each curve's exponent and 95% interval.

    Args:
        curves: `{panel: {(color, line): (x, y)}}`, x and y [n]. A y that is not finite ran out of
            memory: a cross at the top of the panel.
        x_label: label of x in all panels.
    """
    figure, axes = charts(len(curves), 2)
    colors, lines = (
        list(dict.fromkeys(name[part] for panel in curves.values() for name in panel))
        for part in (0, 1)
    )
    shades = hues(len(colors))
    styles: Any = ['-', '--', ':', '-.', (0, (5, 1, 1, 1, 1, 1))]
    for axis, (panel, named) in zip(axes, curves.items(), strict=True):
        handles, names = [], []
        axis.set(xscale='log', xlabel=x_label, ylabel=panel)
        if any((np.asarray(y) > 0).any() for _, y in named.values()):
            axis.set_yscale('log')
            powers(axis.yaxis, between=True)
        for (color, line), (x, y) in named.items():
            label = f'{color}, {line}' if line else color
            there = np.isfinite(y)
            label += _told(fit(x, y))
            style, hue = styles[lines.index(line) % len(styles)], shades[colors.index(color)]
            known = np.where(there, y, np.nan)
            handles += axis.plot(x, known, color=hue, ls=style, marker='o')
            names.append(label)
            if not there.all():
                top = {'transform': axis.get_xaxis_transform()}
                handles += axis.plot(x[~there], [0.97] * sum(~there), 'x', color=hue, **top)
                names.append('out of memory')
        ticks = sorted({float(v) for x, _ in named.values() for v in x})
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticks(ticks, [f'{v:g}' for v in ticks])
        axis.grid(True)
        figure.key(handles, names, axis, title='exponent, 95% interval')
    return figure


def _told(found: Fit) -> str:
    if np.isnan(found.exponent):
        return ''
    spread = f' ± {found.half:.2f}' if found.half >= 0.005 else ''
    return f': {found.exponent:.2f}{spread}{" (no growth)" * (found.exponent < 0)}'
