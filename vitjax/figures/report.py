"""Learning curves of several runs, and figures as files in memory."""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.lines import Line2D

from vitjax.figures.charts import band, charts, hues, number, percent
from vitjax.figures.figure import Figure, styled

TITLES = {'accuracy': 'accuracy', 'top5': 'top-5 accuracy', 'loss': 'loss'}
_STYLES: dict[str, Any] = {'train': ':', 'validation': '-'}


class Curve(NamedTuple):
    """Mean over seeds at each epoch, and its interval: each [n], NaN for a missing interval."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@styled
def curves(groups: Mapping[str, Mapping[tuple[str, str], Curve]]) -> Figure:
    """Accuracy, top-5 accuracy and loss against epochs, a color for each group of runs.

    Args:
        groups: curves of each group by split and metric, such as `('train', 'loss')`. A metric
            that no group has gets no panel.
    """
    metrics = [m for m in TITLES if any((s, m) in own for own in groups.values() for s in _STYLES)]
    figure, axes = charts(len(metrics), height=2.0)
    colors = dict(zip(groups, hues(len(groups)), strict=True))
    for axis, metric in zip(axes, metrics, strict=True):
        for name, own in groups.items():
            for split, style in _STYLES.items():
                if (split, metric) in own:
                    _draw(axis, own[split, metric], style, colors[name])
        axis.set(title=TITLES[metric], xlabel='epoch')
        number(axis)
        if metric != 'loss':
            percent(axis.yaxis)
    told = [*groups] if len(groups) > 1 else []
    handles = [Line2D([], [], color=colors[name]) for name in told]
    handles += [Line2D([], [], color='0.3', linestyle=style) for style in _STYLES.values()]
    figure.key(handles, [*told, *_STYLES])
    return figure


def _draw(axis, curve: Curve, style: Any, color: Any) -> None:
    few = len(curve.epochs) < 30  # a single point has no line
    band(axis, curve.epochs, curve[1:], color=color, ls=style, marker='o' if few else '', ms=2)


def svg(figure: Figure) -> bytes:
    """A figure as SVG, the same bytes for the same figure; its pictures have 200 dots an inch."""
    out = io.BytesIO()
    figure.savefig(out, format='svg', dpi=200, metadata={'Date': None})
    return out.getvalue()
