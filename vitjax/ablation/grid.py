"""Grid of settings: its cells, their cost, and an estimate of their time."""

import contextlib
import dataclasses
import functools
import itertools
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitjax.base import fields
from vitjax.base.console import Progress, silent
from vitjax.base.ranges import Seed, Seeds
from vitjax.data import feed
from vitjax.experiment import Experiment, preprocessing, require_data, resolved, with_length
from vitjax.models.base import count_parameters, parameter_shapes
from vitjax.plan.flops import Counted, executed_flops, model_flops
from vitjax.training import trainer
from vitjax.training.layout import layout
from vitjax.training.resolve import load_data, sized, teacher
from vitjax.training.trainer import Trainer

Grid = Mapping[str, Sequence[Any]]  # {'model.depth': (2, 4), 'model.patch_size': (1, 2)}
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of the grid: its settings, and the experiment with them."""

    settings: tuple[tuple[str, Any], ...]
    experiment: Experiment

    @property
    def name(self) -> str:
        """The cell in a few words: `model.depth=2,model.patch_size=4`."""
        return ','.join(f'{path}={label(value)}' for path, value in self.settings) or 'base'

    @property
    def folder(self) -> str:
        """Folder of its runs, which no shell has to quote: `model.depth-2,model.patch_size-4`."""
        return ','.join(f'{path}-{word(value)}' for path, value in self.settings) or 'base'


def cells(experiment: Experiment, grid: Grid) -> list[Cell]:
    """Every combination of a grid's values, the last axis fastest.

    Args:
        experiment: the experiment that the grid changes.
        grid: values of each dotted field, such as `model.depth`. A value may be a whole `model`.

    Raises:
        ValueError: for an unknown field, a value that it does not take, an axis without values, two
            values of an axis with one label, or an axis that replaces another.
    """
    for first, later in itertools.combinations(grid, 2):
        if first.startswith(f'{later}.') or {first, later} == {'steps', 'epochs'}:
            raise ValueError(f'{later} must not be an axis with {first}: it replaces that.')
    for path, values in grid.items():
        labels, words = ([of(value) for value in values] for of in (label, word))
        if not labels or len(set(words)) < len(words):
            raise ValueError(f'{path} must have one value or more, all different: {labels}.')
    made = []
    for values in itertools.product(*grid.values()):
        settings = tuple(zip(grid, values, strict=True))
        changed = experiment
        for path, value in settings:
            changed = replaced(changed, path, value)
        fields.require(changed)
        made.append(Cell(settings, changed))
    return made


def require_seeds(made: Sequence[Cell], seeds: int) -> None:
    """Checks that the cells' seeds are in range.

    Raises:
        ValueError: if there are too many seeds, or none.
    """
    fields.check(seeds, Seeds, 'seeds')
    for cell in made:
        fields.check(cell.experiment.seed + seeds - 1, Seed, f"the last of a cell's {seeds} seeds")


def replaced(experiment: Experiment, path: str, value: Any) -> Experiment:
    """An experiment with one dotted field replaced; `steps` replaces `epochs`, and the reverse.

    Raises:
        ValueError: for a field that does not exist, with the close ones.
    """
    if path in ('steps', 'epochs'):
        return with_length(experiment, **{path: value})
    return fields.replace(experiment, path, value)


def settings(cell: Cell) -> Row:
    """Settings of a cell, as in a row of the table."""
    return {path: value if isinstance(value, int | float) else label(value)
            for path, value in cell.settings}  # fmt: skip


def label(value: Any) -> str:
    """A value in a word."""
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    if isinstance(value, tuple | list):
        return 'x'.join(map(label, value)) or 'none'
    return f'{value:g}' if isinstance(value, float) else str(value).replace('/', '_')


def word(value: Any) -> str:
    """A value in characters that neither shells nor `ls` quote, for a folder's name."""
    return re.sub(r'[^\w.+-]', '_', label(value), flags=re.ASCII)


def reason(error: BaseException) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else ''
    return said if isinstance(error, ValueError) else f'{type(error).__name__}: {said}'


@functools.lru_cache(maxsize=1024)
def cost(experiment: Experiment) -> Row:
    """Parameters, operations and steps of an experiment, before anything runs.

    Returns:
        `parameters`; `flops` of one image's forward pass; `steps`; `train_flops` of one seed's
        training, 2 a multiply-add: augmentation, both passes as far as parameters train, teacher
        and optimizer. Models are `flops.Counted`.

    Raises:
        ValueError: if the model does not fit its images.
    """
    made = _trainer(experiment)
    model, size = made.experiment.model, made.experiment.augment.size
    return {
        'parameters': count_parameters(parameter_shapes(model, size)),
        'flops': model_flops(model, size),
        'steps': made.total,
        'train_flops': made.total * _step_flops(experiment),
    }


def _trainer(experiment: Experiment) -> Trainer:
    """The trainer of an experiment for what does not depend on pixels and initial weights."""
    data = load_data(require_data(experiment), 'train')
    experiment = resolved(sized(experiment, data), preprocessing(experiment), data.classes)
    alone = layout('none', batch_size=experiment.batch_size)
    seeds = (experiment.seed,)
    return Trainer(experiment, data, alone, seeds, teacher=teacher(experiment))


@functools.lru_cache(maxsize=1024)
def _step_flops(experiment: Experiment) -> int:
    made = _trainer(experiment)
    counted: Any = Counted(made.experiment.model)
    taught = made.teacher and made.teacher._replace(model=Counted(made.teacher.model))
    step, shapes = made.abstract_step()
    step = dataclasses.replace(
        step, model=counted, teacher=taught and (taught.model, taught.normal)
    )
    return executed_flops(step, *shapes)


def match_flops(made: Sequence[Cell], reference: Experiment) -> list[Cell]:
    """Cells whose training executes as many operations as `reference`'s, each by its own `steps`.

    Operations are `cost`'s `train_flops`. Cells whose model does not fit its images stay as they
    are.
    """
    budget = cost(reference)['train_flops']
    out = []
    for cell in made:
        with contextlib.suppress(ValueError):
            steps = max(1, round(budget / _step_flops(cell.experiment)))
            cell = dataclasses.replace(cell, experiment=replaced(cell.experiment, 'steps', steps))
        out.append(cell)
    return out


def plan(made: Sequence[Cell], seeds: int, report: Progress = silent) -> list[Row]:
    """Cost of each cell, and an estimate of its training time; nothing is trained.

    The time of a step is measured at the cells with the least and the most arithmetic, and
    interpolated between them. Evaluation and compilation are left out.

    Args:
        made: the cells, as `cells` makes them.
        seeds: runs of each cell.
        report: takes how many of the cells and the two measurements are done.

    Returns:
        For each cell its settings, `status` (planned, or impossible with its `reason`), `cost`'s
        values, and `seconds` of training all seeds.
    """
    require_seeds(made, seeds)
    rows = []
    for i, cell in enumerate(made):
        report(i, now=f'counting {cell.name}')
        try:
            values = {'status': 'planned', **cost(cell.experiment)}
        except ValueError as error:
            values = {'status': 'impossible', 'reason': reason(error)}
        rows.append({**settings(cell), **values})
    possible = [i for i, row in enumerate(rows) if row['status'] == 'planned']
    if not possible:
        return rows
    per_step = {i: rows[i]['train_flops'] / rows[i]['steps'] for i in possible}
    ordered = sorted(possible, key=per_step.__getitem__)
    ends = [ordered[0], ordered[-1]][: len(ordered)]
    arithmetic = [per_step[i] for i in ends]
    seconds = []
    for done, i in enumerate(ends, len(made)):
        report(done, now=f'measuring {made[i].name}')
        seconds.append(step_seconds(made[i].experiment, seeds))
    for i in possible:
        rows[i]['seconds'] = rows[i]['steps'] * np.interp(per_step[i], arithmetic, seconds).item()
    return rows


def step_seconds(experiment: Experiment, seeds: int = 1, repeats: int = 3) -> float:
    """Seconds of a training step of all seeds on this machine, without compilation."""
    first, devices = experiment.seed, jax.devices()[:1]
    made = trainer.make(experiment, range(first, first + seeds), devices, report=lambda line: None)
    pace, took = feed.Pace(seconds=1.0), []
    placed, _ = made.run(made.init(), made.feed.take(0, 1)._replace(steps=0))  # compiles
    for _ in range(repeats + 1):
        chunk = made.feed.take(0, min(pace.steps, made.feed.most, made.total))
        start = time.perf_counter()
        placed, _ = made.run(placed, chunk)
        took.append(time.perf_counter() - start)
        pace.note(chunk.steps, took[-1])
        took[-1] /= chunk.steps
    return float(np.median(took[1:]))
