"""Tables: rows of measurements printed, written as CSV, and fitted for their growth."""

import csv
import itertools
import math
import pathlib
from typing import Any

from vitjax.base import files
from vitjax.base.ranges import Formats

Row = dict[str, Any]

# The head of a column in a printed table, and its unit in that of the CSV.
COLUMNS = {
    'compile_seconds': ('compile s', 1), 'seconds': ('ms', 1e-3), 'timm_seconds': ('timm ms', 1e-3),
    'bytes': ('MiB', 2**20), 'flops': ('GFLOP', 1e9), 'flops_per_second': ('GFLOP/s', 1e9),
    'images_per_second': ('images/s', 1),
}  # fmt: skip


def write(rows: list[Row], out: str | None, name: str) -> None:
    """Writes the rows so far to OUT/NAME.csv, in case the next is killed, and prints the last."""
    print(', '.join(f'{_head(k)} {_text(k, v)}' for k, v in rows[-1].items()), flush=True)
    if out:
        path = pathlib.Path(out) / f'{name}.csv'
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.writing(path, 'w', newline='') as file:
            writer = csv.DictWriter(file, dict.fromkeys(k for row in rows for k in row))
            writer.writeheader()
            writer.writerows(rows)


def table(*names: str) -> Any:
    """Returns an empty table with right-aligned columns after the first; `add_row` fills it."""
    from rich import box
    from rich.table import Column, Table

    first, *others = names
    return Table(first, *(Column(name, justify='right') for name in others), box=box.SIMPLE_HEAD)


def put(table: Any) -> None:
    """Prints a table at its full width, since a cut name is useless in a narrow terminal."""
    from rich.console import Console

    Console(width=1000, markup=False, emoji=False, highlight=False).print(table)


def show(rows: list[Row]) -> None:
    """Prints rows as a table."""
    names = dict.fromkeys(name for row in rows for name in row)
    shown = table(*map(_head, names))
    for row in rows:
        shown.add_row(*(_text(name, row.get(name, '')) for name in names))
    put(shown)


def number(value: float) -> str:
    """Returns a number with three digits, whole from 1,000 on; `-` if it is not finite."""
    if not math.isfinite(value):
        return '-'
    return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'


def scaled(count: int) -> str:
    """Returns a count with three digits and a prefix: 1.26 G."""
    for unit, name in ((1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if count >= unit:
            return f'{count / unit:.3g} {name}'
    return str(count)


def growth(
    rows: list[Row], grown: str, names: tuple[str, str], out: str | None, name: str,
    formats: Formats,
) -> None:  # fmt: skip
    """Prints exponents of time and memory, with 95% intervals, and draws OUT/NAME.png.

    Lines below the table name exponents without a meaning: of too few points, negative, unsure.

    Args:
        rows: rows with `pass`, `seconds` and `bytes`, NaN if memory ran out.
        grown: column that time and memory grow with; if it has one value, nothing is done.
        names: two columns that name a curve.
        out: folder to write; None draws nothing.
        name: name of the figure.
        formats: file formats of the figure.
    """
    import numpy as np

    from vitjax.figures.scaling import fit, scaling

    if len({row[grown] for row in rows}) < 2:
        return
    curves: dict[str, dict[tuple[str, str], Any]] = {}
    fits: dict[tuple[str, ...], Row] = {}
    faults: dict[str, list[str]] = {}
    passes = ('forward', 'forward+backward')
    units = {'seconds': 'time (s)', 'bytes': 'memory (bytes)'}
    for direction, (quantity, unit) in itertools.product(passes, units.items()):
        panel = curves.setdefault(f'{direction}, {unit}', {})
        for curve in dict.fromkeys((row[names[0]], row[names[1]]) for row in rows):
            key = dict(zip((*names, 'pass'), (*curve, direction), strict=True))
            mine = sorted((r for r in rows if key.items() <= r.items()), key=lambda r: r[grown])
            x = np.array([row[grown] for row in mine])
            y = np.array([row[quantity] for row in mine], float)
            panel[curve] = (x, y)
            found, row = fit(x, y), fits.setdefault((*curve, direction), key)
            row[f'exponent of {unit}'] = f'{number(found.exponent)} ± {number(found.half)}'
            if found.fault:
                faults.setdefault(found.fault, []).append(f'{unit} of {", ".join(key.values())}')
    show(list(fits.values()))
    for fault, curves_of in faults.items():
        more = f' and {len(curves_of) - 3} more' if len(curves_of) > 3 else ''
        print(f'{fault}: {"; ".join(curves_of[:3])}{more}')
    if out:
        scaling(curves, x_label=grown).save(pathlib.Path(out) / name, formats)


def _head(name: str) -> str:
    return COLUMNS[name][0] if name in COLUMNS else name.replace('_', ' ')


def _text(name: str, value: Any) -> str:
    if value == '':
        return '-'
    if name in COLUMNS or isinstance(value, float):
        return number(value / COLUMNS.get(name, ('', 1))[1])
    return str(value)
