"""Hooks: functions that training calls after every dispatch of steps, with a `Moment`.

Evaluation, pictures of attention, watching, checkpoints and lines of metrics are hooks, which
`loop.fit` calls in the order of `HOOKS`. An experiment's file adds its own, which are called before
`save`, so that the checkpoint has their lines:

    def weights(moment):
        if moment.evaluates:
            for seed, params in moment.params.items():
                deviation = float(params['head']['output']['kernel'].std())
                moment.log(seed, 'weights', {'head': deviation})

    hooks = (weights,)
"""

import dataclasses
import functools
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitjax import runs
from vitjax.base.console import Console
from vitjax.base.types import Params, TrainState
from vitjax.data.source import Data
from vitjax.evaluate import on_host, predict, scores
from vitjax.loop import diagnosis, log
from vitjax.loop.log import Position
from vitjax.runs import checkpoint
from vitjax.runs.records import Record
from vitjax.training.resolve import load_data
from vitjax.training.trainer import Placed, Trainer
from vitjax.views import validation, watch

Outs = Mapping[int, pathlib.Path]  # the run directory of each seed


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Seeds that train together, from their first step to their test.

    Attributes:
        trainer: the trainer, with its experiment and layout.
        outs: the run directory of each seed.
        origin: identity of data and weights, for checkpoints to record.
        devices: devices that evaluation uses.
        console: console to print on.
    """

    trainer: Trainer
    outs: Outs
    origin: Mapping[str, Any]
    devices: Sequence[Any]
    console: Console


@dataclasses.dataclass(frozen=True, eq=False)
class Moment(Group):
    """A group between two dispatches of steps; it has the attributes of `Group` too.

    Attributes:
        at: position of the run: steps taken, seconds, metrics since the last line.
        placed: the states, as they are on the devices.
        metrics: metrics [steps, seeds] of the last dispatch.
        records: lines of `metrics.jsonl` of each seed, to which `log` adds.
        managers: managers of checkpoints, one for each seed.
        caught: numbers of signals that ask to stop.
        stop: the signal that stops the run after this moment; 0 if none does.
    """

    at: Position
    placed: Placed
    metrics: dict[str, np.ndarray]
    records: dict[int, list[Record]]
    managers: Sequence[checkpoint.Manager]
    caught: Sequence[int]
    stop: int

    @property
    def evaluates(self) -> bool:
        """True if this is an evaluation."""
        return self.trainer.evaluates(self.at.step)

    @functools.cached_property
    def states(self) -> list[TrainState]:
        """State of each seed, in the order of `outs`."""
        return self.trainer.layout.fetch(self.placed)

    @functools.cached_property
    def params(self) -> dict[int, Params]:
        """Parameters of each seed on the host: the moving average if the run keeps one."""
        kept = (s.params if s.ema is None else s.ema for s in self.states)
        return dict(zip(self.outs, map(on_host, kept), strict=True))

    @property
    def validation(self) -> Data:
        """The validation images."""
        experiment = self.trainer.experiment
        return load_data(experiment.data, 'validation', experiment.preprocessing)

    @property
    def now(self) -> dict[str, Any]:
        """Step and epoch, with which a line of a run's file begins."""
        return {'step': self.at.step, 'epoch': self.at.step / self.trainer.per_epoch}

    def log(self, seed: int, split: str, values: Mapping[str, float], **more: float) -> None:
        """Adds a line to a seed's metrics, on disk and in `records`.

        Args:
            seed: seed of the run.
            split: `train` or `validation` with a loss and an accuracy, or a name of the hook's own.
            values: numbers by name.
            more: numbers that follow the seconds.

        Raises:
            ValueError: if the line could not be read again, or is that of the test, which ends a
                run.
        """
        record = {**self.now, 'split': split, **values, 'seconds': self.at.seconds, **more}
        if split == 'test' or not runs.records.is_record(record):
            raise ValueError(
                "a hook's line of metrics must be of train or validation, with loss and accuracy, "
                f'or of a split of its own: {split!r} with {", ".join(values)}.'
            )
        self.records[seed].append(record)
        runs.records.append(self.outs[seed], record)


Hook = Callable[[Moment], object]


def require_finite(moment: Moment) -> None:
    """Ends a run whose loss or gradient is not finite.

    Raises:
        ValueError: with the first step that is wrong, and the first module.
    """
    wrong = diagnosis.not_finite(moment.metrics, moment.at.step)
    if wrong is None:
        return
    name, value, step, place = wrong
    for manager in moment.managers:
        manager.wait_until_finished()
    moment.console.say(f'{name} is {value} at step {step}: looking for the module')
    before = diagnosis.replayed(moment.trainer, moment.outs, step - 1, moment.caught)
    where = ''
    if before:
        params = on_host(before[place].params)
        where = diagnosis.of_run(moment.trainer, params, moment.trainer.data)
    raise diagnosis.diverged(name, value, step, [*moment.outs.values()][place], where)


def log_training(moment: Moment) -> None:
    """Adds to each seed's metrics a line that averages over the steps since the last one."""
    if moment.trainer.logs(moment.at.step):
        rate = moment.at.rate() * moment.trainer.experiment.batch_size
        for i, seed in enumerate(moment.outs):
            moment.log(seed, 'train', moment.at.means(i), images_per_second=rate)


def evaluate(moment: Moment) -> None:
    """Adds each seed's validation scores to its metrics.

    Raises:
        ValueError: if logits are not finite.
    """
    if not moment.evaluates:
        return
    experiment, data = moment.trainer.experiment, moment.validation
    for seed, params in moment.params.items():
        logits = predict(
            experiment.model, params, data, experiment.preprocessing, experiment.batch_size,
            moment.devices, together=True,
        )  # fmt: skip
        if not np.isfinite(logits).all():
            where = diagnosis.of_run(moment.trainer, params, data)
            out, step = moment.outs[seed], moment.at.step
            raise diagnosis.diverged('validation logits', logits.sum(), step, out, where)
        moment.log(seed, 'validation', scores(logits, data.labels))


def draw_attention(moment: Moment) -> None:
    """Adds the class token's attention on validation images, and draws it over epochs."""
    if not moment.trainer.draws(moment.at.step):
        return
    experiment, data = moment.trainer.experiment, moment.validation
    for seed, params in moment.params.items():
        if found := validation.attention_maps(experiment, params, data):
            out = moment.outs[seed]
            runs.records.note(out, {**moment.now, **found}, runs.records.ATTENTION)
            if jax.process_index() == 0:
                notes = runs.records.read_notes(out, runs.records.ATTENTION)
                strip = validation.strip(experiment, data, notes)
                runs.records.save_figure(strip, out, 'attention.png')


def watch_layers(moment: Moment) -> None:
    """Adds what `Experiment.watch` asks about the layers."""
    experiment = moment.trainer.experiment
    if moment.evaluates and experiment.watch:
        for seed, params in moment.params.items():
            found = watch.of_layers(experiment, params, moment.validation)
            runs.records.note(moment.outs[seed], {**moment.now, **found}, runs.records.WATCH)


def save(moment: Moment) -> None:
    """Writes a checkpoint of each seed at an evaluation, and before a run stops."""
    if not (moment.evaluates or moment.stop):
        return
    threaded = threading.current_thread() is not threading.main_thread()
    each = zip(moment.managers, moment.states, moment.records.values(), strict=True)
    for i, (manager, state, lines) in enumerate(each):
        if moment.at.step not in manager.all_steps():
            scored = None
            if moment.evaluates:
                last = next(r for r in lines[::-1] if r['split'] == 'validation' and 'top5' in r)
                scored = {name: last[name] for name in ('loss', 'accuracy', 'top5')}
            position = moment.at.to_json(moment.trainer, i)
            position |= {'lines': lines, 'origin': moment.origin}
            items, wait = checkpoint.trees(state), threaded or len(moment.managers) > 1
            checkpoint.save(manager, moment.at.step, items, position, scored, wait=wait)
    if moment.stop:
        for manager in moment.managers:
            manager.wait_until_finished()


def print_evaluation(moment: Moment) -> None:
    """Prints an evaluation in a line."""
    if moment.evaluates:
        moment.console.say(log.line(moment.trainer, moment.at, moment.records))


HOOKS: tuple[Hook, ...] = (
    require_finite, log_training, evaluate, draw_attention, watch_layers, save, print_evaluation,
)  # fmt: skip


def with_own(hooks: Sequence[Hook]) -> tuple[Hook, ...]:
    """`HOOKS` and a user's own: these precede `save`, since a resumed run has the saved lines."""
    before = HOOKS.index(save)
    return *HOOKS[:before], *hooks, *HOOKS[before:]


def require(trainer: Trainer, console: Console) -> None:
    """Refuses what hooks could not do; prints what they will not.

    Raises:
        ValueError: for attention that is never drawn, and a model that cannot be watched.
    """
    experiment, epochs = trainer.experiment, trainer.epochs
    watch.require(experiment)
    validation.require(experiment)
    asked = experiment.attention_every
    first = asked * trainer.per_epoch
    if first > trainer.total:
        console.say(
            f'attention is not drawn: --attention-every is {asked} epochs, the run has {epochs:.4g}'
        )
    elif first and not any(map(trainer.draws, range(first, trainer.total + 1, first))):
        raise ValueError(
            'attention is drawn at evaluations that end a multiple of --attention-every epochs, '
            f'and there is none in {epochs:.4g} epochs: --attention-every {asked}, '
            f'--evaluate-every {experiment.evaluate_every:g}.'
        )
