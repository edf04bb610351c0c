"""Training the cells of a grid: on local devices, in processes, or as jobs of a cluster."""

import dataclasses
import itertools
import pathlib
import queue
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Literal

import jax

from vitjax import loop, runs
from vitjax.ablation import table
from vitjax.ablation.grid import Cell, Row, cost, reason, require_seeds
from vitjax.ablation.table import FAILURE, Placed, Runs
from vitjax.base import fields, files
from vitjax.base.console import Console, duration
from vitjax.base.signals import Stop, signals
from vitjax.base.types import Format
from vitjax.experiment import Experiment, find
from vitjax.experiment import hooks as hooks_of
from vitjax.loop import cluster
from vitjax.runs import provenance
from vitjax.training.resolve import load_data

Waiting = Mapping[int, Placed]  # cells to train, by their place among all


def run(
    made: Sequence[Cell], seeds: int, out: str | pathlib.Path, *, launcher: str = 'devices',
    settings: Mapping[str, Any] | None = None, quiet: bool = False,
    formats: Sequence[Format] = ('png',), hooks: str | None = None,
) -> list[Row]:  # fmt: skip
    """Trains every cell with every seed, and writes `results.csv`, `seeds.csv` and `figures/`.

    A seed's run is an ordinary run directory, `cells/CELL/seed_K`. Finished runs are skipped,
    others resume from their last checkpoint. A cell that fails does not stop the others: its row
    has the reason, `cells/CELL/failure.txt` the traceback, and the next call tries it again.

    Args:
        made: the cells, as `cells` makes them.
        seeds: runs of a cell; their seeds are the experiment's and those after it.
        out: folder of the ablation.
        launcher: `devices`: on this process's devices, a cell on each at a time; `processes`: each
            cell in a process of its own on this machine; `slurm`: each cell as a job. The last two
            need submitit.
        settings: submitit's parameters, such as `{'slurm_partition': 'gpu', 'timeout_min': 60}`.
        quiet: print nothing.
        formats: file formats of figures.
        hooks: the experiment's file, if it has `hooks`, which training calls.

    Returns:
        A row for each cell: its settings; `status` (finished, failed with its `reason`, or
        waiting); `seeds`, and what `cost` and `summary` return.

    Raises:
        ValueError: if a cell's folder holds another configuration, or an argument is impossible.
        Stop: after SIGTERM or Ctrl-C, once checkpoints are written.
    """
    require_seeds(made, seeds)
    fields.check(launcher, Literal['devices', 'processes', 'slurm'], 'launcher')
    out = pathlib.Path(out)
    placed = [(cell, _folders(out, cell, seeds)) for cell in made]
    for cell, outs in placed:
        for seed, folder in outs.items():
            runs.require_same(dataclasses.replace(cell.experiment, seed=seed), folder)
    waiting = {i: each for i, each in enumerate(placed) if not table.is_finished(each[1])}
    console = Console(lines=not quiet, bars=not quiet)
    console.say(
        f'{len(made)} cells of {seeds} seeds each; {len(made) - len(waiting)} cells are finished'
    )
    load_data.cache_clear()  # the data may have changed since this process read them
    for i, (cell, outs) in enumerate(placed):
        for folder in () if i in waiting else outs.values():
            if changed := provenance.remark_on(folder, cell.experiment, load_data):
                console.say(changed)
    (out / 'cells').mkdir(parents=True, exist_ok=True)

    def note(i: int) -> None:
        """Writes the table after a cell ends, and prints its result."""
        row = table.write(out, placed)[i]
        said = row['reason'] or table.said(row)
        ended.append(work[i])
        ahead = sum(work.values()) - sum(ended)
        if ahead and sum(ended):
            said += f'; about {duration((time.monotonic() - start) * ahead / sum(ended))} left'
        console.say(f'[{len(ended)}/{len(waiting)}] {made[i].name}: {said}')

    ended: list[int] = []
    work = {i: _work(cell.experiment) for i, (cell, _) in waiting.items()}
    start = time.monotonic()
    if launcher == 'devices':
        _on_devices(waiting, note, console, hooks)
    else:
        _on_cluster(waiting, note, out / 'jobs', launcher, settings or {}, console, hooks)
    rows = table.write(out, placed)
    table.draw(out, placed, rows, formats)
    return rows


def _work(experiment: Experiment) -> int:
    """Operations of one seed's training; 0 if it cannot be trained."""
    try:
        return cost(experiment)['train_flops']
    except Exception:  # its training reports the error
        return 0


def _folders(out: pathlib.Path, cell: Cell, seeds: int) -> dict[int, pathlib.Path]:
    first, former = cell.experiment.seed, out / 'cells' / cell.name  # of an earlier version
    folder = former if former.is_dir() else out / 'cells' / cell.folder
    return {s: folder / f'seed_{s}' for s in range(first, first + seeds)}


def train_cell(experiment: Experiment, outs: Runs, **options: Any) -> None:
    """Trains all seeds of one cell; a failure is written to the cell's folder, not raised.

    Seeds that do not fit in memory together train one after the other.

    Args:
        experiment: the cell's; its seed is ignored.
        outs: the run directory of each seed.
        **options: further arguments of `loop.train_seeds`.

    Raises:
        Stop: after SIGTERM or Ctrl-C, once checkpoints are written.
    """
    folder = next(iter(outs.values())).parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE).unlink(missing_ok=True)
    try:
        try:
            loop.train_seeds(experiment, outs, **options)
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error) or len(outs) == 1:
                raise
            for seed, out in outs.items():
                loop.train_seeds(experiment, {seed: out}, **options)
    except Stop:
        raise
    except Exception as error:  # whatever it is, other cells go on
        files.replace(folder / FAILURE, f'{reason(error)}\n\n{traceback.format_exc()}')


def _on_devices(waiting: Waiting, note: Any, console: Console, hooks: str | None) -> None:
    """Trains cells on this process's devices, one on each at a time, or each on all if it asks."""
    local = jax.local_devices()
    called = hooks_of(find(hooks)) if hooks else ()
    shared = any(cell.experiment.parallel in ('pmap', 'fsdp') for cell, _ in waiting.values())
    places = [local] if shared else [[device] for device in local[: max(1, len(waiting))]]
    alone = len(places) == 1
    free: queue.Queue[list[Any]] = queue.Queue()
    for place in places:
        free.put(place)

    def train(number: int, i: int) -> int:
        if caught:
            raise Stop(caught[0], 0)
        cell, outs = waiting[i]
        name = f'[{number}/{len(waiting)}] {next(iter(outs.values())).parent.name}'
        own = Console(lines=False, bars=alone and console.bars, name=name)
        place = free.get()
        try:
            with jax.default_device(place[0]):
                options: Any = {'console': own, 'devices': place, 'caught': caught}
                train_cell(cell.experiment, outs, hooks=called, **options)
        finally:
            free.put(place)
        return i

    over = Console(bars=not alone and console.bars)  # one alone has a bar of its own
    with (
        signals() as caught,
        over.progress('cells', len(waiting)) as show,
        ThreadPoolExecutor(len(places)) as pool,
    ):
        if alone:
            trained = itertools.starmap(train, enumerate(waiting, 1))
        else:
            futures = [pool.submit(train, *each) for each in enumerate(waiting, 1)]
            trained = (future.result() for future in as_completed(futures))
        for ended, i in enumerate(trained, 1):
            note(i)
            show(ended)


def _on_cluster(
    waiting: Waiting, note: Any, folder: pathlib.Path, launcher: Any,
    settings: Mapping[str, Any], console: Console, hooks: str | None,
) -> None:  # fmt: skip
    """Trains cells as jobs of submitit, each in a process of its own."""
    executor = cluster.executor(folder, launcher, settings)
    left = [(i, cluster.pack(c.experiment, hooks), outs) for i, (c, outs) in waiting.items()]
    running: dict[int, tuple[Any, Runs]] = {}
    # Several processes on one machine share its cores: one cell at a time.
    most = 1 if launcher == 'processes' else len(left)
    with signals() as caught, console.progress('cells', len(waiting)) as show:
        while left or running:
            show(len(waiting) - len(left) - len(running))
            while left and len(running) < most:
                i, text, outs = left.pop(0)
                paths = {seed: str(out) for seed, out in outs.items()}
                running[i] = executor.submit(Job(), text, paths), outs
            for i, (job, outs) in list(running.items()):
                if job.done():
                    del running[i]
                    note_lost(job, outs)
                    note(i)
            if caught:
                if launcher == 'processes':
                    for job, _ in running.values():
                        job.cancel()
                else:
                    console.say(f'{len(running)} jobs run on; the same command collects them')
                raise Stop(caught[0], 0)
            time.sleep(0.5)


class Job(cluster.Job):
    """A cell as a job."""

    def __call__(self, text: str, outs: dict[int, str]) -> None:
        """Trains the cell whose experiment `text` packs."""
        experiment, hooks = cluster.unpack(text)
        folders = {seed: pathlib.Path(out) for seed, out in outs.items()}
        train_cell(experiment, folders, hooks=hooks)


def note_lost(job: Any, outs: Runs) -> None:
    """Writes the failure of a job that died without writing one to the cell's folder."""
    failure = next(iter(outs.values())).parent / FAILURE
    error = job.exception()
    if error is not None and not failure.exists():
        failure.parent.mkdir(parents=True, exist_ok=True)
        files.replace(failure, f'{reason(error)}\n\n{error}\n')
