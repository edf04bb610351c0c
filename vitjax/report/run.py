"""Runs of a report, as their directories have them."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from vitjax import runs
from vitjax.base.files import first_line
from vitjax.base.labels import labels
from vitjax.experiment import Experiment
from vitjax.runs.records import Record

Path = str | pathlib.Path

_EXACT = float(2**53)  # the largest count that floats hold exactly


class Run(NamedTuple):
    """Run as its directory has it; unreadable parts are None or empty.

    Attributes:
        path: directory of the run.
        name: label of the run.
        experiment: its configuration.
        records: lines of its metrics.
        starts: environment of its start and of each resumption.
    """

    path: pathlib.Path
    name: str
    experiment: Experiment | None
    records: list[Record]
    starts: list[Record]

    def last(self, split: str) -> Record | None:
        """Last line of a split."""
        return next((r for r in self.records[::-1] if r['split'] == split), None)

    def best(self) -> Record | None:
        """Validation line with the best accuracy, the first of equal ones."""
        lines = [r for r in self.records if r['split'] == 'validation']
        return max(lines, key=lambda r: r['accuracy'], default=None)


def collect(paths: Sequence[Path], missing: list[str]) -> list[Run]:
    """Reads the runs of directories, each a run or an ablation's folder.

    A run that is given twice, by any path, is one run.

    Args:
        paths: the directories.
        missing: receives a line for everything that cannot be read.

    Raises:
        ValueError: if no run can be read.
    """
    directories: dict[str, pathlib.Path] = {}
    for path in map(pathlib.Path, paths):
        own = [path]
        if (path / 'cells').is_dir() and not (path / 'experiment.json').exists():
            for failure in sorted(path.glob('cells/*/failure.txt')):
                missing.append(f'cell {failure.parent.name} failed: {_reason(failure)}')
            own = sorted(path.glob('cells/*/seed_*'), key=_order)
        for directory in own:
            if os.path.realpath(directory) in directories:
                missing.append(f'{directory}: was given before, and is counted once')
            directories.setdefault(os.path.realpath(directory), directory)
    names = labels([*directories.values()])
    found = [
        _read(path, name, missing) for path, name in zip(directories.values(), names, strict=True)
    ]
    known = [run for run in found if run.experiment or run.records]
    if not known:
        rule = 'a run has an experiment.json or a metrics.jsonl, an ablation such runs in cells/'
        has = 'has none that can be read' if found else 'has none'
        failed = [f'; {line}' for line in missing if ' failed: ' in line][:1]
        raise ValueError(f'{rule}: {", ".join(map(str, paths))} {has}{"".join(failed)}.')
    return known


def _reason(failure: pathlib.Path) -> str:
    """First line of a `failure.txt`."""
    try:
        return first_line(OSError(failure.read_text(errors='replace')))
    except OSError as error:
        return first_line(error)


def _order(run: pathlib.Path) -> tuple[str, int, str]:
    number = run.name.removeprefix('seed_')
    return run.parent.name, int(number) if number.isdecimal() else 0, run.name


def _read(path: pathlib.Path, name: str, missing: list[str]) -> Run:
    def read(reader: Callable[..., Any], *args: Any) -> Any:
        try:
            return reader(path, *args)
        except (ValueError, OSError) as error:
            missing.append(f'{name}: {first_line(error)}')

    experiment = read(runs.read_experiment)
    lines = read(runs.records.read_metrics) or []
    starts = read(runs.records.read_notes, runs.records.ENVIRONMENT) or []
    records = [record for record in map(_possible, lines) if record]
    if wrong := len(lines) - len(records):
        missing.append(f'{name}: {wrong} lines of {runs.records.METRICS} have impossible numbers')
    run = Run(path, name, experiment, records, starts)
    if experiment and experiment.data is None:
        missing.append(f'{name}: was not trained here, so it has no metrics')
    elif experiment and not records:
        missing.append(f'{name}: has no metrics')
    elif records and run.last('test') is None:
        missing.append(f'{name}: is not finished, so its predictions are of validation images')
    if records and not starts:
        file = runs.records.ENVIRONMENT
        missing.append(f'{name}: has no {file}: neither hardware nor commit is known')
    return run


def _possible(record: Record) -> Record | None:
    """A line of metrics without impossible optional numbers; None if a required one is impossible.

    A file that was edited may hold anything that JSON can: a step of 10^400, an accuracy of -1.
    """

    def within(name: str, high: float, low: float = 0.0) -> bool:
        value = record[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and low <= value <= high  # False for NaN

    required = {'step': _EXACT, 'epoch': _EXACT, 'seconds': _EXACT, 'accuracy': 1.0}
    loss = isinstance(record['loss'], float) or within('loss', _EXACT, -_EXACT)  # may diverge
    whole = isinstance(record['step'], int)
    if not (loss and whole and all(within(name, high) for name, high in required.items())):
        return None
    optional = {'top5': 1.0, 'images_per_second': _EXACT}
    wrong = [name for name, high in optional.items() if name in record and not within(name, high)]
    return {name: value for name, value in record.items() if name not in wrong}
