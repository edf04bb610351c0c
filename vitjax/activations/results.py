"""What a comparison leaves behind: arrays, a table and a figure of each."""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitjax.activations.compare import METRICS, Matrix, Probes
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
    values: dict[str, Any] = {
        found.metric: found.values, 'x': found.x, 'y': found.y, 'policy': found.policy,
        'about_x': json.dumps(x.about), 'about_y': json.dumps(y.about),
    }  # fmt: skip
    if found.low is not None:
        values |= {'low': found.low, 'high': found.high, 'batch_size': found.batch_size}
    with files.writing(out / f'{found.metric}.npz') as file:
        np.savez(file, **values)
    head = [f'{found.metric} ({found.policy})', *found.y]
    _write_table(out / f'{found.metric}.csv', head, found.x, found.values, digits=6)
    label, most = METRICS[found.metric]
    x_label, y_label = labels.labels([x.source, y.source])
    figure = figures.heat_map(
        found.values, found.x, found.y, measure=label, x_label=x_label, y_label=y_label,
        title=found.title, span=(min(0.0, float(found.values.min())), most),
    )  # fmt: skip
    figure.save(out / found.metric, formats)


def write_probes(
    found: Probes, fitted: Activations, tested: Activations, out: pathlib.Path,
    formats: Sequence[Format] = ('png',),
) -> None:  # fmt: skip
    """Writes the probes' accuracies into a directory: `probe.npz`, `.csv` and curves."""
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
