"""Results of an ablation's runs: a table with intervals over seeds, and figures."""

import csv
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitjax import runs
from vitjax.ablation.grid import Cell, Row, cost, label, settings
from vitjax.analysis.effects import student_share
from vitjax.base import files
from vitjax.base.types import Format
from vitjax.figures import ablation as figures

Runs = Mapping[int, pathlib.Path]  # the run directory of each seed

ACCURACIES = ('best_validation_accuracy', 'final_validation_accuracy', 'test_accuracy')


def _row(cell: Cell, outs: Runs) -> Row:
    """A cell as a row of the table, from the files of its folder."""
    row = {**settings(cell), 'status': 'waiting', 'reason': '', 'seeds': len(outs)}
    if all(map(runs.records.tested, outs.values())):
        row['status'] = 'finished'
        return {**row, **cost(cell.experiment), **summary(outs)}
    failure = next(iter(outs.values())).parent / 'failure.txt'
    if failure.exists():
        row |= {
            'status': 'failed',
            'reason': (failure.read_text(errors='replace').splitlines() or [''])[0],
        }
    return row


def _seed_rows(cell: Cell, outs: Runs) -> list[Row]:
    return [
        {**settings(cell), **seed_summary(seed, run)}
        for seed, run in outs.items()
        if runs.records.tested(run)
    ]


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


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of fractions such as accuracies, and the low and high end of its confidence interval.

    Student's on the logit scale (`effects.student_share`), within 0 and 1; NaN for fewer than three
    values.
    """
    mean, low, high = student_share(np.array(values), level)
    return float(mean), float(low), float(high)


def write(out: pathlib.Path, made: Sequence[Cell], outs: Sequence[Runs]) -> list[Row]:
    """Writes `results.csv`, a row per cell, and `seeds.csv`, a row per finished run.

    Each in one step: a reader sees the old one or the new one.
    """
    rows = [*map(_row, made, outs)]
    seeds = [*itertools.chain(*map(_seed_rows, made, outs))]
    for name, table in (('results', rows), ('seeds', seeds)):
        with files.writing(out / f'{name}.csv', 'w', newline='') as file:
            writer = csv.DictWriter(file, dict.fromkeys(key for row in table for key in row))
            writer.writeheader()
            for row in table:  # NaN, for too few seeds: an empty cell
                writer.writerow({k: '' if v != v else v for k, v in row.items()})
    return rows


def draw(
    out: pathlib.Path, made: Sequence[Cell], outs: Sequence[Runs], rows: Sequence[Row],
    formats: Sequence[Format] = ('png',),
) -> None:  # fmt: skip
    """Draws a figure for each axis or pair of axes, and accuracy against operations."""
    done = [i for i, row in enumerate(rows) if row['status'] == 'finished']
    if not done:
        return
    axes = {
        path: [*dict.fromkeys(settings(cell)[path] for cell in made)]
        for path, _ in made[0].settings
        if len({label(dict(cell.settings)[path]) for cell in made}) > 1
    }
    points = [settings(made[i]) for i in done]
    # [cells, seeds]
    accuracy = np.array(
        [[seed_summary(*item)['test_accuracy'] for item in outs[i].items()] for i in done]
    )
    folder = out / 'figures'
    folder.mkdir(exist_ok=True)

    def write(figure: Any, name: str) -> None:
        figure.save(folder / name, formats)

    steps, flops = ([rows[i][name] for i in done] for name in ('steps', 'train_flops'))
    pairs = [*itertools.combinations(axes, 2)] or [(path, None) for path in axes]
    for x, y in pairs:
        table = _marginal(points, accuracy, axes[x], x, axes[y] if y else [None], y)
        figure = figures.pair(
            table, (x, axes[x]), (y, axes[y]) if y else None, len(axes),
            seeds=accuracy.shape[1], each=figures.alike(steps, flops),
        )  # fmt: skip
        write(figure, f'accuracy_{x}' + (f'_{y}' if y else ''))
    mean = [interval(row) for row in accuracy]
    seeds = accuracy.shape[1]
    write(figures.against_flops(flops, mean, points, [*axes], seeds=seeds), 'accuracy_flops')


def _marginal(
    points: Sequence[Row], accuracy: np.ndarray, xs: Sequence[Any], x: str, ys: Sequence[Any],
    y: str | None,
) -> np.ndarray:  # fmt: skip
    """Mean, low and high [len(ys), len(xs), 3]: each seed's mean over all other axes first."""
    table = np.full((len(ys), len(xs), 3), np.nan)
    for (row, second), (column, first) in itertools.product(enumerate(ys), enumerate(xs)):
        mine = [p[x] == first and (y is None or p[y] == second) for p in points]
        if any(mine):
            table[row, column] = interval(accuracy[mine].mean(0))
    return table
