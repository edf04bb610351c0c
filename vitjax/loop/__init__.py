"""Training loop of one run; resumable after a kill at any point."""

import contextlib
import dataclasses
import pathlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import runs
from vitjax.base import fields, processes
from vitjax.base.console import Console, duration
from vitjax.base.signals import Stop, signals
from vitjax.base.types import TrainState
from vitjax.data import feed, preprocess
from vitjax.data.order import evenly
from vitjax.data.source import Data
from vitjax.evaluate import on_host, predict, predictions, scores
from vitjax.experiment import Experiment, require_data, to_json
from vitjax.figures import training as figures
from vitjax.loop import diagnosis, log
from vitjax.loop.log import Position
from vitjax.runs import checkpoint, environment, provenance
from vitjax.runs.records import Record
from vitjax.training import trainer
from vitjax.training.step import LOSSES
from vitjax.training.trainer import Metrics, Plan, Program, load_data
from vitjax.views import validation, watch

CHUNK_SECONDS = 1.0  # of steps at a dispatch, about: as long as Ctrl-C may wait

LOOKED_AT = 16  # images, of a run that diverged

Runs = Mapping[int, pathlib.Path]  # the run directory of each seed


def train(
    experiment: Experiment, out: str | pathlib.Path, *, quiet: bool = False
) -> dict[str, Any]:
    """Trains one experiment in a run directory, or resumes it: `train_seeds` with one seed.

    Args:
        experiment: what to run; one without `preprocessing` and `classes` gets them from its data.
        out: the run directory. One that holds this experiment is resumed from its last checkpoint,
            with the same bits as if it had never stopped.
        quiet: print nothing.

    Returns:
        The last line of metrics: `step`, `epoch`, and the test split's `accuracy`, `top5`, `loss`.

    Raises:
        ValueError: if the experiment does not fit its data, its devices or what is in `out`, and
            for a loss that is not finite.
        Stop: after SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    return train_seeds(experiment, {experiment.seed: out}, quiet=quiet)[experiment.seed]


def train_seeds(
    experiment: Experiment, outs: Mapping[int, str | pathlib.Path], *, quiet: bool = False,
    console: Console | None = None, devices: Sequence[Any] | None = None,
    caught: list[int] | None = None,
) -> dict[int, dict[str, Any]]:  # fmt: skip
    """Trains several seeds of an experiment, together where that is possible.

    Seeds train together on one device (`sharding.spread` says how), each with its own weights,
    order of examples and noise, so that each run is the one that it would be alone. They train one
    after the other with `patience`, which stops them at different times, and where a run spreads
    over several devices.

    Args:
        experiment: what to run; its seed field is ignored.
        outs: the run directory of each seed. Finished runs are skipped, others resumed.
        quiet: print nothing.
        console: where to say what happens, instead.
        devices: which to train on; None takes all.
        caught: where the numbers of signals that ask to stop arrive, for a caller that handles
            them; without it SIGTERM and Ctrl-C are handled here.

    Returns:
        Of each seed the last line of metrics: `step`, `epoch`, and the test split's `accuracy`,
        `top5`, `loss`.

    Raises:
        ValueError: if the experiment does not fit its data, its devices or what is in `outs`, and
            for a loss that is not finite.
        Stop: after SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    if console is None or jax.process_index() > 0:
        says = not quiet and jax.process_index() == 0
        console = Console(lines=says, bars=says)
    around = Around(jax.devices() if devices is None else devices, console, caught)
    folders = {seed: pathlib.Path(out) for seed, out in outs.items()}
    if caught is None:  # else several runs share what was read
        load_data.cache_clear()
    flags = {f'--{n.replace("_", "-")}': v for n, v in fields.leaves(to_json(experiment)).items()}
    folder = {'--out': [str(out.absolute()) for out in folders.values()]}
    processes.require_agreement({**flags, **folder, **environment.software()})
    for seed, out in folders.items():
        experiment = runs.with_head_of(out, experiment)
        runs.require_same(dataclasses.replace(experiment, seed=seed), out)
    records = {seed: runs.records.tested(out) for seed, out in folders.items()}
    for seed, record in records.items():
        if record:
            if changed := provenance.remark_on(folders[seed], experiment, load_data):
                console.say(changed)
            console.say(f'{folders[seed]} is finished: nothing was left to do.')
            classes = len(runs.read_experiment(folders[seed]).classes)
            console.say(log.result(record, classes, folders[seed]))
    pending = {seed: out for seed, out in folders.items() if not records[seed]}
    if pending:
        watch.require(experiment)
        validation.require(experiment)
        plan = _planned(experiment, pending, console)
        for group in _groups(experiment, pending, len(around.devices)):
            records |= _train(plan, {seed: pending[seed] for seed in group}, around)
    return {seed: record for seed, record in records.items() if record}


def _planned(experiment: Experiment, outs: Runs, console: Console) -> Plan:
    """`program.plan`; data that changed since a run began, and no longer fit it, are named first.

    Raises:
        ValueError: as `program.plan` and `provenance.require_same` do.
    """
    try:
        return trainer.plan(experiment, report=console.say)
    except ValueError:
        for out in filter(checkpoint.steps, outs.values()):
            read = provenance.with_others(require_data(experiment), {})
            facts = {'data': {split: provenance.of_data(data) for split, data in read.items()}}
            provenance.require_same(out, facts, read['train'].classes, console.say)
        raise


class Around(NamedTuple):
    """What a run is given by whoever started it: devices, where to print, signals it caught."""

    devices: Sequence[Any]
    console: Console
    caught: list[int] | None


def _groups(experiment: Experiment, outs: Runs, devices: int) -> Iterator[list[int]]:
    """Which seeds train together: those that have a checkpoint of the same step, or none."""
    alone = experiment.patience > 0 or experiment.parallel in ('pmap', 'fsdp')
    alone |= experiment.parallel == 'auto' and devices > 1
    left = {seed: _whole_steps(out) if len(outs) > 1 else [0] for seed, out in outs.items()}
    while left:
        # Of seeds that were killed between two saves, some are one checkpoint ahead.
        common = min(max(steps) for steps in left.values())
        group = [seed for seed, steps in left.items() if common in steps]
        group = group[:1] if alone else group
        yield group
        left = {seed: steps for seed, steps in left.items() if seed not in group}


def _whole_steps(out: pathlib.Path) -> list[int]:
    return [s for s in checkpoint.steps(out) if checkpoint.damage(out, s) is None] or [0]


def _train(plan: Plan, outs: Runs, around: Around) -> dict[int, Record]:
    """Trains and tests seeds that are at the same step."""
    origin = provenance.of_run(plan.experiment, load_data)
    processes.require_agreement(origin)
    for out in outs.values():
        provenance.require_same(out, origin, plan.experiment.classes, around.console.say)
    plan = dataclasses.replace(plan, origin=origin)
    run = trainer.program(plan, list(outs), around.devices)  # what cannot be, writes nothing
    with contextlib.ExitStack() as locks:
        for seed, out in outs.items():
            out.mkdir(parents=True, exist_ok=True)
            locks.enter_context(runs.lock(out))
            if jax.process_index() == 0:
                runs.write_experiment(out, dataclasses.replace(plan.experiment, seed=seed))
        at = _take_steps(plan, run, outs, around)
        return {seed: _finish(plan, at, out, around) for seed, out in outs.items()}


def _take_steps(plan: Plan, run: Program, outs: Runs, around: Around) -> Position:
    """Takes all steps that are left, logging, evaluating and saving on the way."""
    state, at = run.put(run.init()), Position()
    kept: list[list[Record] | None] = [[] for _ in outs]
    with contextlib.ExitStack() as stack:
        # Seeds that train together keep the checkpoint before the latest too: a kill between two
        # saves leaves them a common one.
        keep = min(2, len(outs))
        if jax.process_index() == 0:
            for out in outs.values():
                checkpoint.set_aside(out)
        managers = [
            stack.enter_context(checkpoint.writing(o, keep_latest=keep)) for o in outs.values()
        ]
        if found := checkpoint.latest([*outs.values()], run.get(state)):
            step, states, positions = found
            state, at = run.put(states), log.from_json(step, positions)
            kept = [position.get('lines') for position in positions]
            named = ', '.join(map(str, outs.values()))
            around.console.say(f'resumed from step {step} of {plan.total} in {named}')
        each = zip(outs.items(), kept, strict=True)
        runs.records.note_start(outs.values(), at.step, around.devices)
        records = {seed: runs.records.rewind(out, at.step, lines) for (seed, out), lines in each}
        if _ends(plan, at.step, records, around.console):
            return at
        spreads = len(outs) == 1 and plan.experiment.parallel != 'none'
        around.console.say(log.start(plan, around.devices[: None if spreads else 1]))
        caught = around.caught
        caught = stack.enter_context(signals()) if caught is None else caught
        shown = around.console.progress('training', plan.total, done=at.step, now='compiling')
        show = stack.enter_context(shown)
        pace = feed.Pace(CHUNK_SECONDS)
        began = time.perf_counter()
        for i, chunk in enumerate(feed.chunks(run.feed, at.step, plan.until, pace)):
            if i == 0:
                began = time.perf_counter()
                state, _ = run.run(state, chunk._replace(steps=0))  # compiles, takes no step
                around.console.say(f'compiled in {duration(time.perf_counter() - began)}')
                show(at.step)
                began = time.perf_counter()
            state, metrics = run.run(state, chunk)
            took = time.perf_counter() - began  # with what there was to wait for the chunk
            took = processes.agreed(took)
            if wrong := _not_finite(metrics, at.step):
                for manager in managers:
                    manager.wait_until_finished()
                name, value, step, i = wrong
                around.console.say(f'{name} is {value} at step {step}: looking for the module')
                before = _replayed(plan, run, outs, step - 1, caught)
                where = _first_module(plan, on_host(before[i].params), plan.data) if before else ''
                raise _diverged(name, value, step, [*outs.values()][i], where)
            pace.note(chunk.steps, took)
            at = at.after(metrics, took)
            show(at.step, now=log.now(plan, metrics, took))
            if plan.logs(at.step):
                log.log_training(plan, at, outs, records)
                at = at._replace(since=(), took=0.0)
            if plan.evaluates(at.step):
                states = run.get(state)
                found = _evaluate(plan, at, states, outs, records, around.devices)
                _save(managers, plan, at, states, records, found)
                around.console.say(log.line(plan, at, records))
                if _ends(plan, at.step, records, around.console):
                    return at
            if stop := int(processes.agreed(caught[0] if caught else 0)):
                _save(managers, plan, at, run.get(state), records)
                for manager in managers:
                    manager.wait_until_finished()
                raise Stop(stop, at.step)
            began = time.perf_counter()
    return at


def _save(
    managers: list[checkpoint.Manager], plan: Plan, at: Position, states: list[TrainState],
    records: dict[int, list[Record]], metrics: list[dict[str, float]] | None = None,
) -> None:  # fmt: skip
    several = len(managers) > 1 or threading.current_thread() is not threading.main_thread()
    each = zip(managers, states, records.values(), strict=True)
    for i, (manager, state, lines) in enumerate(each):
        if at.step not in manager.all_steps():
            values = None if metrics is None else metrics[i]
            position = {**at.to_json(plan, i), 'lines': lines, 'origin': plan.origin}
            items = checkpoint.trees(state)
            checkpoint.save(manager, at.step, items, position, values, wait=several)


def _evaluate(
    plan: Plan, at: Position, states: list[TrainState], outs: Runs,
    records: dict[int, list[Record]], devices: Sequence[Any],
) -> list[dict[str, float]]:  # fmt: skip
    """Validation scores of each seed, logged; what is watched, and attention where it is due."""
    experiment, found = plan.experiment, []
    assert (prepared := experiment.preprocessing) is not None
    data = load_data(require_data(experiment), 'validation', prepared)
    for (seed, out), state in zip(outs.items(), states, strict=True):
        params = on_host(state.params if state.ema is None else state.ema)
        logits = predict(
            experiment.model, params, data, prepared, experiment.batch_size, devices, together=True
        )
        if not np.isfinite(logits).all():
            where = _first_module(plan, params, data)
            raise _diverged('validation logits', logits.sum(), at.step, out, where)
        found.append(scores(logits, data.labels))
        log.log(plan, at, 'validation', found[-1], out, records[seed])
        now = {'step': at.step, 'epoch': at.step / plan.per_epoch}
        if plan.draws(at.step) and (seen := validation.look(experiment, params, data)) is not None:
            runs.records.note(out, {**now, **seen}, runs.records.ATTENTION)
            if jax.process_index() == 0:
                notes = runs.records.read_notes(out, runs.records.ATTENTION)
                strip = validation.strip(experiment, data, notes)
                runs.records.save_figure(strip, out, 'attention.png')
        if experiment.watch:
            watched = watch.look(experiment, params, data)
            runs.records.note(out, {**now, **watched}, runs.records.WATCH)
    return found


def _not_finite(metrics: Metrics, step: int) -> tuple[str, float, int, int] | None:
    """Name, value, step and place of the seed of the first loss or gradient that is not finite.

    None if all are finite. `step` counts the steps before those of `metrics`.
    """
    for name in ('loss', 'grad_norm'):
        for i, seed in np.argwhere(~np.isfinite(metrics[name])):
            return name, float(metrics[name][i, seed]), step + int(i) + 1, int(seed)
    return None


def _replayed(
    plan: Plan, run: Program, outs: Runs, step: int, caught: Sequence[int]
) -> list[TrainState]:
    """The states after `step` steps, from the last checkpoint on; none if asked to stop."""
    state, at = run.put(run.init()), 0
    if found := checkpoint.latest([*outs.values()], run.get(state)):
        at, states, _ = found
        state = run.put(states)
    pace = feed.Pace(CHUNK_SECONDS)
    for chunk in feed.chunks(run.feed, at, lambda now: min(plan.until(now), step), pace):
        if processes.agreed(len(caught)):
            return []
        began = time.perf_counter()
        state, _ = run.run(state, chunk._replace(steps=min(chunk.steps, step - at)))
        at += chunk.steps  # perhaps more than asked for: they were read ahead
        pace.note(chunk.steps, processes.agreed(time.perf_counter() - began))
    return run.get(state)


def _first_module(plan: Plan, params: Any, data: Data) -> str:
    """`diagnosis.first_module` on a few images of a split."""
    experiment: Any = plan.experiment
    rows = evenly(len(data), LOOKED_AT)
    pixels = jnp.asarray(data.images[rows])
    images = preprocess.finish(pixels, experiment.preprocessing, data.prepared)
    loss = LOSSES[experiment.loss]
    return diagnosis.first_module(experiment.model, params, images, data.labels[rows], loss)


def _diverged(what: str, value: float, step: int, out: pathlib.Path, where: str) -> ValueError:
    found = f'; first: {where}' if where else ''
    kept = max(checkpoint.steps(out), default=0)
    said = f'{out} keeps the checkpoint of step {kept}. ' if kept else ''
    return ValueError(
        f'{what} must stay finite: it is {value} at step {step}{found}.\n'
        f'{said}Try a lower --optim.peak.'
    )


def _ends(plan: Plan, step: int, records: dict[int, list[Record]], console: Console) -> bool:
    """All steps taken, or stopped early, which is said."""
    if step >= plan.total:
        return True
    # With patience seeds train alone.
    why = log.stopped_early(plan, next(iter(records.values())))
    if why:
        console.say(why)
    return why is not None


def _finish(plan: Plan, at: Position, out: pathlib.Path, around: Around) -> Record:
    """Tests the best parameters and draws the curves."""
    experiment, params, _ = runs.load(out, which='best')
    assert experiment.preprocessing is not None
    data = load_data(require_data(experiment), 'test', experiment.preprocessing)
    batch, prepared = experiment.batch_size, experiment.preprocessing
    devices = around.devices
    logits = predict(experiment.model, params, data, prepared, batch, devices, together=True)
    record = {'step': at.step, 'epoch': at.step / plan.per_epoch, 'split': 'test'}
    record |= {**scores(logits, data.labels), 'seconds': at.seconds}
    runs.records.write_predictions(out, predictions(logits, data.labels))  # a run with a test line has them
    runs.records.append(out, record)
    curves = figures.learning_curves(runs.records.read_metrics(out))
    runs.records.save_figure(curves, out, 'learning_curves.png')
    if jax.process_index() == 0 and (seen := runs.records.read_notes(out, runs.records.WATCH)):
        for figure, kind in zip(watch.drawings(seen), ('png', 'gif'), strict=True):
            runs.records.save_figure(figure, out, f'watch.{kind}')
    around.console.say(log.result(record, len(experiment.classes), out))
    return record
