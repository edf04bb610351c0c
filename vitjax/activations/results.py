"""Files of a comparison: arrays, a table and a figure of each result."""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitjax.activations.compare import Matrix, Probes
from vitjax.activations.record import Activations
from vitjax.base import files, labels
from vitjax.base.types import Format
from vitjax.figures import similarity as figures


def write_matrix(
    found: Matrix, x: Activations, y: Activations, out: pathlib.Path,
    formats: Sequence[Format] = ('png',),
) -> None:  # fmt: skip
    """Writes a metric's matrix into a directory: `.npz`, `.csv` and a heat map."""
    out.mkdir(parents=True, exist_ok=True)
    metric = found.metric
    values: dict[str, Any] = {
        metric.name: found.values, 'x': found.x, 'y': found.y, 'policy': found.policy,
        'about_x': json.dumps(x.about), 'about_y': json.dumps(y.about),
    }  # fmt: skip
    if found.low is not None:
        values |= {'low': found.low, 'high': found.high, 'batch_size': found.batch_size}
    with files.writing(out / f'{metric.name}.npz') as file:
        np.savez(file, **values)
    head = [f'{metric.name} ({found.policy})', *found.y]
    _write_table(out / f'{metric.name}.csv', head, found.x, found.values, digits=6)
    most = float(found.values.max()) if metric.most is None else metric.most
    x_label, y_label = labels.labels([x.source, y.source])
    figure = figures.heat_map(
        found.values, found.x, found.y, measure=metric.title, x_label=x_label, y_label=y_label,
        title=found.title, span=(min(0.0, float(found.values.min())), most),
    )  # fmt: skip
    figure.save(out / metric.name, formats)


def write_probes(
    found: Probes, fitted: Activations, tested: Activations, out: pathlib.Path,
    formats: Sequence[Format] = ('png',),
) -> None:  # fmt: skip
    """Writes the accuracies of probes into a directory: `probe.npz`, `.csv` and curves."""
    out.mkdir(parents=True, exist_ok=True)
    table = np.array(list(found.accuracy.values()))
    low, high = ([ends[i] for ends in found.interval.values()] for i in (0, 1))
    with files.writing(out / 'probe.npz') as file:
        np.savez(
            file, accuracy=table, probes=list(found.accuracy), layers=found.layers,
            low=low, high=high, policy=found.policy, about_fitted=json.dumps(fitted.about),
            about_tested=json.dumps(tested.about),
        )  # fmt: skip
    head = [f'accuracy ({found.policy})', *found.accuracy]
    _write_table(out / 'probe.csv', head, found.layers, table.T, digits=4)
    figure = figures.probe_accuracy(
        found.layers, found.accuracy, found.interval, title=f'{fitted.label}, {found.policy}'
    )
    figure.save(out / 'probe', formats)


def _write_table(
    path: pathlib.Path, head: list[str], names: list[str], rows: np.ndarray, digits: int
) -> None:
    with files.writing(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for name, row in zip(names, rows, strict=True):
            writer.writerow([name, *(f'{value:.{digits}f}' for value in row)])
