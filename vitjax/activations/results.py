"""Files of a comparison: arrays, a table and a figure of each result."""

import csv
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vitjax.activations.compare import Matrix, Probes
from vitjax.activations.record import Activations
from vitjax.base import files, labels
from vitjax.base.types import Format
from vitjax.figures import similarity as figures


def write_matrix(
    found: Matrix, sides: Sequence[Activations], out: pathlib.Path,
    formats: Sequence[Format] = ('png',),
) -> None:  # fmt: skip
    """Writes a metric's matrix into a directory: `.npz`, `.csv` and a heat map.

    Of runs, the arrays and the table have every compared layer. The heat map is of the last layer,
    and a second one, `METRIC_mean`, of the mean over the layers.

    Args:
        found: one of `matrices`.
        sides: what it compares.
        out: the directory.
        formats: formats of the figures.
    """
    name, runs = found.metric.name, len(found.layers) > 0
    about = [json.dumps(side.about) for side in sides]
    values: dict[str, Any] = {name: found.values, 'policy': found.policy}
    if runs:
        values |= {'layers': found.layers, 'runs': found.x, 'about': about}
        head = ['layer', 'run', *found.y]
        rows = [
            ([layer, run], row)
            for layer, matrix in zip(found.layers, found.values, strict=True)
            for run, row in zip(found.x, matrix, strict=True)
        ]
    else:
        values |= {'x': found.x, 'y': found.y, 'about_x': about[0], 'about_y': about[-1]}
        head = [f'{name} ({found.policy})', *found.y]
        rows = [([layer], row) for layer, row in zip(found.x, found.values, strict=True)]
    if found.low is not None:
        values |= {'low': found.low, 'high': found.high, 'batch_size': found.batch_size}
    _write_arrays(out / f'{name}.npz', values)
    _write_table(out / f'{name}.csv', head, rows, digits=6)
    if not runs:
        x, y = labels.labels([sides[0].source, sides[-1].source])
        _heat_map(found, x, y).save(out / name, formats)
        return
    _heat_map(found.at(-1), 'run', 'run').save(out / name, formats)
    if len(found.layers) > 1:
        _heat_map(found.mean(), 'run', 'run').save(out / f'{name}_mean', formats)


def _heat_map(found: Matrix, x: str, y: str) -> figures.Figure:
    least, most = float(found.values.min()), found.metric.most
    return figures.heat_map(
        found.values, found.x, found.y, measure=found.metric.title, x_label=x, y_label=y,
        title=found.title, span=(min(0.0, least), most or float(found.values.max())),
    )  # fmt: skip


def write_probes(
    found: Probes, fitted: Activations, tested: Activations, out: pathlib.Path,
    formats: Sequence[Format] = ('png',),
) -> None:  # fmt: skip
    """Writes the accuracies of probes into a directory: `probe.npz`, `.csv` and curves."""
    table = np.array(list(found.accuracy.values()))
    low, high = ([ends[i] for ends in found.interval.values()] for i in (0, 1))
    about = {'about_fitted': json.dumps(fitted.about), 'about_tested': json.dumps(tested.about)}
    names = {'probes': list(found.accuracy), 'layers': found.layers, 'policy': found.policy}
    values = {'accuracy': table, 'low': low, 'high': high}
    _write_arrays(out / 'probe.npz', values | names | about)
    head = [f'accuracy ({found.policy})', *found.accuracy]
    rows = [([layer], row) for layer, row in zip(found.layers, table.T, strict=True)]
    _write_table(out / 'probe.csv', head, rows, digits=4)
    figure = figures.probe_accuracy(
        found.layers, found.accuracy, found.interval, title=f'{fitted.label}, {found.policy}'
    )
    figure.save(out / 'probe', formats)


def _write_arrays(path: pathlib.Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(path) as file:
        np.savez(file, **values)


def _write_table(
    path: pathlib.Path, head: list[str], rows: Iterable[tuple[list[str], np.ndarray]], digits: int
) -> None:
    with files.writing(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows([*names, *(f'{x:.{digits}f}' for x in row)] for names, row in rows)
