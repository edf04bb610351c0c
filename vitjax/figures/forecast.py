"""Memory of a training step on machines, and its time by module."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from vitjax.figures.charts import charts, name_ticks
from vitjax.figures.figure import Figure, styled
from vitjax.figures.text import named


class Share(NamedTuple):
    """One machine's bars.

    Attributes:
        memory: bytes of one device by their use.
        available: bytes of one device.
        modules: seconds of a step by module, and the source of the estimate.
    """

    memory: Mapping[str, float]
    available: float
    modules: Mapping[str, tuple[float, str]]


@styled
def forecast(machines: Mapping[str, Share]) -> Figure:
    """Memory used and available on one device of each machine, by name; below, time by module."""
    count = len(machines)
    longest = max((len(share.modules) for share in machines.values()), default=0)
    figure, (axis,) = charts(width=4.6, height=0.3 + 0.3 * count)
    _memory(figure, axis, machines)
    _, axes = charts(count, 2, width=1.7, height=0.6 + 0.2 * longest, figure=figure)
    for axis, (name, share) in zip(axes, machines.items(), strict=True):
        _time(figure, axis, name, share)
    return figure


def _memory(figure: Figure, axis: Any, machines: Mapping[str, Share]) -> None:
    kinds = list(dict.fromkeys(kind for share in machines.values() for kind in share.memory))
    for row, share in enumerate(machines.values()):
        left = 0.0
        for kind, size in share.memory.items():
            axis.barh(row, size / 1e9, left=left, color=f'C{kinds.index(kind)}', height=0.6)
            left += size / 1e9
        axis.plot([share.available / 1e9] * 2, [row - 0.4, row + 0.4], color='black', lw=2)
    handles = [axis.barh(0, 0, color=f'C{i}') for i in range(len(kinds))]
    handles += axis.plot([], [], color='black', lw=2)
    name_ticks(axis.yaxis, [named(name, 24) for name in machines])
    axis.invert_yaxis()
    axis.set(xlabel='memory of one device (GB)', xlim=(0, None))
    figure.key(handles, [*kinds, 'available'], axis)


def _time(figure: Figure, axis: Any, name: str, share: Share) -> None:
    estimates = {by: f'C{i + 3}' for i, by in enumerate(('compiler', 'roofline', 'kernel'))}
    for row, (seconds, by) in enumerate(share.modules.values()):
        axis.barh(row, 1e3 * seconds, color=estimates.get(by, 'C7'), height=0.7)
    used = [*dict.fromkeys(by for _, by in share.modules.values())]
    handles = [axis.barh(0, 0, color=estimates.get(by, 'C7')) for by in used]
    name_ticks(axis.yaxis, [named(name, 24) for name in share.modules])
    axis.invert_yaxis()
    axis.set_xlim(0, None)
    axis.set_xlabel('estimated time (ms a step)')
    axis.set_title(named(name, 40))
    if share.modules:
        figure.key(handles, used, axis, title='estimated by')
