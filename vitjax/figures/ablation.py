"""Accuracy of an ablation over pairs of settings, and against the operations of training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker

from vitjax.figures.charts import charts, heat, hues, name_ticks, percent, write_cells
from vitjax.figures.figure import Figure, styled
from vitjax.figures.text import named

Axis = tuple[str, Sequence[Any]]  # a setting's path and its values

# Settings whose field is no plain name for a reader.
_WORDS = {
    'optim.peak': 'peak learning rate', 'optim.decay': 'weight decay',
    'optim.clip': 'largest gradient norm', 'model.num_heads': 'heads', 'model.pool': 'pooling',
    'augment.size': 'image size', 'augment.smoothing': 'label smoothing',
    'augment.padding': 'padding (pixels)', 'optim.name': 'optimizer',
    'optim.warmup': 'warm-up (fraction of steps)', 'model.mlp_ratio': 'MLP ratio',
}  # fmt: skip


def words(setting: str) -> str:
    """A setting's name in words: `model.patch_size` is the patch size."""
    return _WORDS.get(setting, setting.rsplit('.', 1)[-1].replace('_', ' '))


@styled
def pair(
    table: np.ndarray, x: Axis, y: Axis | None, settings: int = 2, *, seeds: int, each: str = ''
) -> Figure:
    """Test accuracy over two settings: lines with their 95% intervals, and a heat map of the same.

    Args:
        table: mean, low and high end, [values of y, values of x, 3]; NaN for missing cells.
        x: setting along the lines.
        y: setting that tells lines apart; None for one line and no heat map.
        settings: number of settings that vary; the title says that the others are averaged.
        seeds: seeds of each cell.
        each: training that all cells have in common, for the title: `1,200 steps each`.
    """
    figure, axes = charts(2 if y else 1)
    lines, place, drawn = axes[0], np.arange(len(x[1])), {}
    lines.set_prop_cycle(color=hues(len(table)))
    for i, values in enumerate(table):
        if np.isfinite(values[:, 0]).any():
            # Apart, so that intervals do not hide each other.
            at = place + 0.02 * (i - (len(table) - 1) / 2)
            drawn[i] = lines.errorbar(at, values[:, 0], _bars(values), marker='o', capsize=2)
    name_ticks(lines.xaxis, _said(x))
    lines.set(xlabel=words(x[0]), ylabel='test accuracy', xlim=(-0.3, len(place) - 0.7))
    percent(lines.yaxis)
    lines.grid(True)
    if y:
        names = _said(y)
        figure.key([*drawn.values()], [names[i] for i in drawn], lines, title=words(y[0]))
        _heat(figure, axes[1], table, x, y)
    over = '' if settings <= 2 else ', other settings averaged'
    given = f'; {each}' if each else ''
    figure.suptitle(f'{_mean(seeds, table[..., 1])}{over}{given}')
    return figure


def alike(steps: Sequence[int], flops: Sequence[float]) -> str:
    """Training that all cells have in common, in words: steps, or FLOPs within 1%.

    Args:
        steps: training steps [cells].
        flops: FLOPs of training one seed [cells].
    """
    if min(steps) == max(steps):
        return f'{steps[0]:,} steps each'
    if max(flops) <= 1.01 * min(flops):
        return f'{ticker.EngFormatter("FLOPs", places=1)(max(flops))} of training each'
    return ''


def _said(axis: Axis) -> list[str]:
    return [named(str(value), 20) for value in axis[1]]


def _bars(values: np.ndarray) -> np.ndarray | None:
    """Lengths of error bars below and above [2, n], from mean, low, high [n, 3]; None for NaN."""
    mean, low, high = np.atleast_2d(values).T
    return np.nan_to_num(np.stack([mean - low, high - mean])) if np.isfinite(low).any() else None


def _mean(seeds: int, low: np.ndarray) -> str:
    """Number of seeds of the means, and their interval, in words."""
    if seeds == 1:
        return 'one seed'
    known = np.isfinite(low).any()
    interval = "Student's 95% interval over them, on the logit scale"
    return f'mean of {seeds} seeds, ' + (interval if known else 'too few for an interval')


def _heat(figure: Figure, axis: Any, table: np.ndarray, x: Axis, y: Axis) -> None:
    image = heat(axis, table[..., 0], (words(x[0]), _said(x)), (words(y[0]), _said(y)))

    def text(mean: float, low: float, high: float) -> str:
        interval = '' if np.isnan(low) else f'\n{low:.1f}–{high:.1f}'
        return '' if np.isnan(mean) else f'{mean:.1f}%{interval}'

    said = [[text(*100 * cell) for cell in row] for row in table]
    write_cells(axis, table[..., 0], said, middle=float(np.mean(image.get_clim())))
    percent(figure.bar(image, axis, 'test accuracy').ax.yaxis)


@styled
def against_flops(
    flops: Sequence[float], accuracy: Sequence[tuple[float, float, float]],
    points: Sequence[Mapping[str, Any]], axes: Sequence[str], *, seeds: int,
) -> Figure:  # fmt: skip
    """Test accuracy against the operations of training one seed, a point for each cell.

    Args:
        flops: FLOPs [cells].
        accuracy: mean, low and high end of each cell.
        points: settings of each cell.
        axes: settings that vary: the first gives the color, the second the marker.
        seeds: seeds of each cell.
    """
    figure, (axis,) = charts(width=4.6, height=2.6)
    values = {name: [*dict.fromkeys(point[name] for point in points)] for name in axes[:2]}
    markers, drawn, names = 'osD^vP*X<>', [], []
    shades = hues(max(map(len, values.values()), default=1))
    for x, interval, point in zip(flops, accuracy, points, strict=True):
        color, marker, *_ = *(known.index(point[n]) for n, known in values.items()), 0, 0
        names.append(', '.join(f'{words(name)} {named(str(point[name]), 20)}' for name in axes))
        one = axis.errorbar(
            x, interval[0], _bars(np.array(interval)), color=shades[color], capsize=2, ms=4,
            marker=markers[marker % len(markers)], linestyle='none',
        )  # fmt: skip
        drawn.append(one)
    axis.set(xscale='log', xlabel='FLOPs of training one seed', ylabel='test accuracy')
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.EngFormatter())
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    percent(axis.yaxis)
    axis.grid(True)
    figure.suptitle(_mean(seeds, np.array(accuracy)[:, 1]))
    figure.key(drawn, names)
    return figure
