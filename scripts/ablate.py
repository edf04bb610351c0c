"""Train a grid of settings, several seeds each: scripts/ablate.py digits --grid model.depth=2,4."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import command
from command import tables
from tyro.conf import AvoidSubcommands, arg

from vitjax import experiment as experiments
from vitjax.base import fields
from vitjax.base.console import Console, duration
from vitjax.base.ranges import Formats, Range, Seeds
from vitjax.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A grid of settings, its seeds, and the settings of every cell.

    Attributes:
        out: folder of results.csv, seeds.csv, figures/ and cells/; the same command resumes.
        grid: fields and their values, as in `model.depth=2,4,8 model.patch-size=1,2`; by default
            the experiment's own grid().
        seeds: runs of each cell, which train together.
        match: flops gives each cell the training FLOPs of the experiment itself.
        report: write report.html into --out at the end.
        dry_run: list the cells with parameters, FLOPs and time, without training.
        launcher: devices of this machine, a cell at a time on each; processes, one per cell; or
            slurm, one job per cell (the cluster extra).
        job: settings of a job for submitit, as in `timeout_min=60 slurm_partition=gpu`.
        format: file formats of the figures: png, pdf, svg.
    """

    experiment: Annotated[AvoidSubcommands[Experiment], arg(name='')]
    out: str
    grid: Annotated[tuple[str, ...], Range(1)] | None = None
    seeds: Seeds = 3
    match: Literal['none', 'flops'] = 'none'
    report: bool = True
    dry_run: bool = False
    launcher: Literal['devices', 'processes', 'slurm'] = 'devices'
    job: tuple[str, ...] = ()
    format: Formats = ('png',)


def main() -> int:
    """Parses the experiment's name, the grid, then overrides of the experiment, and trains all."""
    asked, module = command.of_experiment(
        Ablation, 'ablations', does='Train a grid of settings of: ',
        usage='[--grid FIELD=VALUE,VALUE ...] [--seeds N] [--out DIR] [overrides]',
    )  # fmt: skip
    grid = axes(asked.experiment, asked.grid) if asked.grid else own_grid(module)
    settings = command.settings(asked.job)

    from vitjax import ablation
    from vitjax.base.signals import Stop

    with command.as_flags():
        made = ablation.cells(asked.experiment, grid)
    if asked.match == 'flops':
        made = ablation.match_flops(made, asked.experiment)
    if asked.dry_run:
        console = Console()
        console.say(
            f'counting parameters and operations of {len(made)} cells, then measuring a training '
            f'step of the smallest and the largest'
        )
        with console.progress('cells and measurements', len(made) + 2) as report:
            rows = ablation.plan(made, asked.seeds, report)
        show(rows, asked.seeds)
        return 0
    try:
        rows = ablation.run(
            made, asked.seeds, asked.out, launcher=asked.launcher,
            settings=settings, formats=asked.format,
            hooks=module.__file__ if experiments.hooks(module) else None,
        )  # fmt: skip
    except Stop as stop:
        print('stopped; the same command resumes')
        return stop.code
    failed = [row for row in rows if row['status'] == 'failed']
    print(f'{len(rows) - len(failed)} of {len(rows)} cells are finished; written: '
          f'results.csv, seeds.csv and figures/ in {asked.out}')  # fmt: skip
    if asked.report:
        from vitjax import report

        print(report.attempt(asked.out), end='')
    return 1 if failed else 0


def own_grid(module: Any) -> dict[str, Any]:
    """Returns the grid of an experiment's file.

    Raises:
        ValueError: if the file has none, or grid() does not return values by field.
    """
    if 'grid' not in vars(module):
        raise ValueError(f'{module.__name__} has no grid(): give --grid FIELD=VALUE,VALUE.')
    grid = module.grid()
    fields.check(grid, dict, f'grid() of {module.__name__}')
    return grid


def axes(experiment: Any, texts: Sequence[str]) -> dict[str, list[Any]]:
    """Returns the values of each field that `--grid` names.

    Raises:
        ValueError: as `parsed`, and if a field is named twice.
    """
    grid: dict[str, list[Any]] = {}
    for path, values in (parsed(experiment, text) for text in texts):
        if path in grid:
            raise ValueError(f'--grid must name {command.flag(path)} once: it names it twice.')
        grid[path] = values
    return grid


def parsed(experiment: Any, axis: str) -> tuple[str, list[Any]]:
    """Returns a field and its values of the field's type, parsed like the flags of train.py.

    Values of a list are separated by spaces, as in `model.head=64,'64 32'`.

    Raises:
        ValueError: if the field does not exist, or the text is not FIELD=VALUE,VALUE.
    """
    path, text = command.pair(axis)
    path = command.ALIASES.get(path, path)
    flag, known = command.flag(path), fields.paths(experiment)
    if path not in known:
        close = ', '.join(map(command.flag, fields.close(path, known)))
        raise ValueError(f'there is no {flag}{f"; close: {close}" if close else ""}.')
    current = fields.get(experiment, path)
    if dataclasses.is_dataclass(current):
        one = command.flag(f'{path}.{fields.names(current)[0]}')
        raise ValueError(f'{flag} is not one value: name a field of it, as in {one}.')

    def read(value: str) -> Any:
        if not (value := value.strip()):
            raise ValueError(f'--grid must have a value on both sides of a comma: {axis!r}.')
        if isinstance(current, bool):
            if value.lower() not in ('true', 'false'):
                raise ValueError(f'{flag} must be true or false: {value!r}.')
            return value.lower() == 'true'
        args = [flag, *(value.split() if isinstance(current, tuple) else [value])]
        kind, prog = AvoidSubcommands[type(experiment)], command.program(*sys.argv[1:2])
        return fields.get(command.parse(kind, default=experiment, args=args, prog=prog), path)

    return path, [*map(read, text.split(','))]


def show(rows: list[dict[str, Any]], seeds: int) -> None:
    """Prints the cells of a plan as a table."""
    known = ('status', 'reason', 'parameters', 'flops', 'steps', 'train_flops', 'seconds')
    settings = [name for name in rows[0] if name not in known]
    table = tables.table(*settings, 'parameters', 'FLOPs an image', 'steps', 'FLOPs a seed', 'time')
    impossible = []
    for row in rows:
        cells = [str(row[name]) for name in settings]
        if row['status'] != 'planned':
            table.add_row(*cells, '-', '-', '-', '-', 'impossible', style='dim')
            impossible.append(f'{", ".join(f"{n}={row[n]}" for n in settings)}: {row["reason"]}')
            continue
        cells += [f'{row["parameters"]:,}', tables.scaled(row['flops']), f'{row["steps"]:,}']
        table.add_row(*cells, tables.scaled(row['train_flops']), duration(row['seconds']))
    tables.put(table)
    total = duration(sum(row.get('seconds', 0) for row in rows))
    print(*impossible, sep='\n', end='\n' * bool(impossible))
    print(f'about {total} of training for {len(rows)} cells with {seeds} seeds each, '
          'measured at two of them; evaluation and compilation add to it.')  # fmt: skip


if __name__ == '__main__':
    command.guard(main)
