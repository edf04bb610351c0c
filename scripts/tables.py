"""Rows of measurements, as benchmarks write them to CSV and print them."""

import csv
import itertools
import math
import pathlib
import sys
from typing import Any

Row = dict[str, Any]

# How a column is headed in a printed table, and how much of its unit is 1 there.
COLUMNS = {
    'compile_seconds': ('compile s', 1),
    'seconds': ('ms', 1e-3),
    'timm_seconds': ('timm ms', 1e-3),
    'bytes': ('MiB', 2**20),
    'flops': ('GFLOP', 1e9),
    'flops_per_second': ('GFLOP/s', 1e9),
    'images_per_second': ('images/s', 1),
}


def write(rows: list[Row], out: str | None, name: str) -> None:
    """Writes the rows so far to OUT/NAME.csv, so that they are there if the next one is killed.

    The last row goes to stderr too, as progress.
    """
    print(', '.join(f'{_head(k)} {_text(k, v)}' for k, v in rows[-1].items()), file=sys.stderr)
    if out:
        path = pathlib.Path(out) / f'{name}.csv'
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('w', newline='') as file:
            writer = csv.DictWriter(file, dict.fromkeys(k for row in rows for k in row))
            writer.writeheader()
            writer.writerows(rows)


def show(rows: list[Row]) -> None:
    """Prints rows as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    names = dict.fromkeys(name for row in rows for name in row)
    for name in names:
        table.add_column(_head(name), justify='right')
    for row in rows:
        table.add_row(*(_text(name, row.get(name, '')) for name in names))
    Console(width=1000).print(table)  # no wider than the table is; a cut name says nothing


def scaled(count: int) -> str:
    """A count with three digits and a unit: 1.26 G."""
    for unit, name in ((1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if count >= unit:
            return f'{count / unit:.3g} {name}'
    return str(count)


def growth(rows: list[Row], grown: str, names: tuple[str, str], out: str | None, name: str) -> None:
    """Prints the exponents of time and memory against a column, and draws OUT/NAME.png.

    Args:
        rows: with `pass`, `seconds` and `bytes`, NaN where memory ran out.
        grown: the column that time and memory grow with; nothing is done if it has one value.
        names: two columns that name a curve.
        out: directory to write to; None draws nothing.
        name: of the figure.
    """
    import numpy as np

    from vitjax.figures.scaling import exponent, scaling

    if len({row[grown] for row in rows}) < 2:
        return
    curves: dict[str, dict[tuple[str, str], Any]] = {}
    fits: dict[tuple[str, ...], Row] = {}
    directions = ('forward', 'forward+backward')
    units = {'seconds': 'time (s)', 'bytes': 'memory (bytes)'}
    for direction, (quantity, unit) in itertools.product(directions, units.items()):
        panel = curves.setdefault(f'{direction}, {unit}', {})
        for curve in dict.fromkeys((row[names[0]], row[names[1]]) for row in rows):
            mine = [r for r in rows if (r[names[0]], r[names[1]], r['pass']) == (*curve, direction)]
            mine.sort(key=lambda row: row[grown])
            x = np.array([row[grown] for row in mine])
            y = np.array([row[quantity] for row in mine], float)
            panel[curve] = (x, y)
            fit = dict(zip((*names, 'pass'), (*curve, direction), strict=True))
            fits.setdefault((*curve, direction), fit)[f'exponent of {unit}'] = exponent(x, y)
    show(list(fits.values()))
    if out:
        figure = scaling(curves, x_label=grown)
        figure.savefig(pathlib.Path(out) / f'{name}.png', dpi=120)


def _head(name: str) -> str:
    return COLUMNS[name][0] if name in COLUMNS else name.replace('_', ' ')


def _text(name: str, value: Any) -> str:
    if value == '' or isinstance(value, float) and math.isnan(value):
        return '-'
    if name in COLUMNS or isinstance(value, float):
        value = value / COLUMNS.get(name, ('', 1))[1]
        return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'
    return str(value)
