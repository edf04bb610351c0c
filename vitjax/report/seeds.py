"""Means over the runs of a group, with their 95% intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vitjax.analysis.effects import student, student_share
from vitjax.figures.report import TITLES, Curve
from vitjax.report.groups import Group
from vitjax.runs.records import Record

POINTS = 400  # per curve; a page resolves no more


class Estimate(NamedTuple):
    """Mean over runs with its 95% interval, NaN for a single run."""

    mean: float
    low: float
    high: float
    runs: int


def estimate(values: Sequence[float | None], *, share: bool = False) -> Estimate | None:
    """Mean and 95% interval over runs; None if no run has a value.

    Args:
        values: value of each run; None is left out.
        share: True for fractions, 0 to 1.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean, low, high = (student_share if share else student)(np.array(known))
    return Estimate(float(mean), float(low), float(high), len(known))


def curves(group: Group) -> dict[tuple[str, str], Curve]:
    """Mean over seeds at each epoch with its interval, by split and metric.

    Top-5 accuracy is left out if it is 1 throughout, as with five classes or fewer.
    """
    found = {}
    for split in ('train', 'validation'):
        for metric in TITLES:
            lines = [
                {r['epoch']: r[metric] for r in run.records if _has_value(r, split, metric)}
                for run in group.runs
            ]
            epochs = np.array(sorted(set().union(*lines)))
            if len(epochs):
                table = np.array([[own.get(e, np.nan) for own in lines] for e in epochs])
                found[split, metric] = _curve(epochs, table, share=metric != 'loss')
    tops = [curve for (_, metric), curve in found.items() if metric == 'top5']
    if all((curve.mean == 1).all() for curve in tops):
        found = {key: curve for key, curve in found.items() if key[1] != 'top5'}
    return found


def _has_value(record: Record, split: str, metric: str) -> bool:
    value = record.get(metric)
    return record['split'] == split and isinstance(value, int | float) and math.isfinite(value)


def _curve(epochs: np.ndarray, table: np.ndarray, *, share: bool) -> Curve:
    """Curve of values [epochs, runs], NaN for runs without one; averages neighbours if long."""
    if (times := -(-len(epochs) // POINTS)) > 1:
        cuts = range(0, len(epochs), times)
        epochs = np.array([epochs[i : i + times].mean() for i in cuts])
        known = np.ma.masked_invalid(table)
        table = np.array([known[i : i + times].mean(0).filled(np.nan) for i in cuts])
    each = [(student_share if share else student)(row[np.isfinite(row)]) for row in table]
    return Curve(epochs, *map(np.array, zip(*each, strict=True)))
