"""Training the cells of a grid: on local devices, in processes, or as jobs of a cluster."""

import contextlib
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
from vitjax.base import fields, files
from vitjax.base.console import Console, duration
from vitjax.base.signals import Stop, signals
from vitjax.base.types import Format
from vitjax.experiment import Experiment, find
from vitjax.experiment import hooks as hooks_of
from vitjax.loop import cluster
from vitjax.runs import provenance
from vitjax.training.resolve import load_data

Runs = dict[int, pathlib.Path]  # the run directory of each seed
Trained = tuple[int, Experiment, Runs]  # which cell, its experiment and its runs


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
    folders = [_folders(out, cell, seeds) for cell in made]
    for cell, of_seeds in zip(made, folders, strict=True):
        for seed, folder in of_seeds.items():
            runs.require_same(dataclasses.replace(cell.experiment, seed=seed), folder)
    waiting = [i for i, f in enumerate(folders) if not all(map(runs.records.tested, f.values()))]
    console = Console(lines=not quiet, bars=not quiet)
    console.say(
        f'{len(made)} cells of {seeds} seeds each; {len(made) - len(waiting)} cells are finished'
    )
    load_data.cache_clear()  # the data may have changed since this process read them
    for i in {*range(len(made))} - {*waiting}:
        for folder in folders[i].values():
            if changed := provenance.remark_on(folder, made[i].experiment, load_data):
                console.say(changed)
    (out / 'cells').mkdir(parents=True, exist_ok=True)

    def note(i: int) -> None:
        """Writes the table after a cell ends, and prints its result."""
        rows = table.write(out, made, folders)
        said = rows[i]['reason'] or table.said(rows[i])
        ended.append(work[i])
        ahead = sum(work.values()) - sum(ended)
        if ahead and sum(ended):
            said += f'; about {duration((time.monotonic() - start) * ahead / sum(ended))} left'
        console.say(f'[{len(ended)}/{len(waiting)}] {made[i].name}: {said}')

    ended: list[int] = []
    work, start = {i: _work(made[i].experiment) for i in waiting}, time.monotonic()
    jobs = [(i, made[i].experiment, folders[i]) for i in waiting]
    if launcher == 'devices':
        _on_devices(jobs, note, console, hooks)
    else:
        _on_cluster(jobs, note, out / 'jobs', launcher, settings or {}, console, hooks)
    rows = table.write(out, made, folders)
    table.draw(out, made, folders, rows, formats)
    return rows


def _work(experiment: Experiment) -> int:
    """Operations of one seed's training; 0 if it cannot be trained."""
    try:
        return cost(experiment)['train_flops']
    except Exception:  # its training reports the error
        return 0


def _folders(out: pathlib.Path, cell: Cell, seeds: int) -> Runs:
    first, former = cell.experiment.seed, out / 'cells' / cell.name  # of an earlier version
    folder = former if former.is_dir() else out / 'cells' / cell.folder
    return {s: folder / f'seed_{s}' for s in range(first, first + seeds)}


def train_cell(
    experiment: Experiment, outs: Mapping[int, pathlib.Path], *, console: Console | None = None,
    devices: Sequence[Any] | None = None, caught: list[int] | None = None,
    hooks: Sequence[loop.Hook] = (),
) -> None:  # fmt: skip
    """Trains all seeds of one cell; a failure is written to the cell's folder, not raised.

    Seeds that do not fit in memory together train one after the other.

    Raises:
        Stop: after SIGTERM or Ctrl-C, once checkpoints are written.
    """
    folder = next(iter(outs.values())).parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'failure.txt').unlink(missing_ok=True)
    options: Any = {'console': console, 'devices': devices, 'caught': caught, 'hooks': hooks}
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
        files.replace(folder / 'failure.txt', f'{reason(error)}\n\n{traceback.format_exc()}')


def _on_devices(jobs: Sequence[Trained], note: Any, console: Console, hooks: str | None) -> None:
    """Trains cells on this process's devices, one on each at a time, or each on all if it asks."""
    together = any(experiment.parallel in ('pmap', 'fsdp') for _, experiment, _ in jobs)
    local = jax.local_devices()
    places = [local] if together else [[device] for device in local]
    free: queue.Queue[list[Any]] = queue.Queue()
    for place in places[: max(1, len(jobs))]:
        free.put(place)
    alone, called = free.qsize() == 1, hooks_of(find(hooks)) if hooks else ()
    begun = itertools.count(1)

    with signals() as caught, contextlib.ExitStack() as stack:

        def one(job: Trained) -> int:
            if caught:
                raise Stop(caught[0], 0)
            place = free.get()
            try:
                with jax.default_device(place[0]):
                    cell = next(iter(job[2].values())).parent.name
                    name = f'[{next(begun)}/{len(jobs)}] {cell}'
                    own = Console(lines=False, bars=alone and console.bars, name=name)
                    options: Any = {'console': own, 'devices': place, 'caught': caught}
                    train_cell(job[1], job[2], hooks=called, **options)
            finally:
                free.put(place)
            return job[0]

        over = Console(bars=not alone and console.bars)  # one alone has a bar of its own
        show = stack.enter_context(over.progress('cells', len(jobs)))
        if alone:
            done = map(one, jobs)
        else:
            pool = stack.enter_context(ThreadPoolExecutor(len(places)))
            futures = [pool.submit(one, job) for job in jobs]
            done = (future.result() for future in as_completed(futures))
        for ended, i in enumerate(done, 1):
            note(i)
            show(ended)


def _on_cluster(
    jobs: Sequence[Trained], note: Any, folder: pathlib.Path, launcher: Any,
    settings: Mapping[str, Any], console: Console, hooks: str | None,
) -> None:  # fmt: skip
    """Trains cells as jobs of submitit, each in a process of its own."""
    executor = cluster.executor(folder, launcher, settings)
    calls = [
        (i, cluster.pack(experiment, hooks), {seed: str(out) for seed, out in outs.items()})
        for i, experiment, outs in jobs
    ]
    running = {}
    # Several processes on one machine share its cores: one cell at a time.
    most = 1 if launcher == 'processes' else len(calls)
    with signals() as caught, console.progress('cells', len(jobs)) as show:
        while calls or running:
            show(len(jobs) - len(calls) - len(running))
            while calls and len(running) < most:
                i, text, outs = calls.pop(0)
                running[i] = (executor.submit(Job(), text, outs), outs)
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


def note_lost(job: Any, outs: dict[int, str]) -> None:
    """Writes the failure of a job that died without writing one to the cell's folder."""
    folder = pathlib.Path(next(iter(outs.values()))).parent
    error = job.exception()
    if error is not None and not (folder / 'failure.txt').exists():
        folder.mkdir(parents=True, exist_ok=True)
        files.replace(folder / 'failure.txt', f'{reason(error)}\n\n{error}\n')
