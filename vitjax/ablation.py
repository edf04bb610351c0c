"""Many runs: a grid of settings, each with several seeds, to one table with intervals."""

import contextlib
import csv
import dataclasses
import difflib
import functools
import itertools
import json
import os
import pathlib
import queue
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax
import numpy as np
import rich.console
import scipy.stats

from vitjax import checkpoint, loop
from vitjax import experiment as experiments
from vitjax.experiment import Experiment
from vitjax.figures import ablation as figures
from vitjax.flops import model_flops

Grid = Mapping[str, Sequence[Any]]  # {'model.depth': (2, 4), 'model.patch_size': (1, 2)}
Row = dict[str, Any]

ACCURACIES = ('best_accuracy', 'final_accuracy', 'test_accuracy')


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of the grid: what it sets, and the experiment that this makes."""

    settings: tuple[tuple[str, Any], ...]
    experiment: Experiment

    @property
    def name(self) -> str:
        """The cell in a few words, which is also its folder: `model.depth=2,model.patch_size=4`."""
        return ','.join(f'{path}={_label(value)}' for path, value in self.settings) or 'base'


def cells(experiment: Experiment, grid: Grid) -> list[Cell]:
    """Every combination of a grid's values, the last axis fastest.

    Args:
        experiment: what all cells share.
        grid: values for each dotted field, as in `model.depth`. A value may be a whole `model`.

    Raises:
        ValueError: for a field that does not exist, an axis without values, or two values of an
            axis that read the same.
    """
    for path, values in grid.items():
        labels = [_label(value) for value in values]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f'{path} must have one value or more, all different: {labels}.')
    made = []
    for values in itertools.product(*grid.values()):
        settings = tuple(zip(grid, values, strict=True))
        changed = experiment
        for path, value in settings:
            changed = replaced(changed, path, value)
        made.append(Cell(settings, changed))
    return made


def replaced(experiment: Experiment, path: str, value: Any) -> Experiment:
    """An experiment with one dotted field replaced; `steps` replaces `epochs`, and the reverse.

    Raises:
        ValueError: for a field that does not exist, with the close ones.
    """
    if path in ('steps', 'epochs'):
        experiment = dataclasses.replace(experiment, steps=None, epochs=None)
    return _replaced(experiment, path, path.split('.'), value)


def _replaced(tree: Any, path: str, names: list[str], new: Any) -> Any:
    first, rest = names[0], names[1:]
    inside = _inside(tree, path, first)
    new = _replaced(inside, path, rest, new) if rest else new
    clone = getattr(tree, 'clone', None)  # a linen module's
    return clone(**{first: new}) if clone else dataclasses.replace(tree, **{first: new})


def value(experiment: Experiment, path: str) -> Any:
    """The value of a dotted field.

    Raises:
        ValueError: for a field that does not exist, with the close ones.
    """
    return functools.reduce(
        lambda tree, name: _inside(tree, path, name), path.split('.'), experiment
    )


def _inside(tree: Any, path: str, name: str) -> Any:
    fields = dataclasses.fields(tree) if dataclasses.is_dataclass(tree) else ()
    hidden = ('parent', 'name') if hasattr(tree, 'clone') else ()  # linen's own
    known = [field.name for field in fields if field.name not in hidden]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or known
        raise ValueError(f'no field {path!r} to vary; there are {", ".join(close)}.')
    return getattr(tree, name)


def _label(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    if isinstance(value, tuple | list):
        return 'x'.join(map(_label, value)) or 'none'
    return f'{value:g}' if isinstance(value, float) else str(value).replace('/', '_')


@functools.lru_cache(maxsize=1024)
def cost(experiment: Experiment) -> Row:
    """What an experiment takes, before anything runs.

    Returns:
        `parameters`; `flops` of one image forward; `steps`; `train_flops` of one seed's training,
        forward and backward, 2 for each multiply-add.

    Raises:
        ValueError: if the model does not fit its images.
    """
    shapes = checkpoint.parameter_shapes(experiment)
    steps = loop.total_steps(experiment, loop.training_images(experiment))
    size = experiment.augment.size
    return {
        'parameters': sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)),
        'flops': model_flops(experiment.model, size),
        'steps': steps,
        'train_flops': steps * _step_flops(experiment),
    }


def _step_flops(experiment: Experiment) -> int:
    size = experiment.augment.size
    return experiment.batch_size * model_flops(experiment.model, size, backward=True)


def match_flops(made: Sequence[Cell], reference: Experiment) -> list[Cell]:
    """Cells whose training takes as many operations as `reference`'s: each gets its own `steps`.

    Cells whose model does not fit its images stay as they are.
    """
    budget = cost(reference)['train_flops']
    out = []
    for cell in made:
        with contextlib.suppress(ValueError):
            steps = max(1, round(budget / _step_flops(cell.experiment)))
            cell = dataclasses.replace(cell, experiment=replaced(cell.experiment, 'steps', steps))
        out.append(cell)
    return out


def plan(made: Sequence[Cell], seeds: int) -> list[Row]:
    """What each cell takes, and about how long its training will: nothing is trained.

    The time of a step is measured at the cells with the least and the most arithmetic, and drawn as
    a line between them; evaluation and compilation are left out.

    Returns:
        For each cell its settings, `status` (planned, or impossible with its `reason`), `cost`'s
        values, and `seconds` of training all seeds.
    """
    rows = []
    for cell in made:
        try:
            values = {'status': 'planned', **cost(cell.experiment)}
        except ValueError as error:
            values = {'status': 'impossible', 'reason': _reason(error)}
        rows.append({**_settings(cell), **values})
    possible = [i for i, row in enumerate(rows) if row['status'] == 'planned']
    if not possible:
        return rows
    per_step = {i: rows[i]['train_flops'] / rows[i]['steps'] for i in possible}
    ordered = sorted(possible, key=per_step.__getitem__)
    ends = [ordered[0], ordered[-1]][: len(ordered)]
    arithmetic = [per_step[i] for i in ends]
    seconds = [loop.step_seconds(made[i].experiment, seeds) for i in ends]
    for i in possible:
        rows[i]['seconds'] = rows[i]['steps'] * np.interp(per_step[i], arithmetic, seconds).item()
    return rows


def run(
    made: Sequence[Cell],
    seeds: int,
    out: str | pathlib.Path,
    *,
    launcher: str = 'devices',
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> list[Row]:
    """Trains every cell with every seed, and writes `results.csv`, `seeds.csv` and `figures/`.

    A seed's run is an ordinary run directory, `cells/CELL/seed_K`. Finished runs are not run again,
    others go on from their checkpoint. A cell that fails is noted with its reason, its traceback in
    `cells/CELL/failure.txt`, and the others go on; the next call tries it again.

    Args:
        made: the cells, as `cells` makes them.
        seeds: runs of a cell, with the experiment's seed and those after it.
        out: the folder of the ablation.
        launcher: `devices`: on this process's devices, a cell on each at a time; `processes`: each
            cell in a process of its own on this machine; `slurm`: each cell as a job. The last two
            take submitit.
        settings: submitit's parameters, as in `{'slurm_partition': 'gpu', 'timeout_min': 60}`.
        quiet: print nothing.

    Returns:
        A row for each cell: its settings; `status` (finished, failed with its `reason`, or
        waiting); `seeds`, and what `cost` and `summary` return.

    Raises:
        ValueError: if a cell's folder holds another configuration, or an argument is impossible.
        loop.Stop: after SIGTERM or Ctrl-C, once checkpoints are written.
    """
    if seeds < 1:
        raise ValueError(f'an ablation must have at least one seed: {seeds}.')
    if launcher not in ('devices', 'processes', 'slurm'):
        raise ValueError(f"launcher must be 'devices', 'processes' or 'slurm': {launcher!r}.")
    out = pathlib.Path(out)
    runs = [_runs(out, cell, seeds) for cell in made]
    for cell, of_seeds in zip(made, runs, strict=True):
        for seed, folder in of_seeds.items():
            loop.require_same(dataclasses.replace(cell.experiment, seed=seed), folder)
    waiting = [i for i, r in enumerate(runs) if not all(map(loop.finished, r.values()))]
    console = rich.console.Console(quiet=quiet, highlight=False, soft_wrap=True)
    console.print(
        f'{len(made)} cells, {seeds} seeds; {len(made) - len(waiting)} cells are finished'
    )
    (out / 'cells').mkdir(parents=True, exist_ok=True)

    def note(i: int) -> None:
        """One more cell has ended: the table is as good as it can be."""
        row = _row(made[i], runs[i])
        _write(out, [*map(_row, made, runs)], [*map(_seed_rows, made, runs)])
        said = row.get('reason') or _said(row)
        console.print(f'[{next(ended)}/{len(waiting)}] {made[i].name}: {said}', markup=False)

    ended = itertools.count(1)
    jobs = [(i, made[i].experiment, runs[i]) for i in waiting]
    if launcher == 'devices':
        _on_devices(jobs, note, quiet)
    else:
        _on_cluster(jobs, note, out / 'jobs', launcher, settings or {}, console)
    rows = [*map(_row, made, runs)]
    _write(out, rows, [*map(_seed_rows, made, runs)])
    _draw(out, made, runs, rows)
    return rows


def _runs(out: pathlib.Path, cell: Cell, seeds: int) -> dict[int, pathlib.Path]:
    first = cell.experiment.seed
    return {s: out / 'cells' / cell.name / f'seed_{s}' for s in range(first, first + seeds)}


def train_cell(
    experiment: Experiment,
    runs: Mapping[int, pathlib.Path],
    *,
    quiet: bool = True,
    devices: Sequence[Any] | None = None,
    caught: list[int] | None = None,
) -> None:
    """Trains all seeds of one cell; a failure is noted in the cell's folder instead of raised.

    Seeds that do not fit in memory together train one after the other.

    Raises:
        loop.Stop: after SIGTERM or Ctrl-C, once checkpoints are written.
    """
    folder = next(iter(runs.values())).parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'failure.txt').unlink(missing_ok=True)
    options: Any = {'quiet': True, 'bar': not quiet, 'devices': devices, 'caught': caught}
    try:
        try:
            loop.train_seeds(experiment, runs, **options)
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error) or len(runs) == 1:
                raise
            for seed, out in runs.items():
                loop.train_seeds(experiment, {seed: out}, **options)
    except loop.Stop:
        raise
    except Exception as error:  # whatever it is, it is this cell's alone
        draft = folder / 'failure.tmp'
        draft.write_text(f'{_reason(error)}\n\n{traceback.format_exc()}')
        draft.replace(folder / 'failure.txt')


def _on_devices(
    jobs: Sequence[tuple[int, Experiment, dict[int, pathlib.Path]]], note: Any, quiet: bool
) -> None:
    """Cells on this process's devices, one on each at a time; all devices for a cell that asks."""
    spread = any(experiment.parallel in ('pmap', 'fsdp') for _, experiment, _ in jobs)
    local = jax.local_devices()
    places = [local] if spread else [[device] for device in local]
    free: queue.Queue[list[Any]] = queue.Queue()
    for place in places[: max(1, len(jobs))]:
        free.put(place)
    alone = free.qsize() == 1

    with loop.signals() as caught, contextlib.ExitStack() as stack:

        def one(job: tuple[int, Experiment, dict[int, pathlib.Path]]) -> int:
            if caught:
                raise loop.Stop(caught[0], 0)
            place = free.get()
            try:
                with jax.default_device(place[0]):
                    shown = quiet or not alone
                    train_cell(job[1], job[2], quiet=shown, devices=place, caught=caught)
            finally:
                free.put(place)
            return job[0]

        if alone:
            done = map(one, jobs)
        else:
            pool = stack.enter_context(ThreadPoolExecutor(len(places)))
            futures = [pool.submit(one, job) for job in jobs]
            done = (future.result() for future in as_completed(futures))
        for i in done:
            note(i)


def _on_cluster(
    jobs: Sequence[tuple[int, Experiment, dict[int, pathlib.Path]]],
    note: Any,
    folder: pathlib.Path,
    launcher: str,
    settings: Mapping[str, Any],
    console: rich.console.Console,
) -> None:
    """Cells as jobs of submitit, each in a process of its own."""
    try:
        import submitit
    except ImportError:
        raise ValueError(
            f"the launcher {launcher!r} needs submitit: pip install 'vitjax[cluster]'."
        ) from None
    cluster = {'slurm': 'slurm', 'processes': 'local'}[launcher]
    executor = submitit.AutoExecutor(folder, cluster=cluster)
    try:
        executor.update_parameters(**{'name': 'vitjax', 'timeout_min': 24 * 60, **settings})
    except (NameError, TypeError) as error:
        raise ValueError(f'submitit refuses a setting of {launcher}: {error}') from None
    # A job gets plain values: what it imports is its own.
    calls = [
        (i, json.dumps(experiments.to_json(e)), {seed: str(out) for seed, out in r.items()})
        for i, e, r in jobs
    ]
    running = {}
    # Several processes on one machine share its cores: one cell at a time.
    most = 1 if launcher == 'processes' else len(calls)
    with loop.signals() as caught:
        while calls or running:
            while calls and len(running) < most:
                i, text, runs = calls.pop(0)
                running[i] = (executor.submit(Job(), text, runs), runs)
            for i, (job, runs) in list(running.items()):
                if job.done():
                    del running[i]
                    _note_lost(job, runs)
                    note(i)
            if caught:
                if launcher == 'processes':
                    for job, _ in running.values():
                        job.cancel()
                else:
                    console.print(f'{len(running)} jobs go on; the same command collects them')
                raise loop.Stop(caught[0], 0)
            time.sleep(0.5)


class Job:
    """A cell as a job: a scheduler that stops it before its time starts it again."""

    def __call__(self, text: str, runs: dict[int, str]) -> None:
        """Trains the cell whose experiment is `text`."""
        experiment = experiments.from_json(json.loads(text))
        train_cell(experiment, {seed: pathlib.Path(out) for seed, out in runs.items()})

    def checkpoint(self, text: str, runs: dict[int, str]) -> Any:
        """What submitit submits again for a job that ran out of time: it goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, text, runs)


def _note_lost(job: Any, runs: dict[int, str]) -> None:
    """Notes the failure of a job that died without saying why in the cell's folder."""
    folder = pathlib.Path(next(iter(runs.values()))).parent
    error = job.exception()
    if error is not None and not (folder / 'failure.txt').exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'failure.txt').write_text(f'{_reason(error)}\n\n{error}\n')


def _reason(error: BaseException) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else ''
    return said if isinstance(error, ValueError) else f'{type(error).__name__}: {said}'


def summary(runs: Mapping[int, pathlib.Path]) -> Row:
    """What finished runs of the same cell say.

    Returns:
        `seconds` of training, all seeds together; `images_per_second`, likewise; and for
        `best_accuracy` and `final_accuracy` (validation) and `test_accuracy` (of the best
        parameters) the mean over seeds, with `..._low` and `..._high`, Student's 95% interval of
        the mean (NaN for one seed).
    """
    rows = [seed_summary(seed, run) for seed, run in runs.items()]
    images = sum(row['images'] for row in rows)
    seconds = sum(row['images'] / row['images_per_second'] for row in rows)
    out: Row = {'seconds': seconds, 'images_per_second': images / seconds}
    for name in ACCURACIES:
        mean, half = interval([row[name] for row in rows])
        out |= {name: mean, f'{name}_low': mean - half, f'{name}_high': mean + half}
    return out


def seed_summary(seed: int, run: pathlib.Path) -> Row:
    """What one finished run says: its accuracies, images seen, and the rate of its group."""
    records = loop.read_metrics(run)
    held = [r['accuracy'] for r in records if r['split'] == 'validation']
    trained = [r for r in records if r['split'] == 'train']
    tested = next(r for r in records if r['split'] == 'test')
    return {
        'seed': seed,
        'best_accuracy': max(held),
        'final_accuracy': held[-1],
        'test_accuracy': tested['accuracy'],
        'test_loss': tested['loss'],
        'images': trained[-1]['step'] * experiments.read(run).batch_size,
        'images_per_second': float(np.median([r['images_per_second'] for r in trained])),
    }


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean and half the width of Student's confidence interval of it; NaN for one value."""
    count = len(values)
    if count < 2:
        return float(np.mean(values)), float('nan')
    quantile = scipy.stats.t.ppf((1 + level) / 2, count - 1)
    return float(np.mean(values)), float(quantile * np.std(values, ddof=1) / np.sqrt(count))


def _settings(cell: Cell) -> Row:
    return {path: value if isinstance(value, int | float) else _label(value)
            for path, value in cell.settings}  # fmt: skip


def _row(cell: Cell, runs: Mapping[int, pathlib.Path]) -> Row:
    """A cell as a row of the table, from what lies in its folder."""
    row = {**_settings(cell), 'status': 'waiting', 'reason': '', 'seeds': len(runs)}
    if all(map(loop.finished, runs.values())):
        row['status'] = 'finished'
        return {**row, **cost(cell.experiment), **summary(runs)}
    failure = next(iter(runs.values())).parent / 'failure.txt'
    if failure.exists():
        row |= {'status': 'failed', 'reason': failure.read_text().splitlines()[0]}
    return row


def _seed_rows(cell: Cell, runs: Mapping[int, pathlib.Path]) -> list[Row]:
    return [
        {**_settings(cell), **seed_summary(seed, run)}
        for seed, run in runs.items()
        if loop.finished(run)
    ]


def _said(row: Row) -> str:
    mean, half = row['test_accuracy'], row['test_accuracy_high'] - row['test_accuracy']
    spread = '' if np.isnan(half) else f' ± {half:.2%}'
    return f'test accuracy {mean:.2%}{spread}, {row["seconds"]:.1f} s'


def _write(out: pathlib.Path, rows: Sequence[Row], seeds: Sequence[Sequence[Row]]) -> None:
    """Writes the tables in one step: a reader sees the old one or the new one."""
    for name, table in (('results', rows), ('seeds', [*itertools.chain(*seeds)])):
        draft = out / f'{name}.tmp'
        with draft.open('w', newline='') as file:
            writer = csv.DictWriter(file, dict.fromkeys(key for row in table for key in row))
            writer.writeheader()
            writer.writerows(table)
        draft.replace(out / f'{name}.csv')


def _draw(
    out: pathlib.Path,
    made: Sequence[Cell],
    runs: Sequence[Mapping[int, pathlib.Path]],
    rows: Sequence[Row],
) -> None:
    """A figure for each axis or pair of axes, and accuracy against operations."""
    done = [i for i, row in enumerate(rows) if row['status'] == 'finished']
    if not done:
        return
    axes = {
        path: [*dict.fromkeys(_settings(cell)[path] for cell in made)]
        for path, _ in made[0].settings
        if len({_label(dict(cell.settings)[path]) for cell in made}) > 1
    }
    points = [_settings(made[i]) for i in done]
    # [cells, seeds]
    accuracy = np.array(
        [[seed_summary(*item)['test_accuracy'] for item in runs[i].items()] for i in done]
    )
    folder = out / 'figures'
    folder.mkdir(exist_ok=True)

    def write(figure: Any, name: str) -> None:
        draft = folder / f'.{name}.png'
        figure.savefig(draft, dpi=120)
        os.replace(draft, folder / f'{name}.png')

    pairs = [*itertools.combinations(axes, 2)] or [(path, None) for path in axes]
    for x, y in pairs:
        table = _marginal(points, accuracy, axes[x], x, axes[y] if y else [None], y)
        figure = figures.pair(table, (x, axes[x]), (y, axes[y]) if y else None, len(axes))
        write(figure, f'accuracy_{x}' + (f'_{y}' if y else ''))
    mean = [interval(row) for row in accuracy]
    flops = [rows[i]['train_flops'] for i in done]
    write(figures.against_flops(flops, mean, points, [*axes]), 'accuracy_flops')


def _marginal(
    points: Sequence[Row],
    accuracy: np.ndarray,
    xs: Sequence[Any],
    x: str,
    ys: Sequence[Any],
    y: str | None,
) -> np.ndarray:
    """Mean and half interval [len(ys), len(xs), 2]: each seed's mean over all other axes first."""
    table = np.full((len(ys), len(xs), 2), np.nan)
    for (row, second), (column, first) in itertools.product(enumerate(ys), enumerate(xs)):
        mine = [p[x] == first and (y is None or p[y] == second) for p in points]
        if any(mine):
            table[row, column] = interval(accuracy[mine].mean(0))
    return table
