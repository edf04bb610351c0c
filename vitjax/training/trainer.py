"""Trainer: from an experiment and its data to the compiled steps of its seeds."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.base import fields
from vitjax.base.keys import purpose
from vitjax.base.types import Module, Params, PyTree, TrainState
from vitjax.data import feed
from vitjax.data.augment import Augment, augment, require_one_crop
from vitjax.data.order import steps_per_epoch
from vitjax.data.source import Data, Encoded
from vitjax.experiment import Experiment, Resolved, distill, registry
from vitjax.experiment.distill import Distill
from vitjax.experiment.loss import LOSSES
from vitjax.experiment.optim import OPTIMIZERS, Optim, optimizer, trainable
from vitjax.training.layout import Layout, layout
from vitjax.training.resolve import Normal, Teacher, resolve, total_steps
from vitjax.training.step import WHOLE, Metrics, Recipe, Split, init_state, train_step

LOG_STEPS = 50  # training steps that one line of metrics averages over

Placed = tuple[TrainState, ...]  # states as a layout has them on the devices


@dataclasses.dataclass(frozen=True)
class Step:
    """The training step of an experiment, without its numbers; equal steps share a program.

    Settings that a field declares as `float` (rates, strengths) are arguments of the program, and 1
    here. A 0 switches off what it sets, and so is part of the program.
    """

    model: Module
    augment: Augment
    optim: Optim
    normal: Normal
    optimizer: Callable[..., Any]  # `optim.name` may name another function after a reload
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    distill: Distill
    teacher: tuple[Module, Normal] | None

    def __call__(
        self, state: TrainState, batch: PyTree, numbers: dict[str, Any], split: Split = WHOLE
    ) -> tuple[TrainState, Metrics]:
        """One step, whose numbers are `Trainer.numbers` of one seed."""
        key = jax.random.wrap_key_data(numbers['key'])
        return train_step(state, batch, key, self.recipe(state.params, numbers, split))

    def recipe(self, params: Params, numbers: dict[str, Any], split: Split) -> Recipe:
        """The step's recipe for traced numbers."""
        optim = dataclasses.replace(self.optim, **numbers['optim'])
        strengths = dataclasses.replace(self.augment, **numbers['augment'])
        teach = functools.partial(self._teach, numbers['teacher']) if self.teacher else None
        return Recipe(
            model=self.model,
            tx=optimizer(optim, numbers['steps']),
            augment=functools.partial(augment, strengths, self.normal, self.model.num_classes),
            loss=self.loss,
            teacher=teach,
            share=self.distill.share,
            ema=optim.ema,
            accumulate=optim.accumulate,
            trainable=None if optim.train == '.*' else trainable(params, optim.train),
            split=split,
        )

    def _teach(self, params: Params, images: jax.Array, logits: jax.Array) -> jax.Array:
        """Loss of logits against the teacher's on the same images, normalized as it expects."""
        assert self.teacher is not None
        model, theirs = self.teacher
        (ours_mean, ours_deviation), (mean, deviation) = map(np.asarray, (self.normal, theirs))
        images = (images * ours_deviation + ours_mean - mean) / deviation
        with jax.named_scope('teacher'):
            taught = model.apply({'params': params}, images.astype(np.float32), train=False)
        return distill.loss(self.distill, logits, jax.lax.stop_gradient(taught))


def _numbers(settings: Any) -> dict[str, float]:
    """Settings that are arguments of a program: fields declared as `float` that are not 0."""
    values = {name: getattr(settings, name) for name in fields.reals(type(settings))}
    return {name: float(value) for name, value in values.items() if value}


def _without_numbers(settings: Any) -> Any:
    return dataclasses.replace(settings, **dict.fromkeys(_numbers(settings), 1.0))


class Images(NamedTuple):
    """Training images by their shape alone, in the place of `Data.images`.

    Attributes:
        shape: [N, H, W, 3], as they are decoded.
        resident: True if they stay on the devices.
        streams: True if worker processes read them, and crop them if `augment.area` is set.
    """

    shape: tuple[int, ...]
    resident: bool = True
    streams: bool = False


def by_shape(images: Any) -> Images:
    """Training images by their shape."""
    if isinstance(images, Images):
        return images
    encoded = isinstance(images, Encoded)
    return Images(images.shape, not encoded, encoded and images.streams)


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """An experiment, resolved against its data, and its compiled steps for some seeds.

    Attributes:
        experiment: the experiment; its own seed is ignored.
        data: the training images.
        layout: layout of the steps over devices.
        seeds: seeds to train, each as it would alone.
        params: initial parameters; None for fresh ones.
        teacher: model to learn from; None if the experiment has none.
    """

    experiment: Resolved
    data: Data
    layout: Layout
    seeds: tuple[int, ...]
    params: Params | None = None
    teacher: Teacher | None = None

    # ---- Steps, and what is due after them -----------------------------------------------------

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return steps_per_epoch(self.images.shape[0], self.experiment.batch_size)

    @property
    def total(self) -> int:
        """Steps in all."""
        return total_steps(self.experiment, self.images.shape[0])

    @property
    def epochs(self) -> float:
        """Epochs in all."""
        return self.total / self.per_epoch

    @property
    def every(self) -> int:
        """Steps between evaluations."""
        return max(1, round(self.experiment.evaluate_every * self.per_epoch))

    def evaluates(self, step: int) -> bool:
        """Returns True if an evaluation follows a step."""
        return step % self.every == 0 or step == self.total

    def draws(self, step: int) -> bool:
        """Returns True if attention is drawn after a step: every `attention_every` epochs."""
        every = self.experiment.attention_every * self.per_epoch
        return every > 0 and step % every == 0 and self.evaluates(step)

    def logs(self, step: int) -> bool:
        """Returns True if a step ends a line of training metrics."""
        return step % LOG_STEPS == 0 or self.evaluates(step)

    def until(self, step: int) -> int:
        """The next step after which something is due."""
        following = ((step // n + 1) * n for n in (self.every, LOG_STEPS))
        return min(self.total, *following)

    # ---- Training ------------------------------------------------------------------------------

    def init(self) -> Placed:
        """The states before the first step, on the devices."""
        return self.layout.place(self._states())

    def run(self, placed: Placed, chunk: feed.Chunk) -> tuple[Placed, dict[str, np.ndarray]]:
        """Takes the steps of a chunk; the input states are donated.

        Returns:
            The states, and metrics [steps, seeds].
        """
        placed, metrics = self.layout.run(
            self._program, placed, chunk.data, chunk.rows, chunk.steps, self.numbers
        )
        return placed, {name: values[: chunk.steps] for name, values in metrics.items()}

    def chunks(
        self, at: int, pace: feed.Pace, until: Callable[[int], int] | None = None
    ) -> Iterator[feed.Chunk]:
        """All chunks of steps from step `at` on.

        Args:
            at: steps already taken.
            pace: number of steps a chunk should have.
            until: step to the step at which its chunk has to end; None is `Trainer.until`.
        """
        return feed.chunks(self.feed, at, until or self.until, pace)

    @functools.cached_property
    def feed(self) -> feed.Feed:
        """Source of chunks."""
        shared = self.layout.shared and (jax.process_index(), jax.process_count())
        order = feed.Order(
            self.seeds, len(self.data), self.experiment.batch_size, *(shared or (0, 1)),
            self.experiment.repeats,
        )  # fmt: skip
        change = self.experiment.augment
        crop = feed.Crop(change.size, change.area) if self._crops else None
        place = self.layout.place_batch
        return feed.feed(self.data, order, place, self.until, crop, room=self._room)

    def abstract(self) -> tuple[Any, tuple[Any, ...]]:
        """The jitted function that `run` calls, and the shapes and shardings of its arguments.

        `function.lower(*arguments).compile()` needs no device to be present.
        """
        batch = self.experiment.batch_size
        resident = self._room and self.images.resident
        whole, *rest = self._delivered
        each = batch * len(self.seeds)
        steps = feed.chunk_shape((whole, *rest), each, resident=resident)[1]
        lead = (whole,) if resident else (steps, batch)
        data = (
            jax.ShapeDtypeStruct((*lead, *rest), np.uint8), jax.ShapeDtypeStruct(lead, np.int32)
        )  # fmt: skip
        states = jax.eval_shape(self._states)
        return self._program, self.layout.abstract(states, data, steps, self.numbers)

    def require(self) -> None:
        """Traces the program, so that what the model refuses comes before anything runs."""
        function, arguments = self.abstract()
        if jax.process_count() == 1:  # one of several cannot trace what all of them run
            jax.eval_shape(function, *arguments)

    def abstract_step(self) -> tuple[Step, tuple[Any, ...]]:
        """One step of one seed on one device, and the shapes of its state, batch and numbers."""
        lead = (self.experiment.batch_size,)
        batch = {name: jax.ShapeDtypeStruct(lead, np.int32) for name in ('label', 'index')}
        batch['image'] = jax.ShapeDtypeStruct((*lead, *self._delivered[1:]), np.uint8)
        numbers = jax.eval_shape(lambda tree: tree, self.numbers[0])
        return self.step, (jax.eval_shape(self._states)[0], batch, numbers)

    # ---- The parts -----------------------------------------------------------------------------

    @property
    def images(self) -> Images:
        """The training images by their shape."""
        return by_shape(self.data.images)

    @functools.cached_property
    def step(self) -> Step:
        """The step that all seeds take, each with its `numbers`."""
        experiment, prepared = self.experiment, self.experiment.preprocessing
        return Step(
            experiment.model,
            _without_numbers(self._augment),
            _without_numbers(experiment.optim),
            (prepared.mean, prepared.deviation),
            registry.find('optim.name', OPTIMIZERS, experiment.optim.name),
            registry.find('loss', LOSSES, experiment.loss),
            dataclasses.replace(experiment.distill, teacher=None),
            self.teacher and (self.teacher.model, self.teacher.normal),
        )

    @functools.cached_property
    def numbers(self) -> list[dict[str, Any]]:
        """Arguments of the step, for each seed: its key, rates, strengths and length."""
        shared: dict[str, Any] = {
            'optim': _numbers(self.experiment.optim), 'augment': _numbers(self._augment),
            'steps': self.total,
        }  # fmt: skip
        if self.teacher is not None:
            shared['teacher'] = self.teacher.params
        shared = jax.tree.map(np.asarray, shared)
        keys = [purpose(jax.random.key(seed), 'train') for seed in self.seeds]
        return [{'key': np.asarray(jax.random.key_data(key)), **shared} for key in keys]

    @functools.cached_property
    def _program(self) -> Any:
        return self.layout.wrap(self.step, jax.eval_shape(self._states)[0])

    def _states(self) -> list[TrainState]:
        size, optim = self.experiment.augment.size, self.experiment.optim
        tx = optimizer(optim, self.total)
        return [
            init_state(
                purpose(jax.random.key(seed), 'init'), model=self.experiment.model, tx=tx,
                image_shape=(size, size, 3), ema=optim.ema > 0,
                params=jax.tree.map(jnp.copy, self.params),  # which the first step donates
            )
            for seed in self.seeds
        ]  # fmt: skip

    @property
    def _crops(self) -> bool:
        """True if a stream's workers make the random resized crop."""
        crops = self.images.streams and self.experiment.augment.area > 0
        if crops:
            require_one_crop(self.experiment.augment)
        return crops

    @property
    def _augment(self) -> Augment:
        """Augmentation left to the devices."""
        change = self.experiment.augment
        return dataclasses.replace(change, area=0.0) if self._crops else change

    @property
    def _delivered(self) -> tuple[int, ...]:
        """Shape of the images as they come to the devices, [N, H, W, 3]."""
        shape, size = self.images.shape, self.experiment.augment.size
        return (shape[0], size, size, 3) if self._crops else shape

    @property
    def _room(self) -> bool:
        """True if memory has room for the decoded images: the cores of a CPU have a copy each."""
        here = [d for d in self.layout.devices if d.process_index == jax.process_index()]
        copies = len(here) if self.layout.shared and here and here[0].platform == 'cpu' else 1
        size = copies * math.prod(self.images.shape)
        return copies == 1 or size <= self.experiment.data.memory


def make(
    experiment: Experiment, seeds: Sequence[int] | None = None,
    devices: Sequence[Any] | None = None, *, report: Callable[[Any], object] = print,
) -> Trainer:  # fmt: skip
    """The trainer of an experiment, resolved against its data; nothing is compiled yet.

    Args:
        experiment: any.
        seeds: seeds to train; several share the first device. None is the experiment's own.
        devices: devices to use; None takes all.
        report: takes each change made to the head or to weights on the way.

    Raises:
        ValueError: if the experiment does not fit its data, its weights or its devices.
    """
    found, data, params, teacher = resolve(experiment, report)
    seeds = (found.seed,) if seeds is None else tuple(seeds)
    way, batch = found.parallel, found.batch_size
    chosen = layout(way, devices, batch_size=batch, seeds=len(seeds))
    return Trainer(found, data, chosen, seeds, params, teacher)
