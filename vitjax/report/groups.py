"""Groups of runs that differ in their seed alone, and the settings that tell groups apart."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vitjax.base import fields
from vitjax.experiment import Experiment, to_json
from vitjax.figures.ablation import words
from vitjax.report.run import Run


class Group(NamedTuple):
    """Runs that are equal but for their seed."""

    name: str
    runs: tuple[Run, ...]

    @property
    def experiment(self) -> Experiment | None:
        """Their shared configuration, with the first run's seed."""
        return self.runs[0].experiment

    def best(self) -> Run:
        """Run with the best validation accuracy."""
        return max(self.runs, key=lambda run: (run.best() or {'accuracy': -1})['accuracy'])


def grouped(found: Sequence[Run]) -> list[Group]:
    """Groups of runs, in order of the first run of each."""
    groups: dict[Any, list[Run]] = {}
    for run in found:
        key = run.path if run.experiment is None else _seedless(run.experiment)
        groups.setdefault(key, []).append(run)
    names = _names([*groups.values()])
    return [Group(name, tuple(own)) for name, own in zip(names, groups.values(), strict=True)]


def _seedless(experiment: Experiment) -> str:
    return json.dumps(to_json(dataclasses.replace(experiment, seed=0)), sort_keys=True)


def _names(groups: Sequence[list[Run]]) -> list[str]:
    """Name of each group.

    Single runs outside of ablations have their own names. Otherwise a group has the settings that
    tell groups apart, if these are few, else its cell's name or its first run's.
    """
    known = dict(enumerate(settings(own[0].experiment) for own in groups))
    differing = [path for path in compare(known)[1] if not path.startswith('preprocessing')]
    single = all(len(own) == 1 and not _cell(own[0]) for own in groups)
    names = []
    for i, own in enumerate(groups):
        cells = {_cell(run) for run in own}
        if not single and 1 <= len(differing) <= 4 and own[0].experiment:
            told = (f'{words(path)} {text(known[i].get(path))}' for path in differing)
            names.append(', '.join(told))
        elif len(own) > 1 and len(cells) == 1 and (cell := cells.pop()):
            names.append(cell)
        else:
            names.append(own[0].name + (f' and {len(own) - 1} more' if len(own) > 1 else ''))
    return names


def _cell(run: Run) -> str:
    """Cell of an ablation that a run belongs to; '' outside of ablations."""
    folder = run.path.resolve().parent
    return folder.name if folder.parent.name == 'cells' else ''


def settings(experiment: Experiment | None) -> dict[str, Any]:
    """Settings of an experiment except its seed, by dotted path."""
    found = fields.leaves(to_json(experiment)) if experiment else {}
    return {path: value for path, value in found.items() if path != 'seed'}


def compare(
    named: Mapping[Any, Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, dict[Any, Any]]]:
    """Settings that all have in common, and for each other path the values by name.

    >>> compare({'a': {'x': 1, 'y': 2}, 'b': {'x': 1, 'y': 3}})
    ({'x': 1}, {'y': {'a': 2, 'b': 3}})
    """
    shared, differing = {}, {}
    for path in dict.fromkeys(path for own in named.values() for path in own):
        values = {name: own[path] for name, own in named.items() if path in own}
        first, *others = values.values()
        if len(values) == len(named) and all(value == first for value in others):
            shared[path] = first
        else:
            differing[path] = values
    return shared, differing


def text(value: Any) -> str:
    """A setting as text."""
    if value in (None, '', []):
        return 'none'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, list):
        return ', '.join(map(text, value))
    return f'{value:.6g}' if isinstance(value, float) else str(value)
