"""Results of an ablation's runs: a table with intervals over seeds, and figures."""

import csv
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitjax import runs
from vitjax.ablation.grid import Cell, Row, cost, settings
from vitjax.analysis.effects import student_share
from vitjax.base import files
from vitjax.base.types import Format
from vitjax.figures import ablation as figures

Runs = Mapping[int, pathlib.Path]  # the run directory of each seed
Placed = tuple[Cell, Runs]  # a cell and its runs

ACCURACIES = ('best_validation_accuracy', 'final_validation_accuracy', 'test_accuracy')
FAILURE = 'failure.txt'  # in a cell's folder: the reason in a line, then the traceback


def is_finished(outs: Runs) -> bool:
    """Returns True if all runs of a cell are tested."""
    return all(map(runs.records.tested, outs.values()))


def _row(cell: Cell, outs: Runs) -> Row:
    """A cell as a row of the table, from the files of its folder."""
    row = {**settings(cell), 'status': 'waiting', 'reason': '', 'seeds': len(outs)}
    failure = next(iter(outs.values())).parent / FAILURE
    if is_finished(outs):
        row |= {'status': 'finished', **cost(cell.experiment), **summary(outs)}
    elif failure.exists():
        said = failure.read_text(errors='replace').splitlines() or ['']
        row |= {'status': 'failed', 'reason': said[0]}
    return row


def finished(out: str | pathlib.Path) -> dict[str, dict[int, pathlib.Path]]:
    """The finished runs of an ablation's folder, by cell and seed.

    Raises:
        ValueError: if it holds none.
    """
    found: dict[str, dict[int, pathlib.Path]] = {}
    for run in (pathlib.Path(out) / 'cells').glob('*/seed_*'):
        if runs.records.tested(run):
            found.setdefault(run.parent.name, {})[int(run.name.removeprefix('seed_'))] = run
    if not found:
        raise ValueError(f'an ablation has finished runs in cells/CELL/seed_K: {out} has none.')
    return {cell: dict(sorted(own.items())) for cell, own in sorted(found.items())}


def said(row: Row) -> str:
    """A finished cell in a few words."""
    mean, low, high = (row[f'test_accuracy{end}'] for end in ('', '_low', '_high'))
    said = f'test accuracy {mean:.2%}'
    if row['seeds'] > 1:
        span = ', too few for an interval'
        if not np.isnan(low):
            span = f', 95% interval {low:.2%} to {high:.2%}'
        said += f' (mean of {row["seeds"]} seeds{span})'
    return f'{said}, {row["seconds"]:.1f} s'


def summary(outs: Runs) -> Row:
    """Results of finished runs of one cell.

    Returns:
        `seconds` of training, all seeds together; `images_per_second`, likewise; and for
        `best_validation_accuracy`, `final_validation_accuracy` and `test_accuracy` (of the best
        parameters) the mean over seeds, with `..._low` and `..._high`, its 95% interval
        (`interval`).
    """
    rows = [seed_summary(seed, run) for seed, run in outs.items()]
    images = sum(row['images'] for row in rows)
    seconds = sum(row['images'] / row['images_per_second'] for row in rows)
    out: Row = {'seconds': seconds, 'images_per_second': images / seconds}
    for name in ACCURACIES:
        mean, low, high = interval([row[name] for row in rows])
        out |= {name: mean, f'{name}_low': low, f'{name}_high': high}
    return out


def seed_summary(seed: int, run: pathlib.Path) -> Row:
    """Results of one finished run: accuracies, images seen, and the rate of its group."""
    records = runs.records.read_metrics(run)
    held = [r['accuracy'] for r in records if r['split'] == 'validation']
    trained = [r for r in records if r['split'] == 'train' and 'images_per_second' in r]
    if not held or not trained:
        raise ValueError(f'{run / "metrics.jsonl"} must have lines of training and validation.')
    tested = next(r for r in records if r['split'] == 'test')
    return {
        'seed': seed,
        'best_validation_accuracy': max(held),
        'final_validation_accuracy': held[-1],
        'test_accuracy': tested['accuracy'],
        'test_loss': tested['loss'],
        'images': trained[-1]['step'] * runs.read_experiment(run).batch_size,
        'images_per_second': float(np.median([r['images_per_second'] for r in trained])),
    }


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of fractions such as accuracies, and the ends of its 95% confidence interval.

    Student's on the logit scale (`effects.student_share`), within 0 and 1; NaN for fewer than three
    values.
    """
    mean, low, high = student_share(np.array(values))
    return float(mean), float(low), float(high)


def write(out: pathlib.Path, placed: Sequence[Placed]) -> list[Row]:
    """Writes `results.csv`, a row per cell, and `seeds.csv`, a row per finished run.

    Each in one step: a reader sees the old one or the new one.
    """
    rows = [_row(*each) for each in placed]
    seeds = [
        {**settings(cell), **seed_summary(seed, run)}
        for cell, outs in placed
        for seed, run in outs.items()
        if runs.records.tested(run)
    ]
    for name, table in (('results', rows), ('seeds', seeds)):
        with files.writing(out / f'{name}.csv', 'w', newline='') as file:
            writer = csv.DictWriter(file, dict.fromkeys(key for row in table for key in row))
            writer.writeheader()
            for row in table:  # NaN, for too few seeds: an empty cell
                writer.writerow({k: '' if v != v else v for k, v in row.items()})
    return rows


def draw(
    out: pathlib.Path, placed: Sequence[Placed], rows: Sequence[Row],
    formats: Sequence[Format] = ('png',),
) -> None:  # fmt: skip
    """Draws a figure for each axis or pair of axes, and accuracy against operations."""
    done = [i for i, row in enumerate(rows) if row['status'] == 'finished']
    if not done:
        return
    points = [settings(cell) for cell, _ in placed]
    axes = {path: [*dict.fromkeys(point[path] for point in points)] for path in points[0]}
    axes = {path: values for path, values in axes.items() if len(values) > 1}
    points = [points[i] for i in done]
    accuracy = np.array(
        [[seed_summary(*item)['test_accuracy'] for item in placed[i][1].items()] for i in done]
    )  # [cells, seeds]
    steps, flops = ([rows[i][name] for i in done] for name in ('steps', 'train_flops'))
    folder, seeds = out / 'figures', accuracy.shape[1]
    folder.mkdir(exist_ok=True)
    for pair in [*itertools.combinations(axes, 2)] or [(path,) for path in axes]:
        table = _marginal(points, accuracy, {path: axes[path] for path in pair})
        x, y = [*((path, axes[path]) for path in pair), None][:2]
        each = figures.alike(steps, flops)
        figure = figures.pair(table, x, y, len(axes), seeds=seeds, each=each)
        figure.save(folder / '_'.join(('accuracy', *pair)), formats)
    mean = [interval(row) for row in accuracy]
    figure = figures.against_flops(flops, mean, points, [*axes], seeds=seeds)
    figure.save(folder / 'accuracy_flops', formats)


def _marginal(
    points: Sequence[Row], accuracy: np.ndarray, axes: Mapping[str, Sequence[Any]]
) -> np.ndarray:
    """Mean, low and high of one axis or two, each seed's mean over all other axes first.

    [values of the second axis, or 1, values of the first, 3].
    """
    table = np.full((*map(len, axes.values()), 3), np.nan)
    for place in np.ndindex(table.shape[:-1]):
        here = {path: axes[path][i] for path, i in zip(axes, place, strict=True)}
        mine = [here.items() <= point.items() for point in points]
        if any(mine):
            table[place] = interval(accuracy[mine].mean(0))
    return table[None] if len(axes) == 1 else table.swapaxes(0, 1)
