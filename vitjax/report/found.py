"""What a report is about: runs as their folders have them, and groups that differ in seed alone."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vitjax import runs
from vitjax.analysis.effects import student, student_share
from vitjax.base import fields
from vitjax.base.files import first_line
from vitjax.base.labels import labels
from vitjax.experiment import Experiment, to_json
from vitjax.figures.ablation import words
from vitjax.figures.report import TITLES, Curve
from vitjax.runs.records import Record

Path = str | pathlib.Path
POINTS = 400  # of a curve at most: a page shows no more


class Run(NamedTuple):
    """A run as its folder has it; what cannot be read is None or empty.

    Attributes:
        path: its directory.
        name: for people.
        experiment: its configuration.
        records: the lines of its metrics.
        starts: where it started and resumed.
    """

    path: pathlib.Path
    name: str
    experiment: Experiment | None
    records: list[Record]
    starts: list[Record]

    def last(self, split: str) -> Record | None:
        """The last line of a split."""
        return next((r for r in self.records[::-1] if r['split'] == split), None)

    def best(self) -> Record | None:
        """The line of validation with the best accuracy, the first of equal ones."""
        lines = [r for r in self.records if r['split'] == 'validation']
        return max(lines, key=lambda r: r['accuracy'], default=None)


class Group(NamedTuple):
    """Runs that are equal but for their seed."""

    name: str
    runs: tuple[Run, ...]

    @property
    def experiment(self) -> Experiment | None:
        """What they share; its seed is the first one's."""
        return self.runs[0].experiment

    def best(self) -> Run:
        """The run with the best validation accuracy."""
        return max(self.runs, key=lambda run: (run.best() or {'accuracy': -1})['accuracy'])


class Estimate(NamedTuple):
    """A mean over runs with the interval of it, NaN where there is none."""

    mean: float
    low: float
    high: float
    of: int  # runs


# ---- Read --------------------------------------------------------------------------------------


def find(paths: Sequence[Path], missing: list[str]) -> list[Run]:
    """The runs of directories, each a run or an ablation's folder; notes what is `missing`.

    A run that is given twice, by whatever path, is one run. Runs are named by `labels.labels`.
    """
    runs_of: dict[str, pathlib.Path] = {}
    for path in map(pathlib.Path, paths):
        own = [path]
        if (path / 'cells').is_dir() and not (path / 'experiment.json').exists():
            for failure in sorted(path.glob('cells/*/failure.txt')):
                missing.append(f'cell {failure.parent.name} failed: {_reason(failure)}')
            own = sorted(path.glob('cells/*/seed_*'), key=_order)
        for run in own:
            if os.path.realpath(run) in runs_of:
                missing.append(f'{run}: was given before, and is counted once')
            runs_of.setdefault(os.path.realpath(run), run)
    named = zip(labels([*runs_of.values()]), runs_of.values(), strict=True)
    found = [_read(path, name, missing) for name, path in named]
    known = [run for run in found if run.experiment or run.records]
    if not known:
        rule = 'a run has an experiment.json or a metrics.jsonl, an ablation such runs in cells/'
        has = 'has none that can be read' if found else 'has none'
        said = f'{rule}: {", ".join(map(str, paths))} {has}'
        failed = next((line for line in missing if ' failed: ' in line), '')
        raise ValueError(f'{said}; {failed}.' if failed else f'{said}.')
    return known


def _reason(failure: pathlib.Path) -> str:
    """The first line of a `failure.txt`."""
    try:
        return first_line(OSError(failure.read_text(errors='replace')))
    except OSError as error:
        return first_line(error)


def _order(run: pathlib.Path) -> tuple[str, int, str]:
    number = run.name.removeprefix('seed_')
    return run.parent.name, int(number) if number.isdecimal() else 0, run.name


def _read(path: pathlib.Path, name: str, missing: list[str]) -> Run:
    read: list[Any] = []
    for what in (runs.read_experiment, runs.records.read_metrics, _starts):
        try:
            read.append(what(path))
        except (ValueError, OSError) as error:
            missing.append(f'{name}: {first_line(error)}')
            read.append([])
    experiment, lines, starts = read
    records = [record for record in map(_possible, lines) if record]
    if wrong := len(lines) - len(records):
        missing.append(f'{name}: {wrong} lines of {runs.records.METRICS} have impossible numbers')
    run = Run(path, name, experiment or None, records, starts)
    if experiment and experiment.data is None:
        missing.append(f'{name}: was not trained here, so it has no metrics')
    elif experiment and not records:
        missing.append(f'{name}: has no metrics')
    elif records and run.last('test') is None:
        missing.append(f'{name}: is not finished, so what is said of it is of validation images')
    if records and not starts:
        file = runs.records.ENVIRONMENT
        missing.append(f'{name}: has no {file}: neither hardware nor commit is known')
    return run


def _possible(record: Record) -> Record | None:
    """A line of metrics as far as its numbers can be; None if one that every line has cannot.

    A file that was changed may say anything that JSON can: a step of 10^400, an accuracy of -1.
    """

    def within(value: Any, low: float, high: float) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and low <= value <= high  # NaN is not

    most = float(2**53)  # what floats count exactly
    needed = {'step': most, 'epoch': most, 'seconds': most, 'accuracy': 1.0}
    if not all(within(record[name], 0, high) for name, high in needed.items()):
        return None
    if not (isinstance(record['step'], int) and isinstance(record['loss'], float | int)):
        return None
    if isinstance(record['loss'], int) and not within(record['loss'], -most, most):
        return None
    more = {'top5': 1.0, 'images_per_second': most}
    wrong = [k for k, high in more.items() if k in record and not within(record[k], 0, high)]
    return {name: value for name, value in record.items() if name not in wrong}


def _starts(path: pathlib.Path) -> list[Record]:
    return runs.records.read_notes(path, runs.records.ENVIRONMENT)


# ---- In groups ---------------------------------------------------------------------------------


def grouped(found: Sequence[Run]) -> list[Group]:
    """Runs that are equal but for their seed together, in order of the first of each."""
    groups: dict[Any, list[Run]] = {}
    for run in found:
        key = run.path if run.experiment is None else _settings(run.experiment)
        groups.setdefault(key, []).append(run)
    return [
        Group(name, tuple(own)) for name, own in zip(_names(groups), groups.values(), strict=True)
    ]


def _settings(experiment: Experiment) -> str:
    return json.dumps(to_json(dataclasses.replace(experiment, seed=0)), sort_keys=True)


def _names(groups: Mapping[Any, list[Run]]) -> Iterator[str]:
    """Of each group: its run's where every group has one, else its settings where they are few.

    Where they are many, and for one group of several runs, the cell that they are of, or the first
    run and how many more there are.
    """
    leaves = {i: values(own[0].experiment) for i, own in enumerate(groups.values())}
    differing = compare(leaves)[1]
    told = [path for path in differing if not path.startswith('preprocessing')]
    given = all(len(own) == 1 and not _cell(own[0]) for own in groups.values())
    for i, own in enumerate(groups.values()):
        cells = {_cell(run) for run in own}
        if not given and 1 <= len(told) <= 4 and own[0].experiment:
            yield ', '.join(f'{words(path)} {said(leaves[i].get(path))}' for path in told)
        elif len(own) > 1 and len(cells) == 1 and (cell := cells.pop()):
            yield cell
        else:
            yield own[0].name + (f' and {len(own) - 1} more' if len(own) > 1 else '')


def _cell(run: Run) -> str:
    """The cell of an ablation that a run is of, if it is of one."""
    folder = run.path.resolve().parent
    return folder.name if folder.parent.name == 'cells' else ''


def values(experiment: Experiment | None) -> dict[str, Any]:
    """An experiment's settings but for its seed, by dotted name."""
    found = fields.leaves(to_json(experiment)) if experiment else {}
    return {path: value for path, value in found.items() if path != 'seed'}


def compare(
    named: Mapping[Any, Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, dict[Any, Any]]]:
    """What several have in common, and where they differ: by path, the value of each that has it.

    >>> compare({'a': {'x': 1, 'y': 2}, 'b': {'x': 1, 'y': 3}})
    ({'x': 1}, {'y': {'a': 2, 'b': 3}})
    """
    paths = dict.fromkeys(path for own in named.values() for path in own)
    shared, differing = {}, {}
    for path in paths:
        have = {name: own[path] for name, own in named.items() if path in own}
        first, *others = have.values()
        if len(have) == len(named) and all(value == first for value in others):
            shared[path] = first
        else:
            differing[path] = have
    return shared, differing


def said(value: Any) -> str:
    """A setting for people."""
    if value in (None, '', []):
        return 'none'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, list):
        return ', '.join(map(said, value))
    return f'{value:.6g}' if isinstance(value, float) else str(value)


# ---- Over seeds --------------------------------------------------------------------------------


def estimate(found: Sequence[float | None], *, share: bool = False) -> Estimate | None:
    """Mean and 95% interval over runs of what they say; None where none says anything.

    Args:
        found: a value of each run; None is left out.
        share: it lies within 0 and 1.
    """
    known = [value for value in found if value is not None]
    if not known:
        return None
    mean, low, high = (student_share if share else student)(np.array(known))
    return Estimate(float(mean), float(low), float(high), len(known))


def curves(group: Group) -> dict[tuple[str, str], Curve]:
    """Of each split and metric its mean over seeds, with the interval, at the epochs there are.

    Top-5 accuracy is left out where it is 1 throughout, as it is of five classes or fewer.
    """
    found = {}
    for split in ('train', 'validation'):
        for metric in TITLES:
            lines = [
                {r['epoch']: r[metric] for r in run.records if _has_value(r, split, metric)}
                for run in group.runs
            ]
            epochs = np.array(sorted(set().union(*lines)))
            if len(epochs):
                table = np.array([[own.get(e, np.nan) for own in lines] for e in epochs])
                found[split, metric] = _curve(epochs, table, share=metric != 'loss')
    tops = [curve for (_, metric), curve in found.items() if metric == 'top5']
    if all((curve.mean == 1).all() for curve in tops):
        found = {key: curve for key, curve in found.items() if key[1] != 'top5'}
    return found


def _has_value(record: Record, split: str, metric: str) -> bool:
    value = record.get(metric)
    return record['split'] == split and isinstance(value, int | float) and math.isfinite(value)


def _curve(epochs: np.ndarray, table: np.ndarray, *, share: bool) -> Curve:
    """A curve of values [epochs, runs], NaN where a run has none; long ones are averaged down."""
    if (times := -(-len(epochs) // POINTS)) > 1:
        cuts = range(0, len(epochs), times)
        epochs = np.array([epochs[i : i + times].mean() for i in cuts])
        known = np.ma.masked_invalid(table)
        table = np.array([known[i : i + times].mean(0).filled(np.nan) for i in cuts])
    each = [(student_share if share else student)(row[np.isfinite(row)]) for row in table]
    return Curve(epochs, *map(np.array, zip(*each, strict=True)))
