"""Estimates memory, operations and time of a training on machines that are not here."""

import dataclasses
import json
import math
import pathlib
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import command
from command import tables
from tyro.conf import AvoidSubcommands, arg

from vitjax.base.console import Console, duration
from vitjax.base.ranges import Count, Formats, Range
from vitjax.experiment import Experiment

MODULES = 10  # the most expensive
OUTSIDE = '(outside of modules)'


@dataclasses.dataclass(frozen=True)
class Asked:
    """An experiment, and the machines to plan it for.

    Attributes:
        out: folder of plan.json and the figure.
        target: machines, compared side by side: here, h100, h100:8 (one host), h100:2x8 (two),
            v5e, v5e:2x4, v6e:16x16, v4:2x2x4, ...
        images: number of training images if the data are absent; each is a square of
            --augment.size pixels.
        format: file formats of the figure: png, pdf, svg.
    """

    experiment: Annotated[AvoidSubcommands[Experiment], arg(name='')]
    out: str
    target: Annotated[tuple[str, ...], Range(1)] = ('here',)
    images: Count | None = None
    format: Formats = ('png',)


def main() -> int:
    """Compiles the experiment's training step for each machine, and prints its cost."""
    asked, _ = command.of_experiment(
        Asked, 'plans', usage='--target MACHINE ... [overrides]', does='Plan: '
    )
    import jax

    from vitjax.plan.forecast import forecast, training_images

    targets, failed = checked(asked.target, asked.experiment.model.dtype)
    for line in failed:
        print(f'error: {line}', file=sys.stderr)
    if not targets:
        return 1
    try:
        images = training_images(asked.experiment, asked.images)
    except ValueError as error:
        raise ValueError(f'{error}\nWithout them: --images COUNT.') from None
    console, found = Console(), []
    for name in targets:
        try:
            found.append(forecast(asked.experiment, name, images, report=console.say))
        except (ValueError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
            failed.append(_line(name, error))
            print(f'error: {failed[-1]}', file=sys.stderr)
    if found:
        show(found)
        write(found, pathlib.Path(asked.out), asked.format)
    return 0 if found and not failed and all(each.fits for each in found) else 1


def checked(names: Sequence[str], dtype: str) -> tuple[list[str], list[str]]:
    """Returns the machines that can be planned for, and a line for each of the others."""
    from vitjax.plan.machines import CHIPS, Name, named, rate

    machines: dict[Name, str] = {}
    failed = []
    for name in names:
        try:
            machine = named(name)
            rate(CHIPS.get(machine.kind), dtype)
            if machine in machines:
                raise ValueError(f'--target must name a machine once: {machines[machine]} is it.')
            machines[machine] = name
        except ValueError as error:
            failed.append(_line(name, error))
    return [*machines.values()], failed


def _line(name: str, error: Exception) -> str:
    """Returns an error in a line that starts with the machine's name."""
    text = str(error)[:500]
    return text if text.startswith(f'{name}: ') else f'{name}: {text}'


def show(found: list[Any]) -> None:
    """Prints machines side by side, then the most expensive modules of each."""
    table = tables.table('', *(each.machine for each in found))
    columns = [lines(each) for each in found]
    for head in dict.fromkeys(head for column in columns for head in column):
        table.add_row(head, *(column.get(head, '-') for column in columns))
    tables.put(table)
    for each in found:
        if not each.fits:
            print(f'{each.machine}: does not fit; {each.change}')
    for each in found:
        if each.report:
            modules(each)
    print("Times are estimates: of the TPU's compiler, elsewhere rooflines, never quite reached.")


def lines(each: Any) -> dict[str, str]:
    """Returns the cells of one machine by row; without a compiled step only the first ones."""
    report = each.report
    values = {
        'devices': f'{each.devices} ({each.parallel})',
        'images a step': f'{each.batch_size:,}',
        'memory of a device, GB': f'{_gb(each.needed)} of {_gb(each.available)}',
        'fits': 'yes' if each.fits else 'no',
        'largest batch that fits': f'{each.largest:,}' if each.largest else 'none',
    }
    if not report:
        return values
    sent = Counter[str]()
    for collective in report.collectives:
        sent[collective.kind] += collective.bytes * collective.times
    return values | {
        '... arguments, temporaries':
            f'{_gb(report.memory.arguments)}, {_gb(report.memory.temporaries)}',
        'operations of a step': tables.scaled(report.flops),
        'bytes moved by a device, GB': _gb(report.bytes),
        'collectives, GB':
            ', '.join(f'{kind} {_gb(size)}' for kind, size in sent.items()) or 'none',
        'step, ms, estimated': tables.number(1e3 * each.step_seconds),
        '... of it communication': tables.number(1e3 * report.communication),
        'images/s, estimated': tables.number(each.batch_size / each.step_seconds),
        'utilisation, estimated': _percent(each.utilisation),
        'steps in all': f'{each.steps:,}',
        'whole training, estimated': duration(3600 * each.hours),
        'compiled here in, s': f'{report.compile_seconds:.0f}',
    }  # fmt: skip


def modules(each: Any) -> None:
    """Prints the most expensive modules of a step on one machine."""
    table = tables.table(f'{each.machine}: module', 'ms', 'share', 'GFLOP', 'GB', 'estimated by')
    for path, cost in list(each.report.modules.items())[:MODULES]:
        table.add_row(
            path or OUTSIDE, tables.number(1e3 * cost.seconds),
            _percent(cost.seconds / each.report.seconds),
            tables.number(cost.flops / 1e9), _gb(cost.bytes), cost.by,
        )  # fmt: skip
    tables.put(table)


def write(found: list[Any], out: pathlib.Path, formats: Formats) -> None:
    """Writes OUT/plan.json and the figure OUT/plan."""
    from vitjax.base import files
    from vitjax.figures.forecast import Share, forecast

    out.mkdir(parents=True, exist_ok=True)
    values = [plain(each) for each in found]
    files.replace(out / 'plan.json', json.dumps(values, indent=1, allow_nan=False))
    shares = {}
    for each in found:
        memory, costs = {'needed': each.needed}, {}
        if each.report:
            size = each.report.memory
            rest = size.peak - size.arguments - size.temporaries
            memory = {'arguments': size.arguments, 'temporaries': size.temporaries}
            memory |= {'results': rest} if rest > 0.01 * size.peak else {}
            costs = dict(list(each.report.modules.items())[:MODULES])
        shares[f'{each.machine}, {each.batch_size} images'] = Share(
            memory, each.available, {p or OUTSIDE: (c.seconds, c.by) for p, c in costs.items()}
        )
    names = forecast(shares).save(out / 'plan', formats)
    print(f'written: {", ".join(f"{out}/{name}" for name in ("plan.json", *names))}')


def plain(each: Any) -> dict[str, Any]:
    """Returns a forecast as JSON values, with null for numbers that are not finite."""
    values = dataclasses.asdict(each)
    if each.report:
        values['report']['collectives'] = [c._asdict() for c in each.report.collectives]
    values |= {n: getattr(each, n) for n in ('fits', 'step_seconds', 'utilisation', 'hours')}
    return json.loads(json.dumps(values), parse_constant=lambda _: None)


def _gb(size: float) -> str:
    return tables.number(size / 1e9)


def _percent(fraction: float) -> str:
    return '-' if math.isnan(fraction) else f'{fraction:.0%}'


if __name__ == '__main__':
    command.guard(main)
