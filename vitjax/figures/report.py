"""Learning curves of several runs, and figures as files in memory."""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.lines import Line2D

from vitjax.figures.charts import band, charts, hues, number, percent
from vitjax.figures.figure import Figure, styled

TITLES = {'accuracy': 'accuracy', 'top5': 'top-5 accuracy', 'loss': 'loss'}
_MARKS = 12  # on a line of many points
_STYLES: dict[str, Any] = {
    'train': {'ls': ':', 'marker': 'x', 'ms': 4}, 'validation': {'ls': '-', 'marker': 'o'}
}  # fmt: skip


class Curve(NamedTuple):
    """Mean over seeds at each epoch, and its interval: each [n], NaN for a missing interval."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@styled
def curves(groups: Mapping[str, Mapping[tuple[str, str], Curve]], *, columns: int = 3) -> Figure:
    """Accuracy, top-5 accuracy and loss against epochs, a color for each group of runs.

    Args:
        groups: curves of each group by split and metric, such as `('train', 'loss')`. A metric
            that no group has gets no panel.
        columns: panels side by side.
    """
    metrics = [m for m in TITLES if any((s, m) in own for own in groups.values() for s in _STYLES)]
    figure, axes = charts(len(metrics), columns, height=2.0)
    colors = dict(zip(groups, hues(len(groups)), strict=True))
    for axis, metric in zip(axes, metrics, strict=True):
        for name, own in groups.items():
            for split, style in _STYLES.items():
                if (split, metric) in own:
                    curve = own[split, metric]
                    marks = {'markevery': -(-len(curve.epochs) // _MARKS) or 1, **style}
                    band(axis, curve.epochs, curve[1:], color=colors[name], **marks)
        axis.set(title=TITLES[metric], xlabel='epoch')
        number(axis)
        if metric != 'loss':
            percent(axis.yaxis)
    told = [*groups] if len(groups) > 1 else []
    handles = [Line2D([], [], color=colors[name]) for name in told]
    handles += [Line2D([], [], color='0.3', **style) for style in _STYLES.values()]
    figure.key(handles, [*told, *_STYLES])
    return figure


def svg(figure: Figure) -> bytes:
    """A figure as SVG, the same bytes for the same figure; its pictures have 200 dots an inch."""
    out = io.BytesIO()
    figure.savefig(out, format='svg', dpi=200, metadata={'Date': None})
    return out.getvalue()
