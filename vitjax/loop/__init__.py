"""Training loop of one run; resumable after a kill at any point.

`train_seeds` resolves the experiment and groups its seeds. `fit` finds the last checkpoint
(`_resume`), takes the steps (`_train`), tests and stops. `_train` calls the hooks after every
dispatch. Everything else that happens between steps is one (`vitjax.loop.hooks`): checkpoints too.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitjax import runs
from vitjax.base import fields, processes
from vitjax.base.console import Console, duration
from vitjax.base.signals import Stop, signals
from vitjax.data import feed
from vitjax.evaluate import predict, predictions, scores
from vitjax.experiment import Experiment, require_data, to_json
from vitjax.figures import training as figures
from vitjax.loop import hooks as loop_hooks
from vitjax.loop import log
from vitjax.loop.hooks import HOOKS, Group, Hook, Moment, Outs
from vitjax.loop.log import Position
from vitjax.runs import checkpoint, environment, provenance
from vitjax.runs.records import Record
from vitjax.training import trainer as trainers
from vitjax.training.layout import layout
from vitjax.training.resolve import load_data
from vitjax.training.trainer import Placed, Trainer
from vitjax.views import watch

__all__ = ['Hook', 'Moment', 'Stop', 'fit', 'train', 'train_seeds']


def train(
    experiment: Experiment, out: str | pathlib.Path, *, hooks: Sequence[Hook] = (),
    quiet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Trains one experiment in a run directory, or resumes it: `train_seeds` with one seed.

    Args:
        experiment: any; without `preprocessing` and `classes`, they come from its data.
        out: run directory. One that holds this experiment resumes from its last checkpoint, with
            the same bits as if it had never stopped.
        hooks: functions called after every dispatch of steps, before the checkpoint is written.
        quiet: print nothing.

    Returns:
        The last line of metrics: `step`, `epoch`, and the test split's `accuracy`, `top5`, `loss`.

    Raises:
        ValueError: if the experiment does not fit its data, its devices or the contents of `out`,
            or if a loss is not finite.
        Stop: after SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    outs = {experiment.seed: out}
    return train_seeds(experiment, outs, hooks=hooks, quiet=quiet)[experiment.seed]


def train_seeds(
    experiment: Experiment, outs: Mapping[int, str | pathlib.Path], *, hooks: Sequence[Hook] = (),
    quiet: bool = False, console: Console | None = None, devices: Sequence[Any] | None = None,
    caught: list[int] | None = None,
) -> dict[int, dict[str, Any]]:  # fmt: skip
    """Trains several seeds of an experiment, together if possible.

    Seeds train together on one device (`layout`), each with its own weights, order of examples and
    noise: each run is the one that it would be alone. They train one after the other with
    `patience`, which stops them at different times, and if a run uses several devices.

    Args:
        experiment: any; its seed field is ignored.
        outs: the run directory of each seed. Finished runs are skipped, others resumed.
        hooks: functions called after every dispatch of steps, before the checkpoint is written.
        quiet: print nothing.
        console: console to print on, instead.
        devices: devices to train on; None takes all.
        caught: list that receives the numbers of signals that ask to stop, if the caller handles
            them; else SIGTERM and Ctrl-C are handled here.

    Returns:
        For each seed the last line of metrics: `step`, `epoch`, and the test split's `accuracy`,
        `top5`, `loss`.

    Raises:
        ValueError: if the experiment does not fit its data, its devices or the contents of `outs`,
            or if a loss is not finite.
        Stop: after SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    if console is None or jax.process_index() > 0:
        prints = not quiet and jax.process_index() == 0
        console = Console(lines=prints, bars=prints)
    devices = jax.devices() if devices is None else devices
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
    pending = {seed: out for seed, out in folders.items() if not records[seed]}
    for seed, record in records.items():
        if record:
            out = folders[seed]
            if changed := provenance.remark_on(out, experiment, load_data):
                console.say(changed)
            console.say(f'{out} is finished: nothing was left to do.')
            console.say(log.result(record, len(runs.read_experiment(out).classes), out))
    if pending:
        trainer = _resolved(experiment, pending, devices, console)
        loop_hooks.require(trainer, console)
        for group in _groups(experiment, pending, len(devices)):
            way, batch = experiment.parallel, experiment.batch_size
            chosen = layout(way, devices, batch_size=batch, seeds=len(group))
            made = dataclasses.replace(trainer, layout=chosen, seeds=tuple(group))
            records |= fit(
                made, group, hooks=loop_hooks.with_own(hooks), console=console, devices=devices,
                caught=caught,
            )  # fmt: skip
    return {seed: record for seed, record in records.items() if record}


def fit(
    trainer: Trainer, outs: Outs, *, hooks: Sequence[Hook] = HOOKS,
    console: Console | None = None, devices: Sequence[Any] | None = None,
    caught: list[int] | None = None,
) -> dict[int, Record]:  # fmt: skip
    """Trains and tests seeds that are at the same step: resume, step, hooks, stop.

    Args:
        trainer: trainer of the seeds.
        outs: the run directory of each seed, in the trainer's order.
        hooks: functions called after every dispatch of steps, in this order.
        console: console to print on.
        devices: devices that evaluation uses; None takes the trainer's.
        caught: as in `train_seeds`.

    Returns:
        The test record of each seed.

    Raises:
        ValueError: if a run began with other data or weights, or a loss is not finite.
        Stop: after SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    origin = provenance.of_run(trainer.experiment, load_data)
    devices = trainer.layout.devices if devices is None else devices
    group = Group(trainer, outs, origin, devices, console or Console())
    processes.require_agreement(origin)
    for out in outs.values():
        provenance.require_same(out, origin, trainer.experiment.classes, group.console.say)
    trainer.require()  # what cannot be, writes nothing
    with contextlib.ExitStack() as stack:
        for seed, out in outs.items():
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(runs.lock(out))
            if jax.process_index() == 0:
                runs.write_experiment(out, dataclasses.replace(trainer.experiment, seed=seed))
                checkpoint.set_aside(out)
        at = _train(group, hooks, caught)
        return {seed: _test(group, at, out) for seed, out in outs.items()}


def _train(group: Group, hooks: Sequence[Hook], caught: list[int] | None) -> Position:
    """Takes all steps that are left, and calls the hooks after every dispatch of them."""
    trainer, outs = group.trainer, group.outs.values()
    with contextlib.ExitStack() as stack:
        # Seeds that train together keep the checkpoint before the latest too: a kill between two
        # saves leaves them a common one.
        writing = [checkpoint.writing(out, keep_latest=min(2, len(outs))) for out in outs]
        managers = [*map(stack.enter_context, writing)]
        placed, at, records = _resume(group)
        runs.records.note_start(outs, at.step, group.devices)
        if _ends(group, at.step, records):
            return at
        group.console.say(log.start(trainer))
        caught = stack.enter_context(signals()) if caught is None else caught
        # Closed before an error is printed, with its progress bar.
        steps = stack.enter_context(contextlib.closing(_dispatches(group, placed, at)))
        for placed, at, metrics in steps:
            stop = int(processes.agreed(caught[0] if caught else 0))
            moment = Moment(
                **vars(group), at=at, placed=placed, metrics=metrics, records=records,
                managers=managers, caught=caught, stop=stop,
            )  # fmt: skip
            for hook in hooks:
                hook(moment)
            if moment.evaluates and _ends(group, at.step, records):
                break
            if stop:
                raise Stop(stop, at.step)
    return at


def _resume(group: Group) -> tuple[Placed, Position, dict[int, list[Record]]]:
    """States, position and lines of metrics of the last checkpoint; fresh ones without one."""
    placed, at, kept = group.trainer.init(), Position(), [{'lines': []} for _ in group.outs]
    if found := checkpoint.latest([*group.outs.values()], group.trainer.layout.fetch(placed)):
        step, states, kept = found
        placed, at = group.trainer.layout.place(states), log.from_json(step, kept)
        named = ', '.join(map(str, group.outs.values()))
        group.console.say(f'resumed from step {step} of {group.trainer.total} in {named}')
    each = zip(group.outs.items(), kept, strict=True)
    rewind = runs.records.rewind
    lines = {seed: rewind(out, at.step, own.get('lines')) for (seed, out), own in each}
    return placed, at, lines


def _dispatches(
    group: Group, placed: Placed, at: Position
) -> Generator[tuple[Placed, Position, dict[str, np.ndarray]], None, None]:
    """Takes the steps that are left; gives states, position and metrics after every dispatch."""
    trainer, pace, began = group.trainer, feed.Pace(), None
    with group.console.progress('training', trainer.total, done=at.step, now='compiling') as show:
        for chunk in trainer.chunks(at.step, pace):
            if began is None:
                start = time.perf_counter()
                placed, _ = trainer.run(placed, chunk._replace(steps=0))  # takes no step
                began = time.perf_counter()
                group.console.say(f'compiled in {duration(began - start)}')
                show(at.step)
            placed, metrics = trainer.run(placed, chunk)
            took = processes.agreed(time.perf_counter() - began)  # with the wait for the chunk
            pace.note(chunk.steps, took)
            at = at.after(metrics, took)
            show(at.step, now=log.now(trainer, metrics, took))
            yield placed, at, metrics
            if trainer.logs(at.step):
                at = at._replace(since=(), took=0.0)
            began = time.perf_counter()


def _resolved(
    experiment: Experiment, outs: Outs, devices: Sequence[Any], console: Console
) -> Trainer:
    """The trainer of one seed; data that changed since a run began are named first.

    Raises:
        ValueError: as `trainer.make` and `provenance.require_same` do.
    """
    try:
        return trainers.make(experiment, devices=devices, report=console.say)
    except ValueError:
        for out in filter(checkpoint.steps, outs.values()):
            read = provenance.with_others(require_data(experiment), {})
            facts = {'data': {split: provenance.of_data(data) for split, data in read.items()}}
            provenance.require_same(out, facts, read['train'].classes, console.say)
        raise


def _groups(experiment: Experiment, outs: Outs, devices: int) -> Iterator[Outs]:
    """Seeds that train together: those with a checkpoint of the same step, or without any."""
    alone = experiment.patience > 0 or experiment.parallel in ('pmap', 'fsdp')
    alone |= experiment.parallel == 'auto' and devices > 1
    left = {seed: _whole_steps(out) if len(outs) > 1 else [0] for seed, out in outs.items()}
    while left:
        # Of seeds that were killed between two saves, some are one checkpoint ahead.
        common = min(max(steps) for steps in left.values())
        group = [seed for seed, steps in left.items() if common in steps]
        group = group[:1] if alone else group
        yield {seed: outs[seed] for seed in group}
        left = {seed: steps for seed, steps in left.items() if seed not in group}


def _whole_steps(out: pathlib.Path) -> list[int]:
    return [s for s in checkpoint.steps(out) if checkpoint.damage(out, s) is None] or [0]


def _ends(group: Group, step: int, records: Mapping[int, list[Record]]) -> bool:
    """Returns True if all steps are taken, or if patience has ended, which it prints."""
    if step >= group.trainer.total:
        return True
    # With patience seeds train alone.
    why = log.stopped_early(group.trainer, next(iter(records.values())))
    if why:
        group.console.say(why)
    return why is not None


def _test(group: Group, at: Position, out: pathlib.Path) -> Record:
    """Tests the best parameters and draws the curves."""
    experiment, params, _ = runs.load(out, which='best')
    batch, prepared = experiment.batch_size, experiment.preprocessing
    data = load_data(group.trainer.experiment.data, 'test', prepared)
    logits = predict(experiment.model, params, data, prepared, batch, group.devices, together=True)
    record = {'step': at.step, 'epoch': at.step / group.trainer.per_epoch, 'split': 'test'}
    record |= {**scores(logits, data.labels), 'seconds': at.seconds}
    # Before the test line: a run with that line has predictions.
    runs.records.write_predictions(out, predictions(logits, data.labels))
    runs.records.append(out, record)
    curves = figures.learning_curves(runs.records.read_metrics(out))
    runs.records.save_figure(curves, out, 'learning_curves.png')
    if jax.process_index() == 0 and (lines := runs.records.read_notes(out, runs.records.WATCH)):
        for figure, kind in zip(watch.drawings(lines), ('png', 'gif'), strict=True):
            runs.records.save_figure(figure, out, f'watch.{kind}')
    group.console.say(log.result(record, len(experiment.classes), out))
    return record
