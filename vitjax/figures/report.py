"""What a report shows of several runs, and figures as files in memory."""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from vitjax.figures.panels import charts, number

TITLES = {'accuracy': 'accuracy', 'top5': 'top-5 accuracy', 'loss': 'loss'}
_STYLES: dict[str, Any] = {'train': ':', 'validation': '-'}


class Curve(NamedTuple):
    """A mean over seeds at each epoch, with its interval: each [n], NaN where there is none."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curves(groups: Mapping[str, Mapping[tuple[str, str], Curve]]) -> Figure:
    """Accuracy, top-5 accuracy and loss against epochs, a colour for each group of runs.

    Args:
        groups: by name, of each split and metric, as in `('train', 'loss')`, its curve. What no
            group has gets no panel, and top-5 accuracy that is 1 everywhere neither.
    """
    known = [(metric, line) for own in groups.values() for (_, metric), line in own.items()]
    # Of five classes or fewer, one of the five likeliest is always right.
    shown = {m for m, line in known if m != 'top5' or np.nanmin(line.mean) < 1}
    metrics = [metric for metric in TITLES if metric in shown]
    lines = -(-(len(groups) + 2) // 4)
    figure, axes = charts(12 if len(metrics) > 2 else 10, 3.5 + 0.2 * lines, len(metrics))
    cycle = matplotlib.colormaps['tab10' if len(groups) <= 10 else 'turbo']
    shades = cycle(np.arange(len(groups)) if len(groups) <= 10 else np.linspace(0, 1, len(groups)))
    colours = dict(zip(groups, shades, strict=True))
    for axis, metric in zip(axes, metrics, strict=True):
        for name, own in groups.items():
            for split, style in _STYLES.items():
                if (split, metric) in own:
                    _draw(axis, own[split, metric], style, colours[name])
        axis.set(title=TITLES[metric], xlabel='epoch')
        if metric != 'loss':
            axis.yaxis.set_major_formatter(PercentFormatter(1))
            axis.set_ylim(max(0, axis.get_ylim()[0]), min(1.01, axis.get_ylim()[1]))
        number(axis)
    handles = [Line2D([], [], color=colours[name], label=name) for name in groups]
    handles = handles * (len(groups) > 1)
    handles += [Line2D([], [], color='0.3', linestyle=s, label=n) for n, s in _STYLES.items()]
    legend = figure.legend(handles=handles, loc='outside lower center', ncols=4, frameon=False)
    for text in legend.get_texts():  # names of folders
        text.set_parse_math(False)
    return figure


def _draw(axis, curve: Curve, style: Any, colour: np.ndarray) -> None:
    few = len(curve.epochs) < 30  # a single point has no line
    axis.plot(
        curve.epochs, curve.mean, color=colour, linestyle=style, marker='o' if few else None,
        markersize=3,
    )  # fmt: skip
    if np.isfinite(curve.low).any():
        axis.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.15, lw=0)


def svg(figure: Figure) -> bytes:
    """A figure as SVG, the same bytes for the same figure; pictures in it have 150 dots an inch."""
    out = io.BytesIO()
    with matplotlib.rc_context({'svg.hashsalt': 'vitjax'}):
        figure.savefig(out, format='svg', dpi=150, metadata={'Date': None})
    return out.getvalue()


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    out = io.BytesIO()
    figure.savefig(out, format='png', dpi=120)
    return out.getvalue()
